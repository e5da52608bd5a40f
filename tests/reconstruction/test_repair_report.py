"""What the report of a repair says."""

import json

from tf_lap.reconstruction.report import LayerRepair, RepairReport

LAYERS = (
    LayerRepair("encoder/a", 0.5, 0.125),
    LayerRepair("b", 0.25, 0.0004, note="measured over 3 positions"),
    LayerRepair("c", left="it is frozen"),
    LayerRepair("d", left="it is frozen"),
)


def test_layers_and_reasons():
    report = RepairReport(LAYERS, ("weights", "batchnorm"), normalizations=1, samples=1256)
    assert report.repaired == LAYERS[:2]
    assert report.left_by_reason() == {"it is frozen": ["c", "d"]}
    assert report.summary == "repaired with 1,256 samples: 2 of 4 kernels and statistics of 1 normalization"
    assert repr(report) == f"<RepairReport: {report.summary}>"
    assert [line for line in str(report).splitlines() if set(line) != {"-"}] == [
        "layer      lost before   after",
        "encoder/a       50.00%  12.50%",
        "b               25.00%   0.04%",
        report.summary,
        "b: measured over 3 positions",
        "left as they were: c, d: it is frozen",
    ]
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["layers"][0] == {"path": "encoder/a", "before": 0.5, "after": 0.125, "left": None, "note": None}
    assert plain["methods"] == ["weights", "batchnorm"]
    assert (plain["normalizations"], plain["samples"]) == (1, 1256)


def test_summaries():
    assert RepairReport((), ("weights",)).summary == "repaired without data: nothing"
    statistics = RepairReport((), ("batchnorm",), normalizations=3, samples=8)
    assert statistics.summary == "repaired with 8 samples: statistics of 3 normalizations"


def test_of_many_layers_those_that_lost_most_are_shown_in_their_order():
    repaired = [LayerRepair(f"layer_{i}", 0.5, i % 7 / 100) for i in range(20)]
    left = [LayerRepair(f"other_{i}", left="no call of its layer is known") for i in range(5)]
    report = RepairReport((*repaired, *left), ("weights",))
    lines = report.render().splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("layer_")]
    assert len(shown) == 12
    assert shown == sorted(shown, key=lambda path: int(path.removeprefix("layer_")))
    assert sum(int(path.removeprefix("layer_")) % 7 > 2 for path in shown) == 11  # all that lost 3% or more
    assert "... and 8 more that lost less" in lines
    assert "other_0, other_1, other_2 and 2 more: no call of its layer is known" in " ".join(report.render().split())
    everything = report.render(all=True)
    assert all(f"{layer.path} " in everything or f"{layer.path}," in everything for layer in report.layers[:24])
    assert all(len(line) <= 80 for line in lines)
