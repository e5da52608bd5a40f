"""Energies through networks of matrices, by plain recursion in float64, beside the package's far sweeps.

A network is a list of steps between named tensors, in the order in which energies flow:

    ("kernel", path, source, target)         a use of a kernel; "turned" in place of "kernel": it reads the outputs
    ("loop", path, source, target)           a use whose output is read at the next time step
    ("map", {source: matrix}, target)        the squared matrix `(sources, targets)` of a linear map
    ("filters", path, source, target, map)   likewise, of a kernel that acts channel by channel
    ("product", left, right, matrix)         `matrix[i, j]`: whether channel i of left meets channel j of right
    ("out", tensor)                          an end of the network
"""

import numpy as np


class MatrixSweep:
    """A network.

    Attributes:
        kernels: for each path the squares of its weights, summed over taps, `(inputs, outputs)`.
        steps: as above.
        widths: the number of channels of each tensor. Those that no step puts out hold ones.
    """

    def __init__(self, kernels, steps, widths):
        self.kernels, self.steps, self.widths = kernels, steps, widths
        self.uses = [step for step in steps if step[0] in ("kernel", "turned", "loop", "filters")]

    def matrix(self, step):
        squares = self.kernels[step[1]]
        return squares.T if step[0] == "turned" else squares

    def far(self, distance):
        """For each path a list of pairs, incoming and outgoing energies, one for each use."""
        ones = {id(use): (np.ones(self.widths[use[2]]), np.ones(self.widths[use[3]])) for use in self.uses}
        sides = ones
        for _ in range(distance):
            put = {id(use): sides[id(use)][0] @ self.matrix(use) for use in self.uses if use[0] != "filters"}
            read = {id(use): self.matrix(use) @ sides[id(use)][1] for use in self.uses if use[0] != "filters"}
            sides = self._between(put, read)
        return self._by_path(sides)

    def to_ends(self):
        """As `far`, through all kernels, and once round each loop."""
        before = self._forward(self._put_on, {})
        loops = {step[3]: before[step[2]] @ self.matrix(step) for step in self.uses if step[0] == "loop"}
        energies = self._forward(self._put_on, loops)
        behind = self._backward(energies, self._read_on, {})
        loops = {step[2]: self.matrix(step) @ behind[step[3]] for step in self.uses if step[0] == "loop"}
        reads = self._backward(energies, self._read_on, loops)
        return self._by_path({id(use): (energies[use[2]], reads[use[3]]) for use in self.uses})

    def _put_on(self, step, energies):
        return None if step[0] == "loop" else energies[step[2]] @ self.matrix(step)

    def _read_on(self, step, reads):
        return 0 if step[0] == "loop" else self.matrix(step) @ reads[step[3]]

    def _between(self, put, read):
        loops = {step[3]: put[id(step)] for step in self.uses if step[0] == "loop"}
        energies = self._forward(lambda step, _: None if step[0] == "loop" else put[id(step)], loops)
        reads = self._backward(energies, lambda step, _: read[id(step)], {})
        return {id(use): (energies[use[2]], reads[use[3]]) for use in self.uses}

    def _forward(self, find_put, loops):
        energies = {tensor: np.ones(width) for tensor, width in self.widths.items()}
        energies |= {step[3]: np.zeros(self.widths[step[3]]) for step in self.uses if step[0] == "loop"} | loops
        for step in self.steps:
            if step[0] in ("kernel", "turned"):
                energies[step[3]] = find_put(step, energies)
            elif step[0] == "map":
                energies[step[2]] = sum(energies[source] @ matrix for source, matrix in step[1].items())
            elif step[0] == "filters":
                energies[step[3]] = energies[step[2]] @ step[4]
        return energies

    def _backward(self, energies, find_read, loops):
        reads = {tensor: np.zeros(width) for tensor, width in self.widths.items()}
        for tensor, energy in loops.items():
            reads[tensor] = reads[tensor] + energy
        for step in self.steps[::-1]:
            if step[0] == "out":
                reads[step[1]] = reads[step[1]] + 1
            elif step[0] == "map":
                for source, matrix in step[1].items():
                    reads[source] = reads[source] + matrix @ reads[step[2]]
            elif step[0] == "filters":
                reads[step[2]] = reads[step[2]] + step[4] @ reads[step[3]]
            elif step[0] == "product":
                reads[step[1]] = reads[step[1]] + step[3] @ energies[step[2]]
                reads[step[2]] = reads[step[2]] + step[3].T @ energies[step[1]]
            else:
                reads[step[2]] = reads[step[2]] + find_read(step, reads)
        return reads

    def _by_path(self, sides):
        """A turned use has its sides changed: what is put into a kernel's outputs is outgoing."""
        energies = {}
        for use in self.uses:
            energies.setdefault(use[1], []).append(sides[id(use)][:: -1 if use[0] == "turned" else 1])
        return energies
