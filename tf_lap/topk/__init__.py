"""Masks of the largest scores, with exact counts. Of equal scores the first stay."""
