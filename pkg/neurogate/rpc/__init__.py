"""The wire: gRPC and protobuf, seen nowhere else."""
