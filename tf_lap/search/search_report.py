"""What a search for a sparsity found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_lap.search.record import Evaluation
from tf_lap.search.search_text import as_html, as_text

# A drop counts as within where it is larger by no more than this part of the dense value: metrics are float32.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is within the drop.

    Attributes:
        dense: the value of the dense model.
        drop: by how much a value may be worse.
        higher_is_better: whether a higher value is better.
    """

    dense: float
    drop: float
    higher_is_better: bool

    @property
    def limit(self) -> float:
        """The worst value that is within the drop."""
        return self.dense - self.drop if self.higher_is_better else self.dense + self.drop

    def gain(self, value: float) -> float:
        """By how much a value is better than the dense model's; negative where it is worse, NaN for NaN."""
        return value - self.dense if self.higher_is_better else self.dense - value

    def is_reached(self, value: float) -> bool:
        """Whether a value is within the drop. NaN never is."""
        return self.gain(value) >= -self.drop - _ROUNDING * abs(self.dense)


@dataclasses.dataclass(frozen=True, repr=False)
class SearchReport:
    """What `find_sparsity` found, and all that it measured.

    `print(result)` shows what `render()` returns, and a notebook shows a table.

    Attributes:
        goal: the dense model's value (`goal.dense`), the drop (`goal.drop`), and the worst value within it
            (`goal.limit`).
        combinations: score, allocation and pattern in words, of each combination.
        evaluations: all pruned models that were evaluated, in that order; `combination` of each is a number in
            `combinations`.
        best_evaluation: that of the sparsest model within the drop; of equally sparse ones the best. None where none is
            within the drop.
        arguments: the arguments of `prune` that make that model; empty where there is none.
    """

    goal: Goal
    combinations: tuple[tuple[str, str, str], ...]
    evaluations: tuple[Evaluation, ...]
    best_evaluation: Evaluation | None
    arguments: Mapping[str, Any]

    @property
    def best(self) -> dict[str, Any]:
        """The arguments that `tf_lap.prune(model, **result.best)` takes to make the model that was found.

        Raises:
            ValueError: no model is within the drop; `best_evaluation` is None then.
        """
        if self.best_evaluation is None:
            raise ValueError(
                f"no model of the {len(self.evaluations)} that were tried is within the drop: allow a larger max_drop, "
                "prune fewer layers (filters), or prune while training (LAPCallback). print(result) shows all values"
            )
        return dict(self.arguments)

    @property
    def sparsity(self) -> float:
        """The fraction of zeros in the pruned kernels of the model that was found; 0.0 where there is none."""
        return 0.0 if self.best_evaluation is None else self.best_evaluation.sparsity

    @property
    def model_sparsity(self) -> float:
        """The fraction of zeros in that whole model; 0.0 where there is none."""
        return 0.0 if self.best_evaluation is None else self.best_evaluation.model_sparsity

    def to_dict(self) -> dict[str, Any]:
        """The result as plain data, ready for `json.dumps`."""
        keys = ("score", "allocation", "pattern")
        entries = [
            {**dict(zip(keys, self.combinations[entry.combination], strict=True)), **dataclasses.asdict(entry)}
            for entry in self.evaluations
        ]
        best = self.best_evaluation
        return {
            **dataclasses.asdict(self.goal),
            "limit": self.goal.limit,
            "best": None if best is None else entries[self.evaluations.index(best)],
            "evaluations": entries,
        }

    def render(self, width: int | None = None, *, all: bool = False) -> str:
        """The result as text: for each combination the sparsest model within the drop.

        Args:
            width: how many columns a line has at most, 40 or more; that of the terminal by default, 80 where there is
                none.
            all: every evaluation.

        Raises:
            TypeError, ValueError: a width that is no whole number, or less than 40.
        """
        return as_text(self, width, all)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        summary = f"{len(self.evaluations)} evaluations, dense {self.goal.dense:.4g}"
        if self.best_evaluation is None:
            return f"<SearchReport: none within the drop, {summary}>"
        return f"<SearchReport: sparsity {self.sparsity:.4f}, value {self.best_evaluation.value:.4g}, {summary}>"

    def _repr_html_(self) -> str:
        return as_html(self)
