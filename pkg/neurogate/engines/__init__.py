"""The inference engines a worker can drive, behind one protocol."""
