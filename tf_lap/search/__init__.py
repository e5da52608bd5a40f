"""How sparse a model can be: its value after pruning once, layer by layer, and the sparsest model within a drop."""
