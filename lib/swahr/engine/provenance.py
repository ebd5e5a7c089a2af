"""What a result was made with: the file of weights, the settings of the test, and a fingerprint of
both.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from swahr.config import output_dir, resolve_path
from swahr.config.paths import PUBLISHED_CONFIG
from swahr.config.schema import lookup
from swahr.engine import checkpoint
from swahr.engine.run_folder import SPEED_KEYS, own_skeleton
from swahr.geometry import input_geometry
from swahr.inference.exported_network import used_maps
from swahr.models.weights import CheckpointError

Entry = TypeVar("Entry")
RUN_WEIGHTS = (checkpoint.BEST, checkpoint.FINAL)  # files of a run, in order of preference
LIBRARY = "swahr"  # what config.json of a published model says that it is of
PUBLISHED_WEIGHTS = "model.safetensors"
FIGURES = "_figures.json"  # end of the name of a file of figures, see validate.write_report
IN_TRAINING = "those of the training run in progress"  # what a report says of such weights
DIGEST_LENGTH = 12  # hexadecimal digits of SHA-256 that are shown
# The settings that decide which people are found, apart from the weights.
RESULT_SECTIONS = ("DATASET", "MODEL", "LOSS", "AMP", "TEST")
# The rules by which maps become people, as the published configurations of COCO have them. Those of
# CrowdPose have the DETECTION_THRESHOLD 0.1.
PUBLISHED_RULES = {
    "DATASET.MAX_NUM_PEOPLE": 30,
    "TEST.DECODER": "associative",
    "TEST.PROJECT2IMAGE": True,
    "TEST.NMS_KERNEL": 5,
    "TEST.DETECTION_THRESHOLD": 0.12,
    "TEST.TAG_SCALE": 1,
    "TEST.TAG_THRESHOLD": 1,
    "TEST.USE_DETECTION_VAL": True,
    "TEST.IGNORE_TOO_MUCH": False,
    "TEST.ADJUST": True,
    "TEST.SUBPIXEL": False,
    "TEST.REFINE": True,
    "TEST.OKS_NMS": 0,
    "TEST.IGNORE_CENTER": True,
}


class Weights(NamedTuple):
    """A file of weights.

    epoch: finished epochs of training, if the file or the checkpoint beside it says them, else
    None.
    digest: SHA-256 of the file in hexadecimal digits.
    """

    path: Path
    epoch: int | None
    digest: str

    def __str__(self) -> str:
        epoch = "unknown" if self.epoch is None else self.epoch
        return f"{self.path} (epoch {epoch}, sha256 {self.digest[:DIGEST_LENGTH]})"


def find_weights(cfg: Any, cfg_path: str | Path) -> Path:
    """The file TEST.MODEL_FILE, otherwise the best or the last weights of the configuration's own
    run. Raises CheckpointError if there are none.
    """
    if cfg.TEST.MODEL_FILE:
        return resolve_path(cfg.TEST.MODEL_FILE)
    run = output_dir(cfg, cfg_path)
    if found := run_weights(run):
        return found
    raise CheckpointError(
        f"no weights to test with: TEST.MODEL_FILE is empty, and {run} has neither "
        f"{' nor '.join(RUN_WEIGHTS)}"
    )


def run_weights(folder: Path) -> Path | None:
    """The best or the last weights of the run in a folder; None if it has neither."""
    return next((folder / name for name in RUN_WEIGHTS if (folder / name).is_file()), None)


def describe_weights(path: str | Path) -> Weights:
    """The path, epoch and digest of a file of weights. Raises CheckpointError if it cannot be
    read.
    """
    path = Path(path)
    digest = sha256(path)
    epoch = checkpoint_entry(path, "epoch", int)
    return Weights(path, _epoch_in_run(path, digest) if epoch is None else epoch, digest)


def _epoch_in_run(path: Path, digest: str) -> int | None:
    """The epoch of a run's best or final weights, whose files have none, from the checkpoint beside
    them, and of published ones from their config.json; None if these are of other weights.
    """
    if path.name == PUBLISHED_WEIGHTS:
        epoch = published_description(path, digest).get("epoch")
        return epoch if type(epoch) is int else None
    if path.name == checkpoint.BEST:
        return _best_validation(path, digest).get("epoch")
    newest = path.parent / checkpoint.NEWEST
    if path.name == checkpoint.FINAL and _has_weights(path, _evaluated_weights(newest)):
        return checkpoint_entry(newest, "epoch", int)
    return None


def published_description(path: Path, digest: str) -> dict[str, Any]:
    """config.json beside the weights of a published model; {} where there is none, or one of other
    weights. The first models have no sha256 of their own in it; then the file's name decides.
    """
    try:
        content = json.loads((path.parent / PUBLISHED_CONFIG).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("library_name") != LIBRARY:
        return {}
    is_of_these = path.name == PUBLISHED_WEIGHTS and content.get("sha256", digest) == digest
    return content if is_of_these else {}


def validation_in_training(weights: Weights) -> dict[str, Any]:
    """The validation, in training, of a run's weights, as the checkpoint beside them tells it, see
    hooks.BestWeights; {} where there was none, or of other weights only.
    """
    path = weights.path
    if path.name == checkpoint.BEST:
        return _best_validation(path, weights.digest)
    if path.name not in (checkpoint.FINAL, checkpoint.NEWEST):
        return {}
    newest = path.parent / checkpoint.NEWEST
    progress = checkpoint_entry(newest, "progress", dict) or {}
    last = _validations(newest).get("last") or {}
    is_newest = (progress.get("epoch"), progress.get("step")) == (last.get("epoch"), 0)
    return last if is_newest and _has_weights(path, _evaluated_weights(newest)) else {}


def _best_validation(path: Path, digest: str) -> dict[str, Any]:
    best = _validations(path.parent / checkpoint.NEWEST).get("best") or {}
    return best if best.get("sha256") == digest else {}


def _validations(newest: Path) -> dict[str, Any]:
    """The best and the last validation that the last checkpoint of a run tells of; {} where it does
    not.
    """
    hooks = checkpoint_entry(newest, "hooks", dict) or {}
    return dict(hooks.get("best_weights") or {})


def _evaluated_weights(newest: Path) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint of a run that are validated and kept: the average where
    there is one.
    """
    hooks = checkpoint_entry(newest, "hooks", dict) or {}
    average = (hooks.get("ema") or {}).get("state_dict")
    return average or checkpoint_entry(newest, "best_state_dict", dict) or {}


def _has_weights(path: Path, weights: dict[str, torch.Tensor]) -> bool:
    """Whether a file of plain weights, or a checkpoint of training, holds these."""
    own = _content(path)
    if isinstance(own, dict):
        own = own.get("best_state_dict", own)
    if not isinstance(own, dict) or own.keys() != weights.keys():
        return False
    pairs = [(own[name], tensor) for name, tensor in weights.items()]
    return all(isinstance(a, torch.Tensor) and torch.equal(a, b) for a, b in pairs)


def describe_test(cfg: Any) -> str:
    """The settings that tests of one network are told apart by, in one line: those that papers
    name, the rules that are not those of PUBLISHED_RULES, and maps that are trained and not used.
    """
    scales = ", ".join(f"{scale:g}" for scale in cfg.TEST.SCALE_FACTOR)
    flip = "flip test" if cfg.TEST.FLIP_TEST else "no flip test"
    rules = [
        f", {key} {value:g}" if type(value) is float else f", {key} {value}"
        for key, published in PUBLISHED_RULES.items()
        if (value := lookup(cfg, key)) != published
    ]
    trained = (cfg.LOSS.WITH_HEATMAPS_LOSS, cfg.LOSS.WITH_AE_LOSS)
    for key, maps, used in zip(("WITH_HEATMAPS", "WITH_AE"), trained, used_maps(cfg)):
        if list(maps) != used:
            rules.append(f", TEST.{key} {cfg.TEST[key]}")
    return f"{flip}, scales {scales}, {_input_size(cfg)}{''.join(rules)}"


def _input_size(cfg: Any) -> str:
    """The short side of test images at scale 1, which geometry rounds up."""
    size = cfg.DATASET.INPUT_SIZE
    used, _ = input_geometry(1, 1, size, 1.0, min(cfg.TEST.SCALE_FACTOR)).size
    return f"input size {size} px" + (f", rounded up to {used} px" if used != size else "")


def describe_test_of_split(cfg: Any) -> str:
    """DATASET.TEST and `describe_test`."""
    return f"{cfg.DATASET.TEST}, {describe_test(cfg)}"


def results_name(cfg: Any) -> str:
    """The name, without ending, of the results of DATASET.TEST: the published
    keypoints_<TEST>_results for the published default test (flip test, scale 1). Other tests get
    the suffix _noflip, or their scales such as _scales0.5-1-2, or both.
    """
    scales = [float(scale) for scale in cfg.TEST.SCALE_FACTOR]
    name = f"keypoints_{cfg.DATASET.TEST}_results"
    if not cfg.TEST.FLIP_TEST:
        name += "_noflip"
    if scales != [1.0]:
        name += "_scales" + "-".join(f"{scale:g}" for scale in scales)
    return name


class Figures(NamedTuple):
    """Figures of a validation by name. weights, test: what was tested, and how, in words."""

    weights: str
    test: str
    figures: dict[str, float]

    def are_of(self, digest: str) -> bool:
        """Whether the weights are those of the file with this SHA-256."""
        return digest[:DIGEST_LENGTH] in self.weights


def figures_path(results: Path) -> Path:
    """The file of figures that belongs to a file of result records."""
    return results.with_name(results.stem + FIGURES)


def read_figures(path: Path) -> Figures:
    """A file of figures. Raises CheckpointError if it is not one."""
    try:
        content = json.loads(path.read_bytes())
        return Figures(content["weights"], content["test"], content["figures"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: is no file of figures ({error}); remove it") from None


def fingerprint(cfg: Any, weights: Weights) -> str:
    """Hexadecimal digits that two tests share if they find the same people with the same
    weights.
    """
    digest = hashlib.sha256()
    for section in RESULT_SECTIONS:
        settings = [item for item in cfg[section].items() if item[0] not in SPEED_KEYS]
        digest.update(repr(settings).encode())
    digest.update(own_skeleton(cfg).encode())
    digest.update(weights.digest.encode())
    return digest.hexdigest()[:16]


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file in hexadecimal digits. Raises CheckpointError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    return digest.hexdigest()


def checkpoint_entry(path: str | Path, name: str, kind: type[Entry]) -> Entry | None:
    """An entry of a checkpoint of training, such as its epoch; None where the file has none of this
    name and type.
    """
    content = _content(path)
    entry = content.get(name) if isinstance(content, dict) else None
    return entry if type(entry) is kind else None


def _content(path: str | Path) -> Any:
    """What a file of weights holds; None if it cannot be loaded."""
    try:
        mapped = zipfile.is_zipfile(path)  # the tensors then stay on the disk
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:  # loading the weights says what is wrong with the file
        return None
