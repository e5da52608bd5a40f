"""The neighbours of kernels as paths alone."""


def list_paths(neighbors):
    """For each kernel the paths of what feeds it, and of what reads it."""
    return {path: (around.previous, around.following) for path, around in neighbors.items()}
