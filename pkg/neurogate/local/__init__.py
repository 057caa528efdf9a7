"""A whole fleet on this machine, as child processes: `neurogate up` and `neurogate demo`."""
