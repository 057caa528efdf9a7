"""Whether a gateway is transparent: the same calls, made to an engine or worker directly and through the gateway."""
