"""Masks of the largest scores: exactly as many as are to stay, and of equal scores the first."""
