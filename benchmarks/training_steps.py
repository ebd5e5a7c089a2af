"""The card's own limits, and training steps in each setting against the published way."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.harness import Bench, Row, benchmark

ROOT = Path(__file__).resolve().parents[1]
COCO = ROOT / "experiments/coco/higher_hrnet"
TINY = ROOT / "experiments/synthetic/tiny_192_cpu.yaml"
PEOPLE = 3
LAST = 100  # steps whose mean loss is compared
BF16 = ["AMP.ENABLED", True, "AMP.DTYPE", "bf16", "TRAIN.CHANNELS_LAST", True]
FP16 = ["AMP.ENABLED", True, "AMP.DTYPE", "fp16", "TRAIN.CHANNELS_LAST", True]
FLOAT32 = ["AMP.ENABLED", False]
EAGER = {"float32": FLOAT32, "bf16, channels_last": BF16, "fp16, channels_last": FP16}
RECORDED = {"bf16, TRAIN.CUDA_GRAPHS": [*BF16, "TRAIN.CUDA_GRAPHS", True]}


class Network(NamedTuple):
    """A network to be trained: its name, settings, and images of a step."""

    name: str
    file: Path
    batch: int
    opts: list[Any]


def networks(bench: Bench) -> list[Network]:
    """The networks that are timed on this device."""
    if bench.cuda:
        return [
            Network("W32, 512 px", COCO / "w32_512_adam_lr1e-3.yaml", 20, []),
            Network("W48, 640 px", COCO / "w48_640_adam_lr1e-3.yaml", 10, []),
        ]
    small = ["DATASET.INPUT_SIZE", 64, "DATASET.OUTPUT_SIZE", [16, 32]]
    return [Network("tiny, 64 px", TINY, 2, small)]


@benchmark
def card(bench: Bench) -> Iterator[Row]:
    """What the device does at most: a large matrix product, and copying memory."""
    size = 8192 if bench.cuda else 256

    def product(name: str) -> Row:
        dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
        a = torch.ones(size, size, device=bench.device, dtype=dtype)
        with tensor_float(name == "TF32"):
            row = bench.row("card", "", None, lambda: a @ a)
        flops = 2 * size**3 / row.ours_ms * 1e3
        bench.cache[f"flops of {name}"] = flops
        row.case = f"product of {size} x {size}, {name}: {flops / 1e12:,.3g} TFLOP/s"
        return row

    def copy() -> Row:
        count = (1 << 30) if bench.cuda else (1 << 22)
        source = torch.empty(count, dtype=torch.uint8).to(bench.device)
        target = torch.empty_like(source)
        row = bench.row("card", "", None, lambda: target.copy_(source))
        speed = 2 * count / row.ours_ms * 1e3
        bench.cache["bytes a second"] = speed
        row.case = f"copy of {count >> 20} MiB, read and written: {speed / 1e9:,.0f} GB/s"
        return row

    names = ("float32", "TF32", "bfloat16") if bench.cuda else ("float32", "bfloat16")
    products = {f"product in {name}": partial(product, name) for name in names}
    yield from bench.each("card", {**products, "copy": copy})


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """Whether products of float32 may round to TF32 while the block runs."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class PublishedCriterion(nn.Module):
    """The published losses: maps by automatic differentiation, tags in loops over people."""

    def forward(self, outputs: list[Any], targets: list[Any]) -> dict[str, Tensor]:
        from tests.oracles.losses import associative_loss

        losses: dict[str, Tensor] = {}
        for stage, (output, target) in enumerate(zip(outputs, targets)):
            mask = target.mask[:, None]
            heat = target.heatmaps
            scales = torch.where(heat > 0, output.scales, 0)
            u = scales * torch.log(heat.clamp(min=1e-30))
            adapted = torch.where(heat > 0, heat * (1 + u + u**2 / 2), 0)
            predicted = output.heatmaps
            power = heat**0.01
            weight = (1 - predicted).abs() * power + predicted.abs() * (1 - power)
            residual = weight * (predicted - adapted) ** 2 * mask
            losses[f"heatmap{stage}"] = residual.mean((1, 2, 3))
            losses[f"scale{stage}"] = (scales**2 * mask).mean((1, 2, 3))
            if output.tags is not None:
                push, pull = associative_loss(output.tags, target.index, target.present, "exp")
                losses |= {f"push{stage}": 1e-3 * push, f"pull{stage}": 1e-3 * pull}
        return losses


def make_batch(network: Network, cfg: Any, device: torch.device) -> Any:
    """A batch on the device: noise, and people at random places."""
    from swahr.data.loaders import Batch

    random = torch.Generator().manual_seed(0)
    size = cfg.DATASET.INPUT_SIZE
    count = network.batch
    joints = torch.rand(count, PEOPLE, cfg.MODEL.NUM_JOINTS, 3, generator=random)
    sides = cfg.DATASET.OUTPUT_SIZE
    return Batch(
        torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=random),
        [joints * torch.tensor([side, side, 1.0]) for side in sides],
        [torch.ones(count, side, side, dtype=torch.uint8) for side in sides],
        torch.arange(count),
        {},
    ).to(device)


def build(bench: Bench, network: Network, opts: list[Any]) -> tuple[Any, Any, int]:
    """The step with fresh weights, a batch, and MACs of an image."""
    from swahr.config import load_config
    from swahr.engine import setup
    from swahr.losses.criterion import build_criterion
    from swahr.models.flops import count_macs

    every = [*network.opts, "MODEL.PRETRAINED", "", *opts]
    cfg = load_config(network.file, list(map(str, every)))
    model = setup.build_network(cfg, bench.device)
    macs = count_macs(model, cfg.DATASET.INPUT_SIZE)[1]
    step = setup.build_train_step(cfg, model, build_criterion(cfg), bench.device)
    return step, make_batch(network, cfg, bench.device), macs


def published_step(bench: Bench, network: Network) -> Callable[[], Any]:
    """A step as published: eager, float32 (TF32 as PyTorch sets it), plain losses and Adam.

    The targets are made before, as the published loading workers make them.
    """
    step, batch, _ = build(bench, network, FLOAT32)
    criterion = PublishedCriterion()
    optimizer = torch.optim.Adam(step.parameters, foreach=False, fused=False)
    targets = step.encoder(batch.joints, batch.masks)

    def run() -> None:
        _, outputs = step.forward(batch)
        loss = sum(loss.mean() for loss in criterion(outputs, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def rows_of(bench: Bench, variants: dict[str, list[Any]]) -> Iterator[Row]:
    """A row for each setting and network; without the loading of data.

    The published way has a row the first time. If it fails, it is not tried again.
    """
    cases: dict[str, Callable[[], Row]] = {}
    for network in networks(bench):
        key = f"published {network.name}"
        if key not in bench.cache:
            bench.cache[key] = None
            cases[f"{network.name}, the published way"] = partial(published_row, bench, network)
    for name, opts in variants.items():
        for network in networks(bench):
            cases[f"{network.name}, {name}"] = partial(row_of, bench, network, name, opts)
    yield from bench.each("training steps", cases)


def published_row(bench: Bench, network: Network) -> Row:
    case = f"{network.name}, batch {network.batch}: the published way"
    step = published_step(bench, network)
    row = bench.row("training steps", case, None, step, images=network.batch)
    bench.cache[f"published {network.name}"] = row.ours_ms
    return row


def row_of(bench: Bench, network: Network, name: str, opts: list[Any]) -> Row:
    if bench.cuda:
        torch._dynamo.reset()  # frees what was compiled before
    step, batch, macs = build(bench, network, opts)
    row = bench.row("training steps", "", None, lambda: step([batch], 1e-4))
    row.plain_ms = bench.cache.get(f"published {network.name}")
    row.images = network.batch
    flops = 6 * macs * network.batch  # two for each MAC, forward once and backward twice
    case = f"{network.name}, batch {network.batch}, {name}"
    kind = "bfloat16" if name != "float32" else "TF32" if bench.cuda else "float32"
    if peak := bench.cache.get(f"flops of {kind}"):
        share = flops / (row.ours_ms / 1e3) / peak
        case += f"; {share:.0%} of the measured product in {kind}"
    note_roofline(bench, network, step, flops)
    row.case = case
    if bench.cuda and network.batch == 20 and name != "float32":
        row.goal_ms = 1e3 * network.batch / 450
    return row


def note_roofline(bench: Bench, network: Network, step: Any, flops: int) -> None:
    """The least time of the products and of the weights' traffic: computed, so not in the table.

    Nothing where the card's limits were not measured.
    """
    if not {"flops of bfloat16", "bytes a second"} <= bench.cache.keys():
        return
    products = flops / bench.cache["flops of bfloat16"]
    weights = sum(parameter.numel() for parameter in step.parameters)
    # Adam reads weight, gradient and two averages, and writes all but the gradient, in float32.
    traffic = 7 * 4 * weights / bench.cache["bytes a second"]
    least = products + traffic
    bench.estimates[network.name] = (
        f"{network.name}: at least {1e3 * products:.1f} ms of bf16 products and "
        f"{1e3 * traffic:.1f} ms of Adam's traffic a step: "
        f"at most {network.batch / least:,.3g} images/s"
    )


@benchmark
def training_steps(bench: Bench) -> Iterator[Row]:
    """Steps on data that is on the device already, against the published way."""
    yield from rows_of(bench, EAGER)


@benchmark
def recorded_training_steps(bench: Bench) -> Iterator[Row]:
    """On a GPU: the whole step as one CUDA graph. Compiled steps come last, in `compiled.py`."""
    if bench.cuda:
        yield from rows_of(bench, RECORDED)


@benchmark
def mixed_precision_losses(bench: Bench) -> Iterator[Row]:
    """The tiny network on synthetic images: mean loss of the last steps in bf16 and fp16 against
    float32; `same` is a difference of at most 2 %.
    """
    from benchmarks.network import make_images, train

    steps, images, batch = (1000, 2000, 8) if bench.cuda else (3, 4, 2)
    means: dict[str, float] = {}

    def row(name: str, more: list[Any]) -> Row:
        root = make_images(bench, images, 1)
        opts = ["DATASET.ROOT", root, "TRAIN.IMAGES_PER_GPU", batch, "DATASET.REPEAT"]
        opts += [max(1, -(-steps * batch // images)), "TRAIN.END_EPOCH", 2]
        opts += ["TRAIN.WARM_UP_EPOCH", 1]
        seconds, losses = train(bench, TINY, [*opts, *more], steps)
        means[name] = losses[-LAST:].mean().item()
        case = f"tiny, {steps} steps, {name}: loss {means[name]:.5f}"
        made = Row("mixed precision losses", case, None, 1e3 * seconds, images=batch)
        if name != "float32" and "float32" in means:
            difference = abs(means[name] / means["float32"] - 1)
            made.case += f", {difference:.2%} off float32"
            made.same = difference <= 0.02
        return made

    cases = {name: partial(row, name, more) for name, more in EAGER.items()}
    yield from bench.each("mixed precision losses", cases)


def describe_card() -> dict[str, str]:
    """Driver, clocks and power limit of the first GPU, as nvidia-smi says."""
    if shutil.which("nvidia-smi") is None:
        return {"driver and clocks": "unknown: there is no nvidia-smi"}
    names = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    command = ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader", "--id=0"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return {f"driver and clocks ({names})": said or "unknown: nvidia-smi fails"}
