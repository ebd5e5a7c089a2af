"""One update of the weights: accumulation, mixed precision, and what is left out as the loss is no
finite number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from swahr.codec.targets import StageTarget
from swahr.data.images import normalize
from swahr.losses.criterion import total_loss
from swahr.models.network import StageOutput

if TYPE_CHECKING:
    from swahr.data.loaders import Batch


class Sample(NamedTuple):
    """The first B images of a batch and what became of them, detached: images (B, S, S, 3)
    uint8.
    """

    images: Tensor
    targets: list[StageTarget]
    outputs: list[StageOutput]


class StepResult(NamedTuple):
    """Losses by name, means over this process's images; whether the step was left out (bool); a
    sample if wanted.
    """

    losses: dict[str, Tensor]
    bad: Tensor
    sample: Sample | None


class LossScaler:
    """The factor of the loss under fp16, and what leaves a step out without asking the GPU. fixed:
    None for dynamic.
    """

    def __init__(self, device: torch.device, fixed: float | None = 1.0) -> None:
        self.fixed = fixed  # None: dynamic
        self.scaler = GradScaler(device.type, init_scale=65536.0 if fixed is None else fixed)

    def scale(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimiser's step, unless a gradient is not finite."""
        self.scaler.step(optimizer)
        self.scaler.update(self.fixed)

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A fixed scale stays the one that was asked for."""
        if state and self.fixed is None:
            self.scaler.load_state_dict(state)


class TrainStep:
    """Callable: the batches of one step, on the device, and its learning rate -> StepResult, with
    the weights updated.

    model: bare, or in DistributedDataParallel, whose gradients are exchanged with the last of the
    batches only. encoder: joints and masks of the stages -> their targets. dtype: of the network's
    convolutions, None for float32; losses are float32 always.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        encoder: Callable[..., Any],
        criterion: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: LossScaler,
        device: torch.device,
        dtype: torch.dtype | None = None,
        channels_last: bool = False,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.criterion = criterion
        self.optimizer = optimizer
        self.scaler = scaler
        self.device = device
        self.dtype = dtype
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]

    def __call__(self, batches: Sequence[Batch], lr: float, sample_size: int = 0) -> StepResult:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        before = self._flat_statistics()
        parts = []
        for number, batch in enumerate(batches, 1):
            with self._exchange(last=number == len(batches)):
                targets, outputs = self.forward(batch)
                parts.append(self._backward(self.criterion(outputs, targets), len(batches)))
        # A limit of infinity changes no finite gradient, and one that is not finite becomes NaN
        # throughout: either the scaler lets the whole step through or nothing of it, and `bad` says
        # which, with no wait for the GPU.
        bad = ~nn.utils.clip_grad_norm_(self.parameters, float("inf")).isfinite()
        self.scaler.step(self.optimizer)
        self._restore_statistics(before, bad)
        means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        return StepResult(
            means,
            bad,
            _sample(batch.images, targets, outputs, sample_size) if sample_size else None,
        )

    def forward(self, batch: Batch) -> tuple[list[StageTarget], list[StageOutput]]:
        """What a batch, on the device, should give in each stage, and what the network gives."""
        targets = self.encoder(batch.joints, batch.masks)
        images = normalize(batch.images).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return targets, self.model(images)

    def _backward(self, losses: dict[str, Tensor], parts: int) -> dict[str, Tensor]:
        loss = total_loss(losses)
        # A loss that is not finite makes every gradient NaN, and through their exchange those of
        # all processes.
        poison = torch.where(loss.detach().isfinite(), 1.0, float("nan"))
        self.scaler.scale(loss * poison / parts).backward()
        return {name: value.detach().mean() for name, value in losses.items()}

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        return (
            self.model.no_sync()
            if isinstance(self.model, DistributedDataParallel) and not last
            else nullcontext()
        )

    def _flat_statistics(self) -> Tensor | None:
        return (
            torch.cat([buffer.flatten() for buffer in self.statistics]) if self.statistics else None
        )

    def _restore_statistics(self, before: Tensor | None, bad: Tensor) -> None:
        """Undo what a step that is left out did to the batch norms, where one NaN would stay for
        ever.
        """
        now = self._flat_statistics()
        if before is not None and now is not None:
            kept = torch.where(bad, before, now).split(
                [buffer.numel() for buffer in self.statistics]
            )
            torch._foreach_copy_(
                self.statistics, [part.view_as(like) for part, like in zip(kept, self.statistics)]
            )


def _sample(
    images: Tensor, targets: list[StageTarget], outputs: list[StageOutput], size: int
) -> Sample:
    def cut(maps: Tensor) -> Tensor:
        return maps[:size].detach()

    return Sample(
        images[:size],
        [stage.map(cut) for stage in targets],
        [stage.map(cut) for stage in outputs],
    )


def build_optimizer(cfg: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Adam, to which TRAIN.WD is not applied, as published; or SGD with momentum, weight decay and
    Nesterov.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    train = cfg.TRAIN
    if train.OPTIMIZER == "sgd":
        # Not fused: if its first step is left out, the fused one goes on with a momentum that was
        # never written.
        return torch.optim.SGD(
            parameters,
            lr=train.LR,
            momentum=train.MOMENTUM,
            weight_decay=train.WD,
            nesterov=train.NESTEROV and train.MOMENTUM > 0,
        )
    return torch.optim.Adam(parameters, lr=train.LR, fused=True)


def build_scaler(cfg: Any, device: torch.device) -> LossScaler:
    """FP16.STATIC_LOSS_SCALE or FP16.DYNAMIC_LOSS_SCALE where AMP.DTYPE is fp16; otherwise the
    scale is 1.
    """
    if not (cfg.AMP.ENABLED and cfg.AMP.DTYPE == "fp16"):
        return LossScaler(device)
    return LossScaler(device, None if cfg.FP16.DYNAMIC_LOSS_SCALE else cfg.FP16.STATIC_LOSS_SCALE)
