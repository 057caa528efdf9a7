"""The simulated engine: a deterministic fake for tests, benches and the simulator, labelled in every answer."""
