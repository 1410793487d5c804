"""Kandinsky 5 transformers (being written)."""
