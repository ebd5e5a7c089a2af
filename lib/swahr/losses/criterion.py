"""All the losses of all the stages, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from swahr.codec.targets import StageTarget
from swahr.losses.associative import associative_loss, check_push_kind
from swahr.losses.heatmap import heatmap_loss
from swahr.losses.scale import scale_loss

if TYPE_CHECKING:
    from swahr.models.network import StageOutput


class Criterion(nn.Module):
    """The network's outputs and what they should be -> the losses of each image.

    Lists have one entry for each stage, low resolution to high: whether it has the loss, and the
    factor of the loss. ae_type: "exp" or "max", see associative_loss.
    scale_adaptive, weight_adaptive: the two parts of SWAHR, see losses.heatmap; gamma is the
    exponent of the weights. scale_factor: of the loss on scale maps, where a stage has any; unless
    scale_adaptive they are not looked at.
    """

    def __init__(
        self,
        *,
        with_heatmaps: Sequence[bool],
        heatmap_factors: Sequence[float],
        with_ae: Sequence[bool],
        push_factors: Sequence[float],
        pull_factors: Sequence[float],
        ae_type: str = "exp",
        scale_adaptive: bool = True,
        weight_adaptive: bool = True,
        gamma: float = 0.01,
        scale_factor: float = 1.0,
    ) -> None:
        super().__init__()
        stages = len(with_heatmaps)
        lists = {
            "heatmap_factors": heatmap_factors,
            "with_ae": with_ae,
            "push_factors": push_factors,
            "pull_factors": pull_factors,
        }
        for name, values in lists.items():
            if len(values) != stages:
                raise ValueError(
                    f"{name} has {len(values)} entries, with_heatmaps {stages}: both need one a stage"
                )
        if not any(with_heatmaps) and not any(with_ae):
            raise ValueError(
                "no stage has a loss: with_heatmaps or with_ae must be true for one of them"
            )
        self.with_heatmaps = tuple(with_heatmaps)
        self.heatmap_factors = tuple(heatmap_factors)
        self.with_ae = tuple(with_ae)
        self.ae_type = check_push_kind(ae_type)
        self.push_factors = tuple(push_factors)
        self.pull_factors = tuple(pull_factors)
        self.scale_adaptive = scale_adaptive
        self.scale_factor = scale_factor
        self.gamma = gamma if weight_adaptive else None

    def forward(
        self, outputs: Sequence[StageOutput], targets: Sequence[StageTarget]
    ) -> dict[str, Tensor]:
        """Output and target of each stage -> heatmap0, scale0, push0, pull0, heatmap1...: (B,)
        float32, factored.
        """
        stages = len(self.with_heatmaps)
        if not len(outputs) == len(targets) == stages:
            raise ValueError(
                f"{len(outputs)} outputs, {len(targets)} targets: the criterion is for {stages} stages"
            )
        losses: dict[str, Tensor] = {}
        with torch.autocast(outputs[0].heatmaps.device.type, enabled=False):
            for stage, (output, target) in enumerate(zip(outputs, targets)):
                if self.with_heatmaps[stage]:
                    losses.update(self._heatmap_losses(stage, output, target))
                if self.with_ae[stage]:
                    losses.update(self._tag_losses(stage, output, target))
        return losses

    def _heatmap_losses(
        self, stage: int, output: StageOutput, target: StageTarget
    ) -> dict[str, Tensor]:
        scales = output.scales if self.scale_adaptive else None
        loss = heatmap_loss(output.heatmaps, target.heatmaps, target.mask, scales, self.gamma)
        losses = {f"heatmap{stage}": self.heatmap_factors[stage] * loss}
        if scales is not None:
            losses[f"scale{stage}"] = self.scale_factor * scale_loss(
                scales, target.heatmaps, target.mask
            )
        return losses

    def _tag_losses(
        self, stage: int, output: StageOutput, target: StageTarget
    ) -> dict[str, Tensor]:
        if output.tags is None:
            raise ValueError(
                f"LOSS.WITH_AE_LOSS is true for stage {stage}, whose output has no tags"
            )
        push, pull = associative_loss(output.tags, target.index, target.present, self.ae_type)
        return {
            f"push{stage}": self.push_factors[stage] * push,
            f"pull{stage}": self.pull_factors[stage] * pull,
        }


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The scalar that is minimised: the sum over the losses of their batch means."""
    return torch.stack([loss.mean() for loss in losses.values()]).sum()


def build_criterion(cfg: Any) -> Criterion:
    """The criterion that cfg.LOSS describes; of lists longer than LOSS.NUM_STAGES the first entries
    count.
    """
    loss = cfg.LOSS

    def entries(key: str) -> list[Any]:
        values = list(loss[key])
        if len(values) < loss.NUM_STAGES:
            raise ValueError(
                f"LOSS.{key} has {len(values)} entries: LOSS.NUM_STAGES is {loss.NUM_STAGES}"
            )
        return values[: loss.NUM_STAGES]

    return Criterion(
        with_heatmaps=entries("WITH_HEATMAPS_LOSS"),
        heatmap_factors=entries("HEATMAPS_LOSS_FACTOR"),
        with_ae=entries("WITH_AE_LOSS"),
        push_factors=entries("PUSH_LOSS_FACTOR"),
        pull_factors=entries("PULL_LOSS_FACTOR"),
        ae_type=loss.AE_LOSS_TYPE,
        scale_adaptive=loss.SCALE_ADAPTIVE,
        weight_adaptive=loss.WEIGHT_ADAPTIVE,
        gamma=loss.GAMMA,
        scale_factor=loss.SCALE_LOSS_FACTOR,
    )
