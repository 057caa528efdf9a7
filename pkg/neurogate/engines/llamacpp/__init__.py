"""A llama.cpp server that the worker starts, watches and restarts."""
