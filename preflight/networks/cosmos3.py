"""Cosmos 3 transformers (being written)."""
