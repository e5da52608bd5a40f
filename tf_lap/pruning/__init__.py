"""Pruning itself: options checked, scores and masks of one update, zeros held, step by step or at once."""
