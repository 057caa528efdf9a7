"""Code generated from api/proto by `make proto`; only `neurogate.rpc` and the gRPC servers read it."""
