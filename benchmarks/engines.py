"""One network run by PyTorch in several ways, by ONNX Runtime and by OpenVINO: a process each, all
in one run.

The processes wait for each other: in every round each runs the network once, in turn, so that they
share whatever else the machine does meanwhile. Measured is the way from normalised images to maps
that are averaged over the resolutions. On CPUs only.

    python -m benchmarks.engines CFG FILE MAPS SIZE KEY VALUE ...

is such a process: it writes its maps to MAPS, and the seconds of a call for each line it reads.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.harness import Bench, Row, benchmark, close
from benchmarks.network import BF16_TOLERANCE, MIXED, TOLERANCE, W32, random_network

CONFIG = W32
SIZE = 512  # px, height and width of the image


class Variant(NamedTuple):
    """A way to run the network. exported: from the ONNX file. packages: that it needs. tolerance:
    largest difference from plain, as a fraction of the largest value.
    """

    opts: tuple[str, ...]
    exported: bool = False
    packages: tuple[str, ...] = ()
    tolerance: float = TOLERANCE

    def missing(self) -> set[str]:
        """The packages that are not installed."""
        return {name for name in self.packages if not find_spec(name)}


BF16 = tuple(map(str, MIXED))
EXPORT = ("onnx", "onnxscript", "onnxruntime")  # also to write and check the file
OPENVINO = ("TEST.ENGINE", "openvino")
VARIANTS = {
    "plain": Variant(("TEST.FUSE", "False")),
    "ours": Variant(()),
    "torch.compile": Variant(("TEST.COMPILE", "True")),
    "ONNX Runtime": Variant((), exported=True, packages=EXPORT),
    "OpenVINO": Variant(OPENVINO, exported=True, packages=(*EXPORT, "openvino")),
    "ours, bf16": Variant(BF16, tolerance=BF16_TOLERANCE),
    "OpenVINO, bf16": Variant(
        (*OPENVINO, *BF16), True, (*EXPORT, "openvino"), tolerance=BF16_TOLERANCE
    ),
}


class Process:
    """A process that runs one variant. It is ready once it is made."""

    def __init__(self, name: str, variant: Variant, weights: Path, exported: Path) -> None:
        self.variant = variant
        self.maps = weights.parent / f"{name}.npy"
        file = exported if variant.exported else weights
        words = [CONFIG, file, self.maps, SIZE, *variant.opts]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.engines", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seconds()  # of a first call, after it has compiled

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # closes its input, which ends it

    def load_maps(self) -> torch.Tensor:
        return torch.from_numpy(np.load(self.maps))

    def seconds(self) -> float:
        """Of one call."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.maps.stem}: its process ended, see its message above")
        return float(line)


@benchmark
def engines(bench: Bench) -> Iterator[Row]:
    """Every variant against plain. A package that is not installed is named at the end."""
    if bench.cuda:
        return
    present = {name: v for name, v in VARIANTS.items() if not v.missing()}
    weights = bench.folder / "engines.pth"
    exported = bench.folder / "engines.onnx"
    write_files(bench, weights, exported)
    processes: dict[str, Process] = {}
    with ExitStack() as stack:
        for name, variant in present.items():
            try:
                process = Process(name, variant, weights, exported)
            except (OSError, RuntimeError) as error:
                bench.note(f"engines, {name}", error)
            else:
                processes[name] = stack.enter_context(process)
        plain = processes["plain"].load_maps()
        best = measure(bench, list(processes.values()))
        for (name, process), seconds in zip(processes.items(), best):
            case = f"{name}, {CONFIG.stem}, {SIZE} px"
            same = close(process.load_maps(), plain, process.variant.tolerance)
            yield Row("engines", case, 1e3 * best[0], 1e3 * seconds, same=same)
    if missing := set.union(*(variant.missing() for variant in VARIANTS.values())):
        raise RuntimeError(f"not installed: {', '.join(sorted(missing))}")


def measure(bench: Bench, processes: list[Process]) -> list[float]:
    """The best time of each in seconds; they are called in turn."""
    best = [float("inf")] * len(processes)
    calls = 0
    start = time.perf_counter()
    while calls < bench.calls or time.perf_counter() - start < bench.seconds:
        for index, process in enumerate(processes):
            best[index] = min(best[index], process.seconds())
        calls += 1
    return best


def write_files(bench: Bench, weights: Path, exported: Path) -> None:
    """A random network as weights and as an exported network, which is checked."""
    from swahr.commands.export import export
    from swahr.config import load_config
    from swahr.engine.model_files import ModelFiles
    from swahr.models.weights import published_state

    cfg = load_config(CONFIG)
    torch.save(published_state(random_network(cfg)), weights)
    if all(map(find_spec, EXPORT)):
        try:
            export(ModelFiles(cfg, weights, "random"), exported)
        except Exception as error:  # the other engines are still measured
            bench.note("engines, export", error)


def main(words: list[str]) -> None:
    """The process of one variant."""
    from swahr.config import configured_skeleton, load_config
    from swahr.distributed.comm import select_device
    from swahr.inference.load import load_model
    from swahr.inference.predictor import build_predictor

    config, file, maps, size, *opts = words
    plain = ["AMP.ENABLED", "False", "TEST.FLIP_TEST", "False", "TEST.PROJECT2IMAGE", "False"]
    cfg = load_config(config, [*plain, *opts])
    device = select_device("cpu")
    predictor = build_predictor(cfg, load_model(cfg, file, device), configured_skeleton(cfg))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, int(size), int(size), generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = predictor.maps_of(images, 1.0, ())
        np.save(maps, found.heatmaps.float().numpy())
        for _ in sys.stdin:
            start = time.perf_counter()
            predictor.maps_of(images, 1.0, ())
            print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
