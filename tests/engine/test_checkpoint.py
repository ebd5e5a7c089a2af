"""Checkpoints come back as they went, in the published layout; damaged ones are named and the one
before is used.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from swahr.engine import checkpoint
from swahr.engine.checkpoint import Progress, RefusedResume, RunIdentity
from swahr.files import WriteError
from swahr.models.weights import CheckpointError, read_state_dict
from tests.engine.checkpoints import save_checkpoint


def write(folder: Path, epoch: int, model: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(epoch)
    model = model or nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    progress = Progress(epoch=epoch, step=5, step_images=16, best_perf=0.25, bad_steps=2)
    save_checkpoint(
        folder,
        identity=RunIdentity("net", 3, "A: 1", "run", ["host:1:2"]),
        weights=model.state_dict(),
        optimizer=optimizer.state_dict(),
        scaler={"scale": 1.0},
        hooks={"ema": {"steps": 7}},
        progress=progress,
    )
    return model


def restored(folder: Path) -> tuple[dict[str, Any], Path | None, list[str]]:
    warnings: list[str] = []
    content = checkpoint.resume(folder, lambda content: content, warnings.append) or {}
    return content, content.get("path"), warnings


def test_round_trip(tmp_path: Path) -> None:
    model = write(tmp_path, 4)
    content, path, warnings = restored(tmp_path)
    assert path == tmp_path / "checkpoint.pth.tar" and not warnings
    assert content["progress"] == Progress(
        epoch=4, step=5, step_images=16, best_perf=0.25, bad_steps=2
    )
    assert all(
        torch.equal(content["state_dict"][key], value) for key, value in model.state_dict().items()
    )
    assert content["scaler"] == {"scale": 1.0} and content["hooks"] == {"ema": {"steps": 7}}
    assert content["identity"] == RunIdentity("net", 3, "A: 1", "run", ["host:1:2"])
    torch.optim.Adam(model.parameters()).load_state_dict(content["optimizer"])


def test_published_layout(tmp_path: Path) -> None:
    model = write(tmp_path, 4)
    content = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    assert {"epoch", "model", "state_dict", "best_state_dict", "perf", "optimizer"} <= set(content)
    assert (
        content["epoch"] == 4 and content["model"] == "net" and isinstance(content["perf"], float)
    )
    assert list(content["state_dict"]) == ["module.weight", "module.bias"]
    assert list(content["best_state_dict"]) == ["weight", "bias"]
    assert torch.equal(read_state_dict(tmp_path / "checkpoint.pth.tar")["weight"], model.weight)


def test_reads_what_the_published_code_wrote(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    content = {
        "epoch": 7,
        "model": "net",
        "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()},
        "best_state_dict": model.state_dict(),
        "perf": 0.5,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    content, _, _ = restored(tmp_path)
    assert content["progress"] == Progress(epoch=7) and list(content["state_dict"]) == [
        "weight",
        "bias",
    ]


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        write(tmp_path, epoch)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pth.tar", "checkpoint_previous.pth.tar"]
    epochs = [
        checkpoint.read_checkpoint(tmp_path / name)["epoch"]
        for name in sorted(os.listdir(tmp_path))
    ]
    assert epochs == [3, 2]


@pytest.mark.parametrize(
    "damage", ["truncated", "a byte", "zeros", "text", "foreign", "missing", "code"]
)
def test_a_damaged_newest_one_is_named_and_the_one_before_used(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1)
    model = write(tmp_path, 2)
    newest = tmp_path / "checkpoint.pth.tar"
    data = newest.read_bytes()
    if damage == "missing":  # the machine died between two renames
        newest.unlink()
    elif damage == "foreign":
        torch.save({"weight": torch.ones(2)}, newest)
    elif damage == "code":
        torch.save({"epoch": os.system, "state_dict": {}, "optimizer": {}}, newest)
    elif damage == "zeros":
        newest.write_bytes(b"")
        os.truncate(newest, 2 << 30)  # 2 GiB that take no room on the disk
    else:
        bias = data.index(model.state_dict()["bias"].numpy().tobytes())
        other = data[:bias] + bytes([data[bias] ^ 1]) + data[bias + 1 :]
        newest.write_bytes(
            {"truncated": data[: len(data) // 2], "a byte": other, "text": b"hello"}[damage]
        )
    content, path, warnings = restored(tmp_path)
    assert content["epoch"] == 1 and path == tmp_path / "checkpoint_previous.pth.tar"
    assert [str(newest) in line and "\n" not in line for line in warnings] == [
        damage != "missing"
    ] * len(warnings)
    assert len(warnings) == (damage != "missing")


def test_a_checkpoint_that_does_not_fit_is_named_and_the_one_before_used(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    warnings: list[str] = []

    def restore(content: dict[str, Any]) -> Path:
        if content["epoch"] == 2:
            raise ValueError("loaded state dict contains a parameter group\nthat doesn't match")
        return Path(content["path"])

    path = checkpoint.resume(tmp_path, restore, warnings.append)
    assert path == tmp_path / "checkpoint_previous.pth.tar"
    assert "checkpoint.pth.tar: is of another run" in warnings[0] and "\n" not in warnings[0]


@pytest.mark.parametrize(
    ("text", "reason"), [("", "ValueError"), ("a\nb", "a"), ("x" * 999, "x" * 200)]
)
def test_why_a_checkpoint_does_not_fit_is_one_short_line(
    tmp_path: Path, text: str, reason: str
) -> None:
    def restore(content: dict[str, Any]) -> None:
        raise ValueError(text)

    write(tmp_path, 1)
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match="no checkpoint there can be used"):
        checkpoint.resume(tmp_path, restore, warnings.append)
    assert warnings == [f"{tmp_path / 'checkpoint.pth.tar'}: is of another run ({reason})"]


def test_nothing_to_resume_and_nothing_usable(tmp_path: Path) -> None:
    assert checkpoint.resume(tmp_path, lambda content: None, print) is None
    (tmp_path / "checkpoint.pth.tar").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="no checkpoint there can be used; AUTO_RESUME False"):
        checkpoint.resume(tmp_path, lambda content: None, lambda line: None)


def test_unknown_progress_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, 1)
    content = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    content["progress"] = {**asdict(Progress(epoch=1)), "from_the_future": 1}
    checkpoint.write_whole(content, tmp_path / "checkpoint.pth.tar")
    assert checkpoint.read_checkpoint(tmp_path / "checkpoint.pth.tar")["progress"] == Progress(
        epoch=1
    )


def test_a_full_disk_leaves_earlier_files_whole(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1 << 14, hard)
    )  # no file of this process may grow beyond 16 KiB
    try:
        with pytest.raises(WriteError) as caught:
            write(tmp_path, 3, nn.Linear(3, 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoint.pth.tar'}: could not be written (File too large); "
        "what was there is whole"
    )
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


class Gate:
    """A `copied.wait` that is held back until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        monkeypatch.setattr(checkpoint.HostCopy, "wait", lambda copied: self.opened.wait(30))


def test_a_file_written_in_the_background_has_the_values_of_its_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    weight = torch.zeros(2)
    content = {"weights": {"a": weight, "b": weight}, "groups": [{"lr": 0.1, "betas": (0.9, 1)}]}
    writer = checkpoint.CheckpointWriter(in_background=True)
    writer.write(content, tmp_path / "x.pth.tar")
    weight += 1  # the next step
    content["groups"][0]["lr"] = 0.5
    assert not (tmp_path / "x.pth.tar").exists()
    gate.opened.set()
    writer.wait()
    saved = torch.load(tmp_path / "x.pth.tar", weights_only=True)
    assert torch.equal(saved["weights"]["a"], torch.zeros(2))
    assert saved["groups"] == [{"lr": 0.1, "betas": (0.9, 1)}]
    assert saved["weights"]["a"].data_ptr() == saved["weights"]["b"].data_ptr()


def test_a_writer_without_a_thread_has_written_when_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.threading, "Thread", lambda **_: pytest.fail("a thread"))
    checkpoint.CheckpointWriter(in_background=False).write({}, tmp_path / "x.pth.tar")
    assert (tmp_path / "x.pth.tar").exists()


def test_tensors_with_the_same_first_value_are_copied_each() -> None:
    whole = torch.arange(4.0).view(2, 2)
    content = {"whole": whole, "row": whole[0], "turned": whole.T, "bits": whole.view(torch.int32)}
    copied = checkpoint.copy_to_host(content).content
    for name, tensor in content.items():
        assert torch.equal(copied[name], tensor) and copied[name].dtype == tensor.dtype


def test_files_are_written_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "x.pth.tar"
    with checkpoint.CheckpointWriter(in_background=True) as writer:
        for number in range(3):
            writer.write({"number": number}, path, previous=tmp_path / "previous")
    assert torch.load(path, weights_only=True) == {"number": 2}
    assert torch.load(tmp_path / "previous", weights_only=True) == {"number": 1}


def test_an_error_in_the_background_is_raised_at_the_next_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = checkpoint.CheckpointWriter(in_background=True)
    writer.write({}, tmp_path / "file" / "x.pth.tar")
    with pytest.raises(WriteError, match="x.pth.tar: could not be written"):
        writer.write({}, tmp_path / "y.pth.tar")
    writer.wait()  # it is told once
    with pytest.raises(WriteError, match="x.pth.tar: could not"), writer:
        writer.write({}, tmp_path / "file" / "x.pth.tar")


def test_the_error_that_ends_a_run_is_not_hidden(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ZeroDivisionError), checkpoint.CheckpointWriter(True) as writer:
        writer.write({}, tmp_path / "file" / "x.pth.tar")
        raise ZeroDivisionError
    assert "x.pth.tar: could not be written" in caplog.text


def damaged(folder: Path, **changes: Any) -> Path:
    """The newest checkpoint with other entries; the path."""
    path = folder / "checkpoint.pth.tar"
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state_dict": "abc"}, "its 'state_dict' is a str"),
        ({"state_dict": {"weight": 1}}, "its 'state_dict' has an entry 'weight' that is a int"),
        ({"optimizer": [1]}, "its 'optimizer' is a list"),
        ({"epoch": "3"}, "its 'epoch' is a str"),
        ({"progress": {"epoch": None}}, "its progress has epoch None"),
        ({"hooks": 3}, "its 'hooks' is a int"),
        ({"launchers": 3}, "its 'launchers' is a int"),
    ],
)
def test_foreign_contents_are_named_and_the_one_before_used(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = damaged(tmp_path, **changes)
    content, _, warnings = restored(tmp_path)
    assert content["epoch"] == 1
    [line] = warnings
    assert line.startswith(f"{path}: not a training checkpoint: {reason}") and "\n" not in line


@pytest.mark.parametrize("content", [{"conv1.weight": torch.ones(2)}, {"epoch": 1}, 3])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "x.pth.tar"
    torch.save(content, path)
    said = f"^{path}: not a training checkpoint: it has no '(epoch|state_dict)'$"
    with pytest.raises(CheckpointError, match=said):
        checkpoint.read_checkpoint(path)


def test_a_refused_resume_does_not_try_the_one_before(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)

    def refuse(content: dict[str, Any]) -> None:
        raise RefusedResume("other settings")

    with pytest.raises(RefusedResume, match="other settings"):
        checkpoint.resume(tmp_path, refuse, lambda line: pytest.fail(line))


def test_the_state_of_another_optimizer_is_refused() -> None:
    model = nn.Linear(3, 2)
    adam = torch.optim.Adam(model.parameters())
    sgd = torch.optim.SGD(model.parameters(), momentum=0.9)
    path = Path("x.pth.tar")
    with pytest.raises(CheckpointError, match="x.pth.tar: written with another optimizer than SGD"):
        checkpoint.restore_optimizer(sgd, adam.state_dict(), path)
    with pytest.raises(CheckpointError, match="another optimizer than Adam: it has .*momentum"):
        checkpoint.restore_optimizer(adam, sgd.state_dict(), path)
    with pytest.raises(CheckpointError, match="its optimizer has no groups"):
        checkpoint.restore_optimizer(adam, {"param_groups": 3}, path)


def test_the_optimizer_of_another_network_is_refused() -> None:
    def adam_of(*sizes: int) -> torch.optim.Adam:
        model = nn.Sequential(*(nn.Linear(3, size) for size in sizes))
        optimizer = torch.optim.Adam(model.parameters())
        sum(layer(torch.ones(1, 3)).sum() for layer in model).backward()
        optimizer.step()
        return optimizer

    state = adam_of(2).state_dict()
    for other, reason in ((adam_of(4), "exp_avg is of shape"), (adam_of(2, 2), "parameter group")):
        with pytest.raises(CheckpointError, match=f"does not fit the network: .*{reason}"):
            checkpoint.restore_optimizer(other, state, Path("x.pth.tar"))


def test_the_number_of_steps_is_where_the_optimizer_of_this_start_reads_it() -> None:
    """On the parameter's device if it is fused, whatever wrote the checkpoint."""
    weight = nn.Parameter(torch.ones(2))
    before = torch.optim.Adam([weight])
    weight.sum().backward()
    before.step()
    now = torch.optim.Adam([nn.Parameter(torch.ones(2, device="meta"))])
    now.param_groups[0]["fused"] = True  # Adam itself refuses it on this device
    checkpoint.restore_optimizer(now, before.state_dict(), Path("x.pth.tar"))
    [state] = now.state.values()
    assert state["step"].device.type == "meta"


def test_the_settings_of_this_start_stay() -> None:
    """The state may lack entries that this PyTorch has, and has a tensor for a rate of a graph."""
    weight = nn.Parameter(torch.ones(2))
    before = torch.optim.SGD([weight], lr=0.2, momentum=0.9)
    weight.sum().backward()
    before.step()
    state = before.state_dict()
    state["param_groups"][0]["lr"] = torch.tensor(0.2)
    del state["param_groups"][0]["fused"]
    now = torch.optim.SGD([weight], lr=0.1, momentum=0.5, weight_decay=0.01, nesterov=True)
    expected = dict(now.param_groups[0])
    checkpoint.restore_optimizer(now, state, Path("x.pth.tar"))
    assert now.param_groups[0] == expected and type(now.param_groups[0]["lr"]) is float
    assert torch.equal(now.state[weight]["momentum_buffer"], torch.ones(2))


@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("value", [np.float64(0.5), np.zeros(2), {1, 2}])
def test_a_value_that_could_not_be_read_again_is_refused(
    tmp_path: Path, value: Any, in_background: bool
) -> None:
    kind = f"{type(value).__module__}.{type(value).__name__}"
    writer = checkpoint.CheckpointWriter(in_background)
    with pytest.raises(CheckpointError, match=f"^hooks.mine.best: a {kind} cannot be kept in a"):
        writer.write({"hooks": {"mine": {"best": [1, value]}}}, tmp_path / "x.pth.tar")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("in_background", [False, True])
def test_keys_and_tuples_with_names_can_be_read_again(tmp_path: Path, in_background: bool) -> None:
    path = tmp_path / "x.pth.tar"
    with checkpoint.CheckpointWriter(in_background) as writer:
        with pytest.raises(CheckpointError, match="^hooks: a numpy.int64 cannot be kept"):
            writer.write({"hooks": {np.int64(3): 1}}, path)
        writer.write({"hooks": checkpoint.HostCopy(1, None), "groups": ({(2, 3): 4},)}, path)
    content = torch.load(path, weights_only=True)
    assert content == {"hooks": (1, None), "groups": ({(2, 3): 4},)}


def test_a_newest_one_that_was_passed_over_is_kept(tmp_path: Path) -> None:
    """The next one does not put it in the place of the good one."""
    write(tmp_path, 1)
    for damage in (b"x", b"y"):
        (tmp_path / "checkpoint.pth.tar").write_bytes(damage)
        checkpoint.keep_unusable(tmp_path)
    write(tmp_path, 2)
    write(tmp_path, 3)
    assert checkpoint.read_checkpoint(tmp_path / "checkpoint_previous.pth.tar")["epoch"] == 2
    kept = sorted(path.read_bytes() for path in tmp_path.glob("checkpoint_unusable_*.tar"))
    assert kept == [b"x", b"y"]
    aside = checkpoint.set_aside(tmp_path)
    assert aside is not None and list(tmp_path.iterdir()) == [aside]


def test_incomplete_files_are_removed(tmp_path: Path) -> None:
    for name in (".checkpoint.pth.tar.x1", "checkpoint.pth.tar", ".other"):
        (tmp_path / name).touch()
    checkpoint.remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other", "checkpoint.pth.tar"]


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "folder.pth.tar").mkdir()
    for name, reason in (("folder", "is a folder, not a file"), ("none", "no such file")):
        with pytest.raises(CheckpointError, match=f"{name}.pth.tar: {reason}$"):
            checkpoint.read_checkpoint(tmp_path / f"{name}.pth.tar")


def test_checkpoints_know_the_job_that_wrote_them(tmp_path: Path) -> None:
    assert not checkpoint.is_of_job(tmp_path, ["host:1:2"])
    write(tmp_path, 1)
    assert checkpoint.is_of_job(tmp_path, ["other:3:4", "host:1:2"])
    assert not checkpoint.is_of_job(tmp_path, ["other:3:4"])
    write(tmp_path, 2)
    (tmp_path / "checkpoint.pth.tar").write_bytes(b"damaged")
    assert checkpoint.is_of_job(tmp_path, ["host:1:2"])


DESCRIBING = (
    "model_best.pth.tar",
    "final_state.pth.tar",
    "config.yaml",
    "skeleton.yaml",
    "results.csv",
    "curves.png",
    "val_images.jpg",
)


def test_what_is_set_aside_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("A: 0")
    assert checkpoint.set_aside(tmp_path) is None
    asides = []
    for epoch in (1, 3):
        write(tmp_path, epoch)
        write(tmp_path, epoch + 1)
        (tmp_path / "model_best_2026-01-02_03-04-05.pth.tar").touch()
        for name in DESCRIBING:
            (tmp_path / name).write_text(f"of epoch {epoch}")
        asides.append(checkpoint.set_aside(tmp_path))
    assert sorted(tmp_path.iterdir()) == sorted(asides) and len(set(asides)) == 2
    for aside, epoch in zip(asides, (1, 3), strict=True):
        assert checkpoint.read_checkpoint(aside / "checkpoint.pth.tar")["epoch"] == epoch + 1
        assert checkpoint.read_checkpoint(aside / "checkpoint_previous.pth.tar")["epoch"] == epoch
        for name in DESCRIBING:
            assert (aside / name).read_text() == f"of epoch {epoch}"
