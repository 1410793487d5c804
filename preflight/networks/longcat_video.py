"""LongCat Video transformers (being written)."""
