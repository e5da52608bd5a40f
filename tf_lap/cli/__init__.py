"""The `tf-lap` command: its command lines, what they do, and the demo."""
