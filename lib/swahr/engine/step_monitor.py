"""What all processes agree on after each step: whether it was skipped, and whether to stop."""

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

MAX_NAMED_IMAGES = 50
SIGNAL_STEPS = 10  # on GPUs, where a step is short; an exchange in each would hold all of them up
SAVE = 0.5  # a request for a checkpoint; below the number of every signal, which asks for one too


class NonFiniteLossError(RuntimeError):
    """Too many consecutive steps were non-finite; the message names the images of the last one."""


class _Step(NamedTuple):
    flags: Tensor  # skipped (0 or 1), request that all processes know (0 for none)
    copied: torch.cuda.Event | None  # passed once `flags` has reached the host
    step: int
    batches: Sequence[Batch]
    losses: dict[str, Tensor]


class StepMonitor:
    """Counts skipped steps, and makes a request of one process known to all: its signal, or SAVE.

    On a GPU, the answer about a step is read when the next step has been queued, so that the
    processor does not wait for the GPU. Only a step that may be the last one allowed is waited for:
    the network saved with it is then the one that computed it.

    Whether a step was skipped needs no exchange: gradients are the same on all processes once they
    are averaged, so that all skip the same steps. Only requests are exchanged.

    limit: consecutive skipped steps at which NonFiniteLossError is raised, on all processes
    together. folder: where the last step is saved then, with what replay() returns. bad_steps:
    skipped steps so far. signal_steps: steps between two exchanges of requests; None: 1 on a CPU,
    SIGNAL_STEPS on a GPU. A single process knows its request at once. stop_signal: number of the
    signal, 0 for none. save_requested: whether SAVE was asked for since this was last set to False.
    """

    def __init__(
        self,
        device: torch.device,
        limit: int,
        folder: Path,
        *,
        bad_steps: int = 0,
        replay: Callable[[], dict[str, Any]] = dict,
        signal_steps: int | None = None,
    ) -> None:
        self.device = device
        self.limit = limit
        self.folder = folder
        self.replay = replay
        self.bad_steps = bad_steps
        self.signal_steps = signal_steps or (SIGNAL_STEPS if device.type == "cuda" else 1)
        self.consecutive = 0
        self.stop_signal = 0
        self.save_requested = False
        self._pending: _Step | None = None

    def check(
        self,
        step: int,
        bad: Tensor,
        request: float,
        batches: Sequence[Batch],
        losses: dict[str, Tensor],
        last: bool = False,
    ) -> None:
        """Note a step, on all processes together.

        `bad_steps`, `consecutive`, `stop_signal` and `save_requested` then include it; on a GPU
        they may lack it until the next check, or until flush.

        step: its index. bad: scalar bool, whether it was skipped. request: number of the signal
        that this process got, or SAVE, or 0; the highest of all processes counts. losses: scalars
        by name. last: of the epoch; requests are then exchanged too.
        """
        exchanged = last or (step + 1) % self.signal_steps == 0
        flags = self._flags(bad, request, exchanged)
        copied = None
        if self.device.type == "cuda":
            flags = flags.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self.flush()
        self._pending = _Step(flags, copied, step, batches, losses)
        if copied is None or self.consecutive >= self.limit - 1:
            self.flush()

    def _flags(self, bad: Tensor, request: float, exchanged: bool) -> Tensor:
        if comm.has_group() and not exchanged:
            return torch.stack([bad.float(), torch.zeros_like(bad, dtype=torch.float32)])
        request_flag = bad.new_full((), request, dtype=torch.float32)
        return comm.reduce_max(torch.stack([bad.float(), request_flag]))

    def flush(self) -> None:
        """Read the answer about the latest step, if that was not done yet; waits for the GPU.

        Processes may call this at different times: only `check` can raise NonFiniteLossError.
        """
        latest, self._pending = self._pending, None
        if latest is None:
            return
        if latest.copied is not None:
            latest.copied.synchronize()
        bad, request = latest.flags.tolist()
        self.stop_signal = int(request) or self.stop_signal
        self.save_requested = self.save_requested or request == SAVE
        self.bad_steps += int(bad)
        self.consecutive = self.consecutive + 1 if bad else 0
        if self.consecutive >= self.limit:
            self._fail(latest)

    def _fail(self, latest: _Step) -> None:
        losses = {name: float(value) for name, value in latest.losses.items()}
        image_ids = [image_id for batch in latest.batches for image_id in batch.image_ids.tolist()]
        is_bad = any(value - value != 0 for value in losses.values())  # infinity or NaN
        of_all_ranks = comm.all_gather((is_bad, image_ids))
        bad_ranks = [rank for rank, (rank_is_bad, _) in enumerate(of_all_ranks) if rank_is_bad]
        if not bad_ranks:  # the losses are finite, a gradient is not
            bad_ranks = list(range(len(of_all_ranks)))
        path = self.folder / f"bad_step_rank{comm.rank()}.pth.tar"
        if comm.rank() in bad_ranks:
            batches = [batch._asdict() for batch in latest.batches]
            content = {"step": latest.step, "losses": losses, "batches": batches}
            checkpoint.write_whole({**content, **self.replay()}, path)
        bad_ids = [image_id for rank in bad_ranks for image_id in of_all_ranks[rank][1]]
        files = [str(path.with_name(f"bad_step_rank{rank}.pth.tar")) for rank in bad_ranks]
        raise NonFiniteLossError(
            f"the loss or its gradient was non-finite in {self.consecutive} consecutive steps "
            f"(TRAIN.MAX_BAD_STEPS); the last is step {latest.step} with images "
            f"{name_images(bad_ids)}; its batches, losses and the network are in {', '.join(files)}"
        )


def name_images(image_ids: Sequence[int]) -> str:
    """The ids of images for a message, at most MAX_NAMED_IMAGES of them."""
    more = " ..." if len(image_ids) > MAX_NAMED_IMAGES else ""
    return ", ".join(map(str, image_ids[:MAX_NAMED_IMAGES])) + more
