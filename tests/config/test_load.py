"""load_config: layers, bases, pairs, types, and what it says about each mistake."""

from __future__ import annotations

import codecs
import copy
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swahr.config import (
    ConfigError,
    check_files,
    check_pairs,
    fit_to_network,
    load_config,
    load_text,
    save_config,
)
from swahr.config.schema import lookup
from swahr.data.trees import dataset_spec

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


def test_pairs_may_be_joined_by_an_equals_sign() -> None:
    cfg = load_config(MAIN, ["TRAIN.LR=0.5", "DATASET.ROOT", "a = b", "DATASET.TEST=c=d"])
    assert (cfg.TRAIN.LR, cfg.DATASET.ROOT, cfg.DATASET.TEST) == (0.5, "a = b", "c=d")


def test_bases_nest_and_are_relative_to_their_file(variant: Variant, tmp_path: Path) -> None:
    variant("PRINT_FREQ: 1\nWORKERS: 1\n", "middle.yaml")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/top.yaml").write_text("PRINT_FREQ: 2\n_BASE_: ../middle.yaml\n")
    cfg = load_config(tmp_path / "below/top.yaml")
    assert (cfg.PRINT_FREQ, cfg.WORKERS, cfg.TRAIN.IMAGES_PER_GPU) == (2, 1, 20)


def test_the_name_of_a_run_is_not_that_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("LOSS.NUM_STAGES: 2\nRUN_NAME: mine\n")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\n")
    names = [load_config(tmp_path / f"{name}.yaml").RUN_NAME for name in ("base", "top")]
    assert names == ["mine", "top"]


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_a_section_may_be_empty(variant: Variant, nothing: str) -> None:
    assert load_config(variant(f"TEST: {nothing}\n")).TEST == load_config(MAIN).TEST


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
        f"{here}/lost.yaml:2: _BASE_: {here}/nowhere.yaml: cannot be read "
        "(No such file or directory)"
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


@pytest.mark.parametrize(
    ("given", "text"),
    [("'a b'", "a b"), ("''", ""), ("'", "'"), ("'a\"", "'a\""), ("aba", "aba"), ("a'b'", "a'b'")],
)
def test_quotes_around_a_text_go(given: str, text: str) -> None:
    """Only a pair of them, of one kind."""
    assert text == load_config(MAIN, ["DATASET.ROOT", given]).DATASET.ROOT


IN_BASE_10 = "; write numbers in base 10, without leading zeros and colons"


@pytest.mark.parametrize(
    ("key", "text", "right"),
    [
        ("TRAIN.END_EPOCH", "0300", "a whole number, not '0300'"),
        ("TRAIN.END_EPOCH", "-0_10", "a whole number, not '-0_10'"),
        ("TRAIN.END_EPOCH", "1:30", "a whole number, not '1:30'"),
        ("TRAIN.LR", "010", "a number, not '010'"),
        ("DIST_TIMEOUT", "1:30", "a number, not '1:30'"),
        ("DIST_TIMEOUT", "1:30:05.5", "a number, not '1:30:05.5'"),
    ],
)
def test_octal_and_base_60_are_no_numbers(
    variant: Variant, key: str, text: str, right: str
) -> None:
    """YAML 1.1 reads 0300 as 192 and 1:30 as 90."""
    line = f"{key}: must be {right}{IN_BASE_10}"
    assert problems_of(MAIN, [key, text]) == [f"command line: {line}"]
    path = variant(f"{key}: {text}\n")
    assert problems_of(path) == [f"{path}:2: {line}"]


@pytest.mark.parametrize(
    ("key", "text", "right"),
    [
        ("TRAIN.LR_STEP", "[010, 20]", "a list of whole numbers, not "),
        ("TEST.SCALE_FACTOR", "[1, 1:30]", "a list of numbers, not "),
    ],
)
def test_octal_and_base_60_are_no_entries_of_lists(
    variant: Variant, key: str, text: str, right: str
) -> None:
    for path, opts in ((MAIN, [key, text]), (variant(f"{key}: {text}\n"), [])):
        (problem,) = problems_of(path, opts)
        assert f": {key}: must be {right}" in problem and problem.endswith(IN_BASE_10)


def test_a_decimal_comma_is_said(variant: Variant) -> None:
    right = "must be a number, not '0,001'; write 0.001, with a point"
    assert problems_of(MAIN, ["TRAIN.LR", "0,001"]) == [f"command line: TRAIN.LR: {right}"]
    assert problems_of(variant("TRAIN.LR: 0,001\n"))[0].endswith(right)


@pytest.mark.parametrize(
    ("text", "number"), [("0x10", 16), ("0b11", 3), ("1_000", 1000), ("+7", 7), ("007.0", 7)]
)
def test_other_spellings_of_numbers_stay(variant: Variant, text: str, number: int) -> None:
    opts = [f"TRAIN.END_EPOCH={text}"]
    assert number == load_config(MAIN, opts).TRAIN.END_EPOCH
    assert number == load_config(variant(f"TRAIN.END_EPOCH: {text}\n")).TRAIN.END_EPOCH


def test_text_may_look_like_octal_or_base_60(variant: Variant, tmp_path: Path) -> None:
    cfg = load_config(variant("RUN_NAME: 007\nDATASET.TEST: 12:30\n"))
    assert (cfg.RUN_NAME, cfg.DATASET.TEST) == ("007", "12:30")
    save_config(cfg, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == cfg


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
        ("TRAIN.SEED", int("9" * 400), "a whole number, not 999"),
        ("TRAIN.SEED", "9" * 20, "a whole number, not '999"),
        ("TRAIN.SEED", str(2**63), "a whole number, not '922"),
        ("TRAIN.SEED", f"-{2**63}", "a whole number, not '-922"),
        ("DATASET.SIGMA", "-1e999", "a number, not '-1e999'"),
        ("TRAIN.LR", "9" * 400, "a number, not '999"),
        ("TEST.WITH_AE", "[" * 999, "a list of true or false, not '[[["),
    ],
)
def test_wrong_types(key: str, value: Any, right: str) -> None:
    (problem,) = problems_of(MAIN, [key, value])
    assert problem.startswith(f"command line: {key}: must be {right}") and len(problem) < 150


@pytest.mark.parametrize(
    ("key", "value", "example"),
    [
        ("TRAIN.HOOKS", "share_cpu", "['share_cpu']"),
        ("TRAIN.HOOKS", "share_cpu, mine", "['share_cpu', 'mine']"),
        ("TRAIN.LR_STEP", "90", "[90]"),
        ("TRAIN.LR_STEP", 90, "[90]"),
        ("TEST.SCALE_FACTOR", "0.5 1", "[0.5, 1.0]"),
        ("TEST.WITH_HEATMAPS", "true", "[True]"),
    ],
)
def test_a_list_is_written_as_the_message_says(
    variant: Variant, key: str, value: Any, example: str
) -> None:
    (problem,) = problems_of(MAIN, [key, value])
    assert problem.endswith(f'; write "{example}"')
    assert lookup(load_config(variant(f'{key}: "{example}"\n')), key)


@pytest.mark.parametrize("value", ["a$b", "x" * 70, [[1]], "", ","])
def test_what_gives_no_list_has_no_example(value: Any) -> None:
    for key in ("TRAIN.LR_STEP", "TRAIN.HOOKS"):
        (problem,) = problems_of(MAIN, [key, value])
        assert "; write" not in problem


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("TRAIN.LRR", "TRAIN.LR"),
        ("train.lr", "TRAIN.LR"),
        ("test.flip_test", "TEST.FLIP_TEST"),
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
        f"{path}:5: MODEL.EXTRA.STAGE2.NUM_BRANCH: unknown key; the nearest one is "
        "MODEL.EXTRA.STAGE2.NUM_BRANCHES",
        f"{path}:6: LOS: unknown key; the nearest one is LOSS",
    ]


def test_pairs_that_are_none() -> None:
    assert problems_of(MAIN, ["TRAIN.WD", "1", "TRAIN.LR"]) == [
        "command line: settings are KEY VALUE or KEY=VALUE; 'TRAIN.LR' has no value"
    ]
    assert "LRR: unknown key; the nearest one is" in problems_of(MAIN, ["LRR=0.1"])[0]
    assert (
        "is a section; name one of its keys, as in LOSS.NUM_STAGES"
        in problems_of(MAIN, ["LOSS", "3"])[0]
    )


def test_pairs_of_a_command_line_have_values() -> None:
    check_pairs(["TRAIN.LR=1e-3", "OUTPUT_DIR", "a"])
    with pytest.raises(ConfigError) as caught:
        check_pairs(["TRAIN.LR", "1", "OUTPUT_DIR=a", "OUTPUT_DIR"])
    assert caught.value.problems == [
        "command line: settings are KEY VALUE or KEY=VALUE; 'OUTPUT_DIR' has no value",
    ]


def test_all_problems_at_once_each_in_its_place(variant: Variant) -> None:
    path = variant("TRAIN:\n  LR: quick\n  LR: 0.1\n  EPOCHS: 3\nDATASET:\n  MIN_SCALE: 2\n")
    problems = problems_of(path, ["TEST.WITH_AE", "[1 > 0]", "LOSS.AE_LOSS_TYPE", "log"])
    assert problems == [
        f"{path}:4: TRAIN.LR: is given twice, first at {path}:3",
        f"{path}:5: TRAIN.EPOCHS: unknown key; the nearest one is TRAIN.END_EPOCH",
        f"{path}:3: TRAIN.LR: must be a number, not 'quick'",
        "command line: TEST.WITH_AE: must be a list of true or false, not '[1 > 0]'",
        "command line: LOSS.AE_LOSS_TYPE: must be one of exp, max, not log",
        f"{path}:7: DATASET.MIN_SCALE: is 2.0; it must not be above MAX_SCALE, which is 1.5",
    ]


def test_a_key_is_given_once_in_a_file_however_it_is_spelled(variant: Variant) -> None:
    path = variant("TRAIN: {LR: 0.1}\nTRAIN.LR: 0.5\n")
    assert problems_of(path) == [f"{path}:3: TRAIN.LR: is given twice, first at {path}:2"]
    path = variant(
        "TRAIN: {LR: 0.5}\nTRAIN.WD: 1\nMODEL: {EXTRA: {STEM_BLOCKS: 2}}\n"
        "MODEL.EXTRA: {FINAL_CONV_KERNEL: 3}\n"
    )
    cfg = load_config(path, ["TRAIN.LR", "0.25"])  # other layers may give it again
    assert (cfg.TRAIN.LR, cfg.TRAIN.WD) == (0.25, 1)
    assert (cfg.MODEL.EXTRA.STEM_BLOCKS, cfg.MODEL.EXTRA.FINAL_CONV_KERNEL) == (2, 3)


def test_what_follows_from_a_wrong_value_is_not_told(variant: Variant) -> None:
    assert len(problems_of(variant("LOSS:\n  NUM_STAGES: two\n"))) == 1
    assert len(problems_of(variant("LOSS:\n  NUMSTAGES: 3\n"))) == 1
    assert len(problems_of(variant("TEST: 3\n"), ["TEST.NMS_KERNEL", "4"])) == 1


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


def test_a_key_that_is_no_name_is_said_once(variant: Variant) -> None:
    """Outside a section, any setting may have been meant: nothing is said of the others."""
    for text, said in (
        ("TRAIN:\n  [LR]: 1\n", "3: TRAIN: has"),
        ("[LR]: 1\nTEST.NMS_KERNEL: 4\n", "2: has"),
    ):
        path = variant(text)
        assert problems_of(path) == [f"{path}:{said} a key that is not a name"]


@pytest.mark.parametrize("text", ["TRAIN:\n\tLR: 1\n", "TRAIN:\n  LR: 1\n\tWD: 1\n"])
def test_a_tab_is_said(variant: Variant, text: str) -> None:
    (problem,) = problems_of(variant(text))
    assert problem.endswith("; YAML indents with spaces, not with tabs")
    assert "indents" not in problems_of(variant("TRAIN.LR: @x\n"))[0]


def test_files_that_are_none(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "no.yaml") == [
        f"{tmp_path}/no.yaml: cannot be read (No such file or directory)"
    ]
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "bytes.yaml: not valid YAML" in problems_of(tmp_path / "bytes.yaml")[0]
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert problems_of(tmp_path / "list.yaml") == [
        f"{tmp_path}/list.yaml:1: must be a mapping of keys to values"
    ]
    (tmp_path / "empty.yaml").write_text("")
    (problem,) = problems_of(tmp_path / "empty.yaml")
    assert problem.startswith(f"{tmp_path}/empty.yaml: LOSS.NUM_STAGES: is 1; the network has 2")


def test_models_in_place_of_a_yaml_file_say_what_is_right(tmp_path: Path) -> None:
    run, hub, weights = tmp_path / "run", tmp_path / "hub", tmp_path / "a.pth.tar"
    for folder, name, text in (
        (run, "config.yaml", ""),
        (hub, "config.json", '{"library_name": "swahr"}'),
    ):
        folder.mkdir()
        (folder / name).write_text(text)
    weights.touch()
    take = "`swahr val` and `swahr predict` take it as --weights"
    for path, right in (
        (run, f"is the folder of a run; give {run}/config.yaml, or --weights {run}"),
        (hub, f"is a published model; {take} {hub}"),
        (hub / "config.json", f"is a published model; {take} {hub}"),
        (weights, f"is a file of weights; {take} {weights}"),
        (tmp_path, "is a folder, not a YAML file"),
    ):
        assert problems_of(path) == [f"{path}: {right}"]


def test_a_yaml_file_beside_a_published_model_is_one(tmp_path: Path) -> None:
    """So is one in JSON, which is YAML too."""
    (tmp_path / "config.json").write_text('{"library_name": "swahr"}')
    (tmp_path / "a.yaml").write_text("LOSS.NUM_STAGES: 2\n")
    assert load_config(tmp_path / "a.yaml").RUN_NAME == "a"
    (tmp_path / "config.json").write_text('{"LOSS.NUM_STAGES": 2}')
    assert load_config(tmp_path / "config.json").RUN_NAME == "config"


def test_encodings_of_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("LOSS.NUM_STAGES: 2\nDATASET.ROOT: bücher\n", encoding=encoding)
        assert load_config(path).DATASET.ROOT == "bücher"
    for order, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        path.write_bytes(order + "LOSS.NUM_STAGES: 2\n".encode(encoding))
        assert problems_of(path) == [f"{path}: not valid YAML: it is in UTF-16; save it as UTF-8"]
    path.write_text("DATASET.ROOT: bücher\n", encoding="latin-1")
    assert problems_of(path)[0].endswith("; save it as UTF-8")
    path.write_text("LOSS.NUM_STAGES: 2\n", encoding="utf-16-le")
    assert len(problems_of(path)) == 1


def nested_aliases() -> str:
    """A text of nine levels, each of which repeats the one below nine times."""
    lines = ["l0: &l0 [1]"]
    for level in range(1, 9):
        below = ", ".join([f"*l{level - 1}"] * 9)
        lines.append(f"l{level}: &l{level} [{below}]")
    return "\n".join(lines)


@pytest.mark.parametrize("key", ["", "TRAIN.LR: *l8", "TEST.SCALE_FACTOR: *l8"])
def test_nested_aliases_are_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(f"{nested_aliases()}\n{key}")
    (problem,) = problems_of(path)
    assert "not valid YAML: aliases and values stand for more than" in problem
    assert problem.startswith(f"{path}:")


def test_nested_merges_are_refused_also_as_text() -> None:
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 9):
        below = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} {{<<: [{below}]}}")
    (problem,) = problems_of(MAIN, ["TRAIN.LR", "\n".join(lines)])
    assert problem.startswith("command line: TRAIN.LR: must be a number, not ")


def test_keys_without_effect_give_one_line(
    variant: Variant, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "swahr"):
        load_config(variant("TRAIN:\n  GAMMA1: 0.99\n  LR_FACTOR: 0.1\nGPUS: (0,)\n"))
        assert not caplog.records
        load_config(variant("TRAIN:\n  GAMMA1: 0.5\n  LR_STEP: [200, 260]\n"), ["GPUS", "(0, 1)"])
    assert [record.getMessage() for record in caplog.records] == [
        "no effect: GPUS (every visible GPU is used, or as many as --gpus says); TRAIN.LR_STEP "
        "(only with TRAIN.LR_SCHEDULE step); TRAIN.GAMMA1 (no optimiser here has it)"
    ]
    caplog.clear()
    load_config(variant("TRAIN:\n  LR_SCHEDULE: step\n  LR_STEP: [200, 260]\n"))
    assert not caplog.records


def test_entries_of_lists_without_effect_are_said(caplog: pytest.LogCaptureFixture) -> None:
    longer = ["MODEL.EXTRA.DECONV.NUM_CHANNELS", "[32, 16]"]
    load_config(MAIN, longer)
    assert [record.getMessage() for record in caplog.records] == [
        "no effect: MODEL.EXTRA.DECONV.NUM_CHANNELS (after its entry 1, as NUM_DECONVS is 1)"
    ]


HRNET_KEYS = ["MODEL.EXTRA.STEM_BLOCKS=2", "MODEL.EXTRA.STAGE3.NUM_MODULES=2"]
ONE_STAGE = ["LOSS.NUM_STAGES=1", "LOSS.WITH_AE_LOSS=[True]", "TEST.WITH_AE=[True]"]


@pytest.mark.parametrize(
    ("opts", "idle"),
    [
        (HRNET_KEYS, ""),
        (
            ["MODEL.BACKBONE=timm/resnet18", *HRNET_KEYS],
            "MODEL.EXTRA.STEM_BLOCKS, MODEL.EXTRA.STAGE3.NUM_MODULES (only with MODEL.BACKBONE "
            "hrnet)",
        ),
        (
            ["MODEL.EXTRA.FPN_CHANNELS=128"],
            "MODEL.EXTRA.FPN_CHANNELS (only with MODEL.BACKBONE timm/NAME)",
        ),
        (["MODEL.BACKBONE=timm/resnet18", "MODEL.EXTRA.FPN_CHANNELS=128"], ""),
        (["MODEL.BACKBONE=mine", "MODEL.EXTRA.FPN_CHANNELS=128", *HRNET_KEYS], ""),
        (
            ["MODEL.EXTRA.DECONV.NUM_DECONVS=0", "MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS=9"],
            "MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS (only with NUM_DECONVS above 0)",
        ),
        (
            [
                "MODEL.HEAD=mine",
                "MODEL.EXTRA.DECONV.NUM_DECONVS=0",
                "MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS=9",
            ],
            "",
        ),
        (["MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS=9"], ""),
    ],
)
def test_keys_of_another_network_have_no_effect(
    opts: list[str], idle: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A backbone or head of the user's own may read any key."""
    stages = ONE_STAGE if "MODEL.EXTRA.DECONV.NUM_DECONVS=0" in opts else []
    load_config(MAIN, [*stages, *opts])
    said = [record.getMessage() for record in caplog.records]
    assert said == ([f"no effect: {idle}"] if idle else [])


@pytest.mark.parametrize(
    ("text", "opts", "said"),
    [
        ("FP16: {ENABLED: true, DYNAMIC_LOSS_SCALE: true}", ["FP16.STATIC_LOSS_SCALE", 128], True),
        ("FP16: {ENABLED: true, DYNAMIC_LOSS_SCALE: true, STATIC_LOSS_SCALE: 128}", [], True),
        ("FP16: {ENABLED: true, DYNAMIC_LOSS_SCALE: true, STATIC_LOSS_SCALE: 1}", [], False),
        ("FP16: {ENABLED: true}", ["FP16.STATIC_LOSS_SCALE", 128], False),
    ],
)
def test_a_static_loss_scale_beside_a_dynamic_one_has_no_effect(
    variant: Variant, text: str, opts: list, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = load_config(variant(text + "\n"), opts)
    assert [record.getMessage() for record in caplog.records] == [
        "no effect: FP16.STATIC_LOSS_SCALE (only with FP16.DYNAMIC_LOSS_SCALE False)"
    ] * said
    assert ("DYNAMIC" in text) == cfg.FP16.DYNAMIC_LOSS_SCALE


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


@pytest.mark.parametrize(
    "opts", [["FP16.ENABLED", "True"], ["AMP.ENABLED", "True", "AMP.DTYPE", "fp16"]]
)
def test_fp16_of_a_saved_configuration_has_a_dynamic_scale(opts: list[str], tmp_path: Path) -> None:
    """Saved configurations hold every default, also the scale 1."""
    file = tmp_path / "saved.yaml"
    save_config(load_config(MAIN), file)
    for cfg in (load_config(file, opts), load_text(file.read_text(), "a.pth", opts)):
        assert cfg.FP16.ENABLED and cfg.FP16.DYNAMIC_LOSS_SCALE
    (problem,) = problems_of(file, [*opts, "FP16.STATIC_LOSS_SCALE=1"])
    assert problem.startswith("command line: FP16.STATIC_LOSS_SCALE: must not be 1: ")
    save_config(load_config(MAIN, ["FP16.STATIC_LOSS_SCALE", "128"]), file)
    assert not load_config(file, opts).FP16.DYNAMIC_LOSS_SCALE


def test_no_scale_maps_no_scale_adaptation() -> None:
    assert not load_config(MAIN, ["MODEL.SCALE_HEADS", "False"]).LOSS.SCALE_ADAPTIVE
    fixed = load_config(MAIN, ["LOSS.SCALE_ADAPTIVE", "False"])
    assert fixed.MODEL.SCALE_HEADS and not fixed.LOSS.SCALE_ADAPTIVE


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


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for opts in (
        ["DATASET.ROOT", "~/set"],
        ["DATA_DIR", "~", "DATASET.ROOT", "set"],
        ["DATA_DIR", "/a", "DATASET.ROOT", "~/set"],
    ):
        root = load_config(MAIN, opts).DATASET.ROOT
        assert Path(root) == tmp_path / "set"
    (tmp_path / "base.yaml").write_text("LOSS.NUM_STAGES: 2\nTRAIN.LR: 0.5\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/a.yaml").write_text("_BASE_: ~/base.yaml\n")
    assert load_config(tmp_path / "inner/a.yaml").TRAIN.LR == 0.5


def test_places_in_a_text_name_the_file_that_holds_it() -> None:
    cfg = load_text("LOSS.NUM_STAGES: 2\nDATASET.ROOT: ''\n", "a.pth")
    with pytest.raises(ConfigError) as caught:
        check_files(cfg, dataset=True)
    assert caught.value.problems == [
        "a.pth: config:2: DATASET.ROOT: is empty; give DATASET.ROOT, the folder of the data set"
    ]


def test_lists_per_stage_of_one_entry_are_spread(variant: Variant) -> None:
    cfg = load_config(variant("LOSS:\n  PUSH_LOSS_FACTOR: [0.5]\nTEST:\n  WITH_AE: [true]\n"))
    assert cfg.LOSS.PUSH_LOSS_FACTOR == [0.5, 0.5] and cfg.TEST.WITH_AE == [True, True]
    path = variant("LOSS:\n  PUSH_LOSS_FACTOR: [1, 2, 3]\n")
    assert problems_of(path) == [
        f"{path}:3: LOSS.PUSH_LOSS_FACTOR: has length 3; LOSS.NUM_STAGES is 2, so it must be 1 or 2"
    ]
    assert len(problems_of(MAIN, ["LOSS.NUM_STAGES", str(10**18)])) == 1


def test_blame_is_on_the_key_that_is_wrong_if_it_was_set(variant: Variant) -> None:
    path = variant("DATASET:\n  MIN_SCALE: 2\n  MAX_SCALE: 1\n")
    assert problems_of(path)[0].startswith(f"{path}:3: DATASET.MIN_SCALE: is 2.0; it must not be")
    path = variant("TEST:\n  NMS_PADDING: 1\n")
    assert problems_of(path, ["TEST.NMS_KERNEL=7"])[0].startswith(f"{path}:3: TEST.NMS_PADDING: ")


def test_blame_is_else_on_the_key_that_makes_it_wrong_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("LOSS.NUM_STAGES: 2\nTEST.NMS_KERNEL: 5\n")
    assert problems_of(path) == [
        f"{path}:2 (TEST.NMS_KERNEL): TEST.NMS_PADDING: is 1; with NMS_KERNEL 5 it must be 2"
    ]


def test_required_modules_must_be_imported(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = variant("REQUIRES: [json, my_module]\nTOY:\n  WIDTH: 3\n")
    (tmp_path / "my_module.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert problems_of(path, ["REQUIRES", "[]"]) == [
        f"{path}:2: REQUIRES: needs the module my_module; add --import my_module to the command, "
        "or in Python import my_module"
    ]
    assert problems_of(variant("REQUIRES: 3\n"))[0].endswith("must be a list of texts, not 3")
    assert load_config(variant("REQUIRES: [json]\n")).REQUIRES == ["json"]


def test_sizes_that_do_not_fit_the_network(variant: Variant) -> None:
    path = variant("DATASET:\n  INPUT_SIZE: 640\n")
    for opts, strides, divisor, problem in (
        (
            [],
            (4, 2),
            32,
            "is [128, 256]; with INPUT_SIZE 640 the maps of the network have sides [160, 320]",
        ),
        (["DATASET.INPUT_SIZE=500"], (4, 2), 32, "must be a multiple of 32, not 500"),
        (["DATASET.OUTPUT_SIZE=[160,320]"], (8,), 32, "is 2; the network has 1 output resolution"),
    ):
        cfg = load_config(path, opts)
        with pytest.raises(ConfigError) as caught:
            fit_to_network(cfg, strides, divisor)
        assert problem in caught.value.problems[0]
    cfg = pickle.loads(pickle.dumps(load_config(path, ["DATASET.OUTPUT_SIZE=[1, 2]"])))
    with pytest.raises(ConfigError, match="^command line: DATASET.OUTPUT_SIZE: is"):
        fit_to_network(cfg, (4, 2), 32)
    with pytest.raises(ConfigError, match="yaml:3: DATASET.INPUT_SIZE: must be a multiple of 256"):
        fit_to_network(load_config(path), (4, 2), 256)


def test_output_size_follows_from_the_network(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("LOSS.NUM_STAGES: 2\n")
    cfg = load_config(path)
    assert cfg.DATASET.OUTPUT_SIZE == []
    fitted = fit_to_network(cfg, (8, 4), 64)
    assert fitted.DATASET.OUTPUT_SIZE == [64, 128] and fitted.is_frozen()
    assert cfg.DATASET.OUTPUT_SIZE == []
    save_config(fitted, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == fitted
    assert fit_to_network(fitted, (8, 4), 64) == fitted


WORM = "name: my worm\nkeypoints: [head, tail]\nsigmas: [.1, .1]\n"
IMPLIED = ("DATASET.DATASET", "DATASET.DATASET_TEST", "DATASET.NUM_JOINTS", "MODEL.NUM_JOINTS")


def implied(cfg: Any) -> list[Any]:
    return [lookup(cfg, key) for key in IMPLIED]


def test_joints_and_data_sets_follow_from_the_skeleton(tmp_path: Path) -> None:
    skeleton = tmp_path / "worm.yaml"
    skeleton.write_text(WORM)
    opts = ["DATASET.SKELETON", str(skeleton)]
    cfg = load_config(MAIN, opts)
    assert implied(cfg) == ["my_worm", "my_worm", 2, 2]
    assert dataset_spec(cfg, train=True).protocol == dataset_spec(cfg, train=False).protocol
    assert implied(load_config(MAIN, [*opts, "DATASET.WITH_CENTER=True"]))[2:] == [3, 3]
    assert implied(load_config(MAIN, ["DATASET.SKELETON=crowd_pose"])) == [
        "crowd_pose_kpt",
        "crowd_pose",
        14,
        14,
    ]
    named = load_config(MAIN, [*opts, "DATASET.DATASET=a", "DATASET.DATASET_TEST=b"])
    assert implied(named) == ["a", "b", 2, 2]
    save_config(named, tmp_path / "saved.yaml")
    assert load_config(tmp_path / "saved.yaml") == named


def test_what_a_file_sets_beside_its_skeleton_stays(variant: Variant, tmp_path: Path) -> None:
    (tmp_path / "worm.yaml").write_text(WORM)
    path = variant(
        f"DATASET: {{SKELETON: {tmp_path / 'worm.yaml'}, DATASET: mine}}\nMODEL: {{NUM_JOINTS: 5}}"
    )
    (line,) = problems_of(path)
    assert line == f"{path}:3: MODEL.NUM_JOINTS: is 5; the skeleton my worm has 2 joints"
    assert implied(load_config(path, ["MODEL.NUM_JOINTS=2"])) == ["mine", "my_worm", 2, 2]
    assert implied(load_config(path, ["DATASET.SKELETON=coco"])) == ["coco_kpt", "coco", 17, 17]
