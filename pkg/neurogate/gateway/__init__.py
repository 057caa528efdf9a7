"""The gateway process: the HTTP edge in front of the data plane."""
