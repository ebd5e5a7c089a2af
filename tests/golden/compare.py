"""Runs this project on reference figures, and compares.

Every function takes the figures of one kind as a mapping from names to arrays, which README.md
beside this file describes, and raises AssertionError where the project differs from them. The
project is called through tests/parity_adapter.py only.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import parity_adapter

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, Any]
Figures = Mapping[str, Array]

CONFIGS = {
    "coco": "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml",
    "coco48": "experiments/coco/higher_hrnet/w48_640_adam_lr1e-3.yaml",
    "crowdpose": "experiments/crowd_pose/higher_hrnet/w48_640_adam_lr1e-3.yaml",
}
NUM_KEYPOINTS = {"coco": 17, "crowdpose": 14}
MAPS = ("scale", "heatmap", "tag")
# The W32 network of CONFIGS["coco"] with a few channels.
TINY = [
    *("MODEL.EXTRA.STAGE2.NUM_CHANNELS", "[8, 16]"),
    *("MODEL.EXTRA.STAGE3.NUM_CHANNELS", "[8, 16, 32]"),
    *("MODEL.EXTRA.STAGE3.NUM_MODULES", "2"),
    *("MODEL.EXTRA.STAGE4.NUM_CHANNELS", "[8, 16, 32, 64]"),
    *("MODEL.EXTRA.STAGE4.NUM_MODULES", "1"),
    *("MODEL.EXTRA.DECONV.NUM_CHANNELS", "[8]"),
]
# The same with fewer blocks, for training on small images.
TRAINED = [
    *TINY,
    *("MODEL.EXTRA.STAGE2.NUM_BLOCKS", "[1, 1]"),
    *("MODEL.EXTRA.STAGE3.NUM_BLOCKS", "[1, 1, 1]"),
    *("MODEL.EXTRA.STAGE3.NUM_MODULES", "1"),
    *("MODEL.EXTRA.STAGE4.NUM_BLOCKS", "[1, 1, 1, 1]"),
    *("MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS", "1"),
    *("DATASET.INPUT_SIZE", "64", "DATASET.OUTPUT_SIZE", "[16, 32]"),
]
SURE = 0.1  # joints of people with a score above this are compared
STEP_LOSSES = ("total", "heatmap0", "scale0", "push0", "pull0", "heatmap1", "scale1")


def config_file(name: str) -> str:
    """Path of the configuration of a figure called coco_* or crowdpose_*."""
    return str(ROOT / CONFIGS[name.split("_")[0]])


def num_keypoints(name: str) -> int:
    return NUM_KEYPOINTS[name.split("_")[0]]


def filled_weights(shapes: Iterable[tuple[str, Sequence[int]]]) -> dict[str, Array]:
    """The weights of the forward figures: normal or uniform numbers, seeded by each tensor's name.

    Variances and batch norms' weights lie in 0.5..1.5; means and biases have a deviation of 0.1;
    filters keep the variance of their inputs.
    """
    weights = {}
    for name, shape in shapes:
        if name.endswith("num_batches_tracked"):
            continue
        random = np.random.RandomState(zlib.crc32(name.encode()))
        is_vector = len(shape) == 1
        if name.endswith("running_var") or (is_vector and name.endswith("weight")):
            values = 0.5 + random.rand(*shape)
        elif is_vector:
            values = 0.1 * random.randn(*shape)
        else:
            values = random.randn(*shape) * np.sqrt(1.0 / np.prod(shape[1:]))
        weights[name] = values.astype(np.float32)
    return weights


def assert_close(got: Any, want: Any, tolerance: float, what: str) -> None:
    """The largest difference is at most `tolerance` times the largest expected value."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    error = np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-12)
    assert error <= tolerance, f"{what}: error {error:.3g}, more than {tolerance:g}"


def architecture(name: str) -> dict[str, Any]:
    """Number of parameters of a configuration's network, and a digest of the names and shapes of
    its state_dict.
    """
    with torch.device("meta"):  # without values
        shapes, parameters = parity_adapter.parameter_shapes(config_file(name), [])
    return {"parameters": parameters, "state_dict": digest(shapes)}


def digest(shapes: Iterable[tuple[str, Sequence[int]]]) -> str:
    """SHA-256 of the names and shapes, in the order of the names."""
    text = json.dumps(sorted([name, list(shape)] for name, shape in shapes))
    return hashlib.sha256(text.encode()).hexdigest()


def forward(name: str, figures: Figures) -> None:
    """seed of the input; step; for each stage and map, every step-th value as the network gives."""
    opts = TINY if "tiny" in name else []
    shapes, _ = parity_adapter.parameter_shapes(config_file(name), opts)
    batch = int(figures["batch"])
    images = np.random.RandomState(int(figures["seed"])).randn(batch, 3, 128, 192)
    outputs = parity_adapter.network_forward(
        config_file(name), opts, filled_weights(shapes), images.astype(np.float32)
    )
    for index, stage in enumerate(outputs):
        for part in MAPS:
            want = figures.get(f"{part}{index}")
            if want is None:
                assert stage[part] is None, f"stage {index} has a {part} map"
            else:
                got = stage[part].ravel()[:: int(figures["step"])]
                assert_close(got, want, 1e-4, f"{part} of stage {index}")


def losses(figures: Figures) -> None:
    """Losses of each sample and gradients of their total.

    Heatmaps and scale maps are stored as float16. That hardly changes the losses, as they are
    means. It changes gradients by up to 6e-4 of the largest, and one in some thousands by more:
    the derivative jumps where a heatmap crosses 0 or 1. One in a thousand may differ.
    """
    opts = ["LOSS.AE_LOSS_TYPE", str(figures["push_kind"])]
    outputs = [
        {
            part: figures[f"{part}{stage}"].astype(np.float32)
            if f"{part}{stage}" in figures
            else None
            for part in MAPS
        }
        for stage in (0, 1)
    ]
    result = parity_adapter.losses(
        config_file("coco"),
        opts,
        outputs,
        [figures[f"target{stage}"] for stage in (0, 1)],
        [figures[f"mask{stage}"] for stage in (0, 1)],
        [figures[f"joints{stage}"] for stage in (0, 1)],
    )
    total = 0.0
    for name in STEP_LOSSES[1:]:
        assert_close(result["values"][name], figures[f"loss_{name}"], 1e-4, name)
        total += float(figures[f"loss_{name}"].mean(dtype=np.float64))
    assert_close(result["total"], total, 1e-4, "total")
    step = int(figures["step"])
    for stage in (0, 1):
        for part in MAPS:
            if outputs[stage][part] is not None:
                got = result["gradients"][stage][part].ravel()[::step]
                want = figures[f"gradient_{part}{stage}"]
                differs = np.abs(got - want) > 1e-3 * np.abs(want).max()
                assert got.shape == want.shape and differs.mean() <= 1e-3, (
                    f"gradient of {part}{stage}: {differs.mean():.1%} of the values differ"
                )


def targets(figures: Figures) -> None:
    step = int(figures["step"])
    layouts = [name[6:] for name in figures if name.startswith("joints")]
    for layout in layouts:
        joints, size = figures[f"joints{layout}"], int(figures[f"size{layout}"])
        heatmaps = parity_adapter.render_heatmaps(joints, size, float(figures[f"sigma{layout}"]))
        assert heatmaps.shape == (joints.shape[1], size, size)
        assert_close(heatmaps.ravel()[::step], figures[f"heatmaps{layout}"], 2e-6, "heatmaps")
        for name, tag_per_joint in (("index", True), ("shared_index", False)):
            want = sorted(tuple(map(int, pair)) for pair in figures[f"{name}{layout}"])
            got = sorted(parity_adapter.tag_index(joints, size, tag_per_joint))
            assert got == want, f"{name} {layout}: {len(got)} joints, expected {len(want)}"
    size = int(figures["scale_aware_size"])
    heatmaps = parity_adapter.render_scale_aware(figures["scale_aware_joints"], size)
    want = figures["scale_aware_heatmaps"]
    assert_close(heatmaps.ravel()[::step], want, 2e-6, "scale-aware heatmaps")


def decoding(name: str, figures: Figures) -> None:
    """The network's outputs at each test scale, and the people in them.

    Published scale maps are not stored, since testing does not read them; the tags of other scales
    than 1 are random numbers, since only those of scale 1 may be read.
    """
    size = int(figures["input_size"])
    scales = [int(scale) if scale == 1 else float(scale) for scale in figures["scales"]]
    settings = {
        "DATASET.INPUT_SIZE": size,
        "DATASET.OUTPUT_SIZE": [size // 4, size // 2],
        "TEST.FLIP_TEST": bool(figures["flip"]),
        "TEST.PROJECT2IMAGE": bool(figures["project"]),
        "TEST.SCALE_FACTOR": scales,
    }
    opts = [str(word) for pair in settings.items() for word in pair]

    def network(scale: float, mirrored: bool) -> list[Array]:
        where = f"{float(scale):g}_{int(bool(mirrored))}"
        low, high = (figures[f"heatmap{stage}_{where}"].astype(np.float32) for stage in (0, 1))
        tags = np.random.RandomState(int(mirrored)).uniform(-9, 9, low.shape).astype(np.float32)
        if scale == 1:
            tags = figures[f"tag0_{where}"].astype(np.float32)
        return [
            np.concatenate([np.zeros_like(low), low, tags]),
            np.concatenate([np.zeros_like(high), high]),
        ]

    width, height = (int(side) for side in figures["image_size"])
    people, scores = parity_adapter.decode(config_file(name), opts, network, (width, height))
    same_people(people, scores, figures["people"], figures["scores"])


def same_people(people: Array, scores: Array, want: Array, want_scores: Array) -> None:
    """The same people in any order: joints within 0.05 pixels, scores within 0.005.

    people: (P, K, >= 3), x, y and score. scores: (P,). Joints with an expected score of at most
    SURE are not compared.
    """
    assert len(people) == len(scores) == len(want), f"{len(people)} people, expected {len(want)}"
    left = list(range(len(people)))
    for person, score in zip(want, want_scores, strict=True):
        sure = person[:, 2] > SURE
        errors = np.abs(people[left][:, sure, :3] - person[sure, :3]) * (1, 1, 10)
        error = np.maximum(errors.max((1, 2), initial=0), 10 * np.abs(scores[left] - score))
        assert error.min() < 0.05, f"a person is {error.min():.3g} off"
        del left[int(error.argmin())]


def training_start(opts: Sequence[str]) -> dict[str, torch.Tensor]:
    """The weights that the twelve steps of figures made by this project start from."""
    shapes, _ = parity_adapter.parameter_shapes(config_file("coco"), list(opts))
    weights = {name: torch.from_numpy(values) for name, values in filled_weights(shapes).items()}
    for name, values in weights.items():
        if "final_layers" in name:  # outputs near zero, as those of a fresh network
            values *= 0.01
    return weights


def run_training(
    figures: Figures, cfg_file: str, opts: list[str], weights_file: Path
) -> tuple[list[dict[str, float]], dict[str, Array]]:
    """Losses of each step, and the state_dict after the last."""
    batches = [
        {
            "images": figures["images"][chosen],
            "joints": [figures[f"joints{stage}"][chosen] for stage in (0, 1)],
            "masks": [figures[f"masks{stage}"][chosen] for stage in (0, 1)],
        }
        for chosen in figures["order"]
    ]
    rates = [float(rate) for rate in figures["rates"]]
    return parity_adapter.train_steps(cfg_file, opts, str(weights_file), batches, rates)


def run_tiny_training(figures: Figures) -> tuple[list[dict[str, float]], dict[str, Array]]:
    """run_training of a tiny network from training_start."""
    with tempfile.TemporaryDirectory() as folder:
        weights_file = Path(folder) / "start.pth"
        torch.save(training_start(TRAINED), weights_file)
        return run_training(figures, config_file("coco"), TRAINED, weights_file)


def same_training(
    steps: list[dict[str, float]], state: Mapping[str, Array], figures: Figures
) -> None:
    """Losses within 2e-3, those of the first step within 1e-5, norms of the weights within 1e-3."""
    for name in STEP_LOSSES:
        got = [step[name] for step in steps]
        assert_close(got[:1], figures[f"loss_{name}"][:1], 1e-5, f"{name} of the first step")
        assert_close(got, figures[f"loss_{name}"], 2e-3, name)
    assert_close(norms(state, figures["names"]), figures["norms"], 1e-3, "norms of the weights")


def norms(state: Mapping[str, Array], names: Iterable[str]) -> list[float]:
    return [float(np.linalg.norm(state[str(name)].astype(np.float64))) for name in names]
