"""TRAIN.CPU_KERNELS: float32 training steps on a CPU with PyTorch's convolutions and with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Bench, Row, benchmark, close
from benchmarks.network import TINY, W32, build_trainer

# Experiments, and the images of a step.
BATCHES = {
    TINY: 8,
    TINY.with_name("demo.yaml"): 4,
    W32: 1,
}
# Channels and pixels of the map of a single convolution.
CONVOLUTIONS = ((32, 96), (64, 48), (128, 24))
BATCH = 8


@benchmark
def cpu_kernels(bench: Bench) -> Iterator[Row]:
    """Whole steps, and a convolution forward and backward. Loading is not part of them."""
    from swahr.acceleration.conv_training import are_gradients_right, use_own_convolutions

    if bench.cuda or not are_gradients_right():
        return

    def convolution(channels: int, size: int) -> Row:
        conv = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        ours = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        ours.load_state_dict(conv.state_dict())
        use_own_convolutions(ours)
        maps, factor = torch.randn(2, BATCH, channels, size, size)
        maps, factor = (x.contiguous(memory_format=torch.channels_last) for x in (maps, factor))
        maps.requires_grad_()
        return bench.row(
            "cpu kernels",
            f"3x3 convolution, {channels} channels, {size} px, batch {BATCH}",
            lambda: gradients(conv, maps, factor),
            lambda: gradients(ours, maps, factor),
            same,
            images=BATCH,
        )

    def step(file: Path, batch: int) -> Row:
        steps = [training_step(bench, file, batch, kernels) for kernels in (False, True)]
        case = f"training step, {file.stem}, batch {batch}"
        return bench.row("cpu kernels", case, *steps, images=batch)

    cases = {
        f"{channels} channels": partial(convolution, channels, size)
        for channels, size in CONVOLUTIONS
    }
    cases |= {file.stem: partial(step, file, batch) for file, batch in BATCHES.items()}
    yield from bench.each("cpu kernels", cases)


def gradients(conv: torch.nn.Conv2d, maps: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((conv(maps),), (maps, conv.weight), (factor,))


def same(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> bool:
    return all(close(mine, theirs, 1e-4) for mine, theirs in zip(got, want))


def training_step(bench: Bench, file: Path, batch: int, kernels: bool) -> Callable[[], object]:
    """A function that makes one step with the same images at each call."""
    from swahr.synthetic import PRESETS, write_dataset

    images = bench.folder / "calm"
    write_dataset(images, num_train=BATCH, num_val=1, settings=PRESETS["calm"])
    opts = [
        *("DATASET.ROOT", images),
        *("DATASET.TRAIN", "train2017"),
        *("DATASET.TEST", "val2017"),
        *("WORKERS", 0),
        *("MODEL.PRETRAINED", ""),
        *("AMP.ENABLED", False),
        *("TRAIN.IMAGES_PER_GPU", batch),
        *("TRAIN.CHANNELS_LAST", True),
        *("TRAIN.CPU_KERNELS", kernels),
    ]
    trainer = build_trainer(bench, file, opts)
    loaded = next(iter(trainer.loader))
    return lambda: trainer.train_step([loaded], trainer.schedule(0))
