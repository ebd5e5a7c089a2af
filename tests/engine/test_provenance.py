from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swahr.config import load_config, save_config
from swahr.engine import checkpoint
from swahr.engine.provenance import (
    describe_test,
    describe_weights,
    find_weights,
    fingerprint,
    results_name,
    validation_in_training,
)
from swahr.models.weights import CheckpointError
from swahr.skeleton import COCO, skeleton_yaml
from tests.models.tiny_networks import EXPERIMENTS

# The published rules, where those of the small test configuration are others.
RULES = (
    "TEST.PROJECT2IMAGE=True",
    "TEST.NMS_KERNEL=5",
    "TEST.NMS_PADDING=2",
    "TEST.DETECTION_THRESHOLD=0.12",
)


def loaded(config_file: Path, *opts: Any) -> Any:
    return load_config(config_file, [str(opt) for opt in opts])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"layer": torch.ones(3)}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_the_weights_are_those_named_or_the_best_of_the_run(
    config_file: Path, weights: Path, tmp_path: Path
) -> None:
    assert find_weights(loaded(config_file, "TEST.MODEL_FILE", weights), config_file) == weights
    cfg = loaded(config_file)
    run = tmp_path / "output/coco_kpt/pose_higher_hrnet/tiny"
    with pytest.raises(
        CheckpointError,
        match=r"no weights to test with: TEST.MODEL_FILE is empty, and .*/tiny has neither "
        r"model_best.pth.tar nor final_state.pth.tar",
    ):
        find_weights(cfg, config_file)
    run.mkdir(parents=True)
    for name in ("final_state.pth.tar", "model_best.pth.tar"):
        (run / name).touch()
        assert find_weights(cfg, config_file) == run / name


def test_the_configuration_of_a_run_finds_the_weights_of_that_run(
    config_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "elsewhere/tiny"
    save_config(loaded(config_file, "RUN_NAME", "tiny"), run / "config.yaml")
    (run / "model_best.pth.tar").touch()
    saved = run / "config.yaml"
    assert find_weights(load_config(saved), saved) == run / "model_best.pth.tar"


@pytest.mark.parametrize("old_format", [False, True])
def test_weights_are_described_by_path_epoch_and_digest(tmp_path: Path, old_format: bool) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    content = {"epoch": 12, "state_dict": {"layer": torch.ones(3)}}
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    described = describe_weights(path)
    assert described == (path, 12, digest)
    assert str(described) == f"{path} (epoch 12, sha256 {digest[:12]})"


def test_a_runs_weights_have_the_epoch_that_its_checkpoint_says(tmp_path: Path) -> None:
    best = tmp_path / "model_best.pth.tar"
    final = tmp_path / "final_state.pth.tar"
    torch.save({"layer": torch.ones(3)}, best)
    torch.save({"layer": torch.zeros(3)}, final)
    validation = {"epoch": 7, "sha256": hashlib.sha256(best.read_bytes()).hexdigest()}
    content = {
        "epoch": 12,
        "best_state_dict": {"layer": torch.zeros(3)},
        "hooks": {"best_weights": {"best": validation}},
    }
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    assert describe_weights(best).epoch == 7
    assert describe_weights(final).epoch == 12
    torch.save({"layer": torch.full((3,), 2.0)}, best)
    torch.save({"layer": torch.full((3,), 2.0)}, final)
    assert describe_weights(best).epoch is None
    assert describe_weights(final).epoch is None
    final.write_bytes(b"damaged")
    assert describe_weights(final).epoch is None


def validated_run(folder: Path, **entries: Any) -> None:
    """The files of a run after its last validation; entries: of its checkpoint."""
    for name, value in ((checkpoint.BEST, 1.0), (checkpoint.FINAL, 2.0)):
        torch.save({"layer": torch.tensor(value)}, folder / name)
    digest = hashlib.sha256((folder / checkpoint.BEST).read_bytes()).hexdigest()
    validations = {
        "best": {"epoch": 7, "sha256": digest, "figures": {"AP": 0.6}},
        "last": {"epoch": 9, "figures": {"AP": 0.4}},
    }
    content = {
        "epoch": 9,
        "progress": {"epoch": 9, "step": 0},
        "best_state_dict": {"layer": torch.tensor(2.0)},
        "hooks": {"best_weights": validations},
    }
    torch.save(content | entries, folder / checkpoint.NEWEST)


def told(folder: Path) -> list[float | None]:
    """AP of training that is told of the best, the final and the newest weights."""
    names = (checkpoint.BEST, checkpoint.FINAL, checkpoint.NEWEST)
    found = [validation_in_training(describe_weights(folder / name)) for name in names]
    return [validation["figures"]["AP"] if validation else None for validation in found]


def test_a_validation_in_training_is_told_of_its_own_weights_only(tmp_path: Path) -> None:
    validated_run(tmp_path)
    assert told(tmp_path) == [0.6, 0.4, 0.4]
    torch.save({"layer": torch.tensor(3.0)}, tmp_path / checkpoint.BEST)
    torch.save({"layer": torch.tensor(3.0)}, tmp_path / checkpoint.FINAL)
    assert told(tmp_path) == [None, None, 0.4]
    (tmp_path / checkpoint.BEST).rename(tmp_path / "elsewhere.pth")
    assert validation_in_training(describe_weights(tmp_path / "elsewhere.pth")) == {}


@pytest.mark.parametrize("progress", [{"epoch": 10, "step": 0}, {"epoch": 9, "step": 500}])
def test_a_checkpoint_after_the_last_validation_has_no_figures(
    tmp_path: Path, progress: dict[str, int]
) -> None:
    validated_run(tmp_path, epoch=progress["epoch"], progress=progress)
    assert told(tmp_path) == [0.6, None, None]


def test_figures_and_epoch_of_an_average_are_not_those_of_the_trained_weights(
    tmp_path: Path,
) -> None:
    validated_run(tmp_path)
    content = torch.load(tmp_path / checkpoint.NEWEST, weights_only=True)
    average = {"state_dict": {"layer": torch.tensor(2.5)}}
    validated_run(tmp_path, hooks=content["hooks"] | {"ema": average})
    assert told(tmp_path) == [0.6, None, None]
    torch.save(average["state_dict"], tmp_path / checkpoint.FINAL)
    assert told(tmp_path) == [0.6, 0.4, None]
    assert describe_weights(tmp_path / checkpoint.FINAL).epoch == 9


def test_the_epoch_of_plain_weights_is_unknown(weights: Path, tmp_path: Path) -> None:
    assert ".pth (epoch unknown, sha256 " in str(describe_weights(weights))
    (tmp_path / "damaged.pth").write_bytes(b"damaged")
    assert describe_weights(tmp_path / "damaged.pth").epoch is None


def test_a_file_of_weights_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    message = r"none.pth: cannot be read \(No such file or directory\)"
    with pytest.raises(CheckpointError, match=message):
        describe_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("flip", "scales", "name", "description"),
    [
        (True, [1], "", "flip test, scales 1, input size 64 px"),
        (False, [1], "_noflip", "no flip test, scales 1, input size 64 px"),
        (
            True,
            [0.5, 1, 2],
            "_scales0.5-1-2",
            "flip test, scales 0.5, 1, 2, input size 64 px, rounded up to 128 px",
        ),
        (False, [1, 2], "_noflip_scales1-2", "no flip test, scales 1, 2, input size 64 px"),
    ],
)
def test_tests_have_names_and_descriptions_of_their_own(
    config_file: Path, flip: bool, scales: list[float], name: str, description: str
) -> None:
    cfg = loaded(config_file, *RULES, "TEST.FLIP_TEST", flip, "TEST.SCALE_FACTOR", scales)
    assert results_name(cfg) == f"keypoints_val2017_results{name}"
    assert describe_test(cfg) == description


@pytest.mark.parametrize(
    "key, value",
    [
        ("DATASET.MAX_NUM_PEOPLE", 1),
        ("TEST.PROJECT2IMAGE", False),
        ("TEST.DETECTION_THRESHOLD", 0.1),
        ("TEST.TAG_SCALE", 2),
        ("TEST.TAG_THRESHOLD", 1000),
        ("TEST.USE_DETECTION_VAL", False),
        ("TEST.IGNORE_TOO_MUCH", True),
        ("TEST.ADJUST", False),
        ("TEST.SUBPIXEL", True),
        ("TEST.REFINE", False),
        ("TEST.OKS_NMS", 0.3),
        ("TEST.WITH_HEATMAPS", [False, True]),
    ],
)
def test_the_description_names_rules_that_are_not_the_published_ones(
    config_file: Path, key: str, value: Any
) -> None:
    cfg = loaded(config_file, *RULES, key, value)
    assert describe_test(cfg) == f"no flip test, scales 1, input size 64 px, {key} {value}"


def test_the_description_names_all_such_rules(config_file: Path) -> None:
    opts = ["TEST.TAG_SCALE", 2, "TEST.OKS_NMS", 0.3, "TEST.SUBPIXEL", True]
    rules = ", TEST.TAG_SCALE 2, TEST.SUBPIXEL True, TEST.OKS_NMS 0.3"
    assert describe_test(loaded(config_file, *RULES, *opts)).endswith(f"px{rules}")


def test_the_published_configuration_has_the_published_rules() -> None:
    cfg = load_config(EXPERIMENTS / "coco/higher_hrnet/w32_512_adam_lr1e-3.yaml")
    assert describe_test(cfg) == "flip test, scales 1, input size 512 px"


def test_the_fingerprint_depends_on_what_decides_the_people(
    config_file: Path, weights: Path
) -> None:
    def of(*opts: Any) -> str:
        return fingerprint(loaded(config_file, *opts), describe_weights(weights))

    same = [("TEST.RESUME", True), ("TEST.IMAGES_PER_GPU", 3), ("WORKERS", 7), ("TRAIN.LR", 0.5)]
    others = [
        ("TEST.FLIP_TEST", True),
        ("TEST.SCALE_FACTOR", [0.5, 1]),
        ("DATASET.TEST", "x"),
    ]
    assert {of(*opts) for opts in same} == {of()}
    assert len({of(), *(of(*opts) for opts in others)}) == 4
    before = of()
    weights.write_bytes(weights.read_bytes() + b"0")
    assert of() != before


def test_the_fingerprint_depends_on_what_the_skeleton_file_says(
    config_file: Path, weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    prints = set()
    for skeleton in (COCO, replace(COCO, grouping_order=tuple(range(17)))):
        path.write_text(skeleton_yaml(skeleton))
        cfg = loaded(config_file, "DATASET.SKELETON", path)
        prints.add(fingerprint(cfg, describe_weights(weights)))
    assert len(prints) == 2
