"""The public gRPC API, generated."""
