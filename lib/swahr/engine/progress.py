"""What a run reports: log lines, a progress bar on a terminal, TensorBoard."""

from __future__ import annotations

import logging
import math
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from torch import Tensor
from tqdm import tqdm

from swahr import visualize
from swahr.distributed import comm
from swahr.files import make_folder

if TYPE_CHECKING:
    from swahr.engine.train_step import Sample

logger = logging.getLogger("swahr")


class _AboveBar(logging.Handler):
    """Writes log lines above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def setup_logging(file: Path | None = None) -> None:
    """The main process logs to stderr and appends to the file; the others log errors only."""
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.DEBUG if comm.is_main() else logging.ERROR)
    console = _AboveBar(logging.INFO)
    console.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(console)
    if file is not None and comm.is_main():
        make_folder(file.parent)
        handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        # On a full disk the lines still go to stderr.
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        logger.addHandler(handler)


class TensorBoard:
    """A TensorBoard log, written at once by the calling thread.

    tensorboardX's own writer uses a thread; a full disk ends that thread, and then the program
    waits for it forever. Here a file that cannot be written ends the log with one line, and
    training continues. folder: None writes nothing (processes other than the main one).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._writer: EventsWriter | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._writer = EventsWriter(str(folder / "events"))
            except OSError as error:
                self._give_up(error)

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

    def image(self, name: str, image: NDArray[np.uint8], step: int) -> None:
        """image: (H, W, 3) uint8 RGB."""
        # Encoded here, as tensorboardX needs Pillow for it, which nothing else does.
        content = Summary.Image(
            height=image.shape[0],
            width=image.shape[1],
            colorspace=3,
            encoded_image_string=visualize.encode(image, ".png"),
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
    board.image("train/panel", panel, step)
    try:
        visualize.save_image(path, panel)
    except OSError as error:
        logger.error("%s", error)


class Meter:
    """Means of the losses since they were last read, and the speed.

    Only `read` waits for the GPU.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._steps = 0
        self._start = time.perf_counter()

    def add(self, losses: dict[str, Tensor], bad: Tensor) -> None:
        """Add a step. losses: scalars by name, the same names each time. bad: a skipped step, which
        does not count.
        """
        values = torch.stack([*losses.values(), torch.ones_like(bad, dtype=torch.float32)])
        values = torch.where(bad, 0.0, values)
        self._names = [*losses, "counted"]
        self._sum = values if self._sum is None else self._sum + values
        self._steps += 1

    def read(self) -> tuple[dict[str, float], float]:
        """Mean losses, with their sum as `total`, and steps a second; all processes together."""
        assert self._sum is not None, "read before add"
        sums = comm.reduce_mean(dict(zip(self._names, self._sum, strict=True)))
        *values, counted = torch.stack(list(sums.values())).tolist()
        means = {
            name: value / counted if counted else float("nan") for name, value in zip(sums, values)
        }
        speed = self._steps / max(time.perf_counter() - self._start, 1e-9)
        self.restart()
        return {"total": sum(means.values()), **means}, speed


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
        self._done += 1
        self._bar.update()

    def tell(
        self, losses: dict[str, float], rate: float, images_per_second: float, seconds_left: float
    ) -> None:
        """Report a mean of steps. losses: by name, with `total`. rate: the learning rate."""
        left = timedelta(seconds=round(seconds_left))
        self._bar.set_postfix_str(
            f"loss {losses['total']:.3e}, {images_per_second:.1f} images/s, {left} left"
        )
        parts = " ".join(f"{name} {value:.2e}" for name, value in losses.items() if name != "total")
        logger.log(
            self._level,
            "%s, step %d/%d: loss %.3e (%s), lr %.3e, %.1f images/s, %s left",
            self._title,
            self._done,
            self._steps,
            losses["total"],
            parts,
            rate,
            images_per_second,
            left,
        )
