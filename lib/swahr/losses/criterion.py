"""The criterion: a list of terms, whose losses are returned by name.

To add a loss, write a function that builds a Term from the configuration, add it to LOSSES, and
name it in LOSS.TERMS:

    def build_center_term(cfg):
        return Term(center_loss, weights={"center": [1.0]}, reads=["center"])

    LOSSES["center"] = build_center_term
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from swahr.codec.targets import StageTarget
from swahr.losses.associative import associative_loss, check_push_kind
from swahr.losses.heatmap import heatmap_loss
from swahr.losses.scale import scale_loss
from swahr.models.network import StageOutput
from swahr.parts import choose

StageLoss = Callable[[StageOutput, StageTarget], Tensor | Sequence[Tensor]]


class LossError(ValueError):
    """Losses that make no criterion, or do not fit the network; the message is one line."""


@dataclass(frozen=True)
class Term:
    """A function that gives one or several losses of a stage, and the weight of each loss.

    function: output and target of a stage -> a tensor (B,) for one loss, or one (B,) for each.
    weights: of each loss by name, in the order in which function returns them, one entry for each
    stage, low resolution to high; a single entry counts for all stages. None or 0: the stage has no
    such loss.
    reads: the maps that function uses: "heatmaps", "tags", "scales" or a name in StageOutput.extra.
    """

    function: StageLoss
    weights: Mapping[str, Sequence[float | None]]
    reads: Sequence[str] = ("heatmaps",)


class Criterion(nn.Module):
    """The losses of each image by name, from the network's outputs and their targets."""

    def __init__(self, terms: Iterable[Term], num_stages: int) -> None:
        """Raises LossError where weights do not fit the stages, two losses share a name, or no
        stage has a loss.
        """
        super().__init__()
        self.num_stages = num_stages
        self.terms = [_spread_weights(term, num_stages) for term in terms]
        names = [name for term in self.terms for name in term.weights]
        for name in names:
            if names.count(name) > 1:
                raise LossError(
                    f"LOSS.TERMS: gives two losses the name {name!r}; each must have its own"
                )
        if not self.reads:
            raise LossError(
                "LOSS.TERMS: gives no stage a loss; it must name one whose weight is not 0"
            )

    @property
    def reads(self) -> set[tuple[str, int]]:
        """The maps that get a gradient, as (name, stage)."""
        return {
            (name, stage)
            for stage in range(self.num_stages)
            for term in self.terms
            if _weights_at(term, stage)
            for name in term.reads
        }

    def forward(
        self, outputs: Sequence[StageOutput], targets: Sequence[StageTarget]
    ) -> dict[str, Tensor]:
        """Output and target of each stage -> weighted losses (B,) in float32, named by loss and
        stage: heatmap0, scale0, push0, pull0, heatmap1...

        Stages come first and then the terms in their order. Raises LossError where an output lacks
        a map that a term reads.
        """
        if not len(outputs) == len(targets) == self.num_stages:
            raise LossError(
                f"{len(outputs)} outputs and {len(targets)} targets: "
                f"the criterion is for {self.num_stages} stages"
            )
        losses: dict[str, Tensor] = {}
        with torch.autocast(outputs[0].heatmaps.device.type, enabled=False):
            for stage, (output, target) in enumerate(zip(outputs, targets)):
                for term in self.terms:
                    losses.update(_losses_of(term, stage, output, target))
        return losses


def _spread_weights(term: Term, num_stages: int) -> Term:
    """The term with one entry for each stage: a single entry is repeated."""
    weights = {}
    for name, values in term.weights.items():
        if len(values) not in (1, num_stages):
            raise LossError(
                f"LOSS.TERMS: the loss {name!r} has {len(values)} weights; LOSS.NUM_STAGES is "
                f"{num_stages}, so it must have 1 or {num_stages}"
            )
        weights[name] = list(values) * (num_stages // len(values))
    return Term(term.function, weights, tuple(term.reads))


def _weights_at(term: Term, stage: int) -> dict[str, float]:
    """The weights of the losses that the stage has."""
    at_stage = {name: weights[stage] for name, weights in term.weights.items()}
    return {name: weight for name, weight in at_stage.items() if weight}


def _losses_of(
    term: Term, stage: int, output: StageOutput, target: StageTarget
) -> Iterator[tuple[str, Tensor]]:
    weights = _weights_at(term, stage)
    if not weights:
        return
    names = ", ".join(term.weights)
    for map_name in term.reads:
        if output.named(map_name) is None:
            raise LossError(
                f"LOSS.TERMS: the loss {names} reads the map {map_name!r}, which the network does "
                f"not give at stage {stage}; it needs a MODEL.HEAD that does"
            )
    values = term.function(output, target)
    if isinstance(values, Tensor):
        values = [values]
    if not isinstance(values, Sequence) or not all(isinstance(v, Tensor) for v in values):
        raise LossError(
            f"LOSS.TERMS: the function of the loss {names} gives a {type(values).__name__}; it "
            "must give a tensor (B,), or one for each of its losses"
        )
    if len(values) != len(term.weights):
        raise LossError(
            f"LOSS.TERMS: the function of the loss {names} gives {len(values)} tensors; it must "
            f"give {len(term.weights)}"
        )
    for name, value in zip(term.weights, values):
        if name in weights:
            yield f"{name}{stage}", weights[name] * value


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The scalar that is minimised: the sum over the losses of their batch means."""
    return batch_means(losses).sum()


def batch_means(losses: dict[str, Tensor]) -> Tensor:
    """The mean over the batch of each loss (B,), in the order of the dictionary: (losses,)."""
    return torch.stack([loss.mean() for loss in losses.values()])


def build_heatmap_term(cfg: Any) -> Term:
    """Heatmap regression with the parts LOSS.SCALE_ADAPTIVE and LOSS.WEIGHT_ADAPTIVE of SWAHR."""
    scale_adaptive = cfg.LOSS.SCALE_ADAPTIVE
    gamma = cfg.LOSS.GAMMA if cfg.LOSS.WEIGHT_ADAPTIVE else None

    def function(output: StageOutput, target: StageTarget) -> Tensor:
        scales = output.scales if scale_adaptive else None
        return heatmap_loss(output.heatmaps, target.heatmaps, target.mask, scales, gamma)

    weights = _where(cfg.LOSS.WITH_HEATMAPS_LOSS, cfg.LOSS.HEATMAPS_LOSS_FACTOR)
    reads = ["heatmaps", "scales"] if scale_adaptive else ["heatmaps"]
    return Term(function, {"heatmap": weights}, reads)


def build_scale_term(cfg: Any) -> Term:
    """The loss on the scale maps of the stages with a heatmap loss, if LOSS.SCALE_ADAPTIVE."""

    def function(output: StageOutput, target: StageTarget) -> Tensor:
        assert output.scales is not None  # the criterion has checked it
        return scale_loss(output.scales, target.heatmaps, target.mask)

    factor = cfg.LOSS.SCALE_LOSS_FACTOR if cfg.LOSS.SCALE_ADAPTIVE else None
    weights = _where(cfg.LOSS.WITH_HEATMAPS_LOSS, [factor] * cfg.LOSS.NUM_STAGES)
    return Term(function, {"scale": weights}, ["scales"])


def build_associative_term(cfg: Any) -> Term:
    """Push and pull on the tags of the stages with LOSS.WITH_AE_LOSS."""
    push_kind = check_push_kind(cfg.LOSS.AE_LOSS_TYPE)

    def function(output: StageOutput, target: StageTarget) -> tuple[Tensor, Tensor]:
        assert output.tags is not None  # the criterion has checked it
        return associative_loss(output.tags, target.index, target.present, push_kind)

    weights = {
        "push": _where(cfg.LOSS.WITH_AE_LOSS, cfg.LOSS.PUSH_LOSS_FACTOR),
        "pull": _where(cfg.LOSS.WITH_AE_LOSS, cfg.LOSS.PULL_LOSS_FACTOR),
    }
    return Term(function, weights, ["tags"])


def _where(switches: Sequence[bool], weights: Sequence[float | None]) -> list[float | None]:
    """The weights at stages whose switch is on, else None."""
    return [weight if switch else None for switch, weight in zip(switches, weights, strict=True)]


LOSSES: dict[str, Callable[[Any], Term]] = {
    "heatmap": build_heatmap_term,
    "scale": build_scale_term,
    "associative": build_associative_term,
}


def build_criterion(cfg: Any) -> Criterion:
    """The criterion of the terms that LOSS.TERMS names, in that order.

    Raises PartError for an unknown name, LossError as Criterion does.
    """
    terms = [choose(LOSSES, name, "LOSS.TERMS")(cfg) for name in cfg.LOSS.TERMS]
    for name, term in zip(cfg.LOSS.TERMS, terms):
        if not isinstance(term, Term):
            raise LossError(
                f"LOSS.TERMS: {name} gives a {type(term).__name__}, not a "
                "swahr.losses.criterion.Term"
            )
    return Criterion(terms, cfg.LOSS.NUM_STAGES)
