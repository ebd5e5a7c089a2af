"""What a run reports: means without skipped steps, TensorBoard logs that survive a full disk."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from swahr.distributed import comm
from swahr.engine.progress import EpochBar, Meter, PanelWriter, TensorBoard, save_panel
from swahr.engine.train_step import Sample
from tests.engine.distributed_workers import make_batches, make_train_step


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
        meter.add({"heatmap0": torch.tensor(value), "push0": torch.tensor(0.5)}, torch.tensor(bad))
    losses, speed = meter.read()
    assert losses == {"total": 2.5, "heatmap0": 2.0, "push0": 0.5} and speed > 0
    meter.add({"heatmap0": torch.tensor(1.0)}, torch.tensor(True))
    assert np.isnan(meter.read()[0]["heatmap0"])


def test_tensorboard(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "log")
    board.scalars({"train/total": 2.5, "train/learning_rate": 1e-3}, 7)
    board.image("train/panel", np.zeros((4, 6, 3), np.uint8), 8)
    *_, scalars, image = read_events(tmp_path / "log")
    assert scalars.step == 7
    assert {value.tag: value.simple_value for value in scalars.summary.value} == pytest.approx(
        {"train/total": 2.5, "train/learning_rate": 1e-3}
    )
    assert image.step == 8 and (
        image.summary.value[0].image.height,
        image.summary.value[0].image.width,
    ) == (4, 6)
    TensorBoard(None).scalars({"x": 1.0}, 0)


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


def test_a_line_for_every_report_where_nobody_watches(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), EpochBar("epoch 1/2", 10, 3) as bar:
        bar.advance()
        bar.tell({"total": 2.5, "heatmap0": 2.0, "push0": 0.5}, 1e-3, 12.34, 3661.4)
    assert caplog.messages == [
        "epoch 1/2, step 4/10: loss 2.500e+00 (heatmap0 2.00e+00 push0 5.00e-01), lr 1.000e-03, "
        "12.3 images/s, 1:01:01 left"
    ]


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


def test_a_panel_is_due_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels = PanelWriter(tmp_path, TensorBoard(None), print_freq=2, images=3)
    sample = make_train_step()([make_batches(1, 4)[0]], 0.1, sample_size=3).sample
    assert [panels.sample_size(step, 0) for step in range(3)] == [0, 3, 0]
    panels.draw(sample, 1, 0)
    assert panels.sample_size(3, 0) == 0 and panels.sample_size(3, 1) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_001.jpg"]
    monkeypatch.setattr(comm, "is_main", lambda: False)
    assert panels.sample_size(3, 1) == 0
