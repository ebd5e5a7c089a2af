"""Training on a CPU in one process that has all cores, and in one process per core (--gpus N).

Each measurement is a training of its own, as people start it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Bench, Row, benchmark, run_python

ROOT = Path(__file__).resolve().parents[1]
SMALL = ROOT / "experiments/synthetic"
# Experiments, and the images of a step of the process that has all cores.
BATCHES = {SMALL / "tiny_192_cpu.yaml": 8, SMALL / "demo.yaml": 4}
IMAGES = 8  # of the set, which is repeated
STEPS = 24  # of an epoch
ROUNDS = 3  # the best of these counts


@benchmark
def cpu_processes(bench: Bench) -> Iterator[Row]:
    """Trainings of small networks: all times of a network are those of the same number of images.

    Once the processes share the images of a step, and once each has as many.
    """
    cores = os.cpu_count() or 1
    if bench.cuda or cores == 1:
        return

    def rows(file: Path, batch: int) -> list[Row]:
        ways = {(1, batch), (cores, max(1, batch // cores)), (cores, batch)}
        best = dict.fromkeys(sorted(ways), 0.0)
        for _ in range(ROUNDS):
            for way in best:
                best[way] = max(best[way], images_per_second(bench, file, *way))
        one = 1e3 * batch / best.pop((1, batch))
        made = []
        for (processes, images), rate in best.items():
            case = f"{file.stem}, {processes} processes x {images} images against 1 x {batch}"
            made.append(Row("cpu processes", case, one, 1e3 * batch / rate, images=batch))
        return made

    cases = {file.stem: partial(rows, file, batch) for file, batch in BATCHES.items()}
    yield from bench.each("cpu processes", cases)


def images_per_second(bench: Bench, file: Path, processes: int, images: int) -> float:
    """Of the second epoch of a training with that many processes and images in each.

    Raises RuntimeError with its last line where the training fails.
    """
    from swahr.ablation.figures import read_curves
    from swahr.synthetic import PRESETS, write_dataset

    images_root = bench.folder / "calm"
    write_dataset(images_root, num_train=IMAGES, num_val=1, settings=PRESETS["calm"])
    output = bench.folder / f"{file.stem}_{processes}x{images}"
    opts = [
        *("DATASET.ROOT", images_root),
        *("DATASET.REPEAT", max(1, STEPS * processes * images // IMAGES)),
        *("WORKERS", 1),
        *("MODEL.PRETRAINED", ""),
        *("TRAIN.IMAGES_PER_GPU", images),
        *("TRAIN.END_EPOCH", 2),
        *("TRAIN.PLOTS", False),
        *("AUTO_RESUME", False),
        *("RUN_NAME", "run"),
        *("OUTPUT_DIR", output),
        *("LOG_DIR", output),
    ]
    program = [ROOT / "tools/dist_train.py", "--cfg", file, "--gpus", processes]
    run_python([*program, *opts], {"CUDA_VISIBLE_DEVICES": ""})
    return read_curves(next(output.rglob("results.csv")))["images_per_second"][-1]
