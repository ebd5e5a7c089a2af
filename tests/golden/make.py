"""Makes the small reference figures of this folder from the large ones.

usage: python tests/golden/make.py FIGURES WEIGHTS

FIGURES: folder of the large figures. WEIGHTS: the trained weights that its trajectory.npz starts
from, in the published format, with the configuration (.yaml) beside them. No image of
trajectory.npz is stored; README.md beside this file says where each figure comes from.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "lib")]

from swahr.config import configured_skeleton, load_config  # noqa: E402
from swahr.data.keypoints import build_dataset  # noqa: E402
from swahr.data.loaders import build_train_loader  # noqa: E402
from swahr.synthetic import SceneSettings, write_dataset  # noqa: E402
from tests.golden import compare  # noqa: E402
from tests.golden.compare import Array, Figures  # noqa: E402

STEPS = {"coco_tiny": 89, "coco_w32": 89}  # forward: every n-th value
ARCHITECTURES = {"coco48": "coco_w48_640", "crowdpose": "crowdpose_w48_640"}
GRADIENT_STEP = 29
LOSSES = {"coco_exp": 2, "coco_max": 1}  # the samples that are stored
DECODING = ("coco_flip", "coco_small_maps", "crowdpose_multiscale")
NOISE = 0.08  # heatmaps farther than NEAR pixels from a larger value are set to zero
NEAR = {1.0: 4, 2.0: 5, 0.5: 4}  # by test scale


def forward(name: str, published: Figures) -> dict[str, Array]:
    step = STEPS[name]
    outputs = [published["out0"], published["out1"]]
    figures = {"seed": published["input_seed"], "batch": len(outputs[0]), "step": step}
    for part, maps in _parts(outputs, compare.num_keypoints(name)).items():
        figures[part] = maps.ravel()[::step]
    return _arrays(figures)


def losses(name: str, published: Figures, samples: int) -> dict[str, Array]:
    """The first samples of a published batch; the gradients are those of the smaller batch."""
    figures = {"push_kind": name.split("_")[1], "step": GRADIENT_STEP}
    batch = len(published["out0"])
    k = compare.num_keypoints(name)
    maps = _parts([published["out0"][:samples], published["out1"][:samples]], k)
    for part, values in maps.items():
        figures[part] = values if part.startswith("tag") else values.astype(np.float16)
    gradients = _parts([published["grad0"][:samples], published["grad1"][:samples]], k)
    for part, values in gradients.items():
        figures[f"gradient_{part}"] = values.ravel()[::GRADIENT_STEP] * np.float32(batch / samples)
    for stage in (0, 1):
        figures[f"target{stage}"] = published[f"heatmaps{stage}"][:samples]
        figures[f"mask{stage}"] = published[f"mask{stage}"][:samples]
        figures[f"joints{stage}"] = published[f"joints{stage}"][:samples]
    for loss in compare.STEP_LOSSES[1:]:
        figures[f"loss_{loss}"] = published[loss][:samples]
    return _arrays(figures)


def targets(published: Figures) -> dict[str, Array]:
    step = 11
    figures = {
        "step": step,
        "scale_aware_joints": published["scale_aware_joints"],
        "scale_aware_size": published["scale_aware_heatmaps"].shape[-1],
        "scale_aware_heatmaps": published["scale_aware_heatmaps"].ravel()[::step],
    }
    for layout in range(sum(name.startswith("joints") for name in published)):
        for name in ("joints", "size", "sigma"):
            figures[f"{name}{layout}"] = published[f"{name}{layout}"]
        figures[f"heatmaps{layout}"] = published[f"heatmaps{layout}"].ravel()[::step]
        for ours, theirs in (("index", "tag_index"), ("shared_index", "tag_index_shared")):
            index, present = np.moveaxis(published[f"{theirs}{layout}"], -1, 0)
            person, joint = np.nonzero(present)
            figures[f"{ours}{layout}"] = np.stack([person, index[person, joint]], axis=1)
    return _arrays(figures)


def decoding(name: str, published: Figures) -> dict[str, Array]:
    """The published people, and network outputs in which noise far from people is zero."""
    k = compare.num_keypoints(name)
    figures = {
        "input_size": published["input_size"],
        "image_size": published["image_size"],
        "scales": published["scale_factor"],
        "flip": published["flip_test"],
        "project": published["project2image"],
        "people": published["people"][..., :3].astype(np.float32),
        "scores": published["scores"],
    }
    for key in published:
        if not key.startswith("net_s"):
            continue
        _, scale_name, mirrored, stage = key.split("_")
        scale = float(scale_name[1:])
        where = f"{stage[-1]}_{scale:g}_{mirrored[1:]}"
        maps = published[key]
        figures[f"heatmap{where}"] = np.stack(
            [_without_noise(heatmap, NEAR[scale]) for heatmap in maps[k : 2 * k]]
        )
        if scale == 1 and stage == "stage0":
            figures[f"tag{where}"] = maps[2 * k :]
    return _arrays(figures)


def published_training(published: Figures) -> dict[str, Array]:
    """trajectory.npz in the form that compare.py reads. It holds photographs: never stored."""
    figures = {name: published[name] for name in ("images", "order", "rates", "names", "norms")}
    samples = len(published["images"])
    for stage in (0, 1):
        rows = [published[f"joints{sample}_{stage}"] for sample in range(samples)]
        joints = np.zeros((samples, max(map(len, rows)), *rows[0].shape[1:]), np.float32)
        for sample, row in enumerate(rows):
            joints[sample, : len(row)] = row
        figures[f"joints{stage}"] = joints
        figures[f"masks{stage}"] = published[f"masks{stage}"]
    figures["loss_total"] = published["total"]
    for loss in compare.STEP_LOSSES[1:]:
        figures[f"loss_{loss}"] = published[f"loss_{loss}"]
    return figures


def training() -> dict[str, Array]:
    """Twelve steps of this project on drawn people."""
    with tempfile.TemporaryDirectory() as folder:
        settings = SceneSettings(width=(80, 96), height=(80, 96), people=(1, 3))
        write_dataset(Path(folder), num_train=8, num_val=1, seed=3, settings=settings)
        opts = [*compare.TRAINED, "DATASET.ROOT", folder, "WORKERS", "0"]
        cfg = load_config(compare.config_file("coco"), [*opts, "TRAIN.IMAGES_PER_GPU", "8"])
        dataset = build_dataset(
            cfg, "train2017", train=True, root=Path(folder), skeleton=configured_skeleton(cfg)
        )
        [batch] = build_train_loader(cfg, dataset)
    random = np.random.RandomState(0)
    figures = {
        "images": batch.images.numpy(),
        "order": np.stack([random.permutation(8)[:4] for _ in range(12)]),
        "rates": np.linspace(1e-6, 1e-5, 12),
    }
    for stage in (0, 1):
        figures[f"joints{stage}"] = batch.joints[stage].numpy().astype(np.float32)
        figures[f"masks{stage}"] = batch.masks[stage].numpy().astype(bool)
    steps, state = compare.run_tiny_training(figures)
    for loss in compare.STEP_LOSSES:
        figures[f"loss_{loss}"] = [step[loss] for step in steps]
    figures["names"] = sorted(state)
    figures["norms"] = compare.norms(state, sorted(state))
    return _arrays(figures)


def architectures(published: Mapping[str, Any]) -> dict[str, Any]:
    """What compare.architecture gives, for each of ARCHITECTURES."""
    return {
        name: {
            "parameters": published[theirs]["parameters"],
            "state_dict": compare.digest(published[theirs]["state_dict"]),
        }
        for name, theirs in ARCHITECTURES.items()
    }


def _parts(outputs: list[Array], k: int) -> dict[str, Array]:
    """Published channels -> scale0, heatmap0, tag0, scale1, heatmap1."""
    parts = {}
    for stage, maps in enumerate(outputs):
        for index, part in enumerate(compare.MAPS):
            if maps.shape[1] > index * k:
                parts[f"{part}{stage}"] = maps[:, index * k : (index + 1) * k]
    return parts


def _without_noise(heatmap: Array, near: int) -> Array:
    size = 2 * near + 1
    kept = cv2.dilate((np.abs(heatmap) >= NOISE).astype(np.uint8), np.ones((size, size), np.uint8))
    return np.where(kept > 0, heatmap, np.float16(0))


def _arrays(figures: Mapping[str, object]) -> dict[str, Array]:
    return {name: np.asarray(values) for name, values in figures.items()}


def _save(name: str, figures: Figures) -> None:
    path = HERE / f"{name}.npz"
    np.savez_compressed(path, **figures)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figures", type=Path)
    parser.add_argument("weights", type=Path)
    args = parser.parse_args()

    def read(name: str) -> Figures:
        return dict(np.load(args.figures / f"{name}.npz"))

    large = published_training(read("trajectory"))
    config = str(args.weights.with_suffix(".yaml"))
    steps, state = compare.run_training(large, config, [], args.weights)
    compare.same_training(steps, state, large)
    figures = training()
    compare.same_training(*compare.run_tiny_training(figures), figures)
    _save("training", figures)

    networks = architectures(json.loads((args.figures / "architecture.json").read_text("utf-8")))
    for name, network in networks.items():
        assert compare.architecture(name) == network, f"{name}: another network"
    (HERE / "architecture.json").write_text(json.dumps(networks, indent=2) + "\n", "utf-8")

    for name in STEPS:
        figures = forward(name, read(f"forward_{name}"))
        compare.forward(name, figures)
        _save(f"forward_{name}", figures)
    for name, samples in LOSSES.items():
        figures = losses(name, read(f"losses_{name}"), samples)
        compare.losses(figures)
        _save(f"losses_{name}", figures)
    figures = targets(read("targets"))
    compare.targets(figures)
    _save("targets", figures)
    for name in DECODING:
        figures = decoding(name, read(f"decode_{name}"))
        compare.decoding(name, figures)
        _save(f"decode_{name}", figures)


if __name__ == "__main__":
    main()
