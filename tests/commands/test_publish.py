"""`swahr publish`: a folder that describes itself, and that swahr.load reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import swahr
from swahr.commands import publish as command
from swahr.config import ConfigError, load_config, save_config
from swahr.engine import checkpoint, hub, published
from swahr.engine.checkpoint import Progress, RunIdentity
from swahr.engine.model_files import LoadError, ModelFiles, find_model
from swahr.engine.provenance import describe_weights
from swahr.engine.published import publish
from swahr.engine.run_folder import keep_config, own_skeleton
from swahr.files import WriteError
from swahr.models.build import build_model
from swahr.models.weights import (
    CheckpointError,
    load_weights,
    published_state,
    read_state_dict,
)
from swahr.skeleton import skeleton_yaml
from tests.engine.checkpoints import save_checkpoint
from tests.engine.conftest import CONFIG


def make_run(folder: Path, *opts: str) -> Path:
    """A run's folder with best weights."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(CONFIG.format(out=folder, data=folder))
    cfg = load_config(folder / "tiny.yaml", ["TEST.DETECTION_THRESHOLD", "0", *opts])
    save_config(cfg, folder / "config.yaml")
    torch.save(published_state(build_model(cfg)), folder / "model_best.pth.tar")
    return folder


def measure(run: Path, name: str, ap: float, digest: str) -> None:
    """What dist_valid leaves: the figures of weights with these digits."""
    (run / "results").mkdir(exist_ok=True)
    content = {
        "weights": f"best (epoch 7, sha256 {digest})",
        "test": f"{name}, flip test",
        "figures": {"AP": ap},
    }
    (run / f"results/{name}_figures.json").write_text(json.dumps(content))


def same_people(first: swahr.PoseModel, second: swahr.PoseModel) -> bool:
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    here = first(image)
    there = second(image)
    return (
        len(here) > 0
        and np.array_equal(here.keypoints, there.keypoints, equal_nan=True)
        and np.array_equal(here.scores, there.scores)
    )


def test_half_takes_half_the_space(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for name, *flags in (("whole",), ("half", "--half")):
        command.main([str(run), "--out", str(tmp_path / name), *flags])
    whole, half = (tmp_path / f"{name}/model.safetensors" for name in ("whole", "half"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    expected = {name: value.half().to(value) for name, value in read_state_dict(whole).items()}
    model = build_model(find_model(tmp_path / "half").cfg)
    load_weights(model, half)
    loaded = published_state(model)
    assert all(
        torch.equal(loaded[name], value.to(loaded[name])) for name, value in expected.items()
    )
    assert "float16" in (tmp_path / "half/README.md").read_text()
    assert "float16" not in (tmp_path / "whole/README.md").read_text()


def test_half_refuses_weights_that_do_not_fit(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    weights = torch.load(run / "model_best.pth.tar", weights_only=True)
    name = next(iter(weights))
    weights[name].fill_(1e6)
    torch.save(weights, run / "model_best.pth.tar")
    with pytest.raises(LoadError, match=f"{name} is too large for float16; publish without --half"):
        publish(find_model(run), tmp_path / "out", half=True)


def test_the_folder_finds_the_same_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    out = tmp_path / "hub/tiny"
    command.main([str(run), "--out", str(out)])
    assert capsys.readouterr().out == f"{out}\n"
    names = {path.name for path in out.iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    assert same_people(swahr.load(run), swahr.load(out))
    assert swahr.load(out / "model.safetensors").skeleton == swahr.COCO
    capitals = shutil.copy(out / "model.safetensors", tmp_path / "MODEL.SAFETENSORS")
    assert read_state_dict(capitals).keys() == read_state_dict(out / "model.safetensors").keys()
    description = json.loads((out / "config.json").read_text())
    assert description["version"] == swahr.__version__
    assert description["config"]["DATASET.INPUT_SIZE"] == 64
    assert str(tmp_path) not in (out / "config.json").read_text()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: swahr\n") and "Nothing was measured" in card
    assert description["metrics"] == []
    assert "no flip test, scales 1, input size 64 px" in card
    assert "on data with the keypoints of coco (split train2017). Written by" in card


def test_a_skeleton_of_an_earlier_model_does_not_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = find_model(make_run(tmp_path / "run"))
    publish(files, out)
    own = swahr.Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1, 0.1, 0.1))
    (out / "skeleton.yaml").write_text(skeleton_yaml(own))
    publish(files, out)
    assert swahr.load(out).skeleton == swahr.COCO


@pytest.mark.parametrize(
    "config", [None, "mine", "[]", '{"config": {}}', '{"library_name": "swahr"}']
)
@pytest.mark.parametrize("name", ["README.md", "skeleton.yaml", "model.safetensors", "config.json"])
def test_files_of_a_folder_that_is_no_model_stay(
    tmp_path: Path, name: str, config: str | None
) -> None:
    """Also beside a config.json of another project."""
    content = {name: "mine"} | ({} if config is None else {"config.json": config})
    for file, text in content.items():
        (tmp_path / file).write_text(text)
    line = f"({'|'.join(content)}) would be overwritten, and .* is no published model; give a f"
    with pytest.raises(LoadError, match=line):
        publish(ModelFiles(None, Path("x.pth"), ""), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content


@pytest.mark.parametrize("step", range(4))
def test_a_publishing_that_was_interrupted_is_completed(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that has some of the files is one of ours."""
    own = swahr.Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1, 0.1, 0.1))
    (tmp_path / "hand.yaml").write_text(skeleton_yaml(own))
    skeleton = ["DATASET.SKELETON", str(tmp_path / "hand.yaml")]
    joints = ["DATASET.NUM_JOINTS", "3", "MODEL.NUM_JOINTS", "3"]
    files = find_model(make_run(tmp_path / "run", *skeleton, *joints))
    written: list[Path] = []

    def stopping(write: Callable[..., None]) -> Callable[..., None]:
        def call(path: Path, content: Any) -> None:
            if len(written) == step:
                raise KeyboardInterrupt
            written.append(path)
            write(path, content)

        return call

    with monkeypatch.context() as stopped:
        for name in ("write_bytes", "write_text"):
            stopped.setattr(published, name, stopping(getattr(published, name)))
        with pytest.raises(KeyboardInterrupt):
            publish(files, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == step
    out = publish(files, tmp_path / "out")
    assert len(list(out.iterdir())) == 4 and swahr.load(out).skeleton == own


def test_a_file_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    files = find_model(make_run(tmp_path / "run"))
    out = publish(files, tmp_path / "out")
    (out / "skeleton.yaml").mkdir()
    with pytest.raises(WriteError, match="^.*/out/skeleton.yaml: cannot be written \\("):
        publish(files, out)


def test_keypoints_of_ones_own_travel_along(tmp_path: Path) -> None:
    own = swahr.Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1, 0.1, 0.1))
    (tmp_path / "hand.yaml").write_text(skeleton_yaml(own))
    keys = ("DATASET.NUM_JOINTS", "MODEL.NUM_JOINTS")
    opts = [
        "DATASET.SKELETON",
        str(tmp_path / "hand.yaml"),
        *(w for key in keys for w in (key, "3")),
    ]
    run = make_run(tmp_path, *opts)
    publish(find_model(run), tmp_path / "out")
    (tmp_path / "hand.yaml").unlink()
    assert swahr.load(tmp_path / "out").skeleton == own


def test_problems_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    publish(find_model(run), tmp_path / "out")
    weights = tmp_path / "out/model.safetensors"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(LoadError, match="^publishing needs safetensors: pip install safe"):
            publish(find_model(run), tmp_path / "again")
        with pytest.raises(CheckpointError, match="model.safetensors: needs safetensors: pip inst"):
            swahr.load(tmp_path / "out")
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="model.safetensors: no safetensors file, or only a"):
        swahr.load(tmp_path / "out")
    (tmp_path / "out/config.json").write_text("{}")
    with pytest.raises(LoadError, match="config.json: has no entry 'config' with the settings of"):
        swahr.load(tmp_path / "out")
    (tmp_path / "out/config.json").write_text("{")
    with pytest.raises(LoadError, match="config.json: cannot be read as JSON"):
        swahr.load(tmp_path / "out")


def test_an_exported_network_is_not_published(tmp_path: Path) -> None:
    files = ModelFiles(None, tmp_path / "x.ONNX", "")
    with pytest.raises(LoadError, match="x.ONNX: is exported; publish the weights that"):
        publish(files, tmp_path / "out")


def test_only_figures_of_the_published_weights_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    digest = hashlib.sha256((run / checkpoint.BEST).read_bytes()).hexdigest()
    measure(run, "own", 0.671, digest[:12])
    measure(run, "other", 0.5, "0" * 12)
    out = publish(find_model(run), tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["metrics"] == [
        {"test": "own, flip test", "AP": 0.671}
    ]
    card = (out / "README.md").read_text()
    assert "| Arch | AP |\n|---|---|\n| tiny | 0.671 |\n\nown, flip test\n" in card
    assert "0.500" not in card
    (run / "results/own_figures.json").write_text("[]")
    with pytest.raises(
        CheckpointError, match=r"own_figures.json: is no file of figures \(.*\); remove"
    ):
        publish(find_model(run), tmp_path / "out")


def test_a_model_that_is_saved_again_keeps_its_figures_and_epoch(tmp_path: Path) -> None:
    """Not those of other weights in its folder."""
    run = make_run(tmp_path / "run")
    measure(run, "own", 0.671, hashlib.sha256((run / checkpoint.BEST).read_bytes()).hexdigest())
    first = publish(find_model(run), tmp_path / "first")
    description = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps(description | {"epoch": 7}))

    def told() -> tuple[Any, Any, bool]:
        out = swahr.load(first).save_pretrained(tmp_path / "again")
        content = json.loads((out / "config.json").read_text())
        return content["epoch"], content["metrics"], "0.671" in (out / "README.md").read_text()

    assert told() == (7, [{"test": "own, flip test", "AP": 0.671}], True)
    del description["sha256"]  # as earlier versions wrote it
    (first / "config.json").write_text(json.dumps(description | {"epoch": 7}))
    assert told() == (7, [{"test": "own, flip test", "AP": 0.671}], True)
    (first / "config.json").write_text(json.dumps(description | {"sha256": "0", "epoch": 7}))
    assert told() == (None, [], False)
    (first / "config.json").write_text(json.dumps(description | {"metrics": [{"AP": 1}]}))
    with pytest.raises(
        CheckpointError, match=r"config.json: metrics has no figures \('test'\); rem"
    ):
        told()


def test_weights_beside_a_published_model_have_no_figures_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    out = publish(find_model(run), tmp_path / "out")
    description = json.loads((out / "config.json").read_text()) | {"epoch": 7}
    del description["sha256"]
    (out / "config.json").write_text(json.dumps(description))
    other = shutil.copy(run / checkpoint.BEST, out / "other.pth")
    assert describe_weights(out / "model.safetensors").epoch == 7
    assert describe_weights(other).epoch is None


def test_figures_say_that_weights_were_rounded_later(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    measure(run, "own", 0.671, hashlib.sha256((run / checkpoint.BEST).read_bytes()).hexdigest())

    def tests_told(folder: Path) -> list[str]:
        metrics = json.loads((folder / "config.json").read_text())["metrics"]
        return [each["test"] for each in metrics]

    half = publish(find_model(run), tmp_path / "half", half=True)
    assert tests_told(half) == ["own, flip test, before rounding to float16"]
    again = publish(find_model(half), tmp_path / "again", half=True)  # rounds nothing
    assert tests_told(again) == ["own, flip test, before rounding to float16"]


def test_figures_of_training_are_told_with_their_test(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    best = run / checkpoint.BEST
    validation = {
        "epoch": 7,
        "figures": {"AP": 0.6},
        "test": "val2017, flip test",
        "sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
    }

    def tests_told() -> list[str]:
        save_checkpoint(
            run,
            progress=Progress(epoch=9),
            hooks={"best_weights": {"best": validation}},
        )
        out = publish(find_model(run, opts=["TEST.FLIP_TEST", "False"]), tmp_path / "out")
        metrics = json.loads((out / "config.json").read_text())["metrics"]
        return [each["test"] for each in metrics]

    assert tests_told() == ["val2017, flip test (in training)"]
    del validation["test"]  # of an earlier version
    assert tests_told() == ["val2017, settings unknown (in training)"]
    validation["sha256"] = "0"
    assert tests_told() == []


# -- the model's own methods


def test_a_model_is_saved_and_comes_back(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    model = swahr.load(run, flip=True)
    folder = model.save_pretrained(tmp_path / "saved")
    again = swahr.PoseModel.from_pretrained(folder, batch_size=2)
    assert again.predictor.flip_index is not None and again.predictor.batch_size == 2
    assert same_people(model, again)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(LoadError, match="README.md would be overwritten"):
        model.save_pretrained(tmp_path)


def test_a_model_whose_weights_have_changed_is_not_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    model = swahr.load(run)
    os.utime(run / checkpoint.BEST, ns=(1, 1))
    with pytest.raises(LoadError, match="model_best.pth.tar: has changed since it was loaded; l"):
        model.save_pretrained(tmp_path / "saved")
    alone = swahr.PoseModel(model.predictor, model.skeleton)
    with pytest.raises(LoadError, match="that was not made by swahr.load cannot be saved"):
        alone.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_an_id_is_fetched_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    run = make_run(tmp_path / "run")
    model = swahr.load(run)
    folder = model.save_pretrained(tmp_path / "cache")
    asked = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    again = swahr.PoseModel.from_pretrained("me/hands", revision="v1", threshold=-1)
    assert (asked["repo_id"], asked["revision"], again.threshold) == ("me/hands", "v1", -1)
    assert set(asked["allow_patterns"]) == {"config.json", "skeleton.yaml", "model.safetensors"}
    assert same_people(model, again)


class Api:
    """What push_to_hub uses of the hub."""

    sent: dict[str, Any]

    def __init__(self, token: str | None) -> None:
        Api.sent = {"token": token}

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        assert options == {"private": True, "exist_ok": True}
        return Address(f"https://hub/{repo_id}")

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, delete_patterns: list[str]
    ) -> None:
        Api.sent |= {"id": repo_id, "files": {path.name for path in folder_path.iterdir()}}
        assert delete_patterns == ["skeleton.yaml"]


class Address(str):
    repo_id = "me/hands"


def test_a_model_is_sent_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    model = swahr.load(make_run(tmp_path / "run"))
    assert model.push_to_hub("me/hands", private=True, token="t") == "https://hub/me/hands"
    files = {"model.safetensors", "config.json", "README.md"}
    assert Api.sent == {"token": "t", "id": "me/hands", "files": files}


def test_problems_of_the_hub_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    line = r"^no/such/model: is no folder here, and cannot be fetched from the hub \(.*\)$"
    with pytest.raises(LoadError, match=line):
        swahr.PoseModel.from_pretrained("no/such/model")
    with pytest.raises(LoadError, match="^me/hands: is no folder here, and cannot be fetched"):
        swahr.PoseModel.from_pretrained("me/hands", local_files_only=True, cache_dir=tmp_path)
    with pytest.raises(LoadError, match=r"^not an id: cannot be sent to the hub \(.*\)$"):
        hub.send(tmp_path, "not an id", private=None, token=None, note="")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(LoadError, match=r"^the hub needs huggingface-hub: pip install 'swahr\[hub"):
        swahr.PoseModel.from_pretrained("me/hands")


def test_without_a_network_a_model_is_not_sent_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes in the code are not hidden."""
    library = pytest.importorskip("huggingface_hub", reason="needs the extra hub")
    names = ("httpx", "httpx2", "requests.exceptions", "huggingface_hub.errors")
    failures = [type("ConnectError", (Exception,), {"__module__": name}) for name in names]
    failures.append(library.errors.HfHubHTTPError.__bases__[0])  # of the HTTP library in use

    def fail(error: Exception) -> Any:
        def function(*_: Any, **__: Any) -> Any:
            raise error

        return function

    def send() -> None:
        hub.send(tmp_path, "me/hands", private=True, token=None, note="")

    for call, function, line in (
        (send, "HfApi.create_repo", "cannot be sent to the hub"),
        (send, "HfApi.upload_folder", "cannot be sent to the hub"),
        (lambda: hub.fetch("me/hands"), "snapshot_download", "is no folder here, and cannot be f"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("huggingface_hub.HfApi", Api)
            for failure in failures:
                patch.setattr(f"huggingface_hub.{function}", fail(failure("no\nnetwork")))
                with pytest.raises(LoadError, match=rf"^me/hands: {line}.* \(no network\)$"):
                    call()
            patch.setattr(f"huggingface_hub.{function}", fail(TypeError("a mistake")))
            with pytest.raises(TypeError, match="a mistake"):
                call()


# -- settings


def test_a_wrong_setting_of_a_checkpoint_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"config": "MODEL:\n  NUM_JOINTZ: 3\n"}, path)
    with pytest.raises(ConfigError) as caught:
        find_model(path)
    assert str(caught.value).startswith(f"{path}: config:2: MODEL.NUM_JOINTZ: unknown key")


def test_a_wrong_setting_of_a_published_model_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"config": {"MODEL.NUM_JOINTZ": 3}}')
    with pytest.raises(ConfigError) as caught:
        find_model(tmp_path)
    line = f"{tmp_path / 'config.json'}: config:2: MODEL.NUM_JOINTZ: unknown key"
    assert str(caught.value).startswith(line)


def test_weights_are_named_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    best = run / checkpoint.BEST
    line = "^TEST.MODEL_FILE: the weights are those of .* already; leave it out$"
    for source, weights in ((run, None), (best, None), (run / "tiny.yaml", best)):
        for opts in (["TEST.MODEL_FILE", "x.pth"], ["TEST.MODEL_FILE=x.pth"]):
            with pytest.raises(LoadError, match=line):
                find_model(source, weights, opts)
    assert find_model(run / "tiny.yaml", None, [f"TEST.MODEL_FILE={best}"]).weights == best


@pytest.mark.parametrize("name", ["model_best_2026-12-01_00-00-00.pth.tar", "again"])
def test_best_weights_of_an_earlier_measure_are_a_runs(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path)
    if name == "again":  # kept in the same second
        (run / "model_best_2026-12-01_00-00-00.pth.tar").touch()
        name = checkpoint.unused_path(run / "model_best_2026-12-01_00-00-00.pth.tar").name
    kept = (run / checkpoint.BEST).rename(run / name)
    found = find_model(kept)
    assert found.kind == "a run's weights" and found.cfg.DATASET.INPUT_SIZE == 64


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("", None), "source is empty; it must be a path"),
        (("demo", ""), "weights is empty; it must be a path"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, str | None],
    line: str,
) -> None:
    monkeypatch.chdir(make_run(tmp_path))
    with pytest.raises(LoadError, match=f"^{line}$"):
        find_model(*given)


# -- keypoints of one's own


def hand(folder: Path) -> Path:
    """A skeleton file of three keypoints."""
    own = swahr.Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1, 0.1, 0.1))
    path = folder / "hand.yaml"
    path.write_text(skeleton_yaml(own))
    return path


@pytest.mark.parametrize("kind", ["folder", "weights", "checkpoint", "published"])
def test_a_run_with_its_own_skeleton_keeps_its_data_sets(tmp_path: Path, kind: str) -> None:
    """DATASET_TEST decides the protocol. A skeleton that is named with them has its own ones."""
    names = ["DATASET.DATASET", "mine", "DATASET.DATASET_TEST", "crowd_pose"]
    run = make_run(tmp_path / "run", "DATASET.SKELETON", str(hand(tmp_path)), *names)
    cfg = load_config(run / "config.yaml")
    keep_config(run, cfg.dump(), own_skeleton(cfg))
    identity = RunIdentity(config=cfg.dump(), skeleton=own_skeleton(cfg))
    save_checkpoint(run, identity=identity, progress=Progress())
    source = {
        "folder": lambda: run,
        "weights": lambda: run / checkpoint.BEST,
        "checkpoint": lambda: run / checkpoint.NEWEST,
        "published": lambda: publish(find_model(run), tmp_path / "out"),
    }[kind]()
    for opts, expected in (
        ([], ("mine", "crowd_pose", 3, 3)),
        (["DATASET.DATASET_TEST", "coco"], ("mine", "coco", 3, 3)),
        (["DATASET.SKELETON=coco"], ("coco_kpt", "coco", 17, 17)),
    ):
        cfg = find_model(source, None, opts).cfg
        joints = (cfg.DATASET.NUM_JOINTS, cfg.MODEL.NUM_JOINTS)
        found = (cfg.DATASET.DATASET, cfg.DATASET.DATASET_TEST, *joints)
        assert found == expected


def test_wrong_settings_beside_a_skeleton_are_named(tmp_path: Path) -> None:
    hand(tmp_path).rename(tmp_path / "skeleton.yaml")
    for text in ("DATASET: 3\n", "- 1\n", "a: [\n", "DATASET:\n"):
        (tmp_path / "config.yaml").write_text(f"{text}NOT_KNOWN: 1\n")
        with pytest.raises(ConfigError, match="config.yaml:"):
            find_model(tmp_path)


def test_a_moved_run_has_its_skeleton_with_it(tmp_path: Path) -> None:
    """In its folder, and in its checkpoint alone."""
    own = swahr.Skeleton("hand", ("wrist", "left_tip", "right_tip"), ((1, 2),), (0.1, 0.1, 0.1))
    path = tmp_path / "hand.yaml"
    path.write_text(skeleton_yaml(own))
    run = make_run(tmp_path / "run", "DATASET.SKELETON", str(path))
    cfg = load_config(run / "config.yaml")
    keep_config(run, cfg.dump(), own_skeleton(cfg))
    save_checkpoint(
        run,
        identity=RunIdentity(config=cfg.dump(), skeleton=own_skeleton(cfg)),
        weights=published_state(build_model(cfg)),
        optimizer={},
        scaler={},
        progress=Progress(),
    )
    path.unlink()
    moved = run.rename(tmp_path / "moved")
    alone = (moved / checkpoint.NEWEST).rename(tmp_path / "alone.pth.tar")
    for source in (moved, moved / checkpoint.BEST, alone):
        assert swahr.load(source).skeleton == own, source
    content = torch.load(alone, weights_only=True)
    assert content["version"] == swahr.__version__
