"""Krea 2 transformers (being written)."""
