"""results.csv: a line for each epoch, whatever was trained again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from swahr.engine.results_file import ResultsFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.csv"


def test_a_line_for_each_epoch(path: Path) -> None:
    table = ResultsFile(path)
    table.add_epoch(1, {"steps": 4, "loss": 0.125})
    table.add_figures(1, {"AP": 0.5})
    table.add_epoch(2, {"steps": 8, "loss": float("nan")})
    assert path.read_text() == "epoch,steps,loss,AP\n1,4,0.125,0.5\n2,8,nan,\n"


def test_epochs_that_are_trained_again_replace_their_lines(path: Path) -> None:
    for epoch in (1, 2, 3):
        ResultsFile(path).add_epoch(epoch, {"loss": epoch})
        ResultsFile(path).add_figures(epoch, {"AP": epoch})
    ResultsFile(path).add_epoch(2, {"loss": 7})
    assert path.read_text() == "epoch,loss,AP\n1,1,1\n2,7,\n"


def test_processes_other_than_the_main_one_write_nothing(tmp_path: Path) -> None:
    ResultsFile(None).add_epoch(1, {"loss": 1})
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_program_is_kept(path: Path) -> None:
    path.write_text("a;b\n1;2\n")
    ResultsFile(path).add_epoch(1, {"loss": 1})
    assert path.read_text() == "epoch,loss\n1,1\n"
    assert path.with_name("results_2.csv").read_text() == "a;b\n1;2\n"


def test_a_table_that_cannot_be_written_costs_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.ERROR):
        ResultsFile(tmp_path / "file" / "results.csv").add_epoch(1, {"loss": 1})
    [message] = caplog.messages
    assert "results.csv: could not be written" in message
    assert message.endswith("; training continues without it")


def test_a_table_that_cannot_be_read_costs_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "results.csv"
    path.mkdir()
    table = ResultsFile(path)
    with caplog.at_level(logging.ERROR):
        table.add_epoch(1, {"loss": 1})
        table.add_figures(1, {"AP": 0.5})
    assert caplog.messages == [f"{path}: is a folder, not a file; training continues without it"]
    assert path.is_dir()
