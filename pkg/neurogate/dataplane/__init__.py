"""The data plane: from an admitted request to a worker and back. Knows no wire format and no vendor."""
