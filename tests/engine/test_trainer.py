"""Whole runs of two epochs: what they leave behind, and that an interrupted and resumed run equals
an undisturbed one.
"""

from __future__ import annotations

import copy
import csv
import gc
import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swahr.codec.tile_bounds import NOT_FINITE, NonFiniteError
from swahr.config import ConfigError, load_config
from swahr.data.annotation_report import AnnotationError
from swahr.data.images import ImageError
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.distributed.signals import Interrupted
from swahr.engine import setup, trainer
from swahr.engine.checkpoint import (
    CheckpointWriter,
    Progress,
    RefusedResume,
    RunIdentity,
    is_earlier_best,
)
from swahr.engine.hooks import HOOKS, Hook
from swahr.engine.progress import (
    EpochBar,
    Meter,
    StepReport,
    TensorBoard,
    add_to_sums,
    read_records,
)
from swahr.engine.schedule import TrainingError
from swahr.engine.start import adopt_position, continues_own_run, refuse_other_settings
from swahr.engine.step_monitor import NonFiniteLossError
from swahr.engine.train import train
from swahr.engine.train_step import TrainStep
from swahr.inference.predictor import ScaleError
from swahr.losses.criterion import build_criterion
from swahr.models.build import build_model
from swahr.models.heads.higher_hrnet import HigherHRNetHead
from swahr.models.weights import CheckpointError, published_state
from swahr.parts import PartError
from swahr.skeleton import COCO, skeleton_yaml

FOLDER = "output/coco_kpt/pose_higher_hrnet/tiny"
Start = Callable[..., dict[str, Any]]


class MachineGone(BaseException):
    """Ends the program without any of its own handlers."""


@pytest.fixture
def folder(config_file: Path) -> Path:
    return config_file.parent / FOLDER


def run_tiny(config_file: Path, opts: tuple[Any, ...], ap: Callable[[], float]) -> dict[str, Any]:
    def validate(cfg: Any, model: Any, *, folder: Path, dataset: Any) -> dict[str, float]:
        return dict.fromkeys(("AP", "AR"), ap())

    train(load_config(config_file, list(opts)), config_file, validate)
    return read(config_file.parent / FOLDER)


@pytest.fixture
def start(config_file: Path) -> Start:
    """start(KEY, value, ..., ap) -> the last checkpoint of the run; its validations give ap()."""
    return lambda *opts, ap=lambda: 0.5: run_tiny(config_file, opts, ap)


@pytest.fixture(scope="module")
def undisturbed(
    write_config: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The last checkpoint of a run without interruption."""
    return run_tiny(write_config(tmp_path_factory.mktemp("undisturbed")), (), lambda: 0.5)


def read(folder: Path, name: str = "checkpoint.pth.tar") -> dict[str, Any]:
    return torch.load(folder / name, weights_only=True)


def assert_same(ours: Any, theirs: Any, where: str = "checkpoint") -> None:
    """Equal to the bit, except for the clock and what names the run."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours.keys() - {"seconds", "run_id", "launchers", "config", "logs"}:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, (
            where
        )


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Calls action in the step of that number, counted from 1, once its weights are updated."""
    original = TrainStep.__call__
    count = iter(range(1, 1000))

    def step(self: TrainStep, *args: Any, **options: Any) -> Any:
        result = original(self, *args, **options)
        if next(count) == number:
            action()
        return result

    monkeypatch.setattr(TrainStep, "__call__", step)


def gone() -> None:
    raise MachineGone


def test_maps_that_testing_uses_must_be_trained(start: Start) -> None:
    untrained = ("LOSS.TERMS", ["scale", "associative"])
    with pytest.raises(ConfigError, match="no loss reads the heatmaps that testing uses"):
        start(*untrained)
    start()
    start(*untrained, "RESUME_CHANGED", True, "TRAIN.END_EPOCH", 3)


def test_what_a_run_leaves_behind(
    start: Start, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = iter([0.3, 0.2])
    content = start("TRAIN.VAL_INTERVAL", 1, "DEBUG.DEBUG", True, ap=lambda: next(results))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "checkpoint.pth.tar",
        "checkpoint_previous.pth.tar",
        "model_best.pth.tar",
        "final_state.pth.tar",
        "train.log",
        "config.yaml",
        "results.csv",
        "panels/epoch_001.jpg",
        "panels/epoch_002.jpg",
    }
    assert (
        content["epoch"] == 2 and content["perf"] == 0.2 and content["progress"]["best_perf"] == 0.3
    )
    assert_same(content["best_state_dict"], read(folder, "final_state.pth.tar"))
    best = read(folder, "model_best.pth.tar")
    final = read(folder, "final_state.pth.tar")
    assert best.keys() == final.keys() and not torch.equal(
        best["conv1.weight"], final["conv1.weight"]
    )
    printed = capsys.readouterr().out
    assert "best figure    0.3000" in printed and str(folder / "final_state.pth.tar") in printed
    log = (folder / "train.log").read_text()
    assert "8 images; an epoch is 4 steps of 2 images; processes: 1 on cpu" in log
    assert "epoch 1/2, step 2/4" in log
    assert "epoch 1: AP 0.3000, the best so far" in log and "epoch 2: AP 0.2000\n" in log
    assert len(list((folder.parents[3] / "log").rglob("events*"))) == 1


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGTERM, 3), (signal.SIGUSR1, 4), (signal.SIGINT, 6)]
)
def test_a_signal_ends_the_step_and_the_next_start_goes_on(
    start: Start,
    undisturbed: dict[str, Any],
    number: int,
    step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        start()
    assert caught.value.exit_status == 128 + number
    assert f"in epoch {(step - 1) // 4 + 1} after step {(step - 1) % 4 + 1}" in str(caught.value)
    assert_same(start(), undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("minutes", "positions"), [(0.0, [0, 0]), (1e-6, [2, 3])])
def test_a_machine_that_dies_costs_no_more_than_the_steps_since_the_checkpoint(
    start: Start,
    folder: Path,
    undisturbed: dict[str, Any],
    minutes: float,
    positions: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies twice in the second epoch; positions: the steps of it that were in the last
    checkpoint each time.
    """
    for step, position in zip((7, 2), positions, strict=True):
        with monkeypatch.context() as patch, pytest.raises(MachineGone):
            at_step(patch, step, gone)
            start("TRAIN.CHECKPOINT_MINUTES", minutes)
        progress = read(folder)["progress"]
        assert (progress["epoch"], progress["step"]) == (1, position)
    assert_same(start(), undisturbed)


def test_a_truncated_checkpoint_costs_an_epoch(
    start: Start, folder: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start()
    newest = folder / "checkpoint.pth.tar"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert_same(start(), undisturbed)
    log = (folder / "train.log").read_text()
    assert f"{newest}: damaged, cut short, or more than plain data" in log
    [kept] = folder.glob("checkpoint_unusable_*.pth.tar")
    assert f"checkpoint.pth.tar is kept as {kept}\n" in log


def test_a_validation_that_was_cut_off_is_made_up_for(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> float:
        raise MachineGone

    with pytest.raises(MachineGone):
        start(ap=die)
    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", lambda *args: pytest.fail("trained again"))
        assert start(ap=lambda: 0.75)["progress"]["best_perf"] == 0.75
    assert (folder / "final_state.pth.tar").exists()


def test_maps_that_are_not_finite_are_told_with_what_helps(start: Start) -> None:
    def diverged() -> float:
        raise NonFiniteError(NOT_FINITE)

    said = "epoch 2: .*training has diverged, .*begin anew .*with a lower TRAIN.LR"
    with pytest.raises(TrainingError, match=said):
        start(ap=diverged)


def test_a_finished_run_has_nothing_to_do_and_can_be_made_longer(start: Start) -> None:
    first = start()
    assert_same(start(), first)
    longer = ("TRAIN.END_EPOCH", 3)
    said = (
        r"other settings: TRAIN.END_EPOCH 2 \(now 3\); RESUME_CHANGED True \(--allow-changes\) "
        "resumes with the new ones, also with the learning rate that the new END_EPOCH gives each "
        "epoch; AUTO_RESUME False"
    )
    with pytest.raises(RefusedResume, match=said):
        start(*longer)
    assert start(*longer, "RESUME_CHANGED", True)["epoch"] == 3


def test_without_auto_resume_a_run_starts_anew(
    start: Start, folder: Path, undisturbed: dict[str, Any]
) -> None:
    """What earlier runs left stays, each in a folder of its own."""
    for seed in (1, 2):
        start("AUTO_RESUME", False, "TRAIN.SEED", seed)
    assert_same(start("AUTO_RESUME", False), undisturbed)
    asides = sorted(folder.glob("replaced_*"))
    assert [read(aside)["seed"] for aside in asides] == [1, 2]
    for aside, seed in zip(asides, (1, 2), strict=True):
        names = {"checkpoint", "checkpoint_previous", "model_best", "final_state"}
        assert {path.name for path in aside.iterdir()} == {
            "config.yaml",
            "results.csv",
            *(f"{name}.pth.tar" for name in names),
        }
        assert f"SEED: {seed}" in (aside / "config.yaml").read_text()


def test_a_start_that_is_refused_leaves_the_earlier_run_where_it_is(
    start: Start, folder: Path
) -> None:
    start()
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(PartError, match="TRAIN.LR_SCHEDULE is 'cosine'; it is one of linear, step"):
        start("AUTO_RESUME", False, "TRAIN.LR_SCHEDULE", "cosine")
    assert {path.name for path in folder.iterdir()} == before


def test_an_elastic_restart_resumes_its_own_jobs_checkpoint_only(
    start: Start, folder: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the launcher of this node counts."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(comm, "launcher_id", lambda: "an earlier job")
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start("AUTO_RESUME", False)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start("AUTO_RESUME", False)  # not from step 6 of the earlier job: it takes six steps more
    [aside] = folder.glob("replaced_*")
    assert read(aside)["launchers"] == ["an earlier job"]
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: pytest.fail("not resumed"))
        assert_same(start("AUTO_RESUME", False), undisturbed)


def test_processes_agree_on_whether_they_were_restarted(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher of another node wrote the checkpoint with processes that are gone."""
    cfg = load_config(config_file, ["AUTO_RESUME", False])
    for others, answer in (([True], True), ([False], False)):
        monkeypatch.setattr(comm, "all_gather", lambda value: [value, *others])  # noqa: B023
        assert continues_own_run(cfg, config_file.parent, ["job"]) == answer


def test_resuming_with_other_settings_is_refused(
    start: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = start()["run_id"]
    config = (folder / "config.yaml").read_bytes()
    changed = ("TRAIN.LR", 0.7, "PRINT_FREQ", 3)
    with pytest.raises(RefusedResume) as caught:
        start(*changed)
    assert str(caught.value) == (
        f"{folder / 'checkpoint.pth.tar'}: was written with other settings: TRAIN.LR 0.001 (now "
        "0.7); RESUME_CHANGED True (--allow-changes) resumes with the new ones; AUTO_RESUME False "
        "starts anew"
    )
    assert (folder / "config.yaml").read_bytes() == config
    assert start(*changed, "RESUME_CHANGED", True)["run_id"] == run_id
    log = (folder / "train.log").read_text()
    assert log.count("TRAIN.LR: 0.001 in checkpoint.pth.tar, now 0.7") == 2
    assert log.count("PRINT_FREQ: 2 in checkpoint.pth.tar, now 3") == 2
    [earlier] = folder.glob("config_*.yaml")
    assert earlier.read_bytes() == config and "LR: 0.7" in (folder / "config.yaml").read_text()


def test_changes_are_allowed_for_the_start_that_says_so_only(start: Start, folder: Path) -> None:
    """Not for those that take the configuration it leaves behind."""
    start()
    content = start("TRAIN.LR", 0.7, "TRAIN.END_EPOCH", 3, "RESUME_CHANGED", True)
    saved = folder / "config.yaml"
    assert "RESUME_CHANGED: true" not in saved.read_text() + content["config"]
    assert "RESUME_CHANGED" not in (folder / "train.log").read_text()
    with pytest.raises(RefusedResume, match=r"other settings: TRAIN.LR 0.7 \(now 0.5\)"):
        train(load_config(saved, ["TRAIN.LR", 0.5]), saved)


def test_resuming_with_other_flip_pairs_is_refused(start: Start, tmp_path: Path) -> None:
    """The skeleton file has been edited; who merely draws in other colours may resume."""
    file = tmp_path / "own.yaml"
    file.write_text(skeleton_yaml(COCO))
    start("DATASET.SKELETON", str(file))
    file.write_text(skeleton_yaml(replace(COCO, colors=((0, 0, 255),) * 17)))
    start("DATASET.SKELETON", str(file))
    file.write_text(skeleton_yaml(replace(COCO, flip_pairs=COCO.flip_pairs[1:])))
    said = r"other settings: DATASET.SKELETON: flip_pairs \[\['left_eye', .* \(now \[\['left_ear'"
    with pytest.raises(RefusedResume, match=said):
        start("DATASET.SKELETON", str(file))


def test_settings_that_do_not_change_what_is_learnt_may_change(
    start: Start, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start()
    resumed = start("WORKERS", 1, "TEST.FLIP_TEST", True, "PRINT_FREQ", 1)
    expected = copy.deepcopy(undisturbed)
    for content, test in ((resumed, "val2017, flip test"), (expected, "val2017, no flip test")):
        for validation in content["hooks"]["best_weights"].values():
            assert validation.pop("test").startswith(test)
    assert_same(resumed, expected)


@pytest.mark.parametrize("changed", [("TRAIN.BEST_METRIC", "AR"), ("TEST.FLIP_TEST", True)])
def test_figures_of_another_test_do_not_count_for_the_best(
    start: Start, folder: Path, changed: tuple[str, Any]
) -> None:
    options = ("TRAIN.VAL_INTERVAL", 1, "TRAIN.PATIENCE", 2)
    start(*options, ap=lambda: 0.9)
    best = read(folder, "model_best.pth.tar")
    longer = ("TRAIN.END_EPOCH", 3, "RESUME_CHANGED", True)
    content = start(*options, *longer, *changed, ap=lambda: 0.4)
    assert content["epoch"] == 3 and content["progress"]["best_perf"] == 0.4
    assert content["hooks"]["early_stopping"]["validations_since_best"] == 0
    [kept] = folder.glob("model_best_*.pth.tar")
    assert is_earlier_best(kept.name) and not is_earlier_best("model_best.pth.tar")
    assert_same(read(folder, kept.name), best)
    assert (
        f"{changed[0]} changed: earlier figures do not count for the best; the best weights "
        in (folder / "train.log").read_text()
    )


def test_another_optimizer_cannot_resume(start: Start, folder: Path) -> None:
    start()
    with pytest.raises(CheckpointError, match="no checkpoint there can be used"):
        start("TRAIN.OPTIMIZER", "sgd", "RESUME_CHANGED", True)
    log = (folder / "train.log").read_text()
    for name in ("checkpoint", "checkpoint_previous"):
        assert f"{folder / name}.pth.tar: written with another optimizer than SGD" in log


def test_resuming_from_a_named_checkpoint(
    start: Start,
    folder: Path,
    tmp_path: Path,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start()
    first = read(folder)["run_id"]
    named = ("AUTO_RESUME", False, "TRAIN.RESUME", True, "TRAIN.CHECKPOINT")
    with pytest.raises(CheckpointError, match="missing.pth.tar: no such file"):
        start(*named, str(tmp_path / "missing.pth.tar"))
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: pytest.fail("not resumed"))
        content = start(*named, str(folder / "checkpoint.pth.tar"))
    assert_same(content, undisturbed)
    assert content["run_id"] != first  # it is another run, which starts with the other's weights


def test_figures_of_the_named_run_do_not_count(start: Start, folder: Path, tmp_path: Path) -> None:
    """Its best weights are elsewhere, and its patience is its own."""
    patient = ("TRAIN.VAL_INTERVAL", 1, "TRAIN.PATIENCE", 1)
    results = iter([0.9, 0.8])
    assert start(*patient, "TRAIN.END_EPOCH", 3, ap=lambda: next(results))["epoch"] == 2
    named = tmp_path / "named.pth.tar"
    shutil.copy(folder / "checkpoint.pth.tar", named)
    options = ("AUTO_RESUME", False, "TRAIN.RESUME", True, "TRAIN.CHECKPOINT", str(named))
    content = start(*patient, *options, "TRAIN.END_EPOCH", 3, ap=lambda: 0.4)
    assert content["epoch"] == 3 and content["progress"]["best_perf"] == 0.4
    assert (folder / "model_best.pth.tar").exists()


def test_hooks_are_built_with_the_weights_that_training_starts_from(
    start: Start, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    weights = read(folder, "final_state.pth.tar")
    given = tmp_path / "given.pth.tar"
    shutil.copy(folder / "final_state.pth.tar", given)
    seen: list[Any] = []

    def build(cfg: Any, model: Any) -> None:
        seen.append(copy.deepcopy(published_state(model)))

    monkeypatch.setitem(HOOKS, "teacher", build)
    start("AUTO_RESUME", False, "MODEL.PRETRAINED", str(given), "TRAIN.HOOKS", ["teacher"])
    assert_same(seen[0], weights)


def test_a_run_made_longer_and_interrupted_resumes_without_the_flag(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start("TRAIN.END_EPOCH", 3, "RESUME_CHANGED", True)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: pytest.fail("not resumed"))
        assert start("TRAIN.END_EPOCH", 3)["epoch"] == 3


def test_a_restarted_run_is_one_curve_and_one_table(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies three steps after its checkpoint, and once before a validation has ended."""

    def die() -> float:
        raise MachineGone

    options = ("PRINT_FREQ", 1, "TRAIN.VAL_INTERVAL", 1)
    with monkeypatch.context() as patch, pytest.raises(MachineGone):
        at_step(patch, 7, gone)
        start(*options)
    with pytest.raises(MachineGone):
        start(*options, ap=die)
    start(*options, ap=lambda: 0.75)
    [log] = (folder.parents[3] / "log").rglob("tiny_*")
    steps = [
        (event.step, value.tag)
        for file in log.iterdir()
        for _, event in read_records(file.read_bytes())
        for value in event.summary.value
    ]
    assert len(steps) == len(set(steps))
    assert sorted(s for s, tag in steps if tag == "train/total") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sorted(s for s, tag in steps if tag == "validation/AP") == [4, 8]
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [(row["epoch"], row["steps"], row["AP"]) for row in rows] == [
        ("1", "4", "0.5"),
        ("2", "8", "0.75"),
    ]


def table(folder: Path) -> list[dict[str, str]]:
    """The lines of results.csv, without what the clock says."""
    columns = {"epoch", "steps", "loss", "heatmap0", "gradient_norm", "learning_rate", "AP"}
    rows = csv.DictReader((folder / "results.csv").open())
    return [{name: row[name] for name in columns} for row in rows]


def test_the_table_of_an_interrupted_run_has_the_same_losses(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal stops it after step 5 and its machine dies in step 7, both between two reports."""
    reports = ("PRINT_FREQ", 3)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start(*reports)
    with monkeypatch.context() as patch, pytest.raises(MachineGone):
        at_step(patch, 2, gone)
        start(*reports, "TRAIN.CHECKPOINT_MINUTES", 1e-6)
    assert read(folder)["progress"]["step"] == 2
    start(*reports)
    interrupted = table(folder)
    start(*reports, "AUTO_RESUME", False)
    assert interrupted == table(folder)


def test_a_checkpoint_has_the_steps_since_the_last_report_and_leaves_them_to_the_next(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[dict[str, float]] = []
    told: list[int] = []
    write = CheckpointWriter.write
    read_meter = Meter.read

    def note(self: CheckpointWriter, content: Any, *args: Any, **options: Any) -> None:
        saved.append(content["progress"]["epoch_sums"])
        write(self, content, *args, **options)

    def tell(self: Meter) -> Any:
        told.append(self.steps)
        return read_meter(self)

    due = iter([False, True, False, False])
    monkeypatch.setattr(CheckpointWriter, "write", note)
    monkeypatch.setattr(Meter, "read", tell)
    monkeypatch.setattr(trainer.Trainer, "is_checkpoint_due", lambda self: next(due))
    start("TRAIN.END_EPOCH", 1, "PRINT_FREQ", 3)
    # After step 2, the epoch and the validation.
    assert [sums.get("counted", 0) for sums in saved] == [2, 0, 0]
    assert told == [3, 1]


def test_the_time_left_is_that_of_all_steps_to_come(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight steps of two images, at the speed that the same report names."""
    reports: list[StepReport] = []
    monkeypatch.setattr(EpochBar, "tell", lambda self, report: reports.append(report))
    start()
    left = [report.seconds_left * report.images_per_second / 2 for report in reports]
    assert left == pytest.approx([6, 4, 2, 0])


def test_steps_wait_for_hooks_that_read_gradients_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others leave the step as cheap as it is without hooks."""
    calls: list[bool] = []
    original = TrainStep.__call__

    def step(self: TrainStep, *args: Any, after_backward: Any, **options: Any) -> Any:
        calls.append(after_backward is not None)
        return original(self, *args, after_backward=after_backward, **options)

    monkeypatch.setattr(TrainStep, "__call__", step)
    for opts, reads in ((("TRAIN.EMA", 0.9), False), (("TRAIN.CLIP_NORM", 1.0), True)):
        calls.clear()
        start("AUTO_RESUME", False, "TRAIN.END_EPOCH", 1, *opts)
        assert calls == [reads] * 4


def test_another_seed_than_that_of_an_older_checkpoint_is_said(
    config_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The published code's checkpoints name none."""
    cfg = load_config(config_file, ["TRAIN.SEED", 5])
    for seed in (None, 5, 4):
        assert refuse_other_settings(cfg, RunIdentity(seed=seed), Path("x.pth.tar")) == {}
    assert caplog.messages == ["TRAIN.SEED is 4 in x.pth.tar, and is now another"]


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("predicted", [True, False])
@pytest.mark.parametrize("targets", [True, False])
def test_which_maps_a_panel_has(
    config_file: Path, targets: bool, predicted: bool, tags: bool
) -> None:
    names = ("SAVE_HEATMAPS_GT", "SAVE_HEATMAPS_PRED", "SAVE_TAGMAPS_PRED")
    opts = [f"DEBUG.{name}={on}" for name, on in zip(names, (targets, predicted, tags))]
    board = TensorBoard(None)
    assert setup.build_panels(load_config(config_file, opts), Path(), board) is None
    cfg = load_config(config_file, ["DEBUG.DEBUG=True", "PRINT_FREQ=7", *opts])
    panels = setup.build_panels(cfg, Path("run"), board)
    assert (panels is not None) == (targets or predicted)
    if panels is not None:
        assert (panels.scales, panels.tags) == (predicted, tags)
        assert (panels.folder, panels.board, panels.print_freq) == (Path("run/panels"), board, 7)


@pytest.mark.parametrize("last", [True, False])
def test_the_layout_of_the_weights_is_that_of_the_settings(config_file: Path, last: bool) -> None:
    cfg = load_config(config_file, ["TRAIN.CHANNELS_LAST", last])
    weight = published_state(setup.build_network(cfg, torch.device("cpu")))["conv1.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last) == last


def test_fresh_weights_are_those_of_the_seed(config_file: Path) -> None:
    def bias(seed: int) -> torch.Tensor:
        cfg = load_config(config_file, ["TRAIN.SEED", seed])
        return published_state(setup.build_network(cfg, torch.device("cpu")))["final_layers.0.bias"]

    assert torch.equal(bias(3), bias(3)) and not torch.equal(bias(3), bias(4))


def test_sums_do_not_depend_on_when_the_meter_is_read() -> None:
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    sums = []
    for every in (50, 7):
        meter = Meter()
        sums.append({})
        for step, value in enumerate(values, 1):
            meter.add({"heatmap0": value}, torch.tensor(False), value)
            if step % every == 0 or step == len(values):
                add_to_sums(sums[-1], meter.read(), 2)
    for name in ("loss heatmap0", "gradient norm", "counted", "images"):
        assert sums[0][name] == pytest.approx(sums[1][name], rel=1e-14)


@pytest.mark.slow
def test_steps_of_another_size_are_another_curve(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start()
    clock = time.localtime(time.time() + 5)
    monkeypatch.setattr("swahr.config.paths.time.localtime", lambda *args: clock)
    start("TRAIN.IMAGES_PER_GPU", 4, "RESUME_CHANGED", True)
    assert len(list((folder.parents[3] / "log").rglob("tiny_*"))) == 2


def test_the_log_has_no_lines_of_other_libraries(start: Start, folder: Path) -> None:
    other = logging.getLogger("another.library")
    other.setLevel(logging.DEBUG)

    def ap() -> float:
        other.debug("a detail")
        other.warning("a warning")
        return 0.5

    start(ap=ap)
    log = (folder / "train.log").read_text()
    assert "a detail" not in log and "a warning" not in log
    assert "gradient norm " in log and "data wait " in log and "GPU memory" not in log


def test_test_scales_that_do_not_fit_are_refused_before_training(
    start: Start, folder: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ScaleError, match=r"^TEST.SCALE_FACTOR: most images cannot be tested"):
        start("TEST.SCALE_FACTOR", [0.75, 1.0])
    assert not (folder / "checkpoint.pth.tar").exists()
    root = shutil.copytree(images, tmp_path / "training_only")
    (root / "annotations/person_keypoints_val2017.json").unlink()
    start("DATASET.ROOT", str(root), "TEST.SCALE_FACTOR", [0.75, 1.0], "TRAIN.END_EPOCH", 1)


def test_training_without_a_validation_set(
    start: Start, folder: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(images, tmp_path / "training_only")
    (root / "annotations/person_keypoints_val2017.json").unlink()
    with pytest.raises(AnnotationError, match="person_keypoints_val2017.json"):
        start("DATASET.ROOT", str(root), "TRAIN.VAL_INTERVAL", 1)
    start("DATASET.ROOT", str(root), ap=lambda: pytest.fail("validated"))
    assert (folder / "final_state.pth.tar").exists()
    assert not (folder / "model_best.pth.tar").exists()
    assert "best weights   none" in capsys.readouterr().out
    assert "no validation, not even after the last epoch" in (folder / "train.log").read_text()


def test_a_validation_that_was_due_is_dropped_with_its_set(
    start: Start, folder: Path, images: Path, tmp_path: Path
) -> None:
    """It was cut off, and then the annotation file was removed."""
    root = shutil.copytree(images, tmp_path / "training_only")

    def die() -> float:
        raise MachineGone

    with pytest.raises(MachineGone):
        start("DATASET.ROOT", str(root), ap=die)
    assert read(folder)["progress"]["to_validate"]
    (root / "annotations/person_keypoints_val2017.json").unlink()
    start("DATASET.ROOT", str(root), ap=lambda: pytest.fail("validated"))
    assert (folder / "final_state.pth.tar").exists()


class TimeLimit(Hook):
    """Ends training after an epoch.

    epochs: after how many it decides so in after_epoch, 0 for never. answers: of should_stop
    otherwise, one after the other; a clock that passes the limit between two questions.
    """

    def __init__(self, epochs: int, answers: Sequence[bool]) -> None:
        self.epochs = epochs
        self.answers = iter(answers)
        self.is_over = False

    def after_epoch(self, trainer: Any) -> None:
        self.is_over = trainer.progress.epoch == self.epochs

    def should_stop(self) -> bool:
        return self.is_over or next(self.answers, False)


@pytest.mark.parametrize("interval", [0, 10])
@pytest.mark.parametrize(
    ("hook", "epochs"), [(TimeLimit(1, []), 1), (TimeLimit(0, [False, False, True]), 2)]
)
def test_the_epoch_with_which_a_hook_ends_training_is_validated(
    start: Start,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    interval: int,
    hook: TimeLimit,
    epochs: int,
) -> None:
    monkeypatch.setitem(HOOKS, "limit", lambda cfg, model: copy.deepcopy(hook))
    options = ("TRAIN.HOOKS", ["limit"], "TRAIN.END_EPOCH", 4, "TRAIN.VAL_INTERVAL", interval)
    content = start(*options)
    assert content["epoch"] == epochs and not content["progress"]["to_validate"]
    assert content["progress"]["best_perf"] == 0.5 and (folder / "model_best.pth.tar").exists()


def test_an_unknown_best_metric_is_told_before_training(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a hook of the user's may add it."""
    for hooks in ([""], ["share_cpu", "ema"]):
        with pytest.raises(
            TrainingError, match="TRAIN.BEST_METRIC is 'mAP'; validation gives AP, AP .5,"
        ):
            start("TRAIN.BEST_METRIC", "mAP", "TRAIN.HOOKS", hooks)
    assert not (folder / "checkpoint.pth.tar").exists()
    monkeypatch.setitem(HOOKS, "mine", lambda cfg, model: None)
    setup.check_best_metric(
        load_config(
            folder.parents[3] / "tiny.yaml", ["TRAIN.BEST_METRIC=mAP", "TRAIN.HOOKS=[mine]"]
        )
    )


def test_checkpoints_written_in_the_background_are_the_same(
    start: Start, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that a signal asks for, and what is resumed from it."""
    monkeypatch.setattr(trainer, "CheckpointWriter", lambda in_background: CheckpointWriter(True))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start()
    assert_same(start(), undisturbed)


def test_workers_and_accumulation(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images a step as two batches of two, read by a worker process that a signal to the whole
    job must not end.
    """
    sizes: list[int] = []
    original = TrainStep.__call__

    def step(self: TrainStep, batches: Any, lr: float, **options: Any) -> Any:
        sizes.append(len(batches))
        os.kill(os.getpid(), signal.SIGTERM) if len(sizes) == 3 else None
        return original(self, batches, lr, **options)

    monkeypatch.setattr(TrainStep, "__call__", step)
    options = ("TRAIN.ACCUMULATION_STEPS", 2, "WORKERS", 1)
    with pytest.raises(Interrupted):
        start(*options)
    start(*options)
    assert sizes == [2] * 4


def test_an_image_that_cannot_be_read(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = setup.build_training_set

    def build(*args: Any, **options: Any) -> Any:
        dataset = original(*args, **options)
        read = dataset.read
        bad = dataset.image_ids[-1]

        def broken(image_id: int) -> Any:
            if image_id == bad:
                raise ImageError(f"images/{image_id}.jpg: cut short")
            return read(image_id)

        dataset.read = broken
        return dataset

    monkeypatch.setattr(setup, "build_training_set", build)
    with pytest.raises(ImageError, match=r"^images/\d+.jpg: cut short$"):
        start("WORKERS", 1)
    start("DATASET.ON_BAD_SAMPLE", "skip")
    log = (folder / "train.log").read_text()
    assert log.count("images that could not be used and were replaced by others: 1\n") == 2
    assert len(re.findall(r"replaced: images/\d+.jpg: cut short\n", log)) == 2


def test_replaced_images_are_named_when_a_signal_ends_the_epoch(
    start: Start, folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one image can be read, so that the first step meets others."""
    root = shutil.copytree(images, tmp_path / "damaged")
    for path in sorted((root / "images/train2017").iterdir())[1:]:
        path.write_bytes(b"")
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        start("DATASET.ON_BAD_SAMPLE", "skip", "DATASET.ROOT", str(root))
    assert "jpg: the file is empty\n" in (folder / "train.log").read_text()


def test_many_replaced_images_are_counted(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three reasons, two may be told; all are kept for the end of the epoch."""
    monkeypatch.setattr(trainer, "MAX_NAMED_IMAGES", 2)
    original = TrainStep.__call__

    def step(self: TrainStep, batches: Any, lr: float, **options: Any) -> Any:
        batches[0].replaced.update({5: "image 5: e", 4: "image 4: d", 3: "image 3: c"})
        return original(self, batches, lr, **options)

    monkeypatch.setattr(TrainStep, "__call__", step)
    start("TRAIN.END_EPOCH", 1)
    log = (folder / "train.log").read_text()
    lines = [line.partition("WARNING ")[2] for line in log.splitlines() if "replaced" in line]
    assert lines == [
        "images that could not be used and were replaced by others: 3",
        "replaced: image 3: c",
        "replaced: image 4: d",
        "replaced: ... and 1 more images",
    ]


def test_a_head_without_tags_is_named_before_training(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder would ask for them at the first validation."""
    original = HigherHRNetHead.forward
    monkeypatch.setattr(
        HigherHRNetHead,
        "forward",
        lambda self, features: [s._replace(tags=None) for s in original(self, features)],
    )
    with pytest.raises(TrainingError, match="TEST.DECODER associative groups joints by tags, of"):
        start("LOSS.TERMS", ["heatmap", "scale"], "DATASET.MAX_NUM_PEOPLE", 1)
    assert not (folder / "checkpoint.pth.tar").exists()


def test_a_validation_set_with_problems_is_named_before_training(
    start: Start, folder: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images, tmp_path / "damaged")
    (tmp_path / "damaged/annotations/person_keypoints_val2017.json").write_text("[")
    with pytest.raises(AnnotationError, match="person_keypoints_val2017.json"):
        start("DATASET.ROOT", str(tmp_path / "damaged"))
    assert not (folder / "checkpoint.pth.tar").exists()


def test_too_many_bad_steps(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    original = TrainStep.forward

    def spoil(self: TrainStep, batch: Any) -> Any:
        targets, outputs = original(self, batch)
        return [
            target._replace(heatmaps=target.heatmaps * float("nan")) for target in targets
        ], outputs

    monkeypatch.setattr(TrainStep, "forward", spoil)
    with pytest.raises(NonFiniteLossError, match="in 3 consecutive steps") as caught:
        start("TRAIN.MAX_BAD_STEPS", 3)
    saved = torch.load(str(caught.value).split(" are in ")[1], weights_only=True)
    assert (
        saved["step"] == 2
        and "END_EPOCH: 2" in saved["config"]
        and "conv1.weight" in saved["state_dict"]
    )


@pytest.mark.parametrize(
    ("before", "after", "step"), [(0, 16, 5), (16, 16, 5), (8, 16, 2), (32, 16, 10), (64, 16, 12)]
)
def test_a_position_survives_another_number_of_processes(
    before: int, after: int, step: int
) -> None:
    """Five steps of `before` images are so many steps of `after`, of 12 in an epoch."""
    moved = Progress(step=5, step_images=before)
    adopt_position(moved, after, steps_per_epoch=12)
    assert (moved.step, moved.step_images) == (step, after)


def test_heads_without_a_loss_are_told_to_the_processes(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(comm, "has_group", lambda: True)
    monkeypatch.setattr(
        setup, "DistributedDataParallel", lambda module, **options: calls.append(options) or module
    )
    for opts in (
        [],
        ["LOSS.SCALE_ADAPTIVE", "False"],
        ["MODEL.SCALE_HEADS", "False"],
        ["LOSS.WITH_HEATMAPS_LOSS", "[True, False]"],
    ):
        cfg = load_config(config_file, opts)
        setup.build_train_step(cfg, build_model(cfg), build_criterion(cfg), torch.device("cpu"))
    assert [options["find_unused_parameters"] for options in calls] == [False, True, False, True]
    assert all(options[setup.BUFFERS] is False for options in calls)


STEM = ["conv1", "bn1", "conv2", "bn2", "layer1"]


def fresh_stem(config_file: Path, weights: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The frozen tensors before training, and the same of a file's weights."""
    model = setup.build_network(load_config(config_file), torch.device("cpu"))
    fresh = published_state(model)
    names = [name for name in fresh if name.split(".")[0] in STEM]
    return {name: fresh[name] for name in names}, {name: weights[name] for name in names}


def test_frozen_tensors_never_change_not_even_in_the_average_or_after_a_resume(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("TRAIN.FREEZE", STEM, "TRAIN.EMA", 0.9, "TRAIN.VAL_INTERVAL", 1)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_tiny(config_file, options, lambda: 0.5)
    resumed = run_tiny(config_file, options, lambda: 0.5)
    final = read(config_file.parent / FOLDER, "final_state.pth.tar")
    for weights in (resumed["best_state_dict"], final):
        fresh, trained = fresh_stem(config_file, weights)
        assert_same(trained, fresh)
    assert len(fresh) > 60
    run_tiny(config_file, (*options, "OUTPUT_DIR", str(tmp_path / "whole")), lambda: 0.5)
    assert_same(resumed, read(next((tmp_path / "whole").rglob("checkpoint.pth.tar")).parent))


def test_other_frozen_parts_are_refused_when_resuming(config_file: Path, start: Start) -> None:
    start("TRAIN.FREEZE", STEM)
    with pytest.raises(RefusedResume, match="TRAIN.FREEZE"):
        start("TRAIN.FREEZE", STEM[:1])


def test_a_frozen_part_that_is_not_there(start: Start) -> None:
    with pytest.raises(TrainingError, match="TRAIN.FREEZE: the network has no part 'stem'; its"):
        start("TRAIN.FREEZE", ["stem"])


@pytest.mark.slow
def test_frozen_tensors_never_change_on_two_processes(config_file: Path) -> None:
    launch(train, (load_config(config_file, ["TRAIN.FREEZE", STEM]), config_file), 2)
    content = read(config_file.parent / FOLDER)
    fresh, trained = fresh_stem(config_file, content["best_state_dict"])
    assert_same(trained, fresh)
    assert content["epoch"] == 2


def test_the_collector_passes_over_what_workers_share() -> None:
    """While training only, unless all was frozen before."""
    gc.unfreeze()
    with trainer.shared_with_workers():
        inside = gc.get_freeze_count()
    after = gc.get_freeze_count()
    gc.freeze()
    with trainer.shared_with_workers():
        pass
    assert inside > 0 and after == 0 and gc.get_freeze_count() > 0
