"""Which runs a comparison has, and which of them are done."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from swahr.ablation import plan
from swahr.ablation.plan import AblationError, PlannedRun, find_files, plan_runs
from swahr.config import ConfigError, save_config
from swahr.engine.provenance import IN_TRAINING, Figures, describe_test_of_split


def finish(run: PlannedRun, weights: str = IN_TRAINING) -> None:
    """Write the files of a run that is done; weights: what its figures say that they are of."""
    for path in (run.weights, run.results):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    told = Figures(weights, describe_test_of_split(run.cfg), {"AP": 0.5})
    run.results.with_name(f"{run.results.stem}_figures.json").write_text(json.dumps(told._asdict()))
    save_config(run.cfg, run.folder / "config.yaml")


def test_a_folder_stands_for_its_files_without_the_base(toy: Path) -> None:
    assert find_files([toy]) == {name: toy / f"{name}.yaml" for name in ("both", "higher_hrnet")}
    assert list(find_files([toy / "higher_hrnet.yaml", toy / "both.yaml"])) == [
        "higher_hrnet",
        "both",
    ]


def test_lists_that_are_none(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AblationError, match="empty: no YAML files in this folder, base.yaml aside"):
        find_files([tmp_path / "empty"])
    with pytest.raises(AblationError, match="both.yaml: .*/both.yaml has the same name"):
        find_files([toy, toy / "both.yaml"])


def test_each_run_has_a_seed_and_a_folder_of_its_own(toy: Path) -> None:
    planned = plan_runs(find_files([toy]), 2, ["TRAIN.LR", "0.5"])
    runs = [run for group in planned.values() for run in group]
    assert [run.name for run in runs] == [
        "toy_both_seed0",
        "toy_both_seed1",
        "toy_higher_hrnet_seed0",
        "toy_higher_hrnet_seed1",
    ]
    assert [run.cfg.TRAIN.SEED for run in runs] == [0, 1, 0, 1]
    assert {run.cfg.TRAIN.LR for run in runs} == {0.5}
    assert len({run.folder for run in runs}) == 4
    assert not any(run.is_done() for run in runs)


def test_a_run_is_done_with_its_weights_and_its_results(toy: Path) -> None:
    files = find_files([toy / "both.yaml"])
    (run,) = plan_runs(files, 1)["both"]
    finish(run)
    assert plan_runs(files, 1)["both"][0].is_done()
    run.results.unlink()
    assert run.is_trained() and not run.is_done()
    finish(run)
    run.weights.unlink()
    assert not run.is_done()


@pytest.mark.parametrize(
    "opts",
    [
        ["TEST.DETECTION_THRESHOLD", "0.4"],
        ["TEST.FLIP_TEST", "True"],
        ["TEST.IGNORE_CENTER", "False"],
        ["TEST.SCALE_FACTOR", "[0.5, 1]"],
        ["DATASET.TEST", "train2017"],
    ],
)
def test_a_run_that_was_tested_with_other_settings_is_trained_only(
    toy: Path, opts: list[str]
) -> None:
    files = find_files([toy / "both.yaml"])
    finish(plan_runs(files, 1)["both"][0])
    (run,) = plan_runs(files, 1, opts)["both"]
    assert run.is_trained() and not run.is_done()


def test_results_of_other_weights_are_no_results(toy: Path) -> None:
    """As `swahr val` leaves them, which tests the best weights."""
    (run,) = plan_runs(find_files([toy / "both.yaml"]), 1)["both"]
    finish(run, "model_best.pth.tar (epoch 1, sha256 0123456789ab)")
    assert not run.is_done()
    digest = hashlib.sha256(run.weights.read_bytes()).hexdigest()
    finish(run, f"final_state.pth.tar (epoch 2, sha256 {digest[:12]})")
    assert run.is_done()


def test_a_run_that_was_made_with_other_settings_is_refused(toy: Path) -> None:
    files = find_files([toy / "both.yaml"])
    finish(plan_runs(files, 1)["both"][0])
    plan_runs(files, 1, ["TEST.NMS_KERNEL", "5", "TEST.NMS_PADDING", "2"])  # not what is learnt
    with pytest.raises(AblationError, match="toy_both_seed0: was made with LOSS.GAMMA 0.01, not 1"):
        plan_runs(files, 1, ["LOSS.GAMMA=1.0"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"RUN_NAME: \xe9", "'utf-8' codec can't decode"),
        (b"RUN_NAME: [", "cannot be read as YAML: "),
        (b"hello", "no settings in it"),
        (b"", "no settings in it"),
    ],
)
def test_a_run_whose_configuration_cannot_be_read_is_named(
    toy: Path, content: bytes, reason: str
) -> None:
    files = find_files([toy / "both.yaml"])
    (run,) = plan_runs(files, 1)["both"]
    finish(run)
    saved = run.folder / "config.yaml"
    saved.write_bytes(content)
    with pytest.raises(AblationError) as caught:
        plan_runs(files, 1)
    said = str(caught.value)
    assert said.startswith(f"{saved}: is no configuration of a run ({reason}")
    assert said.endswith("); remove that folder, or give another OUTPUT_DIR") and "\n" not in said


OTHER_FILES = {
    "DATASET.ROOT": "other",
    "DATASET.DATA_FORMAT": "zip",
    "MODEL.PRETRAINED": "other.pth",
}
OTHER_TEST_SETS = {
    "DATASET.ROOT": "other",
    "DATASET.DATASET_TEST": "coco_kpt",
    "DATASET.TEST": "train2017",
    "DATASET.SKELETON": "coco",
    "DATASET.CATEGORIES": "[man]",
}


@pytest.mark.parametrize("key", plan.FILE_KEYS)
def test_a_run_on_other_data_or_from_other_weights_is_refused(toy: Path, key: str) -> None:
    """Also one that is not trained to its end, but none that has learnt nothing yet."""
    files = find_files([toy / "both.yaml"])
    (run,) = plan_runs(files, 1)["both"]
    save_config(run.cfg, run.folder / "config.yaml")
    plan_runs(files, 1, [key, OTHER_FILES[key]])
    (run.folder / "checkpoint.pth.tar").touch()
    line = f"toy_both_seed0: was made with {key} .*, not {OTHER_FILES[key]};"
    with pytest.raises(AblationError, match=line):
        plan_runs(files, 1, [key, OTHER_FILES[key]])


@pytest.mark.parametrize("key", plan.TEST_SET_KEYS)
def test_configurations_are_compared_on_the_same_images(toy: Path, key: str) -> None:
    name = key.partition(".")[2]
    text = f"_BASE_: base.yaml\nDATASET: {{{name}: {OTHER_TEST_SETS[key]}}}\n"
    (toy / "both.yaml").write_text(text)
    line = f"both.yaml: {key} is .*, and .* in .*higher_hrnet.yaml; configurations are compared"
    with pytest.raises(AblationError, match=line):
        plan_runs(find_files([toy / "higher_hrnet.yaml", toy / "both.yaml"]), 1)


def test_a_setting_without_its_value_is_one_line(toy: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_runs(find_files([toy]), 1, ["TRAIN.LR"])
    assert "TRAIN.LR" in str(caught.value) and "\n" not in str(caught.value)


def test_sizes_that_training_filled_in_are_no_change(toy: Path) -> None:
    files = find_files([toy / "both.yaml"])
    finish(plan_runs(files, 1)["both"][0])
    base = toy / "base.yaml"
    base.write_text(base.read_text().replace("OUTPUT_SIZE: [16, 32],", ""))
    assert plan_runs(files, 1)["both"][0].is_done()


@pytest.mark.parametrize("key", ["TRAIN.SEED", "RUN_NAME", "AUTO_RESUME"])
def test_what_tells_runs_apart_cannot_be_set(toy: Path, key: str) -> None:
    with pytest.raises(AblationError, match=f"^{key}: it differs between the runs"):
        plan_runs(find_files([toy]), 1, [f"{key}=1"])


def test_a_wrong_setting_stops_before_anything_is_trained(toy: Path) -> None:
    with pytest.raises(ConfigError, match="TRAIN.LRR"):
        plan_runs(find_files([toy]), 1, ["TRAIN.LRR", "1"])
