"""The pages in docs/ and the site made of them: what they show runs, and they leave out nothing that is public."""

import contextlib
import doctest
import gzip
import html
import importlib
import io
import logging
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lap

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def python_blocks(path):
    return [code for language, code in FENCE.findall(path.read_text(encoding="utf-8")) if language == "python"]


def is_run_elsewhere(path):
    """By a test below, by tests/test_keras_io.py, or by tests/test_docs.py, which runs what has a name."""
    return (
        path.name == "faq.md" or path.parent.name == "keras_io" or "<!-- example: " in path.read_text(encoding="utf-8")
    )


def list_pages_with_code():
    for path in PAGES:
        if python_blocks(path) and not is_run_elsewhere(path):
            marks = [pytest.mark.slow] if path.name == "quickstart.md" else []
            yield pytest.param(path, marks=marks, id=path.relative_to(DOCS).as_posix())


def read_page_names():
    """The pages that docs/site/mkdocs.yml lists, by their paths under docs/."""
    return re.findall(r": ([\w/]+\.md)$", (DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", list_pages_with_code())
def test_the_code_of_a_page_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    if "sklearn" in path.read_text(encoding="utf-8"):
        pytest.importorskip("sklearn", reason="the page trains on scikit-learn's digits")
    monkeypatch.chdir(tmp_path)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for number, code in enumerate(python_blocks(path)):
            exec(compile(code, f"{path.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_code_stands_between_fences_that_name_its_language(path):
    text = path.read_text(encoding="utf-8")
    assert all(language for language, _ in FENCE.findall(text))
    if path.parent.name != "api":  # options of a directive are indented
        assert not re.search(r"^    \S", FENCE.sub("", text), flags=re.MULTILINE)


def test_the_site_lists_every_page_once():
    assert sorted(read_page_names()) == [path.relative_to(DOCS).as_posix() for path in PAGES]


def test_the_pages_on_the_api_have_every_public_name_once():
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    assert sorted(re.findall(r"^::: tf_lap\.(\w+)$", text, flags=re.MULTILINE)) == sorted(tf_lap.__all__)


def test_what_the_faq_says_of_files_and_sparsity_is_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    expected = pytest.warns(tf_lap.warn.PruningWarning, match="Left whole: 64,000")
    with contextlib.redirect_stdout(io.StringIO()) as printed, expected:
        for code in python_blocks(DOCS / "faq.md"):
            exec(compile(code, "faq.md", "exec"), names)
    sizes = dict(re.findall(r"^(\w+)\.keras .* (\d+) compressed$", printed.getvalue(), flags=re.MULTILINE))
    assert int(sizes["sparse"]) < int(sizes["dense"]) / 2
    stored = [(tmp_path / f"{name}.keras").stat().st_size for name in ("dense", "sparse")]
    assert stored[1] == pytest.approx(stored[0], rel=0.02)
    assert "kernels 90%, model 15%" in printed.getvalue()
    assert "keras\n" in printed.getvalue()


def test_pictures_of_pages_are_small_and_used():
    texts = [path.read_text(encoding="utf-8") for path in [ROOT / "BUILD.md", *PAGES]]
    pictures = list((DOCS / "assets").iterdir())
    assert len(pictures) >= 5
    for path in pictures:
        assert path.stat().st_size < 150_000
        assert any(f"assets/{path.name})" in text for text in texts), path.name


def test_pictures_of_pages_are_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib draws the pictures: pip install 'tf_lap[plot]'")
    pytest.importorskip("rich", reason="rich draws the terminal; it comes with Keras")
    monkeypatch.syspath_prepend(DOCS / "site")
    pictures = importlib.import_module("pictures")
    for draw, name in (
        (pictures.draw_lookahead, "lookahead.svg"),
        (pictures.draw_graph, "graph.png"),
        (pictures.draw_tradeoff, "tradeoff.png"),
        (pictures.draw_report, "report.svg"),
    ):
        draw(tmp_path / name)
        assert 5000 < (tmp_path / name).stat().st_size < 150_000
    # Letters are written with spaces that do not break.
    assert "4\N{NO-BREAK SPACE}pruned\N{NO-BREAK SPACE}kernels" in html.unescape(
        (tmp_path / "report.svg").read_text(encoding="utf-8")
    )


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path, monkeypatch):
    """mkdocs checks every link and anchor, and mkdocstrings finds every name of the pages on the API."""
    pytest.importorskip("mkdocs", reason="the site is made by mkdocs: pip install 'tf_lap[docs]'")
    pytest.importorskip(
        "mkdocstrings_handlers.python", reason="mkdocstrings[python] is missing: pip install 'tf_lap[docs]'"
    )
    monkeypatch.syspath_prepend(DOCS / "site")
    assert doctest.testmod(importlib.import_module("hooks")).failed == 0
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    warnings = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    try:
        config = load_config(str(DOCS / "site" / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
        config.plugins.on_shutdown()
    finally:
        logger.removeHandler(handler)
    assert not warnings
    for name in read_page_names():
        assert (tmp_path / "site" / name).with_suffix(".html").exists()
    api = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site" / "api").glob("*.html"))
    assert [name for name in tf_lap.__all__ if f'id="tf_lap.{name}"' not in api] == []
    assert "<p>&gt;&gt;&gt;" not in api
    assert "<blockquote>" not in api


def test_the_faq_on_what_optimizers_remember(tmp_path):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256), keras.layers.Dense(64)])
    model.compile("adam", "mse")
    model.fit(np.random.rand(64, 64), np.random.rand(64, 64), verbose=0)
    tf_lap.prune(model, 0.9)
    model.save(tmp_path / "sparse.keras")
    keras.models.load_model(tmp_path / "sparse.keras", compile=False).save(tmp_path / "plain.keras")
    files = [(tmp_path / f"{name}.keras").read_bytes() for name in ("sparse", "plain")]
    with_optimizer, plain = (len(gzip.compress(file)) for file in files)
    assert plain < 0.2 * with_optimizer
