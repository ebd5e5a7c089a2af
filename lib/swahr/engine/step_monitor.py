"""What all processes agree on after each step: whether it was left out, and whether one was asked
to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from swahr.distributed import comm
from swahr.engine import checkpoint

if TYPE_CHECKING:
    from swahr.data.loaders import Batch


class NonFiniteLossError(RuntimeError):
    """Too many steps in a row had a loss that is no finite number; the message names the last one's
    images.
    """


class _Step(NamedTuple):
    flags: Tensor  # left out (0 or 1), signal number (0 for none); maximum over the processes
    copied: torch.cuda.Event | None  # passed once `flags` has reached the host
    step: int
    batches: Sequence[Batch]
    losses: dict[str, Tensor]


class StepMonitor:
    """Counts steps that were left out, and passes signals on.

    On a GPU the answer about a step is read when the next one has been queued, so that nothing
    waits for it.
    limit: steps left out in a row after which NonFiniteLossError is raised, on all processes
    together. folder: where the last batch is saved then, with what replay() returns.
    """

    def __init__(
        self,
        device: torch.device,
        limit: int,
        folder: Path,
        *,
        bad_steps: int = 0,
        replay: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.device = device
        self.limit = limit
        self.folder = folder
        self.replay = replay
        self.bad_steps = bad_steps
        self.consecutive = 0
        self.stop_signal = 0
        self._pending: _Step | None = None

    def check(
        self,
        step: int,
        bad: Tensor,
        signal: int,
        batches: Sequence[Batch],
        losses: dict[str, Tensor],
    ) -> None:
        """Note a step: `bad_steps`, `consecutive` and `stop_signal` are then those of it, or on a
        GPU of the one before.

        bad: bool, whether it was left out. signal: number of the signal this process got, 0 for
        none. losses: scalars.
        """
        flags = comm.reduce_max(
            torch.stack([bad.float(), bad.new_full((), signal, dtype=torch.float32)])
        )
        copied = None
        if self.device.type == "cuda":
            flags = flags.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        due: _Step | None = _Step(flags, copied, step, batches, losses)
        if copied is not None:
            due, self._pending = self._pending, due
        if due is not None:
            self._read(due)

    def _read(self, due: _Step) -> None:
        if due.copied is not None:
            due.copied.synchronize()
        bad, signal = due.flags.tolist()
        self.stop_signal = int(signal)
        self.bad_steps += int(bad)
        self.consecutive = self.consecutive + 1 if bad else 0
        if self.consecutive >= self.limit:
            self._fail(due)

    def _fail(self, latest: _Step) -> None:
        losses = {name: float(value) for name, value in latest.losses.items()}
        images = [number for batch in latest.batches for number in batch.image_ids.tolist()]
        culprit = any(value - value != 0 for value in losses.values())  # infinity or NaN
        everyone = comm.all_gather((culprit, images))
        blamed = [rank for rank, (guilty, _) in enumerate(everyone) if guilty] or list(
            range(len(everyone))
        )
        path = self.folder / f"bad_step_rank{comm.rank()}.pth.tar"
        if comm.rank() in blamed:
            batches = [batch._asdict() for batch in latest.batches]
            checkpoint.write_whole(
                {"step": latest.step, "losses": losses, "batches": batches, **self.replay()}, path
            )
        named = [number for rank in blamed for number in everyone[rank][1]]
        files = ", ".join(str(path.with_name(f"bad_step_rank{rank}.pth.tar")) for rank in blamed)
        raise NonFiniteLossError(
            f"the loss or its gradient was not finite for {self.consecutive} steps in a row (TRAIN.MAX_BAD_STEPS), the "
            f"last of them step {latest.step} with images {', '.join(map(str, named[:50]))}"
            f"{' ...' if len(named) > 50 else ''}; its batches, losses and the network are in {files}"
        )
