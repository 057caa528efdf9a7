"""The command `neurogate`."""
