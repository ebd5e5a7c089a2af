"""Validations that are cut off, lose a process or run out of disk: nothing that was found is
lost.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.data.keypoints import KeypointDataset
from swahr.geometry import input_geometry as place_of
from swahr.skeleton import COCO
from tests.engine.conftest import make_images
from tests.faults.conftest import TRAIN, VALIDATE, Job

Start = Callable[..., Job]
IMAGES = 40
INPUT_SIZE = 64
RESULTS = "keypoints_train2017_results_noflip.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of 40 images, which the test may spoil."""
    return make_images(tmp_path / "images", num_train=IMAGES)


@pytest.fixture
def validate(start: Start, root: Path, untrained: Path) -> Start:
    """validate(*arguments) -> the job of a validation on two processes that finds many people in
    every image.
    """
    settings = (
        "DATASET.ROOT",
        root,
        "DATASET.TEST",
        "train2017",
        "TEST.MODEL_FILE",
        untrained,
        "TEST.DETECTION_THRESHOLD",
        0,
        "DATASET.MAX_NUM_PEOPLE",
        10,
        "WORKERS",
        2,
    )
    return lambda *arguments, **options: start(
        "--gpus", 2, *settings, *arguments, **{"tool": VALIDATE} | options
    )


def last_images(root: Path) -> list[Path]:
    """The images that process 0 and process 1 of two look at last: images go by their size on the
    input.
    """
    images = root / "images/train2017"
    dataset = KeypointDataset(root / "annotations/person_keypoints_train2017.json", images, COCO)
    infos = sorted(
        map(dataset.image_info, dataset.image_ids),
        key=lambda info: place_of(info.width, info.height, INPUT_SIZE, 1.0, 1.0).size,
    )
    return [images / info.file_name for info in infos[-2:]]


def stop_at(image: Path) -> bytes:
    """Whoever reads the image from now on waits for ever; what was in it."""
    content = image.read_bytes()
    image.unlink()
    os.mkfifo(image)
    return content


def done(results: Path) -> list[int]:
    """The images whose people are in the part files, the last of which may be half written."""
    lines = [
        line for path in results.glob("part-*.jsonl") for line in path.read_text().split("\n")[:-1]
    ]
    return [int(line[1 : line.index(",")]) for line in lines]


def wait_until_done(job: Job, results: Path, images: int) -> None:
    end = time.monotonic() + 300
    while len(done(results)) < images:
        assert job.process.poll() is None and time.monotonic() < end, job.text()
        time.sleep(0.1)


def test_killed_at_ninety_percent(
    validate: Start, root: Path, folder: Path, tmp_path: Path
) -> None:
    """The whole job is killed; the next start does the rest, without a look at what was done, and
    ends with the bytes of a validation that was left alone.
    """
    assert validate("OUTPUT_DIR", tmp_path / "alone").end() == 0
    alone = next((tmp_path / "alone").rglob(RESULTS)).read_bytes()
    assert len(json.loads(alone)) > IMAGES
    last = last_images(root)
    contents = [stop_at(image) for image in last]
    job = validate()
    results = folder / "results"
    wait_until_done(
        job, results, 36
    )  # the one before the last is still being decoded in each process
    job.kill()
    for image in (root / "images/train2017").iterdir():
        if image not in last and int(image.stem) in done(results):
            image.write_bytes(b"")
    for image, content in zip(last, contents):
        image.unlink()
        image.write_bytes(content)
    job = validate("TEST.RESUME", True)
    assert job.end() == 0, job.text()
    assert "resuming after 36 images of an earlier run" in job.text()
    assert (results / RESULTS).read_bytes() == alone
    assert not list(results.glob("part-*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_takes_the_other_down(
    validate: Start, root: Path, folder: Path, victim: int
) -> None:
    """While it reads its last image, and the other waits for it."""
    stop_at(last_images(root)[victim])
    job = validate()
    wait_until_done(job, folder / "results", 38)
    os.kill(job.ranks()[victim], signal.SIGKILL)
    assert job.end(60) == 137, job.text()
    assert job.gone_within(10)
    assert f"process {victim} of the run failed: Signal 9 (SIGKILL)" in job.last_line()


@pytest.mark.parametrize("tool", [TRAIN, VALIDATE])
def test_a_mistake_in_one_process_takes_the_other_down(validate: Start, tool: tuple[str]) -> None:
    job = validate(
        "TRAIN.END_EPOCH", 1000, tool=("tests/faults/failing_tool.py", Path(tool[0]).stem)
    )
    job.wait_for("process 1 makes a mistake")
    assert job.end(60) == 1, job.text()
    assert job.gone_within(10)
    said = (
        job.text()
        .strip()
        .rpartition("process 1 of the run failed: ZeroDivisionError: the failing rank\n")[2]
    )
    assert (
        said.startswith("Traceback")
        and said.splitlines()[-1] == "ZeroDivisionError: the failing rank"
    ), job.text()


def test_a_image_that_one_process_cannot_read(validate: Start, root: Path) -> None:
    """Its line is the last thing said, once, without a traceback."""
    broken = last_images(root)[1]
    broken.write_bytes(broken.read_bytes()[:-100])
    job = validate()
    assert job.end() == 2, job.text()
    assert job.gone_within(10)
    assert (
        f"{broken}: the file is cut off" in job.last_line() and job.text().count(str(broken)) == 1
    ), job.text()
    assert "Traceback" not in job.text()


def test_a_killed_launcher_leaves_no_orphans(validate: Start, folder: Path) -> None:
    job = validate("TEST.SCALE_FACTOR", [1, 8])
    wait_until_done(job, folder / "results", 1)
    os.kill(job.process.pid, signal.SIGKILL)
    assert job.gone_within(60), job.text()
    assert len(done(folder / "results")) < IMAGES


def test_a_full_disk(validate: Start, folder: Path) -> None:
    """No file may grow as large as a part, then none as large as the results: one line, and what
    was there is whole.
    """
    assert validate().end() == 0
    results = folder / "results"
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    whole = len(before[RESULTS])
    stem = Path(RESULTS).stem
    assert set(before) == {RESULTS, f"{stem}.md", f"{stem}_figures.json"} and whole > 1 << 17
    for limit, named in ((whole // 4, "part-"), (3 * whole // 4, RESULTS)):

        def set_limit(limit: Any = (limit, limit)) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

        job = validate("TEST.RESUME", True, preexec_fn=set_limit)
        assert job.end() == 3, job.text()
        assert (
            named in job.last_line() and "could not be written (File too large)" in job.last_line()
        ), job.text()
        assert "Traceback" not in job.text()
        assert {name: (results / name).read_bytes() for name in before} == before
    job = validate("TEST.RESUME", True)
    assert job.end() == 0 and f"resuming after {IMAGES} images" in job.text(), job.text()
    assert (results / RESULTS).read_bytes() == before[RESULTS]
