"""The private wire between a gateway and its workers (neurogate.v1)."""
