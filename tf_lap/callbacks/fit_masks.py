"""The masks of a callback: a pruner, resolved from the model, whose masks are attached to the kernels during a fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tf_lap import compat
from tf_lap.allocation import Sparsity
from tf_lap.callbacks.claims import attached_by_callbacks
from tf_lap.callbacks.once_sparse import REMEDY
from tf_lap.compat.types import Model
from tf_lap.pruning.constraints import RevivalWatch, describe_revived
from tf_lap.pruning.options import Options
from tf_lap.pruning.pruner import Pruner
from tf_lap.report.coverage import left_whole_warning
from tf_lap.warn import warn


class FitMasks:
    """The pruner of a callback, and its masks on the kernels from the first batch of a fit to the fit's end.

    An object serves all fits of one model.

    Args:
        options: what `Pruner` is told.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pruner: Pruner | None = None
        self._watch: RevivalWatch | None = None  # while the masks are attached
        self._thawed: Sequence[str] = ()
        self._last_sparsity: Sparsity | None = None
        self._has_warned = False

    @property
    def pruner(self) -> Pruner:
        """The pruner at work.

        Raises:
            ValueError: before the first fit.
        """
        if self._pruner is None:
            raise ValueError("this LAPCallback has not pruned yet: pass it to model.fit(callbacks=[...]) first")
        return self._pruner

    @property
    def is_resolved(self) -> bool:
        """Whether there is a pruner: the model has its weights, and a fit has begun."""
        return self._pruner is not None

    @property
    def are_attached(self) -> bool:
        """Whether the masks are attached to the kernels: from the first batch of a fit to its end."""
        return self._watch is not None

    @property
    def thawed(self) -> Sequence[str]:
        """The paths of the kernels that this fit prunes and the one before did not."""
        return self._thawed

    @property
    def last_sparsity(self) -> Sparsity | None:
        """The sparsity of the last update; None before the first."""
        return self._last_sparsity

    def belong_to(self, model: Model) -> bool:
        """Whether the pruner is one of this model, or of the one inside that its call consists of."""
        return self._pruner is not None and model in (self._pruner.model, self._pruner.enforcement.trainer)

    def begin_fit(self) -> None:
        """Forgets that masks were attached in a fit that was interrupted."""
        self._watch = None

    def resolve(self, model: Model, sparsity: Sparsity) -> None:
        """Makes the pruner, or another one where layers were frozen or thawed since the last fit.

        Args:
            model: the model that is trained. Where its call is that of a model inside, as a student's in distillation,
                that one is pruned.
            sparsity: a sparsity of the schedule. The opt-in kernels that a mapping names are pruned.

        Raises:
            TypeError, ValueError: whatever `Pruner` raises, or a batch was trained without a call of the model itself.
        """
        _check_called(model)
        pruned_model = compat.find_called_model(model)
        resolved, self._thawed = Pruner(pruned_model, **vars(self._options)), ()
        resolved.take_in(sparsity)
        if self._pruner is None:
            self._pruner = resolved
            warning = left_whole_warning(pruned_model, resolved.report())
            if warning:
                warn(warning)
        else:
            kernels, before = resolved.enforcement.kernels, self._pruner.enforcement.kernels
            if kernels.keys() != before.keys() or any(kernels[path] is not before[path] for path in kernels):
                identities = {id(variable) for variable in before.values()}
                self._thawed = [path for path, variable in kernels.items() if id(variable) not in identities]
                resolved.adopt(self._pruner)
                self._pruner = resolved
        self._pruner.enforcement.trainer = model

    def attach(self) -> None:
        """Zeroes what the masks drop, and attaches them to the kernels until `end_fit`.

        Raises:
            ValueError: the masks of another pruner or callback are attached to the model.
        """
        pruner = self.pruner
        pruner.apply()
        pruner.freeze()
        attached_by_callbacks.add(pruner.enforcement)
        self._watch = RevivalWatch(pruner.enforcement)

    def end_batch(self) -> None:
        """Zeroes pruned weights that the batch has moved past the optimizer, and warns of it once."""
        if self._watch is None or not self.pruner.drops_weights:
            return
        revived = self._watch.end_batch()
        if revived and not self._has_warned:
            self._has_warned = True
            warn(describe_revived(self.pruner.model, revived))

    def update(self, sparsity: Sparsity, is_dense: bool) -> None:
        """Chooses masks at a sparsity, and zeroes what they drop.

        Args:
            sparsity: the sparsity.
            is_dense: whether a dense phase begins, in which the kernels that `sparsity` names have no masks.
        """
        if is_dense:
            self.pruner.densify(sparsity)
        else:
            self.pruner.update(sparsity)
        self._last_sparsity = sparsity

    def warn_if_restored(self) -> None:
        """Warns where something has put back weights of an epoch in which fewer were pruned; called at the fit's end.

        An optimizer that keeps averages does so too, and nothing is wrong then.
        """
        model = self.pruner.model
        has_averages = compat.has_moving_averages(self.pruner.enforcement.trainer)
        if self._watch is None or self._watch.zeroes_each_batch or has_averages:
            return
        revived = self.pruner.enforcement.count_revived()
        if revived:
            warn(
                f"model {model.name!r}: when this training ended, {revived:,} pruned weights were not zero: "
                "something put back weights of an epoch in which fewer were pruned. They are zeroed again, so these "
                f"weights are not those that were measured in that epoch. {REMEDY}"
            )

    def warn_if_undone(self) -> None:
        """Warns where a callback behind this one has put pruned weights back; called when all others have ended."""
        revived = self.pruner.enforcement.count_revived()
        if revived:
            warn(
                f"model {self.pruner.model.name!r}: when this training had ended, a callback behind LAPCallback put "
                f"back {revived:,} weights that are pruned: the pruned kernels are {self.pruner.sparsity:.1%} zeros "
                f"now. LAPCallback's pruner.apply() zeroes them. {REMEDY}"
            )

    def end_fit(self) -> None:
        """Zeroes what the masks drop a last time, and detaches them."""
        # The optimizer's averages have taken the place of the weights after the last epoch.
        self.pruner.apply()
        self.pruner.release()
        self._watch = None

    def detach(self) -> None:
        """Detaches the masks, if there are any, and leaves the weights as they are."""
        if self._pruner is not None:
            self._pruner.release()

    @contextlib.contextmanager
    def detached_on_error(self) -> Iterator[None]:
        """Detaches the masks where the block fails: the fit ends there, without `on_train_end`."""
        try:
            yield
        except BaseException:
            self.detach()
            raise


def _check_called(model: Model) -> None:
    """Raises ValueError where a batch was trained without a call of the model itself, as in a GAN."""
    if not compat.is_built(model):
        raise ValueError(
            f"model {model.name!r} has trained a batch and was not called itself: its train_step calls other "
            "models. Prune these: make a tf_lap.Pruner of each, call its freeze() before fit and its update(...) "
            "in a callback"
        )
