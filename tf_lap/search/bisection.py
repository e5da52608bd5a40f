"""The search for the sparsest model within a drop: which combination is pruned to which sparsity next."""

from __future__ import annotations

from collections.abc import Sequence

from tf_lap.search.combinations import Combination
from tf_lap.search.record import Evaluation, Record
from tf_lap.search.search_report import Goal, SearchReport
from tf_lap.search.search_text import describe_goal, evaluation_line
from tf_lap.search.trial import Trial
from tf_lap.warn import warn

# A value that is better than the dense one by more than this part of it is hardly an accuracy.
_SUSPICIOUS_GAIN = 0.1


class Search:
    """One search.

    Args:
        trial: prunes and evaluates the model.
        record: what is measured already.
        combinations: what is tried.
        verbose: whether lines are printed.
    """

    _goal: Goal
    _tolerance: float

    def __init__(self, trial: Trial, record: Record, combinations: Sequence[Combination], verbose: int) -> None:
        self._trial, self._record, self._combinations, self._verbose = trial, record, combinations, verbose
        self._evaluations: list[Evaluation] = []
        self._best: Evaluation | None = None

    def measure_dense(self, drop: float, relative: bool, higher_is_better: bool) -> Goal:
        """What the search is to find.

        Args:
            drop: by how much the value may be worse.
            relative: whether that is a fraction of the dense value.
            higher_is_better: whether a higher value is better.
        """
        if self._record.dense is None:
            self._record.note_dense(self._trial.measure_dense())
        dense = float(self._record.dense)  # type: ignore[arg-type]
        return Goal(dense, drop * abs(dense) if relative else drop, bool(higher_is_better))

    def run(self, goal: Goal, present: float, tolerance: float) -> None:
        """Tries all combinations.

        Args:
            goal: what is to be found.
            present: the sparsity that the kernels have already.
            tolerance: where a bisection ends.
        """
        self._goal, self._tolerance = goal, tolerance
        self._print(f"find_sparsity: {describe_goal(goal)}")
        for number, combination in enumerate(self._combinations):
            self._try_combination(number, combination, present)
        best = self._best
        if best is not None and goal.gain(best.value) > max(goal.drop, _SUSPICIOUS_GAIN * abs(goal.dense)):
            kinds = "a loss or an error" if goal.higher_is_better else "an accuracy"
            other = not goal.higher_is_better
            warn(
                f"evaluate returned {goal.dense:.4g} for the dense model and {best.value:.4g} with {best.sparsity:.2%} "
                f"zeros, which counts as better. A trained model is seldom better when it is pruned: if evaluate "
                f"returns {kinds}, pass higher_is_better={other}"
            )

    def report(self) -> SearchReport:
        """What was found."""
        best = self._best
        arguments = {} if best is None else {"sparsity": best.target, **self._combinations[best.combination].arguments}
        return SearchReport(
            self._goal,
            tuple((c.score, c.allocation, c.pattern) for c in self._combinations),
            tuple(self._evaluations),
            best,
            arguments,
        )

    def _try_combination(self, number: int, combination: Combination, present: float) -> None:
        if combination.sparsity is not None:
            if self._best is None or combination.sparsity >= self._reached(self._best):
                self._measure(number, combination, combination.sparsity)
            return
        low, high = present, 1.0
        if self._best is not None:
            low = self._reached(self._best)
            if not self._measure(number, combination, low):
                return
        while high - low > self._tolerance:
            middle = (low + high) / 2
            if self._measure(number, combination, middle):
                low = middle
            else:
                high = middle

    def _measure(self, number: int, combination: Combination, sparsity: float) -> bool:
        """Whether a combination is within the drop at a sparsity."""
        evaluation = self._record.evaluations.get((number, sparsity))
        if evaluation is None:
            value, report = self._trial.measure_pruned(sparsity, combination.arguments)
            within = self._goal.is_reached(value)
            evaluation = Evaluation(number, sparsity, report.sparsity, report.model_sparsity, value, within)
            self._record.add(evaluation)
        self._evaluations.append(evaluation)
        self._print(evaluation_line(len(self._evaluations), combination, evaluation, self._goal))
        if evaluation.within and (self._best is None or self._rank(evaluation) > self._rank(self._best)):
            self._best = evaluation
        return evaluation.within

    def _rank(self, evaluation: Evaluation) -> tuple[float, float]:
        return self._reached(evaluation), self._goal.gain(evaluation.value)

    def _reached(self, evaluation: Evaluation) -> float:
        """The sparsity that a model is compared by: its target, but where more than rounding lies between."""
        differs = abs(evaluation.target - evaluation.sparsity) > self._tolerance
        return evaluation.sparsity if differs else evaluation.target

    def _print(self, line: str) -> None:
        if self._verbose:
            print(line, flush=True)
