"""What a pose network gives, whatever its backbone and head."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class ModelError(ValueError):
    """Settings that make no network, or images that do not fit it; one line that says what is right."""


class StageOutput(NamedTuple):
    """The maps of one resolution; K keypoints.

    scales: (B, K, h, w), or None without scale heads. heatmaps: (B, K, h, w).
    tags: (B, K, h, w), (B, 1, h, w) where the joints share one tag map, or None without tags.
    extra: further maps by name, each (B, C, h, w), of a head that gives more; None without any.
    """

    scales: Tensor | None
    heatmaps: Tensor
    tags: Tensor | None
    extra: dict[str, Tensor] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> StageOutput:
        """The same with `function` applied to every tensor."""
        return StageOutput(
            None if self.scales is None else function(self.scales),
            function(self.heatmaps),
            None if self.tags is None else function(self.tags),
            None if self.extra is None else {name: function(m) for name, m in self.extra.items()},
        )
