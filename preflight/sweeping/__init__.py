"""A grid of runs around a config, judged all at once: what fits where, and where it stops fitting."""
