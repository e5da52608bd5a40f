"""Whole channels: which ones can only go together, how much they matter, and the masks that remove them."""
