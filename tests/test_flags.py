"""The flags that the tools share: what they mean, and what they say to contradictions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from swahr.config import SCHEMA, ConfigError, list_keys, load_config
from swahr.parts import PartError

MAIN = "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"
TOOLS = ("train", "val", "predict")
INFERENCE = ("--img_dir", "a", "--save_dir", "b")
A_FOLDER = "name a folder"
A_VALUE = "give a value"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return lambda name: importlib.import_module(f"swahr.commands.{name}")


@pytest.fixture
def parse(tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """parse(tool's name, *flags) -> the flags as the tool parses them."""

    def call(name: str, *flags: str) -> Any:
        extra = INFERENCE if name == "predict" else ()
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--cfg", MAIN, *extra, *flags])
        return tool(name).parse_args()

    return call


@pytest.fixture
def config(parse: Callable[..., Any], tool: Callable[[str], Any]) -> Callable[..., Any]:
    """config(*flags) -> the configuration that `train` loads for them."""
    return lambda *flags: tool("flags").load_run_config(parse("train", *flags))


@pytest.fixture
def launched(tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that torchrun started, one of two on this node."""
    place = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}
    for name, value in (place | {"GROUP_WORLD_SIZE": 1, "MASTER_ADDR": "localhost"}).items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("name", TOOLS)
def test_flags_have_hyphens_or_underscores(name: str, parse: Callable[..., Any]) -> None:
    for flag in ("--world-size", "--world_size"):
        args = parse(name, flag, "3")
        assert (args.world_size if name == "train" else args.processes) == 3
    for flag in ("--dist-url", "--dist_url") if name == "train" else ():
        assert parse(name, flag, "tcp://a:1").dist_url == "tcp://a:1"
    if name == "predict":
        assert parse(name, "--img-dir", "a", "--save-dir", "b").img_dir == "a"


def test_settings_may_be_joined_and_stand_between_flags(config: Callable[..., Any]) -> None:
    cfg = config("TRAIN.LR=0.5", "--device", "cpu", "DATASET.SIGMA", "-1", "--name", "mine")
    assert (cfg.TRAIN.LR, cfg.DEVICE, cfg.DATASET.SIGMA, cfg.RUN_NAME) == (0.5, "cpu", -1, "mine")


@pytest.mark.parametrize(
    ("name", "flags", "line"),
    [
        (
            "train",
            "--gpu 0 --gpus 4",
            "--gpu 0 contradicts --gpus 4; give one of them",
        ),
        ("val", "--gpu 0 --world_size 4", "--gpu 0 contradicts --world_size 4"),
        ("val", "--gpus 2 --world-size 4", "--gpus 2 contradicts --world-size 4"),
        ("train", "--dist-url a --dist_url b", "--dist-url a contradicts --dist_url b"),
        ("train", "--gpu 0 --device cpu", "--gpu 0 contradicts --device cpu"),
        ("train", "--gpu 0 DEVICE cpu", "--gpu 0 contradicts the setting DEVICE"),
        ("train", "--device cpu DEVICE=cpu", "--device cpu contradicts the setting DEVICE"),
        ("train", "--name a RUN_NAME=b", "--name a contradicts the setting RUN_NAME"),
        ("train", "--rank 2 --world-size 2", "--rank 2 contradicts --world-size 2"),
        ("predict", "--save_dir c", "--save_dir b contradicts --save_dir c"),
    ],
)
def test_contradictions_are_one_line(
    name: str, flags: str, line: str, parse: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(name, *flags.split())
    assert str(caught.value) == f"{line.removesuffix('; give one of them')}; give one of them"


@pytest.mark.parametrize(
    ("name", "flags", "flag", "remedy"),
    [
        ("lsp", ["--data", "lsp", "--out", ""], "--out", A_FOLDER),
        ("lsp", ["--data", " ", "--out", "out"], "--data", A_FOLDER),
        ("dlc", ["labels.csv", "--images", "frames", "--out", ""], "--out", A_FOLDER),
        ("dlc", ["labels.csv", "--images", "", "--out", "out"], "--images", A_FOLDER),
        ("synthetic", ["--out", ""], "--out", A_FOLDER),
        ("publish", ["demo", "--out", ""], "--out", A_FOLDER),
        (
            "check",
            ["a.json", "b", "--contact-sheet", ""],
            "--contact-sheet/--contact_sheet",
            A_VALUE,
        ),
        ("report", ["a.json", "--annotations", "b", "--images", ""], "--images", A_VALUE),
        ("report", ["a.json", "--annotations", "b", "--out", " "], "--out", A_VALUE),
        ("ablation", [MAIN, "--out", ""], "--out", A_VALUE),
    ],
)
def test_an_empty_path_is_neither_the_current_folder_nor_a_missing_flag(
    name: str,
    flags: list[str],
    flag: str,
    remedy: str,
    tool: Callable[[str], Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        tool(name).main(flags)
    assert ended.value.code == 2
    assert f"argument {flag}: it is empty; {remedy}\n" in capsys.readouterr().err


def test_an_empty_folder_of_results_is_refused(
    parse: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("predict", "--save-dir", "")
    assert "--save-dir: it is empty; name a folder\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "flag", "remedy"),
    [
        ("train", "--name", "give a value"),
        ("val", "--report", "name a folder"),
        ("predict", "--img_dir", "name a folder"),
    ],
)
def test_an_empty_flag_of_a_run_is_refused(
    name: str, flag: str, remedy: str, parse: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(name, flag, "")
    assert f": it is empty; {remedy}\n" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--device", "cpu", "--name", "x"], ["--import", "json"]])
def test_no_flag_is_the_value_of_a_setting(config: Callable[..., Any], flags: list[str]) -> None:
    with pytest.raises(ConfigError, match="^command line: settings are .*'OUTPUT_DIR' has no val"):
        config(*flags, "OUTPUT_DIR")


def test_a_module_beside_its_setting_is_refused(parse: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="^--import json contradicts the setting REQUIRES;"):
        parse("train", "--import", "json", "REQUIRES", "[json]")


def test_the_last_of_two_values_counts(config: Callable[..., Any]) -> None:
    """As in the published code."""
    assert config("TRAIN.LR", "1", "TRAIN.LR", "0.001").TRAIN.LR == 0.001


@pytest.mark.parametrize(
    ("name", "flag"),
    [("score", "--cfg"), ("check", "--skeleton"), ("report", "--out"), ("ablation", "--baseline")],
)
def test_a_flag_is_given_once(name: str, flag: str, tool: Callable[[str], Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{flag} a contradicts {flag} b; give one of them$"):
        tool(name).main(["x", flag, "a", flag, "b"])


def test_negative_numbers_have_exponents(
    config: Callable[..., Any], parse: Callable[..., Any]
) -> None:
    assert config("DATASET.SIGMA", "-1e0", "TRAIN.LR", "1").DATASET.SIGMA == -1
    for text in ("-1e-3", "-.5E+1", "-2.", "-3"):
        assert parse("predict", "--threshold", text).threshold == float(text)


def test_a_rank_needs_the_number_of_nodes(parse: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="^--rank 1: needs --world-size, the number of nodes$"):
        parse("train", "--rank", "1")
    assert parse("train", "--rank", "0").rank == 0


def test_the_same_value_twice_is_no_contradiction(parse: Callable[..., Any]) -> None:
    assert parse("val", "--gpus", "2", "--world-size", "2").processes == 2
    assert parse("train", "--gpu", "1", "--gpus", "1", "--device", "cuda").gpu == 1
    assert parse("train", "--rank", "1", "--world-size", "2").rank == 1


def test_flags_that_contradict_the_launcher(launched: None, parse: Callable[..., Any]) -> None:
    assert parse("train", "--gpus", "2", "--world-size", "1").processes == 2
    with pytest.raises(ConfigError, match="--gpus 4 contradicts the launcher's 2 processes"):
        parse("train", "--gpus", "4")
    with pytest.raises(ConfigError, match="--world-size 2 contradicts the launcher's 1 node;"):
        parse("train", "--world-size", "2")


def test_one_gpu_for_several_processes_is_refused(
    launched: None, config: Callable[..., Any]
) -> None:
    assert config("DEVICE=cuda").DEVICE == "cuda"
    with pytest.raises(ConfigError, match="^command line: DEVICE: is cuda:0; the launcher started"):
        config("DEVICE", "cuda:0")


def test_keys_are_listed_without_any_other_flag(
    tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*TOOLS, "flops"):
        for flags, markdown in ((["--list-keys"], False), (["--list-keys", "markdown"], True)):
            monkeypatch.setattr(sys, "argv", [f"{name}.py", *flags])
            with pytest.raises(SystemExit) as ended:
                tool(name).main()
            assert ended.value.code == 0
            assert capsys.readouterr().out == list_keys(markdown=markdown)


def test_the_configuration_is_printed(
    config: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        config("--print-config", "TRAIN.LR=0.5")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["TRAIN"]["LR"] == 0.5
    (tmp_path / "printed.yaml").write_text(printed)
    assert load_config(tmp_path / "printed.yaml") == load_config(MAIN, ["TRAIN.LR=0.5"])


def test_a_module_adds_its_keys_before_the_configuration_is_loaded(
    config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    line = 'SCHEMA["TOY.WIDTH"] = Key(8, above=0, meaning="a width")'
    source = f"from swahr.config.schema import SCHEMA, Key\n{line}\n"
    (tmp_path / "toy_flags_module.py").write_text(source)
    try:
        cfg = config("--import", "toy_flags_module", "TOY.WIDTH=9", "--import", "json")
        assert cfg.TOY.WIDTH == 9
        assert cfg.REQUIRES == ["toy_flags_module", "json"]
    finally:
        SCHEMA.pop("TOY.WIDTH", None)
        sys.modules.pop("toy_flags_module", None)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["TEST.MODEL_FILE", "x.onnx"], "give --cfg, the YAML file of an experiment"),
        (["--cfg", "x.onnx"], "--cfg x.onnx: is an exported network; give the YAML file of its"),
    ],
)
def test_an_exported_network_is_not_trained(
    tool: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as ended:
        tool("train").parse_args()
    assert ended.value.code == 2 and f"error: {line}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["val", "flops"])
def test_an_exported_network_tells_its_settings(
    tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "TEST.MODEL_FILE", "x.onnx"])
    assert tool(name).parse_args().cfg == "x.onnx"


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("TETS.FLIP_TEST", "TEST.FLIP_TEST"),
        ("test.flip_test=True", "TEST.FLIP_TEST"),
        ("DATSET.ROOT", "DATASET.ROOT"),
    ],
)
def test_a_slip_in_a_key_is_no_image(tool: Callable[[str], Any], word: str, key: str) -> None:
    typed = word.partition("=")[0]
    line = f"^{typed}: there is no such file, and no such setting; the nearest is {key}$"
    with pytest.raises(ConfigError, match=line):
        tool("predict").split_sources([word, "True"])


def test_a_slip_in_a_key_is_no_configuration(tool: Callable[[str], Any]) -> None:
    with pytest.raises(ConfigError, match="^train.lr: there is no such .* nearest is TRAIN.LR$"):
        tool("ablation").main([MAIN, "train.lr", "0.1"])


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("DATASET.ROOT", "DATASET.ROOT: is a setting; RESULTS, the results file, comes before"),
        ("DATASET.ROOT=x", "DATASET.ROOT: is a setting; RESULTS, the results file, comes before"),
        ("DATSET.ROOT", "DATSET.ROOT: there is no such file, and no such setting; the nearest"),
    ],
)
def test_a_setting_is_no_results_file(tool: Callable[[str], Any], word: str, line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        tool("score").main(["--cfg", MAIN, word, "x", "results.json"])


def test_a_yaml_file_in_capitals_is_no_setting(tool: Callable[[str], Any]) -> None:
    words = ["W32.yaml", "A/B.YML", "DATASET.SKELETON=own.yaml", "DATASET.ROOT", "x.yaml"]
    assert tool("ablation").split_settings(words) == (words[:2], words[2:])


def test_sources_are_no_slips(
    tool: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test.fuse").touch()
    sources = ["photo.jpg", "test.fuse", "Test.jpg", "photos/*.png", "rtsp://a.b/c", "0", "-"]
    words = [*sources, "TEST.FUSE", "False"]
    assert tool("predict").split_sources(words) == (sources, ["TEST.FUSE", "False"])


def test_the_source_stands_in_the_usage(
    tool: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in (("predict", "[SOURCE | KEY VALUE ...]"), ("train", "[KEY VALUE ...]")):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
        with pytest.raises(SystemExit):
            tool(name).parse_args()
        assert words in capsys.readouterr().out.partition("\n\n")[0]


def test_a_module_that_is_missing_is_one_line(parse: Callable[..., Any]) -> None:
    with pytest.raises(PartError, match="^--import no_such_module: ModuleNotFoundError"):
        parse("train", "--import", "no_such_module")
