"""Compute budgets: what a budget trains, what a config costs, and when inference overtakes training."""
