"""A trained network as a folder that describes itself: weights, settings, figures, a model card.

model.safetensors, config.json, README.md, and skeleton.yaml for keypoints of one's own. The same
folder is what a model on the Hugging Face hub is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swahr import __version__
from swahr.config import configured_skeleton
from swahr.config.schema import SCHEMA, flatten
from swahr.engine.model_files import (
    PUBLISHED_CONFIG,
    PUBLISHED_SKELETON,
    PUBLISHED_WEIGHTS,
    LoadError,
    ModelFiles,
    read_description,
)
from swahr.engine.provenance import (
    FIGURES,
    LIBRARY,
    Weights,
    describe_test,
    describe_weights,
    published_description,
    read_figures,
    validation_in_training,
)
from swahr.engine.run_folder import own_skeleton
from swahr.evaluation.metrics import format_table
from swahr.exported import is_exported
from swahr.files import make_folder, naming, write_bytes, write_text
from swahr.inference.load import load_network
from swahr.models.weights import CheckpointError, published_state
from swahr.skeleton import SKELETONS, Skeleton

CARD = "README.md"
# Settings of the machine that trained, which get their defaults.
OF_THE_MACHINE = (
    "OUTPUT_DIR",
    "LOG_DIR",
    "DATA_DIR",
    "DEVICE",
    "WORKERS",
    "DATASET.ROOT",
    "DATASET.SKELETON",
    "MODEL.PRETRAINED",
    "TRAIN.CHECKPOINT",
    "TEST.MODEL_FILE",
)


class Measured(NamedTuple):
    """Figures of a validation of the published weights by name. test: split, passes and scales."""

    test: str
    figures: Mapping[str, float]


def publish(model: ModelFiles, out: str | Path, *, half: bool = False) -> Path:
    """Write a model's folder and return its path.

    half: store the weights in float16, half the size; they are float32 again when loaded. A model
    that was published there before is replaced. Raises LoadError without safetensors or where files
    of other origin would be replaced, CheckpointError, WriteError.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise LoadError("publishing needs safetensors: pip install safetensors") from None
    cfg = model.cfg
    if is_exported(model.weights):
        raise LoadError(f"{model.weights}: is exported; publish the weights that it was made from")
    _refuse_other_files(Path(out))
    network = load_network(cfg, model.weights, "cpu")
    weights = describe_weights(model.weights)
    skeleton = configured_skeleton(cfg)
    measured = find_figures(cfg, weights)
    tensors = {name: value.contiguous() for name, value in published_state(network).items()}
    if half:
        rounded = _rounded(tensors, model.weights)
        if any(not torch.equal(rounded[name].to(value), value) for name, value in tensors.items()):
            before = "before rounding to float16"
            measured = [Measured(f"{test}, {before}", figures) for test, figures in measured]
        tensors = rounded
    folder = make_folder(out)
    content = save(tensors, {"format": "pt"})
    description = {
        "library_name": LIBRARY,
        "version": __version__,
        "keypoints": list(skeleton.keypoints),
        "epoch": weights.epoch,
        "sha256": hashlib.sha256(content).hexdigest(),
        "source_sha256": weights.digest,
        "metrics": [{"test": each.test, **each.figures} for each in measured],
        "config": portable_settings(cfg),
    }
    # First, as it marks the folder as one of ours, which a later call may complete.
    write_text(folder / PUBLISHED_CONFIG, json.dumps(description, indent=1) + "\n")
    if text := own_skeleton(cfg):
        write_text(folder / PUBLISHED_SKELETON, text)
    else:
        with naming(folder / PUBLISHED_SKELETON):
            (folder / PUBLISHED_SKELETON).unlink(missing_ok=True)  # of a model that was there
    write_bytes(folder / PUBLISHED_WEIGHTS, content)
    write_text(folder / CARD, model_card(cfg, skeleton, weights, measured, half=half))
    return folder


def _refuse_other_files(folder: Path) -> None:
    """Raise LoadError where the files of a model would replace files that are none of ours."""
    if _is_published(folder):
        return
    for name in (PUBLISHED_WEIGHTS, PUBLISHED_CONFIG, CARD, PUBLISHED_SKELETON):
        if os.path.lexists(folder / name):
            raise LoadError(
                f"{folder / name} would be overwritten, and {folder} is no published model; give a "
                "folder of its own"
            )


def _is_published(folder: Path) -> bool:
    """Whether config.json of the folder is one that `publish` wrote."""
    try:
        return read_description(folder).get("library_name") == LIBRARY
    except LoadError:
        return False


def _rounded(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Floating-point tensors in float16. Raises LoadError where one is too large for it."""
    rounded = {}
    for name, value in tensors.items():
        rounded[name] = value.half() if value.is_floating_point() else value
        if not rounded[name].isfinite().all():
            raise LoadError(f"{path}: {name} is too large for float16; publish without --half")
    return rounded


def portable_settings(cfg: Any) -> dict[str, Any]:
    """The settings by their dotted names, without those of the machine."""
    values = flatten(cfg) | {name: SCHEMA[name].default for name in OF_THE_MACHINE}
    if cfg.DATASET.SKELETON in SKELETONS:
        values["DATASET.SKELETON"] = cfg.DATASET.SKELETON
    return values


def find_figures(cfg: Any, weights: Weights) -> list[Measured]:
    """What was measured with these weights: by training, before they were published, and by
    dist_valid in the run's results/.

    Figures of other weights of the run, such as those of an earlier epoch, are left out.
    """
    measured = []
    if validation := validation_in_training(weights):
        test = validation.get("test") or f"{cfg.DATASET.TEST}, settings unknown"
        measured.append(Measured(f"{test} (in training)", validation["figures"]))
    measured += _figures_before(weights)
    for path in sorted((weights.path.parent / "results").glob(f"*{FIGURES}")):
        told = read_figures(path)
        if told.are_of(weights.digest):
            measured.append(Measured(told.test, told.figures))
    return measured


def _figures_before(weights: Weights) -> list[Measured]:
    """What the folder of a published model says was measured. Raises CheckpointError."""
    entries = published_description(weights.path, weights.digest).get("metrics", [])
    try:
        return [
            Measured(each["test"], {name: float(each[name]) for name in each if name != "test"})
            for each in entries
        ]
    except (TypeError, ValueError, KeyError) as error:
        path = weights.path.parent / PUBLISHED_CONFIG
        raise CheckpointError(f"{path}: metrics has no figures ({error}); remove it") from None


def model_card(
    cfg: Any, skeleton: Skeleton, weights: Weights, measured: list[Measured], *, half: bool = False
) -> str:
    """README.md of the folder: what the network is, how it is used, and what was measured."""
    tables = [f"{format_table(cfg.RUN_NAME, each.figures)}\n\n{each.test}\n" for each in measured]
    text = "\n".join(tables) or "Nothing was measured where this was written.\n"
    epoch = "" if weights.epoch is None else f", epoch {weights.epoch}"
    stored = "- weights: in float16\n" if half else ""
    return f"""---
library_name: {LIBRARY}
pipeline_tag: keypoint-detection
---

# {cfg.RUN_NAME}

Bottom-up multi-person pose estimation: {cfg.MODEL.BACKBONE} with the head {cfg.MODEL.HEAD}, trained
on data with the keypoints of {skeleton.name} (split {cfg.DATASET.TRAIN}){epoch}. Written by swahr
{__version__}.

    import swahr

    model = swahr.PoseModel.from_pretrained("FOLDER OR ID")   # the folder of this file, or its id
    result = model("photo.jpg")
    result.save("photo_people.jpg")

- keypoints: {", ".join(skeleton.keypoints)}
- test: {describe_test(cfg)}
{stored}- sha256 of the weights that this was made from: {weights.digest}

## Measured

{text}"""
