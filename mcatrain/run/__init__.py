"""Runs: options, training loop, checkpoints, comparisons."""
