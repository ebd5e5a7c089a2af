"""Training: the loop over epochs, steps and validations."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from swahr.codec.tile_bounds import NonFiniteError
from swahr.data.images import first_reasons
from swahr.data.loaders import Batch, EpochSampler
from swahr.distributed import comm
from swahr.distributed.signals import Interrupted, StopRequest
from swahr.engine import checkpoint
from swahr.engine.checkpoint import CheckpointWriter, Progress, RunIdentity
from swahr.engine.hooks import Hook, Stats
from swahr.engine.progress import (
    VALIDATION,
    EpochBar,
    Meter,
    PanelWriter,
    StepReport,
    TensorBoard,
    add_to_sums,
    means_of_sums,
    peak_gpu_memory,
)
from swahr.engine.results_file import ResultsFile
from swahr.engine.schedule import TrainingError
from swahr.engine.step_monitor import MAX_NAMED_IMAGES, SAVE, StepMonitor
from swahr.engine.train_step import TrainStep
from swahr.models.weights import published_state

logger = logging.getLogger("swahr")


class Trainer:
    """Trains a network from where its progress is to the last epoch.

    model: bare, without wrappers, on its device. train_step: updates its weights. loader: batches
    of this process. sampler: chooses the loader's epoch. schedule: step -> learning rate. validate:
    network -> figures by name, called on all processes; None trains without validation. monitor,
    stop: skipped steps, and signals. board: TensorBoard. panels: images of training, or None.
    progress: where to start. hooks: by name, in the order in which they are called. identity: what
    checkpoints say of the run. results: the table with a line for each epoch. folder: of
    checkpoints and weights. end_epoch: epochs in all.
    val_interval: epochs between two validations, 0 for only after the last. print_freq: steps
    between two reports. checkpoint_minutes: between two checkpoints within an epoch, 0 for only at
    its end. accumulation: batches of a step, of each process.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        train_step: TrainStep,
        loader: Iterable[Batch],
        sampler: EpochSampler,
        schedule: Callable[[int], float],
        validate: Callable[[nn.Module], Stats] | None,
        monitor: StepMonitor,
        stop: StopRequest,
        board: TensorBoard,
        progress: Progress,
        hooks: Mapping[str, Hook],
        identity: RunIdentity,
        results: ResultsFile,
        folder: Path,
        end_epoch: int,
        val_interval: int = 0,
        print_freq: int = 20,
        checkpoint_minutes: float = 0.0,
        accumulation: int = 1,
        panels: PanelWriter | None = None,
    ) -> None:
        self.model = model
        self.train_step = train_step
        self.loader = loader
        self.sampler = sampler
        self.schedule = schedule
        self.validate = validate
        self.monitor = monitor
        self.stop = stop
        self.board = board
        self.progress = progress
        self.hooks = dict(hooks)
        self.identity = identity
        self.results = results
        self.folder = folder
        self.end_epoch = end_epoch
        self.val_interval = val_interval
        self.print_freq = print_freq
        self.checkpoint_minutes = checkpoint_minutes
        self.accumulation = accumulation
        self.panels = panels
        self.steps_per_epoch = len(sampler) // accumulation
        # Only where a GPU computes, the processor has time to write meanwhile.
        self.writer = CheckpointWriter(in_background=self.device.type == "cuda")
        self.meter = Meter()  # of the steps since the last report
        self.replaced: dict[int, str] = {}  # images of this epoch that could not be used, and why
        self.stopped = False  # by a hook
        self._saved_at = time.monotonic()  # time of the last checkpoint
        if validate is None:
            progress.to_validate = False

    @property
    def device(self) -> torch.device:
        return self.train_step.device

    @property
    def step(self) -> int:
        """Index of the next step, counted from 0 over the whole run."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.step

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is validated and kept: `model`, unless a hook has another one."""
        model = self.model
        for hook in self.hooks.values():
            model = hook.evaluated_model(model)
        return model

    def train(self) -> None:
        """Train and validate until the last epoch, or until a hook ends training.

        Raises Interrupted after a signal, NonFiniteLossError, and what validate raises.
        """
        with shared_with_workers(), self.writer:
            self.ask_hooks_to_stop()
            while not self.is_done():
                if self.progress.to_validate:
                    self.run_validation()
                else:
                    self.train_one_epoch()

    def is_done(self) -> bool:
        if self.progress.to_validate:
            return False
        return self.stopped or self.progress.epoch >= self.end_epoch

    def ask_hooks_to_stop(self) -> None:
        """Set `stopped` if a hook of any process ends training.

        Asked where the answer can still lead to a validation: a hook that reads the clock could
        give another one after the checkpoint.
        """
        stopped = self.stopped or any(hook.should_stop() for hook in self.hooks.values())
        self.stopped = any(comm.all_gather(stopped))

    def train_one_epoch(self) -> None:
        """Train from the current step to the end of the epoch, and write a checkpoint.

        A checkpoint is also written when a signal stops the epoch, and every checkpoint_minutes.
        """
        progress = self.progress
        self.meter.restart()
        self.sampler.set_epoch(progress.epoch, progress.step * self.accumulation)
        title = f"epoch {progress.epoch + 1}/{self.end_epoch}"
        with EpochBar(title, self.steps_per_epoch, progress.step) as bar:
            for batches in self.meter.timed(grouped(self.loader, self.accumulation)):
                step = self.step
                lr = self.schedule(step)
                batches = [batch.to(self.device, non_blocking=True) for batch in batches]
                sample_size = self.panels.sample_size(step, progress.epoch) if self.panels else 0
                result = self.train_step(
                    batches, lr, sample_size=sample_size, after_backward=self._after_backward()
                )
                self._call_hooks(lambda hook: hook.after_step(self))
                self.monitor.check(
                    step,
                    result.bad,
                    self.stop.signal or (SAVE if self.is_checkpoint_due() else 0),
                    batches,
                    result.losses,
                    last=progress.step + 1 == self.steps_per_epoch,
                )
                self.meter.add(result.losses, result.bad, result.gradient_norm)
                for batch in batches:
                    self.replaced.update(batch.replaced)
                progress.step += 1
                bar.advance()
                if progress.step % self.print_freq == 0 or progress.step == self.steps_per_epoch:
                    self.report(bar, lr)
                if self.panels and result.sample is not None:
                    self.panels.draw(result.sample, self.step, progress.epoch)
                if self.monitor.stop_signal:
                    self.save_and_stop()
                if self.monitor.save_requested:
                    self.save()
        self._name_replaced_images()
        self._write_results()
        progress.epoch += 1
        progress.step = 0
        progress.to_validate = self.validation_is_due()
        self._call_hooks(lambda hook: hook.after_epoch(self))
        self.ask_hooks_to_stop()
        # Again, as the hooks may end training with this epoch, which is then the last one.
        progress.to_validate = progress.to_validate or self.validation_is_due()
        self.save()
        if self.monitor.stop_signal:  # of the last step, which on a GPU is known only now
            self.save_and_stop()

    def validation_is_due(self) -> bool:
        """Whether the epoch that just ended is followed by a validation."""
        if self.validate is None:
            return False
        epoch = self.progress.epoch
        due = self.val_interval > 0 and epoch % self.val_interval == 0
        return due or self.stopped or epoch >= self.end_epoch

    def run_validation(self) -> None:
        """Validate the weights, call the hooks with the figures, and write a checkpoint.

        Raises TrainingError where the network's maps have non-finite values.
        """
        assert self.validate is not None, "a validation is due, but there is none"
        model = self.evaluated_model
        # Running statistics differ between processes, as each has trained on images of its own.
        comm.broadcast_buffers(self.model)
        if model is not self.model:
            comm.broadcast_buffers(model)
        with self.stop.at_once():
            try:
                stats = self.validate(model)
            except NonFiniteError as error:
                raise TrainingError(
                    f"epoch {self.progress.epoch}: {error}; begin anew (AUTO_RESUME False) with a "
                    "lower TRAIN.LR, or with TRAIN.CLIP_NORM"
                ) from None
        self._call_hooks(lambda hook: hook.after_validation(self, stats))
        self.ask_hooks_to_stop()
        figures = {f"{VALIDATION}{name}": value for name, value in stats.items()}
        self.board.scalars(figures, self.step)
        self.results.add_figures(self.progress.epoch, stats)
        self.progress.to_validate = False
        self.save()

    def report(self, bar: EpochBar, lr: float) -> None:
        """Losses, learning rate, speed and time left, to the bar or the log, and to TensorBoard.

        All processes together.
        """
        means = self.meter.read()
        add_to_sums(self.progress.epoch_sums, means, self.progress.step_images)
        steps_per_second = means.steps / means.seconds
        steps_left = self.end_epoch * self.steps_per_epoch - self.step
        report = StepReport(
            losses=means.losses,
            learning_rate=lr,
            gradient_norm=means.gradient_norm,
            images_per_second=steps_per_second * self.progress.step_images,
            data_wait=means.waited / means.seconds,
            gpu_memory=peak_gpu_memory(self.device),
            seconds_left=steps_left / steps_per_second,
        )
        bar.tell(report)
        values = {f"train/{name}": value for name, value in report.figures().items()}
        values["train/skipped_steps"] = self.monitor.bad_steps
        self.board.scalars(values, self.step)
        if self.monitor.consecutive:
            logger.warning(
                "the loss or its gradient was non-finite: %d steps skipped so far, "
                "the last %d consecutive",
                self.monitor.bad_steps,
                self.monitor.consecutive,
            )

    def save(self) -> None:
        """Write a checkpoint, on the main process; all processes together."""
        self.monitor.flush()
        self.monitor.save_requested = False
        now = time.monotonic()
        self.progress.seconds += now - self._saved_at
        self._saved_at = now
        self.progress.bad_steps = self.monitor.bad_steps
        saved = replace(self.progress, epoch_sums=self._sums_of_epoch())
        if comm.is_main():
            content = checkpoint.checkpoint_content(
                self.identity,
                published_state(self.model),
                self.train_step.optimizer.state_dict(),
                self.train_step.scaler.state_dict(),
                saved,
                {name: hook.state_dict() for name, hook in self.hooks.items()},
            )
            newest = self.folder / checkpoint.NEWEST
            self.writer.write(content, newest, previous=self.folder / checkpoint.PREVIOUS)

    def _sums_of_epoch(self) -> dict[str, float]:
        """Sums over all steps of this epoch, those since the last report included."""
        sums = dict(self.progress.epoch_sums)
        if self.meter.steps:
            add_to_sums(sums, self.meter.means(), self.progress.step_images)
        return sums

    def is_checkpoint_due(self) -> bool:
        """Whether the last checkpoint is checkpoint_minutes old, by the clock of this process."""
        minutes = self.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes

    def save_and_stop(self) -> None:
        """Write a checkpoint and raise Interrupted, on all processes together."""
        self._name_replaced_images()
        self.save()
        self.writer.wait()
        comm.barrier()  # a process that left early would end the one that writes
        raise Interrupted(
            self.monitor.stop_signal,
            f" in epoch {self.progress.epoch + 1} after step {self.progress.step}; the same "
            f"command with AUTO_RESUME True resumes from {self.folder / checkpoint.NEWEST}",
        )

    def _write_results(self) -> None:
        """Write the line of the epoch whose last step is done."""
        progress = self.progress
        losses, others = means_of_sums(progress.epoch_sums)
        self.results.add_epoch(
            progress.epoch + 1,
            {
                "steps": self.step,
                "loss": losses.pop("total"),
                **losses,
                "learning_rate": self.schedule(self.step - 1),
                **others,
            },
        )
        progress.epoch_sums = {}

    def finish(self) -> None:
        """Write the final weights and print a summary, on the main process."""
        if not comm.is_main():
            return
        checkpoint.write_whole(
            published_state(self.evaluated_model), self.folder / checkpoint.FINAL
        )
        best = self.folder / checkpoint.BEST
        best_perf = self.progress.best_perf
        rows = {
            "epochs": self.progress.epoch,
            "time": timedelta(seconds=round(self.progress.seconds)),
            "skipped steps": self.progress.bad_steps,
            "best figure": "unknown" if best_perf is None else f"{best_perf:.4f}",
            "best weights": best if best.exists() else "none",
            "final weights": self.folder / checkpoint.FINAL,
            "checkpoint": self.folder / checkpoint.NEWEST,
            "results": self.results.path,
            "TensorBoard": self.board.folder,
        }
        width = max(map(len, rows))
        print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()), flush=True)

    def _after_backward(self) -> Callable[[], None] | None:
        """What the hooks do with gradients; None if they do nothing, which makes steps cheaper."""
        if not gradient_hooks(self.hooks):
            return None
        return lambda: self._call_hooks(lambda hook: hook.after_backward(self))

    def _name_replaced_images(self) -> None:
        """Log why images of all processes could not be used since this was last called."""
        of_all_ranks = comm.all_gather(self.replaced)
        self.replaced = {}
        reasons = {key: part[key] for part in of_all_ranks for key in part}
        if reasons:
            logger.warning(
                "images that could not be used and were replaced by others: %d", len(reasons)
            )
        for line in first_reasons(dict(sorted(reasons.items())), MAX_NAMED_IMAGES):
            logger.warning("replaced: %s", line)

    def _call_hooks(self, call: Callable[[Hook], None]) -> None:
        for hook in self.hooks.values():
            call(hook)


@contextmanager
def shared_with_workers() -> Iterator[None]:
    """Keep the garbage collector away from all present objects while the block runs.

    It writes into every object that it visits, and memory that is written to is no longer shared
    with the loading workers. What the caller has frozen stays so.
    """
    is_frozen = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not is_frozen:
            gc.unfreeze()


def grouped(loader: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches, `size` at a time."""
    batches: list[Batch] = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == size:
            yield batches
            batches = []


def gradient_hooks(hooks: Mapping[str, Hook]) -> list[str]:
    """The names of the hooks that do something with gradients."""
    return [
        name for name, hook in hooks.items() if type(hook).after_backward is not Hook.after_backward
    ]
