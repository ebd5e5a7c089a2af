"""One live run a folder; earlier configurations are kept; changed settings are found."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from swahr.config import defaults, load_config
from swahr.engine import run_folder
from swahr.engine.run_folder import (
    RunInUseError,
    changed_settings,
    changes_what_is_learnt,
    changes_what_is_measured,
    keep_config,
    own_skeleton,
    run_lock,
)
from swahr.files import WriteError
from swahr.skeleton import COCO, skeleton_yaml

HOLD = (
    "import sys; from pathlib import Path; from swahr.engine.run_folder import run_lock\n"
    "with run_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder until its input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_live_run_is_refused(tmp_path: Path) -> None:
    other = holder(tmp_path)
    with (
        pytest.raises(RunInUseError, match=f"process {other.pid} on {socket.gethostname()} is"),
        run_lock(tmp_path),
    ):
        pytest.fail("two runs in one folder")
    other.communicate()
    with run_lock(tmp_path):
        assert os.listdir(tmp_path) == ["run.lock"]
    assert not os.listdir(tmp_path)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    other = holder(tmp_path)
    other.kill()
    other.communicate()
    assert os.listdir(tmp_path) == ["run.lock"]
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("host", "alive", "refused"),
    [("here", True, True), ("here", False, False), ("elsewhere", False, True)],
)
def test_without_file_locks_the_process_id_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, alive: bool, refused: bool
) -> None:
    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(run_folder.fcntl, "lockf", no_locks)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    if not alive:
        other.communicate()
    owner = {"host": socket.gethostname() if host == "here" else host, "pid": other.pid}
    (tmp_path / "run.lock").write_text(json.dumps(owner))
    if refused:
        with pytest.raises(RunInUseError, match=f"process {other.pid} on "), run_lock(tmp_path):
            pytest.fail("two runs in one folder")
    else:
        with run_lock(tmp_path):
            pass
    other.communicate()


HERE = socket.gethostname()


@pytest.mark.parametrize(
    "left",
    ["ours", {"host": HERE, "pid": "1"}, {"host": HERE}, [1], "1"],
)
def test_without_file_locks_a_file_that_names_no_other_process_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: object
) -> None:
    """A container that is started again may give its run the same process id."""
    monkeypatch.setattr(run_folder, "fcntl", None)
    owner = {"host": HERE, "pid": os.getpid()} if left == "ours" else left
    (tmp_path / "run.lock").write_text(json.dumps(owner))
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()


def test_without_file_locks_a_process_of_another_user_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_ours(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(run_folder, "fcntl", None)
    monkeypatch.setattr(run_folder.os, "kill", not_ours)
    (tmp_path / "run.lock").write_text(json.dumps({"host": HERE, "pid": 1}))
    with pytest.raises(RunInUseError, match=f"process 1 on {HERE} is"), run_lock(tmp_path):
        pytest.fail("two runs in one folder")


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_lock_on_a_file_that_was_removed_holds_nothing(tmp_path: Path, made_anew: bool) -> None:
    """Its owner removed it after it was opened here, and another run may have made a new one."""
    path = tmp_path / "run.lock"
    with open(path, "a+") as file:
        path.unlink()
        if made_anew:
            path.touch()
        with pytest.raises(RunInUseError):
            run_folder._acquire(file, path)


def test_a_folder_that_is_removed_while_it_is_held(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"):
        shutil.rmtree(tmp_path / "run")


def test_earlier_configurations_are_kept(tmp_path: Path) -> None:
    for text in ("A: 1", "A: 1", "A: 2", "A: 3"):
        keep_config(tmp_path, text)
    assert (tmp_path / "config.yaml").read_text() == "A: 3"
    earlier = sorted(tmp_path.glob("config_*.yaml"))
    assert sorted(path.read_text() for path in earlier) == ["A: 1", "A: 2"]


def test_a_configuration_in_another_encoding_is_kept(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfeA")
    keep_config(tmp_path, "A: 1")
    [earlier] = tmp_path.glob("config_*.yaml")
    assert earlier.read_bytes() == b"\xff\xfeA" and (tmp_path / "config.yaml").read_text() == "A: 1"


def test_a_configuration_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for name in ("skeleton.yaml", "config.yaml"):
        (tmp_path / name).mkdir()
        with pytest.raises(WriteError, match=rf"{name}: cannot be written \(.+\)$"):
            keep_config(tmp_path, "A: 1")
        (tmp_path / name).rmdir()


def test_changed_settings() -> None:
    plain = "A: {B: 1, C: [1, 2]}\nNEW: 0"
    before = "A: {B: 2, C: [1, 2]}\nGONE: 1"
    assert changed_settings(before, "A: {B: 2, C: [1, 2]}\nNEW: 0", plain) == {}
    now = "A: {B: 3, C: [1]}\nNEW: 5"
    expected = {"A.B": (2, 3), "A.C": ([1, 2], [1]), "NEW": (0, 5)}
    assert changed_settings(before, now, plain) == expected
    text = defaults().dump()
    assert changed_settings(text, text, text) == {}
    for before, reason in (("A: [", "cannot be read as YAML: "), ("A", "no settings in it")):
        with pytest.raises(ValueError, match=f"^{reason}"):
            changed_settings(before, now, plain)


@pytest.mark.parametrize(
    ("key", "learnt"),
    [
        ("TRAIN.LR", True),
        ("TRAIN.END_EPOCH", True),
        ("TRAIN.EMA", True),
        ("TRAIN.FREEZE", True),
        ("MODEL.NUM_JOINTS", True),
        ("A_KEY_OF_YOURS", True),
        ("WORKERS_OF_YOURS", True),
        ("WORKERS", False),
        ("TEST.FLIP_TEST", False),
        ("TRAIN.VAL_INTERVAL", False),
    ],
)
def test_what_is_learnt(key: str, learnt: bool) -> None:
    assert changes_what_is_learnt(key) == learnt


@pytest.mark.parametrize(
    ("key", "measured"),
    [
        ("TEST.FLIP_TEST", True),
        ("TEST.SCALE_FACTOR", True),
        ("TRAIN.BEST_METRIC", True),
        ("DATASET.TEST", True),
        ("DATASET.DATASET_TEST", True),
        ("DATASET.MAX_NUM_PEOPLE", True),
        ("TEST.MODEL_FILE", False),
        ("TEST.IMAGES_PER_GPU", False),
        ("TEST.LOG_PROGRESS", False),
        ("TEST.CUDA_GRAPHS", False),
        ("TEST.RESUME", False),
        ("TRAIN.VAL_INTERVAL", False),
    ],
)
def test_what_is_measured(key: str, measured: bool) -> None:
    assert changes_what_is_measured(key) == measured


def test_only_a_skeleton_of_ones_own_has_a_text(config_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(skeleton_yaml(COCO))
    for name, is_own in (("", False), ("coco", False), (str(own), True)):
        text = own_skeleton(load_config(config_file, [f"DATASET.SKELETON={name}"]))
        assert bool(text) == is_own


def test_the_skeleton_lies_beside_the_configuration(tmp_path: Path) -> None:
    """And goes when a run with published keypoints takes the folder."""
    keep_config(tmp_path, "A: 1", "keypoints: [tip]")
    assert (tmp_path / "skeleton.yaml").read_text() == "keypoints: [tip]"
    keep_config(tmp_path, "A: 1")
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
