"""Memory: the same after two hundred epochs, and little for a data set as large as COCO's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults import coco_sized
from tests.faults.conftest import ROOT, Job

Start = Callable[..., Job]


def test_memory_stays_flat(start: Start) -> None:
    """The memory of a run with workers, all its processes together, around epoch 20 and around
    epoch 200.
    """
    job = start(
        "WORKERS",
        2,
        "TRAIN.IMAGES_PER_GPU",
        8,
        "TRAIN.END_EPOCH",
        210,
        "TRAIN.VAL_INTERVAL",
        0,
        "PRINT_FREQ",
        1000,
        "DEBUG.DEBUG",
        False,
    )

    def most(epochs: range) -> float:
        """Pages of files aside: what a process has of them depends on who else has them."""
        used = []
        for epoch in epochs:
            job.wait_for(f"epoch {epoch}/210, step 2/2", seconds=900)
            used.append(sum(coco_sized.memory(pid, "Pss_Anon", "Pss_Shmem") for pid in job.pids()))
        return max(used)

    early = most(range(16, 24))
    assert most(range(196, 204)) < 1.05 * early


def test_annotations_of_cocos_size_are_shared(
    tmp_path: Path, write_config: Callable[[Path], Path]
) -> None:
    """262,465 annotations of 118,287 images and eight workers, each of which has looked at all of
    them: far below the 24 GiB that a small host has, and no worker has a copy.
    """
    root = tmp_path / "coco"
    coco_sized.write(root)
    try:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, coco_sized.__file__, str(write_config(tmp_path)), str(root)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    finally:
        shutil.rmtree(root)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["people"]) == (coco_sized.WITH_PEOPLE, coco_sized.PEOPLE)
    assert found["shapes"] == [[2, 64, 64, 3]] and len(found["own"]) == 8
    assert found["peak"] < 6 * 1024, found
    assert max(found["own"]) < 64, found
    assert found["together"] < 2 * 1024, found
