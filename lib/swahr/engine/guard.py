"""What all processes have to agree on after each step: whether it was left out, and whether one of them was asked to stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from swahr.engine import checkpoint, distributed

if TYPE_CHECKING:
    from swahr.data.loaders import Batch


class NonFiniteLossError(RuntimeError):
    """The loss was not a finite number for too many steps in a row; the message names the images and where the last step is saved."""


class _Step(NamedTuple):
    flags: Tensor  # left out (0 or 1), signal number (0 for none); maximum over the processes
    copied: torch.cuda.Event | None  # passed once `flags` has reached the host
    step: int
    batches: Sequence[Batch]
    losses: dict[str, Tensor]


class StepGuard:
    """Counts steps that were left out, and passes signals on.

    On a GPU the answer about a step is read when the next one has been queued, so that nothing waits for it.
    limit: steps left out in a row after which NonFiniteLossError is raised, on all processes together.
    """

    def __init__(self, device: torch.device, limit: int, folder: Path) -> None:
        self.device, self.limit, self.folder = device, limit, folder
        self.bad_steps = self.in_a_row = 0
        self.stop_signal = 0
        self._pending: _Step | None = None

    def check(self, step: int, bad: Tensor, signal: int, batches: Sequence[Batch], losses: dict[str, Tensor],
              replay: dict[str, Any]) -> None:
        """Note a step; from then on `bad_steps`, `in_a_row` and `stop_signal` are those of this step, or on a GPU of the one before.

        signal: number of the signal this process got, 0 for none. replay: what to save beside the batch if it comes to that.
        """
        flags = distributed.reduce_max(torch.stack([bad.float(), bad.new_full((), signal, dtype=torch.float32)]))
        copied = None
        if self.device.type == "cuda":
            flags = flags.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        latest = _Step(flags, copied, step, batches, losses)
        latest, self._pending = (self._pending, latest) if copied else (latest, None)
        if latest is not None:
            self._read(latest, replay)

    def settle(self, replay: dict[str, Any]) -> None:
        """Read what is still on its way, so that the counts are complete."""
        if self._pending is not None:
            latest, self._pending = self._pending, None
            self._read(latest, replay)

    def _read(self, latest: _Step, replay: dict[str, Any]) -> None:
        if latest.copied is not None:
            latest.copied.synchronize()
        bad, signal = latest.flags.tolist()
        self.stop_signal = int(signal)
        self.bad_steps += int(bad)
        self.in_a_row = self.in_a_row + 1 if bad else 0
        if self.in_a_row >= self.limit:
            self._fail(latest, replay)

    def _fail(self, latest: _Step, replay: dict[str, Any]) -> None:
        losses = {name: float(value) for name, value in latest.losses.items()}
        images = [number for batch in latest.batches for number in batch.image_ids.tolist()]
        culprit = any(value - value != 0 for value in losses.values())  # infinity or NaN
        everyone = distributed.all_gather((culprit, images))
        blamed = [rank for rank, (guilty, _) in enumerate(everyone) if guilty] or list(range(len(everyone)))
        path = self.folder / f"bad_step_rank{distributed.rank()}.pth.tar"
        if distributed.rank() in blamed:
            batches = [{"images": batch.images, "joints": list(batch.joints), "masks": list(batch.masks), "image_ids": batch.image_ids}
                       for batch in latest.batches]
            checkpoint.write_whole({"step": latest.step, "losses": losses, "batches": batches, **replay}, path)
        named = [number for rank in blamed for number in everyone[rank][1]]
        files = ", ".join(str(path.with_name(f"bad_step_rank{rank}.pth.tar")) for rank in blamed)
        raise NonFiniteLossError(
            f"the loss or its gradient was not finite for {self.in_a_row} steps in a row (TRAIN.MAX_BAD_STEPS), the last of them step "
            f"{latest.step} with images {', '.join(map(str, named[:50]))}{' ...' if len(named) > 50 else ''}; "
            f"its batch, losses and the network are in {files}")
