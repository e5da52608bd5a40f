"""What pruning costs, always as a ratio of two things timed in one run: `python -m benchmarks`."""
