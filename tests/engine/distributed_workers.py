"""What launched processes do in tests: functions they can import, and a network small enough to
follow.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from swahr.codec.targets import StageTarget
from swahr.data.loaders import Batch
from swahr.distributed import comm
from swahr.distributed.signals import Interrupted, StopRequest
from swahr.engine.step_monitor import NonFiniteLossError, StepMonitor
from swahr.engine.train_step import LossScaler, TrainStep
from swahr.files import WriteError
from swahr.models.network import StageOutput

CPU = torch.device("cpu")


class KnownError(ValueError):
    __module__ = "swahr.tests"


class SmallNet(nn.Module):
    """One convolution and a batch norm; `heatmaps` (B, 2, 8, 8)."""

    def __init__(self, frozen_statistics: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.frozen = frozen_statistics

    def forward(self, images: Tensor) -> list[StageOutput]:
        if self.frozen:
            self.bn.eval()
        return [StageOutput(None, self.bn(self.conv(images)), None)]


class SquaredError(nn.Module):
    def forward(self, outputs: list[StageOutput], targets: list[StageTarget]) -> dict[str, Tensor]:
        error = (outputs[0].heatmaps.float() - targets[0].heatmaps).square()
        return {"near": error.mean((1, 2, 3)), "far": 0.1 * error.amax((1, 2, 3))}


def encode(joints: list[Tensor], masks: list[Tensor]) -> list[StageTarget]:
    """The targets of these tests are handed over as the joints."""
    return [StageTarget(joints[0], masks[0], masks[0], masks[0])]


def make_batches(count: int, size: int) -> list[Batch]:
    random = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randint(0, 256, (size, 8, 8, 3), dtype=torch.uint8, generator=random),
            [torch.randn(size, 2, 8, 8, generator=random)],
            [torch.ones(size, 8, 8)],
            torch.arange(size) + 100 * number,
            {},
        )
        for number in range(1, count + 1)
    ]


def part_of(batch: Batch, start: int, end: int) -> Batch:
    return Batch(
        batch.images[start:end],
        [batch.joints[0][start:end]],
        [batch.masks[0][start:end]],
        batch.image_ids[start:end],
        {},
    )


def make_train_step(
    model: nn.Module | None = None, *, optimizer: str = "sgd", **options: Any
) -> TrainStep:
    torch.manual_seed(0)
    model = model or SmallNet()
    parameters = list(model.parameters())
    if comm.has_group():
        model = DistributedDataParallel(model)
    rule = (
        torch.optim.Adam(parameters, fused=True)
        if optimizer == "adam"
        else torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
    )
    options = {"scaler": LossScaler(CPU), **options}
    return TrainStep(
        model=model, encoder=encode, criterion=SquaredError(), optimizer=rule, device=CPU, **options
    )


def weights_after_steps(accumulation: int) -> list[Tensor]:
    """The weights after four steps on batches of eight images, shared out over the processes and
    over accumulated batches.
    """
    comm.init_process_group(CPU)
    torch.manual_seed(0)
    train_step = make_train_step(SmallNet(frozen_statistics=True))
    share = 8 // (comm.world_size() * accumulation)
    for batch in make_batches(4, 8):
        first = comm.rank() * share * accumulation
        parts = [
            part_of(batch, first + i * share, first + (i + 1) * share) for i in range(accumulation)
        ]
        train_step(parts, 0.05)
    weights = [parameter.detach().clone() for parameter in train_step.parameters]
    others = comm.all_gather([weight.tolist() for weight in weights])
    assert all(other == others[0] for other in others), "processes differ"
    return weights


def collectives() -> dict[str, Any]:
    """Every collective once, with other values on every process."""
    comm.init_process_group(CPU)
    rank = comm.rank()
    model = SmallNet()
    nn.init.constant_(model.bn.running_mean, float(rank + 1))
    comm.broadcast_buffers(model)
    comm.barrier()
    means = comm.reduce_mean({"a": torch.tensor(float(rank)), "b": torch.tensor(1.0)})
    answers = {
        "gathered": comm.all_gather({"rank": rank}),
        "mean": {name: float(value) for name, value in means.items()},
        "max": comm.reduce_max(torch.tensor([float(rank), 5.0 - rank])).tolist(),
        "buffer": model.bn.running_mean.tolist(),
        "main": comm.is_main(),
        "place": (rank, comm.world_size(), comm.local_rank()),
    }
    return {
        "all": comm.all_gather(answers),
        "weights": [w.tolist() for w in weights_after_steps(2)],
    }


def bad_steps(folder: Path) -> list[dict[str, Any]]:
    """What each process has after steps of which process 1 alone spoils some, and after the same
    steps without those.
    """
    comm.init_process_group(CPU)
    good = make_batches(2 * comm.world_size(), 4)[comm.rank() :: comm.world_size()]
    bad = (
        good[1]._replace(joints=[good[1].joints[0] * float("nan")]) if comm.rank() == 1 else good[1]
    )
    disturbed = make_train_step()
    plain = make_train_step()
    monitor = StepMonitor(
        CPU, 2, folder, replay=lambda: {"state_dict": disturbed.model.module.state_dict()}
    )
    counts = []
    said = ""
    try:
        for step, batch in enumerate([good[0], bad, good[1], bad, bad]):
            result = disturbed([batch], 0.1)
            monitor.check(step, result.bad, 0, [batch], result.losses)
            counts.append((monitor.bad_steps, monitor.consecutive))
    except NonFiniteLossError as error:
        said = str(error)
    for batch in good:
        plain([batch], 0.1)
    states = [
        [
            value.tolist()
            for value in train_step.model.state_dict().values()
            if value.is_floating_point()
        ]
        for train_step in (disturbed, plain)
    ]
    return comm.all_gather(
        {"counts": counts, "said": said, "disturbed": states[0], "plain": states[1]}
    )


def fail(rank: int, how: str) -> None:
    """One process fails in its own way while the others wait for it."""
    comm.init_process_group(CPU)
    comm.barrier()
    if comm.rank() == rank:
        if how == "known":
            raise KnownError("person_keypoints.json: line 3 is wrong")
        if how == "interrupted":
            raise Interrupted(signal.SIGTERM)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ZeroDivisionError("the failing rank")
    comm.barrier()


def ignore_signals(stubborn: int) -> None:
    """The launcher gets a SIGTERM; the stubborn process does not stop, the others do."""
    comm.init_process_group(CPU)
    with StopRequest() as stop:
        comm.barrier()
        if comm.rank() == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        while not stop.signal or comm.rank() == stubborn:
            signal.pause()
        raise Interrupted(stop.signal)


def fail_while_stopping(how: str) -> None:
    """The launcher gets a SIGTERM; then process 1 fails in its own way, and process 0 waits for it
    until it is gone.
    """
    comm.init_process_group(CPU)
    with StopRequest() as stop:
        comm.barrier()
        if comm.rank() == 0:
            os.kill(os.getppid(), signal.SIGTERM)
        while not stop.signal:
            signal.pause()
        if comm.rank() == 1 and how == "known":
            raise WriteError("a.pth.tar: could not be written (No space left on device)")
        if comm.rank() == 1:
            raise ZeroDivisionError("the failing rank") if how == "raise" else Interrupted(15)
        comm.barrier()


def fail_once(folder: Path) -> int:
    """The process dies at its first start; returns the number of starts."""
    starts = folder / "starts"
    with starts.open("a") as file:
        file.write("x")
    if len(starts.read_text()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(starts.read_text())


def waiting_time(minutes: float) -> float:
    """Minutes that a process waits for another one."""
    comm.init_process_group(CPU, minutes=minutes)
    options = torch.distributed.distributed_c10d._get_default_group()._get_backend(CPU).options
    return options._timeout.total_seconds() / 60
