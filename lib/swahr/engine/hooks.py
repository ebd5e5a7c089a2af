"""What training does besides its steps, as hooks of the Trainer: averaged weights, clipping, best
weights, early stopping, and hooks of yours.

A module of yours adds a hook, which TRAIN.HOOKS then names:

    from swahr.engine.hooks import HOOKS, Hook

    class GradientNorm(Hook):
        def after_step(self, trainer):
            ...

    HOOKS["gradient_norm"] = lambda cfg, model: GradientNorm()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from swahr.distributed import comm
from swahr.distributed.free_cores import (
    CPUTimes,
    busy_with_others,
    can_read_times,
    count_cores,
    free_threads,
    read_times,
)
from swahr.engine import checkpoint
from swahr.engine.provenance import describe_test_of_split, sha256
from swahr.engine.results_file import as_text
from swahr.engine.run_plots import draw_curves
from swahr.engine.schedule import TrainingError
from swahr.evaluation.figures import is_defined
from swahr.evaluation.scores import is_better
from swahr.models.weights import CheckpointError, load_state, published_state
from swahr.parts import choose
from swahr.words import counted

if TYPE_CHECKING:
    from swahr.engine.trainer import Trainer

logger = logging.getLogger("swahr")

LIKE_A_METHOD = 0.85  # from this likeness to a hook's method, of 0 to 1, another one is a slip
SHARE_INTERVAL = 5.0  # seconds after which ShareCPU looks again

Stats = dict[str, float]  # figures of a validation by name; the same on every process


class Hook:
    """Called by the Trainer, on all processes alike; each method does nothing by default."""

    def after_backward(self, trainer: Trainer) -> None:
        """Gradients are complete, multiplied by the loss scale; the optimiser's step is next.

        In a step that will be skipped, every gradient is NaN.
        """

    def after_step(self, trainer: Trainer) -> None:
        """The weights are updated."""

    def after_epoch(self, trainer: Trainer) -> None:
        """trainer.progress.epoch epochs are done; validation and checkpoint come next."""

    def after_validation(self, trainer: Trainer, stats: Stats) -> None:
        """stats: the figures; a hook may add its own."""

    def evaluated_model(self, model: nn.Module) -> nn.Module:
        """The network that is validated and kept in place of `model`, the trained one."""
        return model

    def should_stop(self) -> bool:
        """Whether training ends before TRAIN.END_EPOCH.

        Asked when training starts, after after_epoch and after each validation. A yes of any
        process is final. The last epoch is validated.
        """
        return False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain data and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict gave; {} if the checkpoint was written without this hook."""


class EMA(Hook):
    """Exponential moving average of weights and running statistics.

    average = decay x average + (1 - decay) x weights after each step, starting with the weights
    after the first one. The average is what is validated and kept.

    model: the bare network that is trained. decay: above 0 and below 1, else ValueError.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay is {decay}; it must be above 0 and below 1")
        self.average = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )
        self._begun = False

    def after_step(self, trainer: Trainer) -> None:
        self.average.update_parameters(trainer.model)
        self._begun = True

    def evaluated_model(self, model: nn.Module) -> nn.Module:
        return self.average.module if self._begun else model

    def state_dict(self) -> dict[str, Any]:
        if not self._begun:
            return {}
        return {
            "steps": int(self.average.n_averaged),
            "state_dict": published_state(self.average.module),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state:
            load_state(self.average.module, state["state_dict"], "the checkpoint's average")
            self.average.n_averaged.fill_(state["steps"])
            self._begun = True


class ClipNorm(Hook):
    """Limits the norm of the gradient of all parameters.

    max_norm: above 0, of the gradient without the loss scale. ValueError if it is not.
    """

    def __init__(self, max_norm: float) -> None:
        if max_norm <= 0:
            raise ValueError(f"max_norm is {max_norm}; it must be above 0")
        self.max_norm = max_norm

    def after_backward(self, trainer: Trainer) -> None:
        step = trainer.train_step
        step.scaler.unscale(step.optimizer)
        nn.utils.clip_grad_norm_(step.parameters, self.max_norm)


class BestWeights(Hook):
    """Keeps the weights whose figure is the best in model_best.pth.tar; the newer of equal ones.

    A validation without figures (a set without annotations), or with an undefined one, counts as
    best as long as no figure was defined. metric: name of the figure. test: what is validated and
    how, in words. The checkpoint keeps the figures of the best and of the last validation, each
    with its epoch and test, and the SHA-256 of the best weights' file.
    """

    def __init__(self, metric: str, test: str = "") -> None:
        self.metric = metric
        self.test = test
        self.validations: dict[str, dict[str, Any]] = {}

    def after_validation(self, trainer: Trainer, stats: Stats) -> None:
        progress = trainer.progress
        progress.perf = read_metric(stats, self.metric)
        is_best = is_defined(progress.perf) or not is_defined(progress.best_perf)
        if is_defined(progress.perf) and is_defined(progress.best_perf):
            is_best = not is_better(self.metric, progress.best_perf, progress.perf)  # type: ignore[arg-type]
        self.validations["last"] = {
            "epoch": progress.epoch,
            "figures": {name: float(value) for name, value in stats.items()},
            "test": self.test,
        }
        if is_best:
            self.validations["best"] = dict(self.validations["last"])
            progress.best_perf = progress.perf
            if comm.is_main():
                path = trainer.folder / checkpoint.BEST
                checkpoint.write_whole(published_state(trainer.evaluated_model), path)
                self.validations["best"]["sha256"] = sha256(path)
        if progress.perf is not None:
            logger.info(
                "epoch %d: %s %.4f%s",
                progress.epoch,
                self.metric,
                progress.perf,
                ", the best so far" if is_best else "",
            )

    def state_dict(self) -> dict[str, Any]:
        return dict(self.validations)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.validations = dict(state)


class EarlyStopping(Hook):
    """Ends training after `patience` consecutive validations without a better figure.

    metric: name of the figure. Undefined figures do not count. Raises ValueError for a patience
    below 1.
    """

    def __init__(self, metric: str, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience is {patience}; it must be at least 1")
        self.metric = metric
        self.patience = patience
        self.best: float | None = None
        self.validations_since_best = 0

    def after_validation(self, trainer: Trainer, stats: Stats) -> None:
        value = read_metric(stats, self.metric)
        if value is None or not is_defined(value):
            return
        if self.best is None or is_better(self.metric, value, self.best):
            self.best = value
            self.validations_since_best = 0
        else:
            self.validations_since_best += 1
        if self.should_stop():
            logger.info(
                "no better %s in %s: training stops",
                self.metric,
                counted(self.validations_since_best, "validation"),
            )

    def should_stop(self) -> bool:
        return self.validations_since_best >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "validations_since_best": self.validations_since_best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = state.get("best")
        self.validations_since_best = int(state.get("validations_since_best", 0))


class Curves(Hook):
    """Draws losses, figures and learning rate of all epochs so far into curves.png.

    What goes wrong costs a line of the log, once.
    """

    def __init__(self) -> None:
        self._failed = False

    def after_validation(self, trainer: Trainer, stats: Stats) -> None:
        if self._failed or not comm.is_main():
            return
        rows = trainer.results.rows()
        epoch = trainer.progress.epoch
        rows[epoch] = rows.get(epoch, {}) | as_text(stats)
        path = trainer.folder / checkpoint.CURVES
        try:
            draw_curves(path, rows, list(stats))
        except ImportError:
            self._failed = True
            logger.info("no %s: it needs matplotlib: pip install 'swahr[report]'", path.name)
        except Exception as error:  # a drawing must not end a run, whatever is wrong with it
            self._failed = True
            logger.warning("no %s: %s", path.name, " ".join(str(error).split()))


class ShareCPU(Hook):
    """Trains with as many threads as there are free cores, on a CPU that other programs use too.

    The number of threads changes how some sums are rounded, so that a run with this hook cannot be
    repeated to the bit. read: gives the times of the cores.
    """

    def __init__(self, read: Callable[[], CPUTimes] = read_times) -> None:
        self._read = read
        self._most = torch.get_num_threads()
        self._before = read()

    def after_step(self, trainer: Trainer) -> None:
        if time.monotonic() - self._before.clock >= SHARE_INTERVAL:
            self.choose_threads()

    def choose_threads(self) -> None:
        """Set the number of PyTorch's threads by what happened since the last call."""
        now = self._read()
        others = busy_with_others(self._before, now)
        self._before = now
        threads = min(free_threads(count_cores(), others), self._most)
        if threads != torch.get_num_threads():
            logger.info(
                "other programs keep %.1f cores busy: training continues with %d of %d threads",
                others,
                threads,
                self._most,
            )
            torch.set_num_threads(threads)


def read_metric(stats: Stats, metric: str) -> float | None:
    """The figure; None if validation gave none at all. TrainingError names those it gave."""
    if not stats:
        return None
    if metric not in stats:
        raise TrainingError(f"TRAIN.BEST_METRIC is {metric!r}; validation gives {', '.join(stats)}")
    return float(stats[metric])


def build_ema(cfg: Any, model: nn.Module) -> Hook | None:
    """TRAIN.EMA; 0 is off."""
    return EMA(model, cfg.TRAIN.EMA) if cfg.TRAIN.EMA else None


def build_clip_norm(cfg: Any, model: nn.Module) -> Hook | None:
    """TRAIN.CLIP_NORM; 0 is off."""
    return ClipNorm(cfg.TRAIN.CLIP_NORM) if cfg.TRAIN.CLIP_NORM else None


def build_best_weights(cfg: Any, model: nn.Module) -> Hook | None:
    """The hook that keeps the best weights by TRAIN.BEST_METRIC; always on."""
    return BestWeights(cfg.TRAIN.BEST_METRIC, describe_test_of_split(cfg))


def build_early_stopping(cfg: Any, model: nn.Module) -> Hook | None:
    """TRAIN.PATIENCE; 0 is off."""
    patience = cfg.TRAIN.PATIENCE
    return EarlyStopping(cfg.TRAIN.BEST_METRIC, patience) if patience else None


def build_curves(cfg: Any, model: nn.Module) -> Hook | None:
    """The hook that draws curves.png, if TRAIN.PLOTS."""
    return Curves() if cfg.TRAIN.PLOTS else None


def build_share_cpu(cfg: Any, model: nn.Module) -> Hook | None:
    """Nothing on a GPU, and where several processes share the cores already."""
    if next(model.parameters()).device.type != "cpu" or comm.local_world_size() > 1:
        return None
    if not can_read_times():
        logger.info("share_cpu of TRAIN.HOOKS does nothing: only Linux tells the times of cores")
        return None
    return ShareCPU()


# Name -> function(cfg, model) -> Hook, or None if the settings switch it off. model: bare, on its
# device, with the weights that a fresh start begins with (MODEL.PRETRAINED).
HOOKS: dict[str, Callable[[Any, nn.Module], Hook | None]] = {
    "ema": build_ema,
    "clip_norm": build_clip_norm,
    "best_weights": build_best_weights,
    "early_stopping": build_early_stopping,
    "curves": build_curves,
    "share_cpu": build_share_cpu,
}
FIRST = ("ema", "clip_norm")  # hooks of the settings that change gradients and weights
KEEP_BEST = ("best_weights", "early_stopping")  # these compare figures with earlier ones
LAST = (*KEEP_BEST, "curves")  # these read figures that other hooks may add


def build_hooks(cfg: Any, model: nn.Module) -> dict[str, Hook]:
    """Hooks by name, in the order in which they are called: those of the settings TRAIN.EMA and
    TRAIN.CLIP_NORM, then those that TRAIN.HOOKS names, then those that read figures.
    """
    named = [name for name in cfg.TRAIN.HOOKS if name and name not in FIRST + LAST]
    hooks = {}
    for name in [*FIRST, *named, *LAST]:
        hook = choose(HOOKS, name, "TRAIN.HOOKS")(cfg, model)
        if hook is not None:
            _check_hook(name, hook)
            hooks[name] = hook
    return hooks


def _check_hook(name: str, hook: Any) -> None:
    """Raise TrainingError for what is no Hook, and for a state that no checkpoint can hold. Name
    methods that look like slips, as nothing calls them.
    """
    if not isinstance(hook, Hook):
        raise TrainingError(
            f"TRAIN.HOOKS: {name} gives a {type(hook).__name__}, not a swahr.engine.hooks.Hook"
        )
    known = [method for method in dir(Hook) if not method.startswith("_")]
    for method in sorted(set(dir(hook)) - set(dir(Hook))):
        for meant in get_close_matches(method, known, 1, LIKE_A_METHOD):
            logger.warning(
                "TRAIN.HOOKS: %s has a method %s, which nothing calls; is %s meant?",
                name,
                method,
                meant,
            )
    try:
        checkpoint.plain_copy({name: hook.state_dict()})
    except CheckpointError as error:
        raise TrainingError(f"TRAIN.HOOKS: the state of {error}") from None
