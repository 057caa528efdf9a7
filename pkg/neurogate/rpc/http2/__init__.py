"""HTTP/2 as far as the link needs it: one gRPC call over one connection, on the event loop's callbacks (ADR 0029)."""
