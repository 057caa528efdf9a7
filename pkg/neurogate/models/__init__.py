"""Model files: what the names mean, where the files live, and how a missing one is fetched."""
