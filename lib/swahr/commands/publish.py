"""Write a trained network as a folder that describes itself: weights, settings and a model card.

    swahr publish output/coco_kpt/pose_higher_hrnet/w32_512_adam_lr1e-3 --out hub/w32_512

RUN is the folder of a run, or what else swahr.load takes. OUT gets model.safetensors, config.json,
README.md with the tables that dist_valid measured, and skeleton.yaml for keypoints of your own.
swahr.load(OUT) loads it. Needs safetensors: pip install 'swahr[hub]'.

Exit status: 0 done; 2 wrong settings or weights; 1 any other error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swahr import __version__
from swahr.config import configured_skeleton
from swahr.config.schema import SCHEMA, flatten
from swahr.converters.coco import skeleton_yaml
from swahr.engine.model_files import (
    PUBLISHED_CONFIG,
    PUBLISHED_SKELETON,
    PUBLISHED_WEIGHTS,
    LoadError,
    ModelFiles,
    find_model,
)
from swahr.engine.provenance import Weights, describe_test, describe_weights
from swahr.files import make_folder, write_bytes, write_text
from swahr.inference.load import load_network
from swahr.models.weights import published_state
from swahr.skeleton import SKELETONS, Skeleton

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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, weights or YAML file")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder, made if needed")
    args = parser.parse_args(arguments)
    print(publish(find_model(args.run), args.out))


def publish(model: ModelFiles, out: str | Path) -> Path:
    """Write a model's folder and return its path. Raises LoadError without safetensors,
    CheckpointError, WriteError.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise LoadError("publishing needs safetensors: pip install 'swahr[hub]'") from None
    cfg = model.cfg
    network = load_network(cfg, model.weights, "cpu")
    weights = describe_weights(model.weights)
    skeleton = configured_skeleton(cfg)
    tensors = {name: value.contiguous() for name, value in published_state(network).items()}
    folder = make_folder(out)
    write_bytes(folder / PUBLISHED_WEIGHTS, save(tensors, {"format": "pt"}))
    if cfg.DATASET.SKELETON and cfg.DATASET.SKELETON not in SKELETONS:
        write_text(folder / PUBLISHED_SKELETON, skeleton_yaml(skeleton))
    description = {
        "library_name": "swahr",
        "version": __version__,
        "keypoints": list(skeleton.keypoints),
        "epoch": weights.epoch,
        "source_sha256": weights.digest,
        "config": portable_settings(cfg),
    }
    write_text(folder / PUBLISHED_CONFIG, json.dumps(description, indent=1) + "\n")
    results = sorted((model.weights.parent / "results").glob("*.md"))
    tables = [path.read_text(encoding="utf-8") for path in results]
    write_text(folder / "README.md", model_card(cfg, skeleton, weights, tables))
    return folder


def portable_settings(cfg: Any) -> dict[str, Any]:
    """The settings by their dotted names, without those of the machine."""
    values = flatten(cfg) | {name: SCHEMA[name].default for name in OF_THE_MACHINE}
    if cfg.DATASET.SKELETON in SKELETONS:
        values["DATASET.SKELETON"] = cfg.DATASET.SKELETON
    return values


def model_card(cfg: Any, skeleton: Skeleton, weights: Weights, tables: Sequence[str]) -> str:
    """README.md of the folder: what the network is, how it is used, and what was measured."""
    measured = "\n".join(tables) if tables else "Nothing was measured where this was written.\n"
    epoch = "" if weights.epoch is None else f", epoch {weights.epoch}"
    return f"""---
library_name: swahr
pipeline_tag: keypoint-detection
---

# {cfg.RUN_NAME}

Bottom-up multi-person pose estimation: {cfg.MODEL.BACKBONE} with the head {cfg.MODEL.HEAD}, trained
on {cfg.DATASET.DATASET} ({cfg.DATASET.TRAIN}) with swahr {__version__}{epoch}.

    import swahr

    model = swahr.load("FOLDER")          # the folder of this file
    result = model("photo.jpg")
    result.save("photo_people.jpg")

- keypoints: {", ".join(skeleton.keypoints)}
- test: {describe_test(cfg)}
- sha256 of the weights that this was made from: {weights.digest}

## Measured

{measured}"""
