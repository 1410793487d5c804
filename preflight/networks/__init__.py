"""Network families, one a file: the forward pass of the original, in tape operators."""
