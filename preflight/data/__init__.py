"""What stands in the index of a data set: samples, their sizes, lengths, captions and categories. No media is opened."""
