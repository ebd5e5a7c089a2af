"""tools/run_ablation.py from its arguments to the page, on two toy configurations and two seeds."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from swahr.ablation.figures import RunFigures, collect
from swahr.ablation.page import BEGIN, END
from swahr.ablation.plan import AblationError, PlannedRun, find_files, plan_runs
from swahr.commands import ablation
from swahr.commands.ablation import conditions, main, order, parse_args, visible_gpus
from swahr.config import ConfigError
from swahr.data.images import ImageError
from swahr.distributed.signals import Interrupted
from swahr.files import WriteError
from tests.ablation.conftest import InProcess

pytest.importorskip("matplotlib", reason="needs the extra report")


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, make_toy: Callable[[Path], Path]
) -> tuple[Path, Path]:
    """The folder of the configurations and the page of their comparison."""
    toy = make_toy(tmp_path_factory.mktemp("compared"))
    page = toy.parent / "toy.md"
    page.write_text(f"# Toy\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "RunProcesses", InProcess)
        assert main([*arguments(toy, page)]) == 0
    return toy, page


def arguments(toy: Path, page: Path, *more: str, seeds: int = 2) -> list[str]:
    settings = ["--seeds", str(seeds), "--baseline", "higher_hrnet", "--resamples", "5"]
    settings += ["--import", "math"]
    return [str(toy), *settings, "--out", str(page), *more]


def test_the_page_has_every_table(compared: tuple[Path, Path]) -> None:
    toy, page = compared
    text = page.read_text()
    assert text.startswith(f"# Toy\n\nBefore.\n\n{BEGIN}\n") and text.endswith("\n\nAfter.\n")
    assert "old" not in text and text.count(END) == 1
    assert "| higher_hrnet | 2 | 0." in text and "| both | 2 | 0." in text
    heads = [line for line in text.splitlines() if line.startswith("|  |")]
    assert heads[0].startswith("|  | seeds | AP | AP .5 | AP .75 | AP (M) | AP (L) | swapped")
    assert heads[1].startswith("|  | AP | AP .5 | AP .75 | 16 to 32 px |")
    assert re.fullmatch(r"\|  \|( \d+ to \d+ px \(\d+\) \|)+", heads[2])
    assert re.fullmatch(r"\|  \|( \d+ to \d+ px \|)+", heads[3])
    assert heads[4] == "|  | higher_hrnet | both |" and "| left_ankle | " in text
    assert re.search(r"\| both \|( [+-]\d\.\d{3} \[.*?\] \|)+", text)
    assert re.search(r"\| both, resolution 2 \|( [+-]\d\.\d{3} \(\d\.\d\dx\) \|)+", text)
    assert "higher_hrnet, resolution" not in text
    command = f"{toy} --seeds 2 --baseline higher_hrnet --out {page} --resamples 5 --import math"
    assert f"- command: `python tools/run_ablation.py {command}`\n" in text


def test_the_charts_stand_beside_the_page(compared: tuple[Path, Path]) -> None:
    _, page = compared
    for kind in ("height", "scale", "loss"):
        assert f"](toy_{kind}.svg)" in page.read_text()
        svg = (page.parent / f"toy_{kind}.svg").read_text()
        assert "<svg" in svg and "#010203" in svg and "#f59e0b" in svg


def test_a_second_call_trains_nothing_and_writes_the_same(
    compared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, page = compared
    monkeypatch.setattr(ablation, "RunProcesses", None)
    monkeypatch.setattr("swahr.ablation.figures.read_scales", None)
    before = page.read_text()
    assert main(arguments(toy, page)) == 0
    assert page.read_text() == before


def test_a_run_that_failed_is_named_and_the_others_are_compared(
    compared: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A third seed of each fails; results that cannot be read are a failure too."""
    toy, _ = compared

    class Failing(InProcess):
        def run(self, runs: list) -> dict[str, str]:  # type: ignore[override, type-arg]
            return {run.name: "exit status 3: disk full" for run in runs}

    monkeypatch.setattr(ablation, "RunProcesses", Failing)
    page = tmp_path / "page.md"
    (results,) = toy.parent.glob("output/*/*/toy_both_seed1/results/*_noflip.json")
    kept = results.read_text()
    results.write_text("broken")
    try:
        assert main(arguments(toy, page, seeds=3)) == 1
    finally:
        results.write_text(kept)
    text = page.read_text()
    assert text.startswith(f"# page\n\n{BEGIN}")
    assert "| higher_hrnet | 2 |" in text and "| both | 1 |" in text
    assert "- toy_both_seed2: exit status 3: disk full\n" in text
    assert re.search(r"\n- toy_both_seed1: results .*\.json: cannot be read", text)
    assert "toy_both_seed2 failed: exit status 3: disk full\n" in capsys.readouterr().err


def test_the_page_is_written_for_networks_without_scale_maps_and_without_the_baseline(
    compared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run of the baseline can be read; the other configuration is not compared with itself."""
    toy, _ = compared

    def without_baseline(run: PlannedRun, device: torch.device) -> RunFigures:
        if run.label == "higher_hrnet":
            raise OSError("disk full")
        return collect(run, device)

    monkeypatch.setattr(ablation, "collect", without_baseline)
    monkeypatch.setattr("swahr.ablation.figures.load_scales", lambda path, digest: None)
    monkeypatch.setattr("swahr.ablation.figures.read_scales", lambda *given: None)
    page = tmp_path / "page.md"
    assert main(arguments(toy, page)) == 1
    text = page.read_text()
    assert "because no run of the baseline higher_hrnet is done.\n" in text
    assert "| both | 2 |" in text and "scale maps" not in text


def test_nothing_to_compare(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(InProcess):
        def run(self, runs: list) -> dict[str, str]:  # type: ignore[override, type-arg]
            return {run.name: "no" for run in runs}

    monkeypatch.setattr(ablation, "RunProcesses", Failing)
    with pytest.raises(AblationError, match="no run is done, so there is nothing to compare"):
        main(arguments(toy, tmp_path / "page.md"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_says_how_to_resume(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # Programs that a shell starts in the background ignore Ctrl-C.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Stopped(InProcess):
        def run(self, runs: list) -> dict[str, str]:  # type: ignore[override, type-arg]
            signal.raise_signal(signal.Signals[name])
            return {}

    monkeypatch.setattr(ablation, "RunProcesses", Stopped)
    with pytest.raises(Interrupted, match=f"stopped by {name}; the same command resumes"):
        main(arguments(toy, tmp_path / "page.md"))
    signal.signal(signal.SIGINT, interrupt)
    assert signal.getsignal(signal.SIGTERM) == before


def test_all_configurations_are_trained_with_one_seed_before_the_next(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    class Counting(InProcess):
        def run(self, runs: list) -> dict[str, str]:  # type: ignore[override, type-arg]
            trained.extend((run.label, run.seed) for run in runs)
            return {run.name: "not now" for run in runs}

    monkeypatch.setattr(ablation, "RunProcesses", Counting)
    with pytest.raises(AblationError, match="no run is done"):
        main(arguments(toy, tmp_path / "page.md"))
    assert trained == [("higher_hrnet", 0), ("both", 0), ("higher_hrnet", 1), ("both", 1)]


def test_mistakes_are_found_before_anything_is_trained(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "RunProcesses", None)
    foreign = tmp_path / "foreign.md"
    foreign.write_text("# A page of somebody else\n")
    with pytest.raises(AblationError, match="foreign.md: has no lines <!-- made by tools/run_abl"):
        main(arguments(toy, foreign))
    with pytest.raises(AblationError, match="--baseline none: it is one of both, higher_hrnet"):
        main([str(toy), "--baseline", "none", "--out", str(tmp_path / "page.md")])
    with pytest.raises(ConfigError, match="DATASET.ROOT"):
        main(arguments(toy, tmp_path / "page.md", "DATASET.ROOT", str(tmp_path / "none")))
    with pytest.raises(ImageError, match="images/nosplit: there is no such folder or zip file"):
        main(arguments(toy, tmp_path / "page.md", "DATASET.TEST", "nosplit"))
    with pytest.raises(WriteError, match="foreign.md"):
        main(arguments(toy, foreign / "page.md"))
    with pytest.raises(AblationError, match=r"toy: is no page of text \(.*\); give another --out"):
        main(arguments(toy, toy))
    foreign.write_bytes(b"\xff\x00")
    with pytest.raises(AblationError, match="foreign.md: is no page of text"):
        main(arguments(toy, foreign))


def test_recipes_that_differ_are_told_of_each_configuration(toy: Path, tmp_path: Path) -> None:
    planned = plan_runs(find_files([toy]), 1)
    runs = [group[0] for group in planned.values()]
    args = parse_args(arguments(toy, tmp_path / "page.md"))
    [told] = [line for line in conditions(args, runs) if "scored on val2017" in line]
    assert told.endswith("scored on val2017; input: 64 px; 1 epochs")
    (toy / "both.yaml").write_text("_BASE_: base.yaml\nTRAIN: {END_EPOCH: 3}\n")
    runs = [group[0] for group in plan_runs(find_files([toy]), 1).values()]
    told = [line for line in conditions(args, runs) if "scored on val2017" in line]
    assert [line[:6] + line[-8:] for line in told] == ["both: 3 epochs", "higher1 epochs"]


def test_without_matplotlib_the_message_names_the_command(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swahr.ablation.charts.find_spec", lambda name: None)
    with pytest.raises(AblationError, match=r"need matplotlib: pip install 'swahr\[report\]'"):
        main(arguments(toy, toy / "page.md"))


def test_settings_follow_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = parse_args(["a.yaml", "b", "--seeds", "2", "DATASET.ROOT", "data/x", "WORKERS=0"])
    assert args.files == ["a.yaml", "b"]
    assert args.opts == ["DATASET.ROOT", "data/x", "WORKERS=0"]
    assert (args.seeds, args.parallel, args.resamples) == (2, 0, 1000)
    for wrong, message in (
        (["a", "--seeds", "0"], "--seeds 0: it must be at least 1"),
        (["a", "--parallel", "-1"], "--parallel -1: it must be at least 0"),
        (["WORKERS=0"], "LIST: it names no file or folder"),
    ):
        with pytest.raises(SystemExit):
            parse_args(wrong)
        assert message in capsys.readouterr().err


def test_the_baseline_comes_first() -> None:
    assert order(["a", "b", "c"], "b") == ["b", "a", "c"]
    assert order(["a", "b"], None) == ["a", "b"]


def test_only_visible_gpus_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus("") == ["0", "1"] and visible_gpus("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert visible_gpus("cuda") == ["5", "7"]
