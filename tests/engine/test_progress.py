"""What a run reports: means without skipped steps, TensorBoard logs that survive a full disk."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from swahr import visualize
from swahr.distributed import comm
from swahr.engine.progress import (
    EpochBar,
    Means,
    Meter,
    PanelWriter,
    StepReport,
    TensorBoard,
    add_to_sums,
    means_of_sums,
    peak_gpu_memory,
    read_records,
    save_panel,
    setup_logging,
)
from swahr.engine.train_step import Sample
from swahr.files import WriteError
from tests.engine.distributed_workers import make_batches, make_train_step


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.log").mkdir()
    with pytest.raises(WriteError, match=r"train.log: cannot be written \(Is a directory\)$"):
        setup_logging(tmp_path / "train.log")


@pytest.mark.parametrize("is_main", [True, False])
def test_only_the_main_process_logs_more_than_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_main: bool,
) -> None:
    monkeypatch.setattr(comm, "is_main", lambda: is_main)
    setup_logging(tmp_path / "log" / "train.log")
    logger = logging.getLogger("swahr")
    for log in (logger.debug, logger.info, logger.error):
        log("a line for %s", log.__name__)
    printed = [line[9:] for line in capsys.readouterr().err.splitlines()]
    assert printed == [f"a line for {name}" for name in ("info", "error")][not is_main :]
    assert (tmp_path / "log").exists() == is_main
    if is_main:
        lines = (tmp_path / "log" / "train.log").read_text().splitlines()
        assert [line.split()[2] for line in lines] == ["DEBUG", "INFO", "ERROR"]


def test_a_log_file_on_a_full_disk_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging(Path("/dev/full"))
    logging.getLogger("swahr").info("a line")
    assert [line[9:] for line in capsys.readouterr().err.splitlines()] == ["a line"]


def read_events(folder: Path) -> list[Event]:
    """Events of a log: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data = next(folder.iterdir()).read_bytes()
    events = []
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_meter_skips_bad_steps() -> None:
    meter = Meter()
    for value, bad in ((1.0, False), (float("nan"), True), (3.0, False)):
        losses = {"heatmap0": torch.tensor(value), "push0": torch.tensor(0.5)}
        meter.add(losses, torch.tensor(bad), torch.tensor(2 * value))
    means = meter.read()
    assert means.losses == {"total": 2.5, "heatmap0": 2.0, "push0": 0.5}
    assert (means.gradient_norm, means.steps, means.counted) == (4.0, 3, 2.0)
    assert 0 == means.waited < means.seconds
    meter.add({"heatmap0": torch.tensor(1.0)}, torch.tensor(True), torch.tensor(1.0))
    assert np.isnan(meter.read().losses["heatmap0"])


def test_the_share_of_time_that_is_waited_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("swahr.engine.progress.time.perf_counter", lambda: now[0])

    def loader() -> Iterator[int]:
        for number in range(2):
            now[0] += 3.0
            yield number

    meter = Meter()
    for _ in meter.timed(loader()):
        now[0] += 2.0
        meter.add({"heatmap0": torch.tensor(1.0)}, torch.tensor(False), torch.tensor(1.0))
    means = meter.read()
    assert (means.waited, means.seconds) == (6.0, 10.0)


def test_means_of_an_epoch_from_several_reports() -> None:
    sums: dict[str, float] = {}
    add_to_sums(sums, Means({"total": 1.0, "heatmap0": 1.0}, 2.0, 2, 2.0, 4.0, 1.0), 8)
    add_to_sums(sums, Means({"total": 4.0, "heatmap0": 4.0}, 5.0, 2, 1.0, 4.0, 1.0), 8)
    nothing = float("nan")
    add_to_sums(sums, Means({"total": nothing, "heatmap0": nothing}, nothing, 1, 0.0, 2.0, 0.0), 8)
    losses, others = means_of_sums(sums)
    assert losses == {"total": 2.0, "heatmap0": 2.0}
    assert others == {"gradient_norm": 3.0, "images_per_second": 4.0, "data_wait": 0.2}
    losses, others = means_of_sums({})
    assert np.isnan([*losses.values(), *others.values()]).all()


def test_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 << 29)
    assert peak_gpu_memory(torch.device("cuda:0")) == 1.5
    assert peak_gpu_memory(torch.device("cpu")) is None


def test_tensorboard(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "log")
    board.scalars({"train/total": 2.5, "train/learning_rate": 1e-3}, 7)
    jpeg = visualize.encode(np.zeros((4, 6, 3), np.uint8), ".jpg")
    board.image("train/panel", jpeg, (4, 6), 8)
    *_, scalars, image = read_events(tmp_path / "log")
    assert scalars.step == 7
    assert {value.tag: value.simple_value for value in scalars.summary.value} == pytest.approx(
        {"train/total": 2.5, "train/learning_rate": 1e-3}
    )
    assert image.step == 8 and (
        image.summary.value[0].image.height,
        image.summary.value[0].image.width,
    ) == (4, 6)
    assert image.summary.value[0].image.encoded_image_string.startswith(b"\xff\xd8")  # JPEG
    TensorBoard(None).scalars({"x": 1.0}, 0)


def test_numbers_that_are_not_finite_are_not_drawn(tmp_path: Path) -> None:
    TensorBoard(tmp_path).scalars({"a": float("nan"), "b": 1.0, "c": float("inf")}, 7)
    assert [value.tag for value in read_events(tmp_path)[-1].summary.value] == ["b"]


def test_a_full_disk_costs_the_log_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = TensorBoard(tmp_path)
    monkeypatch.setattr(board._writer._py_recordio_writer, "_writer", open("/dev/full", "wb"))  # noqa: SIM115
    with caplog.at_level(logging.ERROR):
        for step in range(100):
            board.scalars({"x": 1.0}, step)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: the TensorBoard log cannot be written (No space left on device); "
        "training continues without it"
    ]


def test_a_log_folder_that_cannot_be_made_costs_the_log_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And where there is no log, none is resumed."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "log", None):
        board = TensorBoard(folder)
        board.drop_after(3, before_validation=True)
        board.scalars({"x": 1.0}, 4)
    [message] = caplog.messages
    assert message.startswith(f"{tmp_path / 'file' / 'log'}: the TensorBoard log cannot be written")


@pytest.mark.parametrize(("memory", "told"), [(None, ""), (3.25, "GPU memory 3.2 GiB, ")])
def test_a_pipe_gets_a_line_for_every_report_and_no_bar(
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    memory: float | None,
    told: str,
) -> None:
    losses = {"total": 2.5, "heatmap0": 2.0, "push0": 0.5}
    with caplog.at_level(logging.INFO), EpochBar("epoch 1/2", 10, 3) as bar:
        bar.advance()
        bar.tell(StepReport(losses, 1e-3, 0.125, 12.34, 0.256, memory, 3661.4))
    assert caplog.messages == [
        "epoch 1/2, step 4/10: loss 2.500e+00 (heatmap0 2.00e+00 push0 5.00e-01), lr 1.000e-03, "
        f"gradient norm 1.25e-01, 12.3 images/s, data wait 26%, {told}1:01:01 left"
    ]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_main", [True, False])
def test_on_a_terminal_the_main_process_alone_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_main: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(comm, "is_main", lambda: is_main)
    with EpochBar("epoch 1/2", 10, 3) as bar:
        bar.advance()
        bar.tell(StepReport({"total": 2.5}, 1e-3, 0.125, 12.34, 0.256, None, 3661.4))
    shown = capsys.readouterr().err
    assert ("4/10" in shown and "loss 2.500e+00, 12.3 images/s, 1:01:01 left" in shown) == is_main
    assert bool(shown) == is_main


def test_a_resumed_log_has_each_step_once(tmp_path: Path) -> None:
    """Also if the earlier start was killed while it wrote, and within the same second."""
    before = TensorBoard(tmp_path)
    for step in (1, 2, 3):
        before.scalars({"train/total": float(step)}, step)
    before.scalars({"validation/AP": 0.5}, 2)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])  # the record of the validation
    resumed = TensorBoard(tmp_path)
    resumed.drop_after(2, before_validation=True)
    resumed.scalars({"validation/AP": 0.25}, 2)
    resumed.scalars({"train/total": 9.0}, 3)
    found = [
        (event.step, value.tag, value.simple_value)
        for path in sorted(tmp_path.iterdir())
        for _, event in read_records(path.read_bytes())
        for value in event.summary.value
    ]
    assert found == [
        (1, "train/total", 1.0),
        (2, "train/total", 2.0),
        (2, "validation/AP", 0.25),
        (3, "train/total", 9.0),
    ]


@pytest.mark.parametrize("to_validate", [True, False])
def test_a_validation_is_dropped_only_if_it_is_made_again(
    tmp_path: Path, to_validate: bool
) -> None:
    TensorBoard(tmp_path).scalars({"validation/AP": 0.5}, 2)
    TensorBoard(tmp_path).drop_after(2, to_validate)
    events = [event for path in tmp_path.iterdir() for _, event in read_records(path.read_bytes())]
    assert any(event.summary.value for event in events) == (not to_validate)


@pytest.mark.parametrize("where", ["panel.jpg", "file/panel.jpg"])
def test_panel(tmp_path: Path, where: str) -> None:
    sample = make_train_step()([make_batches(1, 4)[0]], 0.1, sample_size=3).sample
    assert isinstance(sample, Sample)
    (tmp_path / "file").touch()
    save_panel(tmp_path / where, TensorBoard(tmp_path / "log"), sample, 5, scales=True, tags=True)
    assert (tmp_path / where).exists() == (
        where == "panel.jpg"
    )  # an image that cannot be written costs a line
    assert read_events(tmp_path / "log")[-1].summary.value[0].image.height > 3 * 8


def test_a_panel_of_maps_in_bf16(tmp_path: Path) -> None:
    """NumPy does not know this type."""
    train_step = make_train_step(dtype=torch.bfloat16)
    sample = train_step([make_batches(1, 4)[0]], 0.1, sample_size=3).sample
    [output] = sample.outputs
    assert output.heatmaps.dtype == torch.bfloat16
    output = output._replace(scales=output.heatmaps, tags=output.heatmaps)
    path = tmp_path / "panel.jpg"
    sample = sample._replace(outputs=[output])
    save_panel(path, TensorBoard(None), sample, 5, scales=True, tags=True)
    assert path.exists()


def test_a_panel_is_due_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = PanelWriter(tmp_path, TensorBoard(None), print_freq=2, images=3)
    sample = make_train_step()([make_batches(1, 4)[0]], 0.1, sample_size=3).sample
    assert [panels.sample_size(step, 0) for step in range(3)] == [0, 3, 0]
    panels.draw(sample, 1, 0)
    assert panels.sample_size(3, 0) == 0 and panels.sample_size(3, 1) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_001.jpg"]
    monkeypatch.setattr(comm, "is_main", lambda: False)
    assert panels.sample_size(3, 1) == 0
