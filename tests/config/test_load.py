"""load_config: layers, bases, pairs, types, and what it says about each mistake."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.config import ConfigError, load_config, save_config

MAIN = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"
Variant = Callable[[str], Path]


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    """Writes a YAML file that builds upon the main experiment."""

    def write(text: str, name: str = "variant.yaml") -> Path:
        base = Path(__file__).resolve().parents[2] / MAIN
        path = tmp_path / name
        path.write_text(f"_BASE_: {base}\n{text}")
        return path

    return write


def problems_of(path: Any, opts: Any = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, opts)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


def test_result_is_frozen_and_can_be_copied_and_sent() -> None:
    cfg = load_config(MAIN)
    with pytest.raises(AttributeError):
        cfg.TRAIN.LR = 1.0
    assert cfg == pickle.loads(pickle.dumps(cfg)) and cfg == copy.deepcopy(cfg)
    assert copy.copy(ConfigError(["a", "b"])).problems == ["a", "b"]


def test_pairs_win_over_file_over_base(variant: Variant) -> None:
    path = variant("TRAIN:\n  LR: 0.5\n  END_EPOCH: 7\n")
    cfg = load_config(path, ["TRAIN.LR", "0.25", "TRAIN.LR", "0.125"])
    assert (cfg.TRAIN.LR, cfg.TRAIN.END_EPOCH, cfg.TRAIN.IMAGES_PER_GPU) == (0.125, 7, 20)


def test_bases_nest_and_are_relative_to_their_file(variant: Variant, tmp_path: Path) -> None:
    variant("PRINT_FREQ: 1\nWORKERS: 1\n", "middle.yaml")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/top.yaml").write_text("PRINT_FREQ: 2\n_BASE_: ../middle.yaml\n")
    cfg = load_config(tmp_path / "below/top.yaml")
    assert (cfg.PRINT_FREQ, cfg.WORKERS, cfg.TRAIN.IMAGES_PER_GPU) == (2, 1, 20)


def test_bases_that_go_wrong(tmp_path: Path) -> None:
    bases = {
        "a": "b.yaml",
        "b": "a.yaml",
        "lost": "nowhere.yaml",
        "odd": "3",
        "itself": "itself.yaml",
    }
    for name, base in bases.items():
        (tmp_path / f"{name}.yaml").write_text(f"PRINT_FREQ: 1\n_BASE_: {base}\n")
    here = str(tmp_path)
    assert problems_of(tmp_path / "a.yaml") == [
        f"{here}/b.yaml:2: _BASE_: goes round in a circle: a.yaml -> b.yaml -> a.yaml"
    ]
    assert "itself.yaml -> itself.yaml" in problems_of(tmp_path / "itself.yaml")[0]
    assert problems_of(tmp_path / "lost.yaml") == [
        f"{here}/lost.yaml:2: _BASE_: {here}/nowhere.yaml: cannot be read (No such file or directory)"
    ]
    assert (
        "must be the path of a YAML file, relative to this one, not 3"
        in problems_of(tmp_path / "odd.yaml")[0]
    )


@pytest.mark.parametrize(
    "text", ["[0.5, 1.0, 2.0]", "(0.5, 1, 2)", "0.5,1,2", " [.5, 1e0, 2] ", (0.5, 1.0, 2.0)]
)
def test_lists_and_tuples_as_text(text: Any) -> None:
    assert load_config(MAIN, ["TEST.SCALE_FACTOR", text]).TEST.SCALE_FACTOR == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("text", ["(True, True)", "[true, true]", "'(True, True)'"])
def test_lists_of_booleans_in_files(variant: Variant, text: str) -> None:
    assert load_config(variant(f"TEST:\n  WITH_HEATMAPS: {text}\n")).TEST.WITH_HEATMAPS == [
        True,
        True,
    ]


def test_numbers_booleans_and_text() -> None:
    cfg = load_config(
        MAIN,
        [
            "TRAIN.LR",
            "1e-3",
            "TRAIN.WD",
            "1",
            "TEST.FLIP_TEST",
            "false",
            "TEST.REFINE",
            "True",
            "TRAIN.END_EPOCH",
            "20.0",
            "DATASET.TEST",
            "2017",
            "DATASET.ROOT",
            "my data/coco = [a]",
            "MODEL.PRETRAINED",
            "''",
            "TEST.MODEL_FILE",
            '"a b.pth"',
            "MODEL.EXTRA.PRETRAINED_LAYERS",
            "[conv1, 'bn1']",
        ],
    )
    assert (cfg.TRAIN.LR, cfg.TRAIN.WD, cfg.TEST.FLIP_TEST, cfg.TEST.REFINE) == (
        0.001,
        1.0,
        False,
        True,
    )
    assert isinstance(cfg.TRAIN.WD, float) and isinstance(cfg.TRAIN.END_EPOCH, int)
    assert (cfg.DATASET.TEST, cfg.DATASET.ROOT, cfg.MODEL.PRETRAINED) == (
        "2017",
        "my data/coco = [a]",
        "",
    )
    assert (cfg.TEST.MODEL_FILE, cfg.MODEL.EXTRA.PRETRAINED_LAYERS) == ("a b.pth", ["conv1", "bn1"])


def test_exponents_that_yaml_takes_for_text(variant: Variant) -> None:
    cfg = load_config(variant("TRAIN:\n  LR: 1e-3\nTEST:\n  MODEL_FILE:\nDEBUG:\nTRAIN.WD: 1\n"))
    assert (cfg.TRAIN.LR, cfg.TEST.MODEL_FILE, cfg.TRAIN.WD) == (0.001, "", 1)


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("TRAIN.LR", "fast", "a number, not 'fast'"),
        ("TRAIN.LR", "nan", "a number, not 'nan'"),
        ("TRAIN.LR", "1e999", "a number, not '1e999'"),
        ("TRAIN.LR", "True", "a number, not 'True'"),
        ("TRAIN.END_EPOCH", "1.5", "a whole number, not '1.5'"),
        ("TEST.FLIP_TEST", "1", "true or false, not '1'"),
        ("TEST.SCALE_FACTOR", "1", "a list of numbers, not '1'"),
        ("TEST.WITH_AE", "[1, 0]", "a list of true or false, not '[1, 0]'"),
        ("GPUS", "[0, x]", "a list of whole numbers, not '[0, x]'"),
        ("DATASET.TEST", 3, "text, not 3"),
        ("TRAIN.LR", None, "a number, not None"),
        ("TRAIN.LR", "__import__('os').getcwd()", 'a number, not "__import__'),
        ("TRAIN.SEED", "9" * 5000, "a whole number, not '999"),
        ("TEST.WITH_AE", "[" * 999, "a list of true or false, not '[[["),
    ],
)
def test_wrong_types(key: str, value: Any, right: str) -> None:
    (problem,) = problems_of(MAIN, [key, value])
    assert problem.startswith(f"command line: {key}: must be {right}") and len(problem) < 150


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("TRAIN.LRR", "TRAIN.LR"),
        ("train.lr", "TRAIN.LR"),
        ("LR", "TRAIN.LR"),
        ("TRAIN.FLIP_TEST", "TEST.FLIP_TEST"),
        ("LOSS.NUM_STAGE", "LOSS.NUM_STAGES"),
        ("MODEL.EXTRA.DECONV.NUM_DECONV", "MODEL.EXTRA.DECONV.NUM_DECONVS"),
        ("MODEL.DECONV.KERNEL_SIZE", "MODEL.EXTRA.DECONV.KERNEL_SIZE"),
        ("TRIAN", "TRAIN"),
        ("AUTORESUME", "AUTO_RESUME"),
    ],
)
def test_unknown_keys_name_the_nearest(typed: str, meant: str) -> None:
    assert problems_of(MAIN, [typed, "3"]) == [
        f"command line: {typed}: unknown key; the nearest one is {meant}"
    ]


def test_unknown_key_in_a_file_names_its_line(variant: Variant) -> None:
    path = variant("MODEL:\n  EXTRA:\n    STAGE2:\n      NUM_BRANCH: 3\nLOS: {NUM_STAGES: 4}\n")
    assert problems_of(path) == [
        f"{path}:5: MODEL.EXTRA.STAGE2.NUM_BRANCH: unknown key; the nearest one is MODEL.EXTRA.STAGE2.NUM_BRANCHES",
        f"{path}:6: LOS: unknown key; the nearest one is LOSS",
    ]


def test_pairs_that_are_none() -> None:
    assert problems_of(MAIN, ["TRAIN.LR=0.1"]) == [
        "command line: settings are KEY VALUE pairs, separated by spaces; 'TRAIN.LR=0.1' has no partner"
    ]
    assert (
        "is a section; name one of its keys, as in LOSS.NUM_STAGES"
        in problems_of(MAIN, ["LOSS", "3"])[0]
    )


def test_all_problems_at_once_each_in_its_place(variant: Variant) -> None:
    path = variant(
        "TRAIN:\n  LR: quick\n  LR: 0.1\n  EPOCHS: 3\nDATASET:\n  OUTPUT_SIZE: [64, 128]\n"
    )
    problems = problems_of(path, ["TEST.WITH_AE", "[True]", "LOSS.AE_LOSS_TYPE", "log"])
    assert problems == [
        f"{path}:4: TRAIN.LR: is given twice, first at {path}:3",
        f"{path}:5: TRAIN.EPOCHS: unknown key; the nearest one is TRAIN.END_EPOCH",
        f"{path}:3: TRAIN.LR: must be a number, not 'quick'",
        "command line: LOSS.AE_LOSS_TYPE: must be one of exp, max, not log",
        "command line: TEST.WITH_AE: has length 1; LOSS.NUM_STAGES is 2, so it must be 2",
        f"{path}:7: DATASET.OUTPUT_SIZE: is [64, 128]; with INPUT_SIZE 512 the network's maps have sides [128, 256]",
    ]


def test_what_follows_from_a_wrong_value_is_not_told(variant: Variant) -> None:
    assert len(problems_of(variant("LOSS:\n  NUM_STAGES: two\n"))) == 1
    assert len(problems_of(variant("LOSS:\n  NUMSTAGES: 3\n"))) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("TRAIN: [1, 2\nTEST: 3\n", ":3: not valid YAML"),
        ("\tTRAIN: 1\n", ":2: not valid YAML"),
        ("TRAIN: 3\n", ":2: TRAIN: must be a mapping of keys to values"),
        (
            "TRAIN:\n  LR: !!python/name:os.system\n",
            ":3: not valid YAML: could not determine a constructor",
        ),
        ("TRAIN:\n  LR: 2024-99-99\n", ":3: not valid YAML: this value cannot be understood"),
        ("TRAIN:\n  [LR]: 1\n", ":3: TRAIN: has a key that is not a name"),
        ("a: &x [*x]\n", "a: unknown key"),
        ("TRAIN:\n  LR: &x [*x]\n", ":3: "),
        ("--- 1\n", "not valid YAML"),
        ("a: " + "[" * 999, "not valid YAML"),
        ("TRAIN.LR: " + "[" * 2000 + "]" * 2000, "not valid YAML"),  # PyYAML 6.0.4 says so itself
    ],
)
def test_yaml_that_is_none(variant: Variant, text: str, line: str) -> None:
    assert line in problems_of(variant(text))[0]


def test_files_that_are_none(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "no.yaml") == [
        f"{tmp_path}/no.yaml: cannot be read (No such file or directory)"
    ]
    assert "cannot be read" in problems_of(tmp_path)[0]
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml: not valid YAML" in problems_of(tmp_path / "bytes.yaml")[0]
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert problems_of(tmp_path / "list.yaml") == [
        f"{tmp_path}/list.yaml:1: must be a mapping of keys to values"
    ]
    (tmp_path / "empty.yaml").write_text("")
    assert (
        f"{tmp_path}/empty.yaml: MODEL.NAME: must be pose_higher_hrnet"
        in problems_of(tmp_path / "empty.yaml")[0]
    )


def test_keys_without_effect_give_one_line(
    variant: Variant, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "swahr"):
        load_config(variant("TRAIN:\n  GAMMA1: 0.99\n  LR_FACTOR: 0.1\nGPUS: (0,)\n"))
        assert not caplog.records
        load_config(variant("TRAIN:\n  GAMMA1: 0.5\n  LR_STEP: [200, 260]\n"), ["GPUS", "(0, 1)"])
    assert [record.getMessage() for record in caplog.records] == [
        "no effect: GPUS (every visible GPU is used, or --gpus many), TRAIN.GAMMA1 (not used by any optimiser here), "
        "TRAIN.LR_STEP (only with TRAIN.LR_SCHEDULE step)"
    ]
    caplog.clear()
    load_config(variant("TRAIN:\n  LR_SCHEDULE: step\n  LR_STEP: [200, 260]\n"))
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "opts", "amp"),
    [
        ("FP16: {ENABLED: true}", [], (True, "fp16", True)),
        ("FP16: {ENABLED: true}", ["AMP.ENABLED", "False"], (False, "fp16", False)),
        ("FP16: {ENABLED: true}", ["AMP.DTYPE", "bf16"], (True, "bf16", False)),
        ("FP16: {ENABLED: true}", ["FP16.ENABLED", "False"], (False, "bf16", False)),
        ("FP16: {ENABLED: false}", ["AMP.ENABLED", "True"], (True, "bf16", False)),
        ("AMP: {ENABLED: true, DTYPE: fp16}", [], (True, "fp16", True)),
        ("AMP: {ENABLED: true, DTYPE: bf16}", ["FP16.ENABLED", "True"], (True, "fp16", True)),
        ("AMP: {ENABLED: true}", ["FP16.ENABLED", "False"], (False, "bf16", False)),
    ],
)
def test_both_names_of_mixed_precision(
    variant: Variant, tmp_path: Path, text: str, opts: list[str], amp: Any
) -> None:
    cfg = load_config(variant(text + "\n"), opts)
    assert amp == (cfg.AMP.ENABLED, cfg.AMP.DTYPE, cfg.FP16.ENABLED)
    save_config(cfg, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == cfg


def test_no_scale_maps_no_scale_adaptation() -> None:
    assert not load_config(MAIN, ["MODEL.SCALE_HEADS", "False"]).LOSS.SCALE_ADAPTIVE
    assert load_config(MAIN, ["LOSS.SCALE_ADAPTIVE", "False"]).MODEL.SCALE_HEADS


def test_data_dir_goes_before_relative_paths(tmp_path: Path) -> None:
    cfg = load_config(
        MAIN, ["DATA_DIR", "store", "TEST.MODEL_FILE", "/a.pth", "MODEL.PRETRAINED", ""]
    )
    assert (cfg.DATASET.ROOT, cfg.TEST.MODEL_FILE, cfg.MODEL.PRETRAINED) == (
        "store/data/coco",
        "/a.pth",
        "",
    )
    save_config(cfg, tmp_path / "new/saved.yaml")
    assert load_config(tmp_path / "new/saved.yaml") == cfg
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["saved.yaml"]
