"""A config's own text with a few values changed, and everything else as it was, byte for byte."""
