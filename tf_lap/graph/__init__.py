"""A model as pruning sees it: its kernels, the channels between them, and the energies that flow through these."""
