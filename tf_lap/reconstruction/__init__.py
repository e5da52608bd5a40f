"""Repair: what the kept weights of a pruned model can do to make up for those that went."""
