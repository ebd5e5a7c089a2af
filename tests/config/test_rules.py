"""Each rule between settings: what breaks it, and the line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from swahr.config import (
    ConfigError,
    check_files,
    check_trained_maps,
    configured_skeleton,
    fit_to_network,
    load_config,
)
from swahr.losses.criterion import LOSSES, Term, build_criterion

MAIN = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"
CUSTOM = "keypoints: [head, tail]\nsigmas: [0.1, 0.1]\n"


def problems_of(*opts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(MAIN, opts)
    return [problem.removeprefix("command line: ") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("MODEL.NAME", "resnet", "must be pose_higher_hrnet, not resnet"),
        ("DIST_BACKEND", "tcp", "must be one of nccl, gloo, not tcp"),
        ("DEVICE", "gpu", "must be cpu, cuda, cuda:N or empty, not gpu"),
        ("AMP.DTYPE", "fp8", "must be one of bf16, fp16, auto, not fp8"),
        ("LOSS.AE_LOSS_TYPE", "l2", "must be one of exp, max, not l2"),
        ("RUN_NAME", "a/b", "must be the name of one folder, not a/b"),
        ("RUN_NAME", "..", "must be the name of one folder, not .."),
        ("TRAIN.RESUME", "True", "needs TRAIN.CHECKPOINT, the file to resume from"),
        ("TRAIN.EMA", "1", "must be 0 or more and below 1, not 1.0"),
        ("TRAIN.MOMENTUM", "1", "must be 0 or more and below 1, not 1.0"),
        ("DATASET.DATA_FORMAT", "png", "must be one of jpg, zip, not png"),
        ("DATASET.SCALE_TYPE", "middle", "must be one of short, long, not middle"),
        ("DATASET.ON_BAD_SAMPLE", "warn", "must be one of stop, skip, not warn"),
        (
            "DATASET.DATASET",
            "ochuman",
            "must be one of coco, coco_kpt, crowd_pose, crowd_pose_kpt, not ochuman; "
            "other sets need DATASET.SKELETON",
        ),
        (
            "DATASET.DATASET_TEST",
            "crowd_pose",
            "is crowd_pose; it must have the joints of DATASET.DATASET, which is coco_kpt",
        ),
        (
            "DATASET.SKELETON",
            "hand",
            "unknown skeleton 'hand': it is one of coco, crowd_pose, or the path of a YAML file",
        ),
        ("MODEL.EXTRA.FINAL_CONV_KERNEL", "5", "must be one of 1, 3, not 5"),
        ("MODEL.EXTRA.DECONV.KERNEL_SIZE", "[5]", "must be one of 2, 3, 4, not 5"),
        ("MODEL.EXTRA.DECONV.KERNEL_SIZE", "[]", "has length 0; NUM_DECONVS is 1, so it must be 1"),
        ("MODEL.EXTRA.STAGE3.BLOCK", "BIG", "must be one of BASIC, BOTTLENECK, not BIG"),
        ("MODEL.EXTRA.STAGE3.FUSE_METHOD", "CAT", "must be SUM, not CAT"),
        (
            "MODEL.EXTRA.STAGE3.NUM_BLOCKS",
            "[4, 4]",
            "has length 2; NUM_BRANCHES is 3, so it must be 3",
        ),
        ("MODEL.NUM_JOINTS", "14", "is 14; the skeleton coco has 17 joints"),
        ("DATASET.NUM_JOINTS", "18", "is 18; the skeleton coco has 17 joints"),
        ("DATASET.MIN_SCALE", "1.6", "is 1.6; it must not be above MAX_SCALE, which is 1.5"),
        ("DATASET.SIGMA", "0", "must be above 0, or below 0 for the map's side / 64"),
        ("DATASET.FLIP", "1.5", "must be from 0 to 1, not 1.5"),
        ("TRAIN.LR", "0", "must be above 0, not 0.0"),
        ("TRAIN.LR_STEP", "[260, 200]", "must rise from entry to entry, unlike [260, 200]"),
        ("TRAIN.BEGIN_EPOCH", "300", "is 300; it must be below END_EPOCH, which is 300"),
        ("WORKERS", "-1", "must be 0 or more, not -1"),
        (
            "TEST.SCALE_FACTOR",
            "[0.5, 2]",
            "several scales need 1 among them, which tags come from, unlike [0.5, 2.0]",
        ),
        ("TEST.SCALE_FACTOR", "[]", "is empty; it needs at least one scale"),
        ("TEST.SCALE_FACTOR", "[1, -2]", "must be above 0, not -2.0"),
        ("TEST.SCALE_FACTOR", "[1, 1.0]", "has a scale twice: [1.0, 1.0]"),
        ("TEST.NMS_PADDING", "1", "is 1; with NMS_KERNEL 5 it must be 2"),
        ("TEST.NMS_KERNEL", "4", "must be odd, not 4"),
        (
            "TEST.WITH_AE",
            "[False, True]",
            "uses no resolution that learns tags (LOSS.WITH_AE_LOSS); testing needs at least one",
        ),
        (
            "TEST.WITH_HEATMAPS",
            "[False, False]",
            "uses no resolution that learns heatmaps (LOSS.WITH_HEATMAPS_LOSS); "
            "testing needs at least one",
        ),
    ],
)
def test_one_line_for_each_rule(key: str, value: str, problem: str) -> None:
    (line,) = problems_of(key, value)
    assert line.endswith(f": {problem}")
    assert line.startswith(f"{key}: ")


def test_fast_decoding_needs_its_decoder() -> None:
    (line,) = problems_of("TEST.FAST_DECODE", "True", "TEST.DECODER", "center")
    assert line == "TEST.FAST_DECODE: works with TEST.DECODER associative only, not center"


def test_stages_follow_the_network() -> None:
    lines = problems_of("MODEL.EXTRA.DECONV.NUM_DECONVS", "0")
    network = "the network has 1 output resolution (MODEL.EXTRA.DECONV.NUM_DECONVS is 0)"
    assert lines[0].endswith(f": LOSS.NUM_STAGES: is 2; {network}")
    lines = problems_of("LOSS.NUM_STAGES", "3")
    lists = [line for line in lines if "LOSS.NUM_STAGES is 3, so it must be 1 or 3" in line]
    assert len(lists) == 2  # the lists with two entries in the file
    assert any(": LOSS.NUM_STAGES: is 3; the network has 2" in f": {line}" for line in lines)


def test_other_heads_have_other_stages() -> None:
    one_stage = ["LOSS.NUM_STAGES=1", "LOSS.WITH_AE_LOSS=[True]", "TEST.WITH_AE=[True]"]
    cfg = load_config(MAIN, ["MODEL.HEAD=toy", *one_stage])
    assert cfg.LOSS.WITH_HEATMAPS_LOSS == [True]


def test_nesterov_needs_momentum() -> None:
    opts = ("TRAIN.NESTEROV", "True", "TRAIN.OPTIMIZER", "sgd", "TRAIN.MOMENTUM", "0")
    assert problems_of(*opts) == ["TRAIN.NESTEROV: needs a MOMENTUM above 0"]
    load_config(MAIN, [*opts, "TRAIN.OPTIMIZER", "adam"])


def check(*opts: str, starts_trained: bool = False) -> None:
    """check_trained_maps for the losses of a configuration."""
    cfg = load_config(MAIN, ["LOSS.AE_LOSS_TYPE=max", *opts])  # the default, never idle
    check_trained_maps(cfg, build_criterion(cfg).reads, starts_trained=starts_trained)


HEATMAPS = "no loss reads the heatmaps that testing uses (TEST.WITH_HEATMAPS); "
TAGS = "no loss reads the tags that testing uses (TEST.WITH_AE); "
OR = ", or start from trained weights (MODEL.PRETRAINED)"
NO_TAGS = ("LOSS.PUSH_LOSS_FACTOR=[0]", "LOSS.PULL_LOSS_FACTOR=[0]")


@pytest.mark.parametrize(
    ("opts", "problems"),
    [
        (
            ["LOSS.TERMS=['scale']"],
            [
                f"LOSS.TERMS: is ['scale']: {HEATMAPS}name heatmap too{OR}",
                f"LOSS.TERMS: is ['scale']: {TAGS}name associative too{OR}",
            ],
        ),
        (
            ["LOSS.TERMS=['associative']"],
            [f"LOSS.TERMS: is ['associative']: {HEATMAPS}name heatmap too{OR}"],
        ),
        (
            ["LOSS.HEATMAPS_LOSS_FACTOR=[0, 0]"],
            [f"LOSS.HEATMAPS_LOSS_FACTOR: is [0.0, 0.0]: {HEATMAPS}raise it above 0 there{OR}"],
        ),
        (
            ["LOSS.HEATMAPS_LOSS_FACTOR=[0, 1]", "TEST.WITH_HEATMAPS=[True, False]"],
            [f"LOSS.HEATMAPS_LOSS_FACTOR: is [0.0, 1.0]: {HEATMAPS}raise it above 0 there{OR}"],
        ),
        (
            [*NO_TAGS],
            [
                f"LOSS.PUSH_LOSS_FACTOR: is [0.0, 0.0]: {TAGS}"
                f"raise it or LOSS.PULL_LOSS_FACTOR above 0 there{OR}"
            ],
        ),
    ],
)
def test_maps_that_testing_uses_are_trained(
    opts: list[str], problems: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(*opts)
    problems = [f"command line: {problem}" for problem in problems]
    assert caught.value.problems == problems
    check(*opts, starts_trained=True)
    assert [record.getMessage() for record in caplog.records] == problems


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("LOSS.HEATMAPS_LOSS_FACTOR=[0, 1]",),
        (NO_TAGS[0],),
        (*NO_TAGS, "DATASET.MAX_NUM_PEOPLE=1"),
        ("LOSS.TERMS=['scale']", "TEST.DECODER=mine"),
    ],
)
def test_maps_that_are_trained_or_not_used(
    opts: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    check(*opts)
    assert not caplog.records


def test_losses_of_ones_own_may_train_any_map(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    maps = ["heatmaps", "tags"]
    monkeypatch.setitem(
        LOSSES, "mine", lambda cfg: Term(lambda output, target: [], {"mine": [1.0]}, maps)
    )
    check("LOSS.TERMS=['mine']")
    assert not caplog.records
    maps[:] = ["logits"]  # of a head whose heatmaps follow from them
    check("LOSS.TERMS=['associative', 'mine']")
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("command line: LOSS.TERMS: is ['associative', 'mine']: no loss reads")


def test_batch_norm_needs_more_than_one_pixel() -> None:
    def fit(*opts: str) -> None:
        sizes = ("DATASET.INPUT_SIZE=64", "DATASET.OUTPUT_SIZE=[16, 32]")
        fit_to_network(load_config(MAIN, [*sizes, "TRAIN.IMAGES_PER_GPU=1", *opts]), (4, 2), 64)

    for backbone in ("hrnet", "timm/resnet18"):
        with pytest.raises(ConfigError) as caught:
            fit(f"MODEL.BACKBONE={backbone}")
        assert caught.value.problems == [
            "command line: TRAIN.IMAGES_PER_GPU: is 1; with INPUT_SIZE 64 the lowest resolution is "
            "one pixel, and batch norm needs more; it must be 2 or more, or INPUT_SIZE 128 or more"
        ]
    fit("TRAIN.IMAGES_PER_GPU=2")
    fit("DATASET.INPUT_SIZE=128", "DATASET.OUTPUT_SIZE=[32, 64]")
    fit("MODEL.SYNC_BN=True")
    fit("MODEL.BACKBONE=mine")  # whose images may have to be of one size


def test_the_centre_is_one_more_joint() -> None:
    """It is added where it is missing, as in the published code."""
    with_center = ["DATASET.WITH_CENTER", "True"]
    assert (
        "has 18 joints with its centre (DATASET.WITH_CENTER)"
        in problems_of(*with_center, "MODEL.NUM_JOINTS", "19")[0]
    )
    for counts in ([], ["DATASET.NUM_JOINTS", "18", "MODEL.NUM_JOINTS", "18"]):
        cfg = load_config(MAIN, [*with_center, *counts])
        assert cfg.MODEL.NUM_JOINTS == cfg.DATASET.NUM_JOINTS == 18
        assert configured_skeleton(cfg).num_keypoints == 17  # of the annotations


def test_skeletons_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "worm.yaml"
    path.write_text(CUSTOM)
    opts = ["DATASET.SKELETON", str(path)]
    cfg = load_config(MAIN, opts)
    assert configured_skeleton(cfg).keypoints == ("head", "tail")
    for key in ("MODEL.NUM_JOINTS", "DATASET.NUM_JOINTS"):
        (line,) = problems_of(*opts, key, "3")
        assert line.endswith(f"{key}: is 3; the skeleton worm has 2 joints")
    for text in (
        "keypoints: 3\nsigmas: 4\n",
        "\0",
        "keypoints: [a]\nsigmas: [1]\nlimbs: 3\n",
        "1: 2\n",
    ):
        path.write_text(text)
        (line,) = problems_of(*opts)
        assert line.startswith("DATASET.SKELETON: ") and str(path) in line
    assert "DATASET.SKELETON: " in problems_of("DATASET.SKELETON", "x" * 5000)[0]


def test_missing_files(tmp_path: Path) -> None:
    gone = ["TEST.MODEL_FILE=gone.pth", "TRAIN.RESUME=True", "TRAIN.CHECKPOINT=last.pth.tar"]
    cfg = load_config(MAIN, ["MODEL.PRETRAINED=no.pth", "DATASET.ROOT=nowhere", *gone])
    check_files(cfg)
    with pytest.raises(ConfigError) as caught:
        check_files(cfg, pretrained=True, model_file=True, dataset=True)
    problems = [problem.removeprefix("command line: ") for problem in caught.value.problems]
    pretrained, checkpoint, model_file, root = problems
    assert pretrained.startswith("MODEL.PRETRAINED: no file 'no.pth' here or in ")
    assert pretrained.endswith(
        "; models/README.md says where to get it; set MODEL.PRETRAINED '' to train from scratch"
    )
    assert checkpoint.startswith("TRAIN.CHECKPOINT: no file 'last.pth.tar' here or in ")
    assert checkpoint.endswith("; set TRAIN.RESUME False to start without it")
    assert model_file.startswith("TEST.MODEL_FILE: no file 'gone.pth'")
    assert model_file.endswith("models/README.md says where to get the published ones")
    assert root.startswith("DATASET.ROOT: no folder 'nowhere'") and "data/README.md" in root
    weights = tmp_path / "a.pth"
    weights.touch()
    opts = ["MODEL.PRETRAINED=", "TEST.MODEL_FILE", str(weights), "DATASET.ROOT", str(tmp_path)]
    check_files(load_config(MAIN, opts), pretrained=True, model_file=True, dataset=True)


def test_files_for_folders_and_the_reverse(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for model, root, lines in (
        (
            tmp_path,
            file,
            [f"{str(tmp_path)!r} is a folder, not a file", f"'{file}' is not a folder"],
        ),
        (
            "/no.pth",
            "/no",
            ["no file '/no.pth'; models/README.", "no folder '/no'; data/README.md"],
        ),
    ):
        cfg = load_config(MAIN, ["TEST.MODEL_FILE", str(model), "DATASET.ROOT", str(root)])
        with pytest.raises(ConfigError) as caught:
            check_files(cfg, model_file=True, dataset=True)
        for problem, key, line in zip(
            caught.value.problems, ("TEST.MODEL_FILE", "DATASET.ROOT"), lines, strict=True
        ):
            assert problem.startswith(f"command line: {key}: {line}")


@pytest.mark.parametrize(
    ("key", "wrong", "largest"),
    [
        ("DATASET.MAX_TRANSLATE", 1e30, 200),
        ("DATASET.SIGMA", 1e7, 64),
        ("DATASET.BASE_SIGMA", 1e7, 64),
        ("DATASET.BASE_SIZE", 1e-9, 1),
        ("TEST.TAG_SCALE", 1e300, 100),
        ("TEST.TAG_THRESHOLD", 1e300, 100),
        ("DIST_TIMEOUT", 1e12, 7 * 24 * 60),
    ],
)
def test_numbers_that_nothing_can_compute_with(key: str, wrong: float, largest: float) -> None:
    opts = ("DATASET.SCALE_AWARE_SIGMA=True",)
    (problem,) = problems_of(*opts, key, str(wrong))
    assert problem.startswith(f"{key}: must be ")
    load_config(MAIN, [*opts, key, str(largest)])


def test_missing_files_are_reported_where_they_are_set(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("LOSS.NUM_STAGES: 2\nMODEL.PRETRAINED: no.pth\n")
    with pytest.raises(ConfigError, match=f"^{path}:2: MODEL.PRETRAINED: no file 'no.pth'"):
        check_files(load_config(path), pretrained=True)


def test_tags_come_from_a_scale_that_stands_alone() -> None:
    """As in the published code."""
    assert load_config(MAIN, ["TEST.SCALE_FACTOR", "[0.5]"]).TEST.SCALE_FACTOR == [0.5]
