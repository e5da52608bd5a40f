"""Makes the notebook and the page of the guide from its script: `python docs/keras_io/render.py`.

The script is in the form of keras.io's guides: what stands between lines of three quotes is Markdown, the first piece
of it is the head, and all else is code. The notebook is run, with what `TF_LAP_MNIST` names as data. Its outputs are
kept in the notebook, and below each piece of code in the page. Needs `pip install "tf_lap[docs,demo]"`.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
GUIDE = FOLDER / "lookahead_pruning.py"
_DELIMITER = re.compile(r'(?m)^"""\n')
# What TensorFlow says of its own work.
_NOISE = re.compile(r"(?m)^INFO:.*\n?")


class Cell(NamedTuple):
    """A piece of a guide: Markdown, or code."""

    is_code: bool
    source: str


def read_cells(script: str) -> list[Cell]:
    """The pieces of a script, the head as a title with its description.

    Raises:
        ValueError: lines of three quotes do not pair.
    """
    pieces = _DELIMITER.split(script)
    if len(pieces) % 2 == 0:
        raise ValueError("the lines of three quotes do not pair: put one before and one behind each piece of Markdown")
    head = dict(line.split(": ", 1) for line in pieces[1].splitlines())
    cells = [Cell(False, f"# {head['Title']}\n\n{head['Description']}")]
    for number, piece in enumerate(pieces[2:]):
        if piece.strip():
            cells.append(Cell(number % 2 == 0, piece.strip()))
    return cells


def write_page(cells: list[Cell], outputs: dict[int, list[str]]) -> str:
    """A Markdown page of cells, with the outputs of the code cells by their numbers."""
    parts = []
    for number, cell in enumerate(cells):
        parts.append(f"```python\n{cell.source}\n```" if cell.is_code else cell.source)
        parts += outputs.get(number, [])
    return "\n\n".join(parts) + "\n"


def _join_printed(outputs: list[Any], nbformat: Any) -> list[Any]:
    """What a cell printed as one output, without standard error, and its other outputs."""
    streams = [output.text for output in outputs if output.get("name") == "stdout"]
    printed = _NOISE.sub("", "".join(streams))
    others = [output for output in outputs if output.output_type != "stream"]
    return ([nbformat.v4.new_output("stream", text=printed)] if printed.strip() else []) + others


def main() -> None:
    """Runs the guide, and writes the notebook, the page and its pictures."""
    import nbclient
    import nbformat

    cells = read_cells(GUIDE.read_text(encoding="utf-8"))
    make = {True: nbformat.v4.new_code_cell, False: nbformat.v4.new_markdown_cell}
    notebook = nbformat.v4.new_notebook(
        cells=[make[cell.is_code](cell.source, id=f"cell-{number}") for number, cell in enumerate(cells)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": FOLDER}}).execute()
    outputs: dict[int, list[str]] = {}
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)  # times of day
        if cell.cell_type != "code":
            continue
        cell.outputs = _join_printed(cell.outputs, nbformat)
        for output in cell.outputs:
            if output.output_type == "stream":
                outputs.setdefault(number, []).append(f"```text\n{output.text.rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                picture = FOLDER / "img" / f"{GUIDE.stem}_{number}.png"
                picture.parent.mkdir(exist_ok=True)
                picture.write_bytes(base64.b64decode(output.data["image/png"]))
                outputs.setdefault(number, []).append(f"![What this cell draws](img/{picture.name})")
    GUIDE.with_suffix(".md").write_text(write_page(cells, outputs), encoding="utf-8")
    nbformat.write(notebook, GUIDE.with_suffix(".ipynb"))
    for name in ("digits.keras", "digits.tflite"):
        (FOLDER / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
