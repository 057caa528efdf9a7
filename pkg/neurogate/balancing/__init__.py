"""Pickers: pure choices of one endpoint from one snapshot."""
