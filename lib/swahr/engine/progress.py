"""What a run reports: log lines, a progress bar on a terminal, TensorBoard."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from torch import Tensor
from tqdm import tqdm

from swahr import visualize
from swahr.distributed import comm
from swahr.files import make_folder, naming, write_bytes

if TYPE_CHECKING:
    from swahr.engine.train_step import Sample

logger = logging.getLogger("swahr")
T = TypeVar("T")
VALIDATION = "validation/"  # what the names of figures of validation begin with in TensorBoard


class _AboveBar(logging.Handler):
    """Writes log lines above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def setup_logging(file: Path | None = None) -> None:
    """The main process logs to stderr and appends to the file; the others log errors only.

    Raises WriteError for a file that cannot be opened.
    """
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.DEBUG if comm.is_main() else logging.ERROR)
    console = _AboveBar(logging.INFO)
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(console)
    if file is not None and comm.is_main():
        make_folder(file.parent)
        with naming(file):
            handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        # On a full disk the lines still go to stderr.
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        logger.addHandler(handler)


class TensorBoard:
    """A TensorBoard log, written at once by the calling thread.

    tensorboardX's own writer uses a thread; a full disk ends that thread, and then the program
    waits for it forever. Here a file that cannot be written ends the log with one line, and
    training continues. A resumed run adds a file to its folder. folder: None writes nothing
    (processes other than the main one).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._writer: EventsWriter | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                # Two starts in one second would otherwise write to one file.
                number = len(list(folder.glob("events.*")))
                self._writer = EventsWriter(str(folder / "events"), f".{number:04}")
            except OSError as error:
                self._give_up(error)

    def drop_after(self, step: int, before_validation: bool) -> None:
        """Remove what earlier starts wrote about steps that will be done again.

        step: steps that are done. before_validation: the validation after them is not.
        """
        if self._writer is None or self.folder is None:
            return

        def is_done(event: Event) -> bool:
            if before_validation and event.step == step:
                return not any(value.tag.startswith(VALIDATION) for value in event.summary.value)
            return event.step <= step

        try:
            for file in self.folder.glob("events.*"):
                data = file.read_bytes()
                kept = b"".join(record for record, event in read_records(data) if is_done(event))
                if kept != data:
                    write_bytes(file, kept)
        except OSError as error:
            logger.error(
                "%s: earlier steps are in the TensorBoard log twice (%s)", self.folder, error
            )

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Numbers by name; non-finite ones (every step was skipped) are not written."""
        finite = {name: number for name, number in values.items() if math.isfinite(number)}
        self._write(
            [
                value
                for name, number in finite.items()
                for value in summary.scalar(name, number).value
            ],
            step,
        )

    def image(self, name: str, encoded: bytes, size: tuple[int, int], step: int) -> None:
        """encoded: contents of an image file. size: height and width, px."""
        # Not encoded by tensorboardX, as it needs Pillow for it, which nothing else does. Its
        # checksum is slow (0.2 s for a megabyte): JPEG has a third of the bytes of PNG.
        height, width = size
        content = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded
        )
        self._write([Summary.Value(tag=name, image=content)], step)

    def _write(self, values: list[Summary.Value], step: int) -> None:
        if self._writer is not None:
            try:
                self._writer.write_event(
                    Event(wall_time=time.time(), step=step, summary=Summary(value=values))
                )
                self._writer.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        logger.error(
            "%s: the TensorBoard log cannot be written (%s); training continues without it",
            self.folder,
            error.strerror or error,
        )


def read_records(data: bytes) -> Iterator[tuple[bytes, Event]]:
    """The records of an event file, each with its event, up to the first incomplete one.

    A record: length of the event (8 bytes), its checksum (4), the event, its checksum (4).
    """
    start = 0
    while start + 12 <= len(data):
        end = start + 16 + int.from_bytes(data[start : start + 8], "little")
        if end > len(data):
            return
        try:
            event = Event.FromString(data[start + 12 : end - 4])
        except DecodeError:
            return
        yield data[start:end], event
        start = end


class PanelWriter:
    """Panels of training images with their maps, once an epoch at most, by the main process.

    folder: gets epoch_001.jpg and so on. board: gets the panels too. print_freq: steps between two
    occasions for a panel. scales, tags: whether these maps are drawn. images: of a panel.
    """

    def __init__(
        self,
        folder: Path,
        board: TensorBoard,
        *,
        print_freq: int,
        scales: bool = True,
        tags: bool = True,
        images: int = 4,
    ) -> None:
        self.folder = folder
        self.board = board
        self.print_freq = print_freq
        self.scales = scales
        self.tags = tags
        self.images = images
        self._drawn_epoch = -1

    def sample_size(self, step: int, epoch: int) -> int:
        """How many images of the step are drawn; 0 if no panel is due."""
        is_due = (step + 1) % self.print_freq == 0 and self._drawn_epoch != epoch
        return self.images if is_due and comm.is_main() else 0

    def draw(self, sample: Sample, step: int, epoch: int) -> None:
        """Draw the sample of a step."""
        self._drawn_epoch = epoch
        path = self.folder / f"epoch_{epoch + 1:03}.jpg"
        save_panel(path, self.board, sample, step, scales=self.scales, tags=self.tags)


def save_panel(
    path: Path, board: TensorBoard, sample: Sample, step: int, *, scales: bool, tags: bool
) -> None:
    """Draw a sample's input, target, heatmap, scale and tag maps, to a file and to TensorBoard.

    Maps are those of the highest resolution, tags those of the first stage that has any. scales,
    tags: whether these maps are drawn, if there are any.
    """

    def maps(values: Tensor | None, wanted: bool = True) -> NDArray[np.float32] | None:
        return values.float().cpu().numpy() if wanted and values is not None else None

    output = sample.outputs[-1]
    tag = next((stage.tags for stage in sample.outputs if stage.tags is not None), None)
    panel = visualize.panel(
        sample.images.cpu().numpy(),
        sample.targets[-1].heatmaps.cpu().numpy(),
        output.heatmaps.float().cpu().numpy(),
        maps(output.scales, scales),
        maps(tag, tags),
    )
    encoded = visualize.encode(panel, path.suffix)
    board.image("train/panel", encoded, panel.shape[:2], step)
    try:
        write_bytes(path, encoded, durable=False)
    except OSError as error:
        logger.error("%s", error)


class Means(NamedTuple):
    """What a Meter gives.

    losses: means by name, with their sum as `total`. gradient_norm: mean. steps: how many there
    were. counted: those that were not skipped. seconds: of all. waited: seconds of waiting for
    data, the mean over the processes.
    """

    losses: dict[str, float]
    gradient_norm: float
    steps: int
    counted: float
    seconds: float
    waited: float


class Meter:
    """Means of losses and gradient norms since they were last read, and times.

    Sums are in float64: an epoch's means do not depend on when they were read. Only `read` and
    `means` wait for the GPU. steps: added since then.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self.steps = 0
        self._waited = 0.0
        self._start = time.perf_counter()

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches; the time until each is there counts as waiting for data."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - start
            yield batch

    def add(self, losses: dict[str, Tensor], bad: Tensor, gradient_norm: Tensor) -> None:
        """Add a step. losses: scalars by name, the same names each time. bad: a skipped step, which
        does not count. gradient_norm: scalar.
        """
        one = torch.ones_like(bad, dtype=torch.float32)
        values = torch.stack([*losses.values(), gradient_norm.float(), one])
        values = torch.where(bad, 0.0, values)
        self._names = list(losses)
        self._sum = values.double() if self._sum is None else self._sum + values
        self.steps += 1

    def read(self) -> Means:
        """The means of all processes together; the meter starts anew."""
        means = self.means()
        self.restart()
        return means

    def means(self) -> Means:
        """What `read` gives; the meter goes on."""
        assert self._sum is not None, "read before add"
        names = [*(f"loss {name}" for name in self._names), "gradient norm", "counted"]
        sums = dict(zip(names, self._sum, strict=True))
        sums["waited"] = self._sum.new_tensor(self._waited)
        sums = comm.reduce_mean(sums)
        *values, counted, waited = torch.stack(list(sums.values())).tolist()
        *losses, norm = (value / counted if counted else float("nan") for value in values)
        means = dict(zip(self._names, losses, strict=True))
        seconds = max(time.perf_counter() - self._start, 1e-9)
        return Means(
            {"total": sum(means.values()), **means},
            norm,
            self.steps,
            counted,
            seconds,
            min(waited, seconds),
        )


def add_to_sums(sums: dict[str, float], means: Means, step_images: int) -> None:
    """Add the means of some steps of step_images images to the sums of an epoch, in-place."""
    new = {"images": float(means.steps * step_images), "counted": means.counted}
    new |= {"seconds": means.seconds, "waited": means.waited}
    if means.counted:
        new |= {f"loss {name}": value * means.counted for name, value in means.losses.items()}
        new["gradient norm"] = means.gradient_norm * means.counted
    for name, value in new.items():
        sums[name] = sums.get(name, 0.0) + value


def means_of_sums(sums: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The means of an epoch's steps: losses by name, with `total`, and other figures by name."""
    nothing = float("nan")  # where no step was reported, or all were skipped
    counted = sums.get("counted") or nothing
    seconds = sums.get("seconds") or nothing
    losses = {
        name.removeprefix("loss "): value / counted
        for name, value in sums.items()
        if name.startswith("loss ")
    }
    others = {
        "gradient_norm": sums.get("gradient norm", nothing) / counted,
        "images_per_second": sums.get("images", nothing) / seconds,
        "data_wait": sums.get("waited", nothing) / seconds,
    }
    return losses or {"total": nothing}, others


def peak_gpu_memory(device: torch.device) -> float | None:
    """The most memory that tensors have taken on this process's GPU, GiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


class StepReport(NamedTuple):
    """What is told of the last steps.

    losses: means by name, with `total`. gradient_norm: mean. data_wait: share of the time in which
    the processes waited for the loader, 0 to 1. gpu_memory: GiB, None on the CPU.
    """

    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    images_per_second: float
    data_wait: float
    gpu_memory: float | None
    seconds_left: float

    def figures(self) -> dict[str, float]:
        """All but the time left, by name."""
        figures = {
            **self.losses,
            "learning_rate": self.learning_rate,
            "gradient_norm": self.gradient_norm,
            "images_per_second": self.images_per_second,
            "data_wait": self.data_wait,
        }
        if self.gpu_memory is not None:
            figures["gpu_memory_gib"] = self.gpu_memory
        return figures


class EpochBar:
    """The steps of an epoch: a bar on the main process if stderr is a terminal, else log lines.

    title: of the bar and the lines. steps: of the epoch. done: steps before this start.
    """

    def __init__(self, title: str, steps: int, done: int) -> None:
        shown = comm.is_main() and sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            initial=done,
            desc=title,
            unit="step",
            dynamic_ncols=True,
            disable=not shown,
        )
        self._title = title
        self._steps = steps
        self._done = done
        # If a bar is shown, only the log file gets the lines.
        self._level = logging.DEBUG if shown else logging.INFO

    def __enter__(self) -> EpochBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Count one step."""
        self._done += 1
        self._bar.update()

    def tell(self, report: StepReport) -> None:
        """Report the last steps."""
        left = timedelta(seconds=round(report.seconds_left))
        losses = dict(report.losses)
        total = losses.pop("total")
        speed = f"{report.images_per_second:.1f} images/s"
        self._bar.set_postfix_str(f"loss {total:.3e}, {speed}, {left} left")
        parts = " ".join(f"{name} {value:.2e}" for name, value in losses.items())
        told = [
            f"loss {total:.3e} ({parts})",
            f"lr {report.learning_rate:.3e}",
            f"gradient norm {report.gradient_norm:.2e}",
            speed,
            f"data wait {report.data_wait:.0%}",
        ]
        if report.gpu_memory is not None:
            told.append(f"GPU memory {report.gpu_memory:.1f} GiB")
        told.append(f"{left} left")
        logger.log(
            self._level, "%s, step %d/%d: %s", self._title, self._done, self._steps, ", ".join(told)
        )
