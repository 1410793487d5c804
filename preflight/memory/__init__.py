"""Bytes on one GPU: one kind of memory a file."""
