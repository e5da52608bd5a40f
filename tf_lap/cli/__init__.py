"""The `tf-lap` command, and the demo that it runs."""
