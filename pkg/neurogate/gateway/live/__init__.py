"""The live page: what the fleet is doing now, for whoever looks (ADR 0027)."""
