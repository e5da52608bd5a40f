"""A figure of matplotlib that notebooks show. Needs matplotlib when it is imported."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that a notebook shows though pyplot does not know of it: notebooks draw figures of pyplot alone."""

    def _repr_png_(self) -> bytes:
        """The picture as a PNG file, which IPython asks for."""
        file = io.BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()
