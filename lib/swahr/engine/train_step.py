"""One update of the weights: gradient accumulation, mixed precision, skipped steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.amp.grad_scaler import OptState
from torch.nn.parallel import DistributedDataParallel

from swahr.acceleration.cuda_graphs import StepGraphs
from swahr.codec.targets import StageTarget
from swahr.data.images import normalize
from swahr.data.loaders import Batch
from swahr.engine.loss_network import pad_people
from swahr.losses.criterion import batch_means
from swahr.models.network import StageOutput

DYNAMIC_INIT_SCALE = 65536.0


class Sample(NamedTuple):
    """The first B images of a batch, with their targets and outputs, detached.

    images: (B, S, S, 3) uint8.
    """

    images: Tensor
    targets: list[StageTarget]
    outputs: list[StageOutput]


class StepResult(NamedTuple):
    """What a step gives.

    losses: scalars by name, means over the images of this process. bad: scalar bool, whether the
    step was skipped. gradient_norm: scalar, of all gradients together, without the loss scale and
    before hooks change them. sample: the first images of the last micro-batch, if wanted.
    """

    losses: dict[str, Tensor]
    bad: Tensor
    gradient_norm: Tensor
    sample: Sample | None


class _Scaler(GradScaler):
    """A GradScaler that takes the answer whether gradients are finite, where it is known already,
    in place of looking at all of them again.
    """

    known: Tensor | None = None  # scalar: above 0 if a gradient is non-finite

    def forget_step(self) -> None:
        """Forget how far a step has come that was given up."""
        self._per_optimizer_states.clear()

    def is_unscaled(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether unscale_ was called since the last step."""
        return self._per_optimizer_states[id(optimizer)]["stage"] is OptState.UNSCALED

    def _check_inf_per_device(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        if self.known is None:
            return super()._check_inf_per_device(optimizer)
        found: dict[Any, Tensor] = {self.known.device: self.known}
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
        return found


class LossScaler:
    """The factor of the loss under fp16. It skips non-finite steps without waiting for the GPU.

    fixed: a static scale; None for a dynamic one, which grows until gradients overflow.
    """

    def __init__(self, device: torch.device, fixed: float | None = 1.0) -> None:
        self.fixed = fixed
        init_scale = DYNAMIC_INIT_SCALE if fixed is None else fixed
        self.scaler = _Scaler(device.type, init_scale=init_scale)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the current scale."""
        return self.scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, in-place, for whatever reads them.

        Once a step, however often it is called.
        """
        if not self.scaler.is_unscaled(optimizer):
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, bad: Tensor | None = None) -> None:
        """The optimiser's step, unless a gradient is non-finite.

        bad: scalar bool, whether one is; None looks at all gradients. Only optimisers for which
        `takes_skipping` is true can be told.
        """
        self.scaler.known = None if bad is None else bad.float()
        self.scaler.step(optimizer)
        self.scaler.known = None
        self.scaler.update(self.fixed)

    def state_dict(self) -> dict[str, Any]:
        """What load_state_dict restores: the scaler's state, and whether the scale is dynamic."""
        return {**self.scaler.state_dict(), "dynamic": self.fixed is None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a dynamic scale, if the state is of one. A static scale stays as it was given.

        States of older versions do not say what they are of. Those with a scale of 1 are taken for
        states of a run without fp16.
        """
        if state and self.fixed is None and state.get("dynamic", state.get("scale") != 1.0):
            self.scaler.load_state_dict(state)


def takes_skipping(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimiser itself skips a step on its device, as PyTorch's fused ones do.

    For others GradScaler reads on the processor whether to skip, and waits for the GPU.
    """
    return getattr(optimizer, "_step_supports_amp_scaling", False)


class TrainStep:
    """Callable: the micro-batches of one step and its learning rate -> StepResult.

    model: bare, or in DistributedDataParallel, which exchanges gradients after the last micro-batch
    only. encoder: joints and masks of all stages -> their targets. scaler: see LossScaler. dtype:
    of the network's convolutions, None for float32; losses are always float32. channels_last: the
    memory layout of the images. host_reads: whether values are read during the step; None: on a
    CPU, where that waits for nothing. loss_network: a LossNetwork of the same parts, compiled or in
    DistributedDataParallel, that is called in their place; `model` is bare then.
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
        host_reads: bool | None = None,
        loss_network: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.criterion = criterion
        self.optimizer = optimizer
        self.scaler = scaler
        self.device = device
        self.dtype = dtype
        self.loss_network = loss_network
        self.graphs: StepGraphs | None = None
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.host_reads = device.type == "cpu" if host_reads is None else host_reads
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.bn_buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]

    def __call__(
        self,
        batches: Sequence[Batch],
        lr: float,
        sample_size: int = 0,
        after_backward: Callable[[], None] | None = None,
    ) -> StepResult:
        """Update the weights.

        batches: on the device. lr: learning rate. sample_size: images of the result's sample.
        after_backward: called once gradients are complete and the result's `bad` is known to the
        device, before the optimiser's step.
        """
        self._set_learning_rate(lr)
        if self.graphs is None or sample_size or after_backward is not None:
            return self.run(batches, sample_size, after_backward)
        return self.graphs([tensor for batch in batches for tensor in step_inputs(batch)])

    def record(self) -> None:
        """From now on, steps without a sample and after_backward are recorded and replayed.

        The optimiser must be a fused one, on a GPU. Its learning rate becomes a tensor.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
            if "capturable" in group:
                group["capturable"] = True
        self.graphs = StepGraphs(self._run_inputs, self.scaler.scaler.forget_step)

    def run(
        self,
        batches: Sequence[Batch],
        sample_size: int = 0,
        after_backward: Callable[[], None] | None = None,
    ) -> StepResult:
        """The step at the learning rate that is set; see __call__."""
        self.optimizer.zero_grad(set_to_none=True)
        buffers_before = self._flat_bn_buffers()
        micro_losses = []
        for index, batch in enumerate(batches, 1):
            with self.maybe_no_sync(last=index == len(batches)):
                names, means, outputs = self.compute(batch)
                loss = means.sum()
                self.scaler.scale(loss * nan_if_bad(loss) / len(batches)).backward()
            micro_losses.append(means.detach().clone())
        bad, norm = self._update(after_backward)
        self._restore_bn_buffers(buffers_before, bad)
        sample = self._sample(batch, outputs, sample_size) if sample_size else None
        return StepResult(_mean_losses(names, micro_losses), bad, norm, sample)

    def _run_inputs(self, inputs: Sequence[Tensor]) -> StepResult:
        return self.run(batches_of(inputs))

    def _set_learning_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def compute(self, batch: Batch) -> tuple[list[str], Tensor, list[StageOutput]]:
        """Names of the losses, their means over a batch (losses,), and the network's outputs."""
        if self.loss_network is None:
            targets, outputs = self.forward(batch)
            losses = self.criterion(outputs, targets)
            return list(losses), batch_means(losses), outputs
        # With CUDA graphs, a new pass may overwrite what the last one gave.
        torch.compiler.cudagraph_mark_step_begin()
        return self.loss_network(batch.images, [pad_people(j) for j in batch.joints], batch.masks)

    def _update(self, after_backward: Callable[[], None] | None) -> tuple[Tensor, Tensor]:
        """The optimiser's step; returns StepResult's bad and gradient_norm."""
        known = after_backward is None and takes_skipping(self.optimizer)
        norm = self._gradient_norm() if known else self._spread_non_finite_gradients()
        bad = ~norm.isfinite()
        norm = norm / self.scaler.scale(torch.ones_like(norm))
        if after_backward is not None:
            after_backward()
        self.scaler.step(self.optimizer, bad if known else None)
        return bad, norm.detach()

    def forward(self, batch: Batch) -> tuple[list[StageTarget], list[StageOutput]]:
        """The targets of a batch on the device, and the network's outputs, for each stage."""
        targets = self.encoder(batch.joints, batch.masks)
        images = normalize(batch.images, self.memory_format)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return targets, self.model(images)

    def maybe_no_sync(self, last: bool) -> AbstractContextManager[Any]:
        """DistributedDataParallel's no_sync for all micro-batches but the last."""
        called = self.model if self.loss_network is None else self.loss_network
        if isinstance(called, DistributedDataParallel) and not last:
            return called.no_sync()
        return nullcontext()

    def _gradient_norm(self) -> Tensor:
        """The norm of all gradients, multiplied by the loss scale."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        foreach = None if self.host_reads else True  # None: for tensors on a GPU
        return nn.utils.get_total_norm(gradients, foreach=foreach)

    def _spread_non_finite_gradients(self) -> Tensor:
        """The norm of all gradients; if it is non-finite, the step is bad and all are NaN.

        A limit of infinity changes no finite gradient, and makes all of them NaN if one is
        non-finite. So hooks see it in every gradient, and the scaler skips the whole step or
        nothing of it.
        """
        norm = self._gradient_norm()
        nn.utils.clip_grads_with_norm_(self.parameters, float("inf"), norm)
        return norm

    def _sample(self, batch: Batch, outputs: list[StageOutput], size: int) -> Sample:
        targets = self.encoder(batch.joints, batch.masks)
        return Sample(
            batch.images[:size],
            [stage.map(lambda maps: maps[:size]) for stage in targets],
            [stage.map(lambda maps: maps[:size].detach().clone()) for stage in outputs],
        )

    def _flat_bn_buffers(self) -> Tensor | None:
        if not self.bn_buffers:
            return None
        return torch.cat([buffer.flatten() for buffer in self.bn_buffers])

    def _restore_bn_buffers(self, before: Tensor | None, bad: Tensor) -> None:
        """Undo what a skipped step did to running statistics: a NaN would stay in them forever."""
        now = None if self.host_reads else self._flat_bn_buffers()
        if before is None or (self.host_reads and not bad):
            return
        values = before if now is None else torch.where(bad, before, now)
        sizes = [buffer.numel() for buffer in self.bn_buffers]
        parts = zip(values.split(sizes), self.bn_buffers)
        shaped = [part if buffer.dim() == 1 else part.view_as(buffer) for part, buffer in parts]
        torch._foreach_copy_(self.bn_buffers, shaped)


def step_inputs(batch: Batch) -> list[Tensor]:
    """What a step reads of a batch: images, then joints and mask of each output.

    People are padded, so that few shapes are recorded.
    """
    stages = zip(batch.joints, batch.masks)
    return [batch.images, *(part for j, mask in stages for part in (pad_people(j), mask))]


def batches_of(inputs: Sequence[Tensor]) -> list[Batch]:
    """The batches whose step_inputs follow each other in `inputs`."""
    starts = [index for index, tensor in enumerate(inputs) if tensor.dtype == torch.uint8]
    starts = [index for index in starts if inputs[index].dim() == 4]  # images; masks have 3
    ends = [*starts[1:], len(inputs)]
    no_ids = torch.zeros(0, dtype=torch.int64)
    return [
        Batch(
            inputs[start],
            list(inputs[start + 1 : end : 2]),
            list(inputs[start + 2 : end : 2]),
            no_ids,
            {},
        )
        for start, end in zip(starts, ends)
    ]


def nan_if_bad(loss: Tensor) -> Tensor:
    """1 for a finite loss, else NaN: the factor that makes every gradient NaN.

    The exchange of gradients then makes those of all processes NaN.
    """
    return torch.where(loss.detach().isfinite(), 1.0, float("nan"))


def _mean_losses(names: Sequence[str], micro_losses: Sequence[Tensor]) -> dict[str, Tensor]:
    """names: of the losses. micro_losses: for each micro-batch the means (losses,)."""
    means = micro_losses[0]
    if len(micro_losses) > 1:
        means = torch.stack(list(micro_losses), 1).mean(1)
    return dict(zip(names, means.unbind(), strict=True))
