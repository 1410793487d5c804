"""Says before a launch whether a training config fits its GPUs, and what to change when it does not."""

__version__ = "0.1.0"
