"""What kernels read: the numbers that they are multiplied by, over data or without, and the second moments of them."""
