from html.parser import HTMLParser

import keras
import pytest

import tf_lap
from tf_lap.report import LayerReport, PruningReport

pytestmark = pytest.mark.filterwarnings("ignore:model .* can be pruned")  # models of many kinds of layers

layers = keras.layers
FROZEN = "frozen: the layer, or a model around it, is not trained (trainable=False)"


class Page(HTMLParser):
    """What a browser would show: text by tag, cells by row; raises where tags do not close in order."""

    def __init__(self, source):
        super().__init__()
        self.open, self.rows, self.texts, self.tags = [], [], [], set()
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "tr" in self.open:
            self.rows[-1][-1] += data
        elif data.strip():
            self.texts.append((self.open[-1], data))


def test_a_notebook_shows_a_table_and_what_the_whole_model_has():
    words = keras.Input((5,), dtype="int32")
    x = layers.LSTM(6, trainable=False, name="memory")(layers.Embedding(100, 8, name="words")(words))
    report = tf_lap.prune(keras.Model(words, layers.Dense(5, name="head")(x)), 0.5)
    page = Page(report._repr_html_())
    assert page.rows == [
        ["layer", "class", "kernel", "weights", "kept", "sparsity", "before", "after"],
        ["head", "Dense", "6x5", "30", "15", "50.00%", "memory/kernel, memory/recurrent_kernel", "-"],
        ["1 pruned kernel", "", "", "30", "15", "50.00%", "", ""],
    ]
    assert page.texts[-5:] == [
        ("p", "whole model: 3.18% of 1,195 weights are zero; the pruned kernels hold 2.51% of the weights"),
        ("p", "skipped 800 weights (66.95%) in words: pruned only where filters or a mapping names it"),
        (
            "summary",
            "skipped 336 weights (28.12%) in 2 matrices: " + FROZEN,
        ),
        ("details", "memory/kernel, memory/recurrent_kernel"),
        ("p", "skipped 29 weights (2.43%): biases, normalization and other vectors"),
    ]


def test_a_long_model_is_folded_and_its_whole_table_can_be_opened():
    long = tuple(LayerReport(f"layer_{i}", "Dense", (10, 10), 100, 10) for i in range(50))
    page = Page(PruningReport(long, 5000, 4500, {})._repr_html_())
    assert ("summary", "all 50 pruned kernels") in page.texts
    names = [row[0] for row in page.rows]
    assert names.index("... 38 more, the largest of them:") == 9
    full_table = names[len(names) - names[::-1].index("layer") :]
    assert full_table == [*(f"layer_{i}" for i in range(50)), "50 pruned kernels"]


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", "a & b", '"><img src=x>'])
def test_names_and_reasons_are_escaped(hostile):
    pruned = LayerReport(hostile, hostile, (2, 2), 4, 2, (hostile,), (hostile,), (hostile,), note=hostile)
    skipped = [LayerReport(f"{i}/{hostile}", hostile, (2, 2), 4, 4, skipped=hostile) for i in range(2)]
    page = Page(PruningReport((pruned, *skipped), 12, 2, {hostile: 8})._repr_html_())
    assert page.tags == {"div", "table", "tr", "td", "th", "p", "details", "summary"}
    assert page.rows[1][0] == hostile
    assert ("details", f"0/{hostile}, 1/{hostile}") in page.texts
