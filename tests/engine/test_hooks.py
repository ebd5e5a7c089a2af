"""Averaged weights, clipping, best weights, early stopping, and hooks and figures of your own."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swahr.config import load_config
from swahr.distributed.free_cores import CPUTimes
from swahr.distributed.signals import Interrupted
from swahr.engine import hooks as hooks_module
from swahr.engine.checkpoint import Progress
from swahr.engine.hooks import EMA, HOOKS, BestWeights, ClipNorm, EarlyStopping, Hook, ShareCPU
from swahr.engine.provenance import sha256
from swahr.engine.schedule import TrainingError
from swahr.engine.train import train
from swahr.engine.train_step import LossScaler, TrainStep
from swahr.evaluation import metrics
from swahr.models.weights import published_state
from swahr.parts import PartError
from tests.engine.distributed_workers import CPU, SmallNet, make_batches, make_train_step
from tests.engine.test_trainer import FOLDER, assert_same, at_step, read

NAN = float("nan")


def trainer_of(train_step: TrainStep | None = None, **parts: Any) -> Any:
    """What hooks read of a trainer."""
    train_step = train_step or make_train_step()
    return SimpleNamespace(train_step=train_step, model=train_step.model, **parts)


def step_with(train_step: TrainStep, hook: Hook) -> Any:
    trainer = trainer_of(train_step)
    [batch] = make_batches(1, 8)
    result = train_step([batch], 0.1, after_backward=lambda: hook.after_backward(trainer))
    hook.after_step(trainer)
    return result


def norm_of_gradient(train_step: TrainStep) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in train_step.parameters]).norm()


@pytest.mark.parametrize("scale", [1.0, 128.0, None])
def test_the_clipped_norm_does_not_depend_on_the_loss_scale(scale: float | None) -> None:
    plain = make_train_step()
    clipped = make_train_step(scaler=LossScaler(CPU, scale))
    plain([make_batches(1, 8)[0]], 0.1)
    limit = float(norm_of_gradient(plain)) / 2
    step_with(clipped, ClipNorm(limit))
    assert float(norm_of_gradient(clipped)) == pytest.approx(limit, rel=1e-4)
    for ours, theirs in zip(clipped.parameters, plain.parameters, strict=True):
        assert torch.allclose(ours.grad, theirs.grad / 2, rtol=1e-3)


def test_a_limit_above_the_norm_changes_no_bit() -> None:
    plain = make_train_step()
    clipped = make_train_step()
    plain([make_batches(1, 8)[0]], 0.1)
    step_with(clipped, ClipNorm(1e6))
    for ours, theirs in zip(clipped.parameters, plain.parameters, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scale", [1.0, None])
def test_a_non_finite_step_is_skipped_with_clipping_too(scale: float | None) -> None:
    train_step = make_train_step(scaler=LossScaler(CPU, scale))
    before = copy.deepcopy(train_step.parameters)
    trainer = trainer_of(train_step)
    [batch] = make_batches(1, 8)
    bad = batch._replace(joints=[batch.joints[0] * float("inf")])
    clip = ClipNorm(0.1)
    result = train_step([bad], 0.1, after_backward=lambda: clip.after_backward(trainer))
    assert result.bad
    assert all(torch.equal(a, b) for a, b in zip(train_step.parameters, before, strict=True))


def test_the_average_of_weights_and_statistics() -> None:
    train_step = make_train_step()
    ema = EMA(train_step.model, 0.75)
    assert ema.evaluated_model(train_step.model) is train_step.model
    expected: dict[str, Tensor] = {}
    for _ in range(3):
        step_with(train_step, ema)
        for name, value in train_step.model.state_dict().items():
            if value.is_floating_point():
                before = expected.get(name, value)
                expected[name] = 0.75 * before + 0.25 * value
    averaged = ema.evaluated_model(train_step.model).state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value)
    assert not torch.equal(averaged["conv.weight"], train_step.model.state_dict()["conv.weight"])


def test_the_average_comes_back_from_its_state() -> None:
    train_step = make_train_step()
    ema = EMA(train_step.model, 0.75)
    assert ema.state_dict() == {}
    step_with(train_step, ema)
    step_with(train_step, ema)
    again = EMA(copy.deepcopy(train_step.model), 0.75)
    again.load_state_dict(copy.deepcopy(ema.state_dict()))
    for _ in range(2):
        for hook in (ema, again):
            hook.after_step(trainer_of(train_step))
        assert_same(again.state_dict(), ema.state_dict())
    late = EMA(train_step.model, 0.75)
    late.load_state_dict({})  # the checkpoint was written without an average
    late.after_step(trainer_of(train_step))
    averaged = late.evaluated_model(train_step.model)
    assert torch.equal(averaged.conv.weight, train_step.model.conv.weight)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([0.3, 0.2, 0.4], [0, 2]),
        ([0.0, 0.0, 0.0], [0, 1, 2]),
        ([-1, -1], [0, 1]),
        ([NAN, NAN, 0.1, NAN], [0, 1, 2]),
        ([None, None], [0, 1]),
        ([0.3, None, 0.2], [0]),
    ],
)
def test_which_weights_are_the_best(
    tmp_path: Path, values: list[float | None], kept: list[int]
) -> None:
    """Equal and undefined figures take the newer weights."""
    hook = BestWeights("AP")
    progress = Progress()
    written = []
    for index, value in enumerate(values):
        model = SmallNet()
        torch.nn.init.constant_(model.conv.bias, float(index))
        trainer = trainer_of(progress=progress, folder=tmp_path, evaluated_model=model)
        hook.after_validation(trainer, {} if value is None else {"AP": value})
        latest = read(tmp_path, "model_best.pth.tar")["conv.bias"][0]
        if latest == index:
            written.append(index)
    assert written == kept


def test_fewer_pixels_of_error_are_better(tmp_path: Path) -> None:
    metric = "error (mean px)"
    best = BestWeights(metric)
    patience = EarlyStopping(metric, 1)
    progress = Progress()
    for value, stops in ((20.0, False), (10.0, False), (15.0, True)):
        trainer = trainer_of(progress=progress, folder=tmp_path, evaluated_model=SmallNet())
        for hook in (best, patience):
            hook.after_validation(trainer, {metric: value})
        assert patience.should_stop() == stops
    assert progress.best_perf == 10


def test_the_figures_of_the_best_and_the_last_validation_are_kept(tmp_path: Path) -> None:
    hook = BestWeights("AP")
    for epoch, ap in ((1, 0.1), (2, 0.3), (3, 0.2)):
        trainer = trainer_of(
            progress=Progress(epoch=epoch, best_perf=0.1 if epoch == 2 else 0.3),
            folder=tmp_path,
            evaluated_model=SmallNet(),
        )
        again = BestWeights("AP", f"test {epoch}")
        again.load_state_dict(copy.deepcopy(hook.state_dict()))
        hook = again
        hook.after_validation(trainer, {"AP": ap, "AR": ap + 0.1})
    digest = sha256(tmp_path / "model_best.pth.tar")
    best = {"epoch": 2, "figures": {"AP": 0.3, "AR": 0.4}, "test": "test 2"}
    last = {"epoch": 3, "figures": {"AP": 0.2, "AR": pytest.approx(0.3)}, "test": "test 3"}
    assert hook.state_dict() == {"best": best | {"sha256": digest}, "last": last}


def test_the_main_process_alone_writes_the_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All processes know the best figure."""
    monkeypatch.setattr(hooks_module.comm, "is_main", lambda: False)
    hook = BestWeights("AP")
    progress = Progress()
    trainer = trainer_of(progress=progress, folder=tmp_path, evaluated_model=SmallNet())
    hook.after_validation(trainer, {"AP": 0.5})
    assert progress.best_perf == 0.5 and hook.state_dict()["best"]["figures"] == {"AP": 0.5}
    assert not list(tmp_path.iterdir())


def test_figures_of_numpy_are_kept_as_plain_numbers(tmp_path: Path) -> None:
    """A checkpoint with other numbers could not be read again."""
    best = BestWeights("AP")
    patience = EarlyStopping("AP", 2)
    progress = Progress()
    trainer = trainer_of(progress=progress, folder=tmp_path, evaluated_model=SmallNet())
    for hook in (best, patience):
        hook.after_validation(trainer, {"AP": np.float64(0.5)})
    kept = best.state_dict()["best"]["figures"]["AP"]
    numbers = (kept, progress.perf, progress.best_perf, patience.state_dict()["best"])
    assert [type(number) for number in numbers] == [float] * 4


@pytest.mark.parametrize(
    ("values", "stops_after"),
    [([0.1, 0.2, 0.2, 0.1], 4), ([0.1, 0.0, 0.2, 0.1, 0.3], 0), ([-1, -1, NAN, -1], 0)],
)
def test_early_stopping(values: list[float], stops_after: int) -> None:
    hook = EarlyStopping("AP", 2)
    for index, value in enumerate(values, 1):
        hook.after_validation(trainer_of(), {"AP": value})
        again = EarlyStopping("AP", 2)
        again.load_state_dict(hook.state_dict())
        assert hook.should_stop() == again.should_stop() == (index == stops_after)
        hook = again


@pytest.mark.parametrize("hook", [BestWeights("mAP"), EarlyStopping("mAP", 1)])
def test_an_unknown_figure_is_told_with_the_known_ones(hook: Hook) -> None:
    trainer = trainer_of(progress=Progress())
    with pytest.raises(TrainingError, match="BEST_METRIC is 'mAP'; validation gives AP, AR$"):
        hook.after_validation(trainer, {"AP": 0.1, "AR": 0.2})


def test_parameters_out_of_range() -> None:
    with pytest.raises(ValueError, match="decay is 1; it must be above 0 and below 1"):
        EMA(SmallNet(), 1)
    with pytest.raises(ValueError, match="max_norm is -1; it must be above 0"):
        ClipNorm(-1)
    with pytest.raises(ValueError, match="patience is 0; it must be at least 1"):
        EarlyStopping("AP", 0)


# Whole runs.


def run(config_file: Path, *opts: Any, ap: Callable[[], float] = lambda: 0.5) -> dict[str, Any]:
    validate = lambda *args, **options: {"AP": ap()}  # noqa: E731
    train(load_config(config_file, list(opts)), config_file, validate)
    return read(config_file.parent / FOLDER)


class Counter(Hook):
    """Counts its calls, and adds a figure."""

    def __init__(self) -> None:
        self.calls = {"after_backward": 0, "after_step": 0, "after_epoch": 0}

    def after_backward(self, trainer: Any) -> None:
        self.calls["after_backward"] += 1

    def after_step(self, trainer: Any) -> None:
        self.calls["after_step"] += 1

    def after_epoch(self, trainer: Any) -> None:
        self.calls["after_epoch"] += 1

    def after_validation(self, trainer: Any, stats: dict[str, float]) -> None:
        stats["epochs"] = float(trainer.progress.epoch)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.calls)

    def load_state_dict(self, state: Any) -> None:
        self.calls.update(state)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(HOOKS, "counter", lambda cfg, model: Counter())
    yield


def test_a_hook_of_your_own_is_called_saved_and_may_decide_what_is_best(
    config_file: Path, counter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("TRAIN.HOOKS", ["counter"], "TRAIN.BEST_METRIC", "epochs", "TRAIN.VAL_INTERVAL", 1)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run(config_file, *options)
    content = run(config_file, *options)
    assert content["hooks"]["counter"] == {"after_backward": 8, "after_step": 8, "after_epoch": 2}
    assert content["progress"]["best_perf"] == 2.0


def test_an_unknown_hook_is_told_with_the_known_ones(config_file: Path) -> None:
    with pytest.raises(PartError, match="TRAIN.HOOKS is 'x'; it is one of ema, clip_norm,"):
        run(config_file, "TRAIN.HOOKS", ["x"])


class Slip(Hook):
    def after_steps(self, trainer: Any) -> None:
        """Nothing calls this."""

    def add_figures(self) -> None:
        """A method of its own, which is no slip."""


class Keeper(Hook):
    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(0.5)}


def test_hooks_are_looked_at_before_training(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = load_config(config_file, ["TRAIN.HOOKS", "['mine']"])
    for made, message in (
        (SimpleNamespace(), "TRAIN.HOOKS: mine gives a SimpleNamespace, not a swahr"),
        (
            Keeper(),
            "TRAIN.HOOKS: the state of mine.best: a numpy.float64 cannot be kept in",
        ),
    ):
        monkeypatch.setitem(HOOKS, "mine", lambda cfg, model: made)  # noqa: B023
        with pytest.raises(TrainingError, match=f"^{message}"):
            hooks_module.build_hooks(cfg, SmallNet())
    monkeypatch.setitem(HOOKS, "mine", lambda cfg, model: Slip())
    hooks_module.build_hooks(cfg, SmallNet())
    assert caplog.messages == [
        "TRAIN.HOOKS: mine has a method after_steps, which nothing calls; is after_step meant?"
    ]


def test_a_run_with_average_clipping_and_patience_resumes_to_the_bit(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("TRAIN.EMA", 0.9, "TRAIN.CLIP_NORM", 0.5, "TRAIN.PATIENCE", 5)
    options += ("TRAIN.VAL_INTERVAL", 1)
    for step in (2, 4):  # of 8: steps 2 and 6
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
            run(config_file, *options)
    resumed = run(config_file, *options)
    names = ("model_best.pth.tar", "final_state.pth.tar")
    kept = [read(config_file.parent / FOLDER, name) for name in names]
    run(config_file, *options, "OUTPUT_DIR", str(tmp_path / "undisturbed"))
    other = next((tmp_path / "undisturbed").rglob("checkpoint.pth.tar")).parent
    assert_same(resumed, read(other))
    assert resumed["hooks"].keys() == {"ema", "clip_norm", "best_weights", "early_stopping"}
    for name, weights in zip(names, kept, strict=True):
        assert_same(weights, read(other, name))
        assert_same(weights, resumed["hooks"]["ema"]["state_dict"])
    assert not torch.equal(kept[0]["conv1.weight"], resumed["best_state_dict"]["conv1.weight"])


def test_the_average_is_what_is_validated(config_file: Path) -> None:
    seen = []

    def validate(cfg: Any, model: torch.nn.Module, **options: Any) -> dict[str, float]:
        seen.append(copy.deepcopy(published_state(model)))
        return {"AP": 0.5}

    train(load_config(config_file, ["TRAIN.EMA", 0.9]), config_file, validate)
    content = read(config_file.parent / FOLDER)
    assert_same(dict(seen[0]), content["hooks"]["ema"]["state_dict"])


def test_patience_ends_a_run_and_a_new_start_changes_nothing(config_file: Path) -> None:
    options = ("TRAIN.END_EPOCH", 9, "TRAIN.VAL_INTERVAL", 1, "TRAIN.PATIENCE", 2)
    assert run(config_file, *options)["epoch"] == 3
    assert run(config_file, *options, ap=lambda: pytest.fail("validated again"))["epoch"] == 3
    assert (config_file.parent / FOLDER / "final_state.pth.tar").exists()


def test_a_figure_of_your_own_decides_what_is_best(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real validation."""
    monkeypatch.setitem(metrics.METRICS, "images", lambda dataset, records: len(dataset))
    train(load_config(config_file, ["TRAIN.BEST_METRIC", "images"]), config_file)
    assert read(config_file.parent / FOLDER)["progress"]["best_perf"] == 2.0


def test_hooks_of_the_settings_come_first_and_those_that_read_figures_last(
    config_file: Path, counter: None
) -> None:
    opts = ["TRAIN.HOOKS", ["counter", "counter"], "TRAIN.EMA", 0.5, "TRAIN.PATIENCE", 1]
    built = hooks_module.build_hooks(load_config(config_file, opts), SmallNet())
    assert list(built) == ["ema", "counter", "best_weights", "early_stopping"]
    named = ["TRAIN.HOOKS", ["early_stopping", "counter", "best_weights"], *opts[2:]]
    assert list(hooks_module.build_hooks(load_config(config_file, named), SmallNet())) == list(
        built
    )
    drawn = hooks_module.build_hooks(load_config(config_file, ["TRAIN.PLOTS", True]), SmallNet())
    assert list(drawn) == ["best_weights", "curves"]


def test_a_shared_cpu_gets_fewer_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others keep 2, 2 and 0 of 4 cores busy in the first three seconds."""
    monkeypatch.setattr(hooks_module, "count_cores", lambda: 4)
    times = iter([CPUTimes(0, 0, 0), CPUTimes(1, 4, 2), CPUTimes(2, 8, 4), CPUTimes(3, 12, 8)])
    threads = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    hook = ShareCPU(lambda: next(times))
    with caplog.at_level("INFO", "swahr"):
        for _ in range(3):
            hook.choose_threads()
    assert threads == [4, 2, 4]
    assert caplog.messages[0] == (
        "other programs keep 2.0 cores busy: training continues with 2 of 4 threads"
    )
    assert len(caplog.messages) == 2


def test_free_cores_beyond_the_threads_leave_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads, and others keep 2 of 8 cores busy."""
    monkeypatch.setattr(hooks_module, "count_cores", lambda: 8)
    times = iter([CPUTimes(0, 0, 0), CPUTimes(1, 4, 2)])
    threads = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    ShareCPU(lambda: next(times)).choose_threads()
    assert threads == [2]


def test_a_shared_cpu_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(hooks_module.time, "monotonic", lambda: clock[0])
    looks = []

    def read() -> CPUTimes:
        looks.append(clock[0])
        return CPUTimes(clock[0], 0, 0)

    hook = ShareCPU(read)
    for second in range(12):
        clock[0] = 10.0 + second
        hook.after_step(trainer_of())
    assert looks == [10, 15, 20]


def test_sharing_is_for_one_process_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = SmallNet()
    monkeypatch.setattr(hooks_module, "can_read_times", lambda: True)
    assert isinstance(HOOKS["share_cpu"](None, model), ShareCPU)
    assert HOOKS["share_cpu"](None, SmallNet().to("meta")) is None
    with monkeypatch.context() as several:
        several.setattr(hooks_module.comm, "local_world_size", lambda: 2)
        assert HOOKS["share_cpu"](None, model) is None
    monkeypatch.setattr(hooks_module, "can_read_times", lambda: False)
    with caplog.at_level("INFO", "swahr"):
        assert HOOKS["share_cpu"](None, model) is None
    assert "only Linux" in caplog.text
