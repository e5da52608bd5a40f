"""Rooms import from those below them alone, as BUILD.md's table says."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def rooms():
    """The rows of the table of rooms, from the ground up."""
    text = (ROOT / "BUILD.md").read_text(encoding="utf-8")
    table = text[text.index("| room | what is in it |") :].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)/?`", row.split("|")[1]) for row in table.splitlines()[2:]]
    return {room: number for number, row in enumerate(rows) for room in row}


def imported(tree):
    """The modules of the package that a module imports when it is loaded."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "tf_lap":
            yield from (f"tf_lap.{alias.name}" for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tf_lap."):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tf_lap."))


def test_no_room_imports_from_one_above_it():
    heights = rooms()
    checked = 0
    for path in sorted((ROOT / "tf_lap").rglob("*.py")):
        room = path.relative_to(ROOT / "tf_lap").parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):  # they are doors, and hold nothing
            continue
        for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
            other = module.split(".")[1]
            assert other == room or heights[other] <= heights[room], f"{path.relative_to(ROOT)} imports {module}"
            checked += other != room
    assert checked > 100


def test_every_room_is_in_the_table():
    there = {path.name.removesuffix(".py") for path in (ROOT / "tf_lap").iterdir() if path.name[0] not in "_."}
    assert there - {"py.typed"} == set(rooms())
