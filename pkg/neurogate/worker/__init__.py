"""The worker process: one engine behind the link."""
