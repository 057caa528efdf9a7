"""Resolvers: who the workers are."""
