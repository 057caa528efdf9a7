"""The public gRPC API, first version (llm.v1)."""
