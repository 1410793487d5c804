"""Launch scripts, read and never run: which programs a shell script starts, with which flags."""
