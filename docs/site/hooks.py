"""What mkdocs does beyond its plugins: files beside docs/ that pages link to are part of the site.

Links in the pages are those of the repository, so that they work in both places: `../examples/transformer.py` leads to
the file in a checkout, and to a page with its code on the site.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("BUILD.md", "CONTRIBUTING.md", "README.md", "benchmarks/README.md")
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def _add_file(files: Files, config: MkDocsConfig, uri: str, content: str | bytes) -> None:
    files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and results beside docs/, and a page for each example."""
    for name in PAGES:
        _add_file(files, config, f"repository/{name}", (ROOT / name).read_text(encoding="utf-8"))
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        _add_file(files, config, f"repository/benchmarks/results/{path.name}", path.read_bytes())
    examples = [path.relative_to(ROOT) for path in sorted((ROOT / "examples").glob("*.py"))]
    examples += [path.relative_to(ROOT) for path in sorted((ROOT / "examples").glob("*/*.py"))]
    for path in examples:
        code = (ROOT / path).read_text(encoding="utf-8")
        page = f"# {path.as_posix()}\n\n``` {{.python}}\n{code}```\n"
        _add_file(files, config, f"repository/{path.with_suffix('.md').as_posix()}", page)
    names = [path.relative_to("examples").as_posix() for path in examples]
    listing = "\n".join(f"- [{name}]({name})" for name in names)
    _add_file(files, config, "repository/examples/index.md", f"# Examples\n\n{listing}\n")
    return files


def locate(uri: str) -> str:
    """Where a file of the repository is on the site, both as paths with `/` from their roots.

    >>> locate("docs/cli.md"), locate("examples/transformer.py"), locate("BUILD.md")
    ('cli.md', 'repository/examples/transformer.md', 'repository/BUILD.md')
    """
    if uri.startswith("docs/"):
        return uri.removeprefix("docs/")
    if uri == "examples":
        return "repository/examples/index.md"
    if uri.startswith("examples/") and uri.endswith(".py"):
        uri = uri.removesuffix(".py") + ".md"
    return f"repository/{uri}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between files of the site."""
    uri = page.file.src_uri
    in_repository = uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"

    def relocate(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), match[1]))
        return os.path.relpath(locate(target), posixpath.dirname(uri) or ".").replace(os.sep, "/")

    return _LINK.sub(relocate, markdown)
