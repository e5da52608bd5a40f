"""The distribution of the channels of a tensor, as far as it is known without data: means and covariances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

MAX_WIDTH = 4096
"""A covariance of more channels than this is kept block by block, or as variances alone."""


@dataclasses.dataclass(frozen=True)
class ChannelMoments:
    """Means and covariances of the channels of a tensor, float64.

    Channels are divided into blocks of equal size, one after the other. Those of different blocks are taken for
    independent, as positions are that a Flatten layer makes channels of.

    Attributes:
        covariance: `(blocks, channels of a block, channels of a block)`. `(1, 1, 1)` stands for any number of channels
            that are all alike and independent.
        mean: of each channel, `(channels,)`, or `(1,)` likewise. None where it is not known, so that the covariance is
            the second moment.
    """

    covariance: np.ndarray
    mean: np.ndarray | None = None

    @classmethod
    def alike(cls) -> ChannelMoments:
        """Channels that are all alike and independent, of variance 1."""
        return cls(np.ones((1, 1, 1)))

    @property
    def is_alike(self) -> bool:
        """Whether it stands for any number of channels that are all alike."""
        return self.covariance.shape == (1, 1, 1)

    @property
    def width(self) -> int:
        """How many channels there are; 1 where they are all alike."""
        return self.covariance.shape[0] * self.covariance.shape[1]

    @property
    def variances(self) -> np.ndarray:
        """The variance of each channel, `(channels,)`."""
        return np.einsum("bii->bi", self.covariance).reshape(-1)

    def spread(self, channels: int) -> ChannelMoments:
        """The same with one entry for each of so many channels, where it stands for any number."""
        if self.width == channels:
            return self
        mean = None if self.mean is None else np.broadcast_to(self.mean, channels)
        return ChannelMoments(np.broadcast_to(self.covariance, (channels, 1, 1)), mean)

    def as_one_block(self) -> ChannelMoments:
        """The same in one block, or in blocks of one channel where that would be too wide."""
        blocks, size, _ = self.covariance.shape
        if blocks == 1:
            return self
        if blocks * size > MAX_WIDTH:
            return ChannelMoments(self.variances.reshape(-1, 1, 1), self.mean)
        joined = np.zeros((blocks, size, blocks, size))
        for block, covariance in enumerate(self.covariance):
            joined[block, :, block, :] = covariance
        return ChannelMoments(joined.reshape(1, blocks * size, blocks * size), self.mean)

    def scale(self, factors: np.ndarray) -> ChannelMoments:
        """The channels times factors, `(channels,)` or `(1,)`."""
        moments = self.spread(max(self.width, len(factors)))
        by_block = np.broadcast_to(factors, moments.width).reshape(moments.covariance.shape[:2])
        covariance = moments.covariance * by_block[:, :, np.newaxis] * by_block[:, np.newaxis, :]
        return ChannelMoments(covariance, None if moments.mean is None else moments.mean * factors)

    def gather(self, index: np.ndarray) -> ChannelMoments:
        """Other channels, each of them one of these.

        Args:
            index: the number of each; -1 for a channel that is zero. Channels that are taken several times, as those of
                each position are, are independent of each other.
        """
        if self.is_alike:
            return self
        repeats, rest = divmod(len(index), self.width)
        in_turn = np.resize(np.arange(self.width), len(index))
        if not rest and self.covariance.shape[0] == 1 and np.array_equal(index, in_turn):
            covariance = np.repeat(self.covariance, repeats, axis=0)
            return ChannelMoments(covariance, None if self.mean is None else np.tile(self.mean, repeats))
        is_there = index >= 0
        mean = None if self.mean is None else np.where(is_there, self.mean[index], 0.0)
        if len(index) > MAX_WIDTH:
            return ChannelMoments(np.where(is_there, self.variances[index], 0.0).reshape(-1, 1, 1), mean)
        joined = self.as_one_block()
        if joined.covariance.shape[0] > 1:
            return ChannelMoments(np.where(is_there, self.variances[index], 0.0).reshape(-1, 1, 1), mean)
        copies = _number_copies(index)
        covariance = joined.covariance[0][np.ix_(index, index)] * (copies[:, np.newaxis] == copies)
        covariance = covariance * is_there[:, np.newaxis] * is_there
        return ChannelMoments(covariance[np.newaxis], mean)


def add_independent(parts: Sequence[ChannelMoments]) -> ChannelMoments:
    """The moments of the sum of tensors that are independent of each other."""
    width = max(part.width for part in parts)
    spread = [part.spread(width) for part in parts]
    if len({part.covariance.shape for part in spread}) > 1:
        spread = [part.as_one_block() for part in spread]
    if len({part.covariance.shape for part in spread}) > 1:
        spread = [ChannelMoments(part.variances.reshape(-1, 1, 1), part.mean) for part in spread]
    covariance = sum((part.covariance for part in spread[1:]), start=spread[0].covariance)
    means = [part.mean for part in spread if part.mean is not None]
    return ChannelMoments(covariance, sum(means[1:], start=means[0]) if len(means) == len(parts) else None)


def _number_copies(index: np.ndarray) -> np.ndarray:
    """For each entry how many equal ones come before it."""
    order = np.argsort(index, kind="stable")
    ascending = index[order]
    firsts = np.searchsorted(ascending, ascending, side="left")
    copies = np.empty(len(index), np.int64)
    copies[order] = np.arange(len(index)) - firsts
    return copies
