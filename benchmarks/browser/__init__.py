"""What sparse files gain in a browser."""
