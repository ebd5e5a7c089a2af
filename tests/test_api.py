"""swahr.load and the model that it gives: sources, images of every kind, and the people of
validation to the bit.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

import swahr
from swahr import api
from swahr.config import ConfigError, load_config, save_config
from swahr.data.images import ImageError, read_image
from swahr.engine import checkpoint
from swahr.engine.checkpoint import Progress, RunIdentity
from swahr.engine.datasets import build_validation_set
from swahr.engine.image_sources import InferenceError
from swahr.engine.model_files import find_model, published_settings
from swahr.engine.validate import predict
from swahr.evaluation.results import to_records
from swahr.inference.load import load_network
from swahr.inference.predictor import Prediction, PredictionError, build_predictor
from swahr.models.build import build_model
from swahr.models.weights import CheckpointError, published_state
from swahr.synthetic import PRESETS, SceneSettings, write_dataset
from tests.engine.checkpoints import save_checkpoint
from tests.engine.conftest import CONFIG
from tests.engine.test_image_sources import no_pipe, phone_photo

ROOT = Path(__file__).resolve().parents[1]
TEST = ["TEST.FLIP_TEST", "True", "TEST.DETECTION_THRESHOLD", "0"]  # finds somebody everywhere
SIZES = 6


class Network:
    """A tiny network with fresh weights, and images of several sizes.

    cfg: as dist_valid would load it with TEST. config: the YAML file. weights: the file.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder
        scenes = SceneSettings(width=(64, 150), height=(64, 90), people=(1, 2), unlabelled=0.0)
        write_dataset(folder / "data", num_train=1, num_val=SIZES, seed=1, settings=scenes)
        self.config = folder / "tiny.yaml"
        self.config.write_text(CONFIG.format(out=folder, data=folder / "data"))
        self.weights = folder / "weights.pth"
        self.cfg = load_config(self.config, [*TEST, "TEST.MODEL_FILE", str(self.weights)])
        torch.manual_seed(0)
        self.state = published_state(build_model(self.cfg))
        torch.save(self.state, self.weights)
        self.images = folder / "data/images/val2017"
        self.files = sorted(self.images.iterdir())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def model(network: Network) -> swahr.PoseModel:
    return swahr.load(network.config, network.weights, device="cpu", settings=TEST)


def same(first: swahr.Result, second: swahr.Result) -> bool:
    return len(first) > 0 and all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True)
        for name in ("keypoints", "keypoint_scores", "scores", "tags", "boxes", "image")
    )


# -- the people


def records(network: Network, results: list[swahr.Result]) -> list[Any]:
    """Results as validation writes them; image ids are the numbers in the names."""
    return [
        record
        for result in results
        for record in to_records(
            int(Path(result.source).stem), Prediction(result._points(), result.scores)
        )
    ]


def shown(found: list[Any]) -> list[Any]:
    """What records say of joints that were found; image, score, and (x, y, score) of each joint."""
    rows = []
    for record in found:
        joints = np.array(record["keypoints"]).reshape(-1, 3)
        rows.append((record["image_id"], record["score"], joints[joints[:, 2] > 0].tolist()))
    return rows


@pytest.mark.parametrize("batch_size", [None, 4])
def test_people_are_those_of_validation_to_the_bit(network: Network, batch_size: int) -> None:
    """Several input sizes in one call, one after the other and in batches."""
    model = swahr.load(network.config, network.weights, batch_size=batch_size, settings=TEST)
    results = model(network.images)
    sizes = [model.predictor.geometries_of(result.image).input_size for result in results]
    assert 1 < len(set(sizes)) < len(sizes) == SIZES
    bare = load_network(network.cfg, network.weights, "cpu")
    dataset = build_validation_set(network.cfg)
    expected = predict(dataset, build_predictor(network.cfg, bare, dataset.skeleton)).records
    assert len(expected) > SIZES and shown(records(network, results)) == shown(expected)
    for result, path in zip(results, network.files, strict=True):
        [people] = model.predictor([read_image(path)])
        found = people.keypoints[..., 2] > 0
        assert np.array_equal(result.keypoints[found], people.keypoints[found][:, :2])
        assert np.array_equal(result.scores, people.scores)
        assert result.tags.shape == (len(result), 2) and np.array_equal(result.tags, people.tags)


def test_people_with_low_scores_are_left_out(network: Network, model: swahr.PoseModel) -> None:
    everybody = model(network.files[0])
    limit = float(np.median(everybody.scores))
    sure = swahr.load(network.config, network.weights, threshold=limit, settings=TEST)
    some = sure(network.files[0])
    kept = everybody.scores >= limit
    assert 0 < len(some) < len(everybody)
    assert np.array_equal(some.tags, everybody.tags[kept])
    assert np.array_equal(some.keypoints, everybody.keypoints[kept], equal_nan=True)


def test_threads_share_a_model(network: Network, model: swahr.PoseModel) -> None:
    expected = [model(path) for path in network.files]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model, network.files * 3))
    assert all(map(same, together, expected * 3))


# -- images


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    "convert",
    [
        str,
        Path,
        read_image,
        PilImage.open,
        lambda path: as_tensor(read_image(path)),
        lambda path: as_tensor(read_image(path)) / 255,
    ],
    ids=["text", "path", "array", "pil", "tensor", "floats"],
)
def test_one_image(network: Network, model: swahr.PoseModel, convert: Callable) -> None:
    path = network.files[0]
    assert same(model(convert(path)), model(path))


@pytest.mark.parametrize("of_bytes", [bytes, bytearray, memoryview, BytesIO])
def test_the_contents_of_a_file_are_an_image(
    model: swahr.PoseModel, tmp_path: Path, of_bytes: Callable
) -> None:
    """As the file is read: turned as its EXIF orientation says."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 90, 3), np.uint8)
    data = phone_photo(noise, orientation=6)
    (tmp_path / "phone.jpg").write_bytes(data)
    expected = model(tmp_path / "phone.jpg")
    assert expected.image.shape == (90, 64, 3)
    assert same(model(of_bytes(data)), expected)
    (result,) = model([of_bytes(data)])
    assert same(result, expected) and result.source == "image 0"


def test_an_open_file_is_an_image(network: Network, model: swahr.PoseModel) -> None:
    """Its path is the name of the result; a temporary file has a number for a path."""
    path = network.files[0]
    expected = model(path)
    with path.open("rb") as file:
        result = model(file)
        assert same(result, expected) and result.source == str(path)
        with pytest.raises(ImageError, match=f"^{path}: nothing is left to read"):
            model(file)
    with pytest.raises(ImageError, match=f"^{path}: cannot be read .* closed file.$"):
        model(file)
    with path.open() as text, pytest.raises(ImageError, match=f"^{path}: is open as text; open it"):
        model(text)
    with tempfile.TemporaryFile() as file:
        file.write(path.read_bytes())
        file.seek(0)
        assert model(file).source == "image 0"
    with tempfile.NamedTemporaryFile() as file:  # its class is none of io's
        file.write(path.read_bytes())
        file.seek(0)
        assert same(model(file), expected)


def test_several_images(network: Network, model: swahr.PoseModel) -> None:
    expected = [model(path) for path in network.files]
    array = read_image(network.files[0])
    sources = {
        "folder": network.images,
        "glob": f"{network.images}/*.*",
        "list": network.files,
        "generator": (read_image(path) for path in network.files),
    }
    for name, source in sources.items():
        results = model(source)
        assert len(results) == SIZES and all(map(same, results, expected)), name
    for pair in (np.stack([array] * 2), torch.stack([as_tensor(array)] * 2)):
        assert all(same(result, expected[0]) for result in model(pair)) and len(pair) == 2
    assert model([]) == []
    assert [result.source for result in model(network.images)] == list(map(str, network.files))
    assert [result.source for result in model([array, network.files[1]])] == [
        "image 0",
        str(network.files[1]),
    ]


def test_a_stream_reads_no_further_than_it_must(network: Network, model: swahr.PoseModel) -> None:
    read = []

    def images() -> Any:
        for path in network.files:
            read.append(path)
            yield path

    stream = model.stream(images())
    assert read == []
    assert same(next(stream), model(network.files[0])) and len(read) == 1
    assert len(list(stream)) == SIZES - 1


def test_files_are_read_while_the_network_works(
    network: Network, model: swahr.PoseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pass of the network waits until the third file has been read."""
    third = threading.Event()
    read = api.read_image

    def note(path: Path, **options: Any) -> Any:
        if path == network.files[2]:
            third.set()
        return read(path, **options)

    monkeypatch.setattr(api, "read_image", note)
    waiting = swahr.PoseModel(copy.copy(model.predictor), model.skeleton)
    run = model.predictor.model
    waiting.predictor.model = lambda images: third.wait(60) and run(images)
    assert all(map(same, waiting(network.images), [model(path) for path in network.files]))


def test_batches_hold_images_of_one_size(network: Network) -> None:
    model = swahr.load(network.config, network.weights, batch_size=4, settings=TEST)
    shapes = []
    run = model.predictor.model
    model.predictor.model = lambda images: shapes.append(images.shape) or run(images)
    small, wide = read_image(network.files[0])[:64, :64], read_image(network.files[0])[:32, :64]
    model([small, wide] * 3)
    assert sorted(shape[0] for shape in shapes) == [6, 6]  # three images and their mirror images


def test_a_phone_photo_is_upright(model: swahr.PoseModel, tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    path.write_bytes(phone_photo(np.zeros((64, 90, 3), np.uint8), orientation=6))
    for image in (path, PilImage.open(path)):
        assert model(image).image.shape == (90, 64, 3)


def test_files_of_a_folder_that_are_no_images_are_skipped(
    network: Network, model: swahr.PoseModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(network.files[0], tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    assert len(model(tmp_path)) == 1
    assert f"skipped: {tmp_path}/notes.txt: not an image" in caplog.text
    with pytest.raises(ImageError, match="notes.txt: not an image"):
        model([tmp_path / "notes.txt"])


def test_pil_images_of_16_bits_are_those_of_their_files(
    model: swahr.PoseModel, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for name in ("grey.png", "grey.tif"):
        cv2.imwrite(str(tmp_path / name), random.integers(0, 1 << 16, (64, 80), np.uint16))
        image = PilImage.open(tmp_path / name)
        assert image.mode == "I;16"
        assert np.array_equal(model(image).image, read_image(tmp_path / name)), name


def test_a_pil_image_that_is_cut_off_is_one_line(
    network: Network, model: swahr.PoseModel, tmp_path: Path
) -> None:
    path = tmp_path / "short.jpg"
    data = network.files[0].read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="short.jpg: cannot be decoded .image file is truncated"):
        model(PilImage.open(path))


def test_floats_that_resizing_left_outside_are_clipped(model: swahr.PoseModel) -> None:
    image = torch.linspace(-0.1, 1.1, 64).expand(3, 64, 64)
    assert np.array_equal(model(image).image, model(image.clamp(0, 1)).image)


FLOATS = "image 0: a float tensor goes from 0 to 1, this one from"


@pytest.mark.parametrize(
    ("images", "error", "line"),
    [
        ("none.jpg", InferenceError, "none.jpg: there is no such file or folder, and nothing ma"),
        (["none.jpg"], ImageError, "none.jpg: cannot be read"),
        (7, swahr.LoadError, "an image is a path, an array .*, not int"),
        ({}, swahr.LoadError, "an image is a path, an array .* or an open file, not dict$"),
        (b"jpg", ImageError, "image 0: not an image that can be decoded$"),
        (b"", ImageError, "image 0: the file is empty$"),
        (
            BytesIO(),
            ImageError,
            r"image 0: nothing is left to read; seek\(0\) goes back to its sta",
        ),
        (StringIO("jpg"), ImageError, 'image 0: is open as text; open it in binary mode, "rb"$'),
        (
            memoryview(np.zeros((4, 4, 3), np.uint8)),
            ImageError,
            "image 0: a memoryview must be of a file's bytes; give numpy.asarray of one of pixels$",
        ),
        (np.zeros((4, 4), np.uint8), swahr.LoadError, r"an image is an array .* shape \(4, 4\)"),
        (np.zeros((4, 4, 3)), PredictionError, "image 0: an image must be a uint8 array"),
        ([7], PredictionError, "image 0: an image must be a uint8 array .*, not int"),
        (torch.zeros(4, 4, 3), swahr.LoadError, r"image 0: a tensor must have shape \(3, H, W\), "),
        (np.zeros((9999, 1, 3), np.uint8), PredictionError, "image 0: .* is too long and thin"),
        ("", InferenceError, "images is an empty path; name a file, a folder or a glob$"),
        ([""], ImageError, "image 0: its path is empty$"),
        ("~no-such-user/a.jpg", InferenceError, "~no-such-user/a.jpg: there is no such file"),
        (["~no-such-user/a.jpg"], ImageError, "~no-such-user/a.jpg: cannot be read"),
        (torch.zeros(3, 0, 4), swahr.LoadError, r"image 0: .* tensor is empty, of shape \(3, 0, 4"),
        (
            np.zeros((0, 4, 3), np.uint8),
            PredictionError,
            r"image 0: an image must have pixels; this array is empty, of shape \(0, 4, 3\)$",
        ),
        (torch.tensor([0.0, 255]).expand(3, 2, 2), ImageError, f"{FLOATS} 0 to 255$"),
        (torch.tensor([-2.1, 1]).expand(3, 2, 2), ImageError, f"{FLOATS} -2.1 to 1$"),
        (torch.tensor([0.5, math.nan]).expand(3, 2, 2), ImageError, f"{FLOATS} nan to nan$"),
        (
            PilImage.new("F", (4, 4)),
            ImageError,
            "image 0: a PIL image of mode F has no fixed range",
        ),
        (
            PilImage.new("I", (4, 4)),
            ImageError,
            "image 0: a PIL image of mode I has no fixed range",
        ),
    ],
)
def test_what_is_no_image_is_one_line(
    model: swahr.PoseModel, images: Any, error: type, line: str
) -> None:
    with pytest.raises(error, match=f"^{line}") as caught:
        model(images)
    assert "\n" not in str(caught.value)


VIDEO = "is a video or a camera; `swahr predict` reads it, and examples/video.py gives a model its"
ADDRESS = "addresses are not fetched; give a file, or the image as an array or a PIL image; `swah"


@pytest.mark.parametrize(
    ("name", "reason"), [("film.mp4", VIDEO), ("7", VIDEO), ("https://a.b/c.jpg", ADDRESS)]
)
def test_videos_and_addresses_say_what_reads_them(
    model: swahr.PoseModel,
    name: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for images, error in ((name, InferenceError), ([name], ImageError)):
        with pytest.raises(error, match=f"^{name}: {reason}"):
            model(images)


def test_a_video_among_the_images_of_a_folder_is_skipped(
    network: Network, model: swahr.PoseModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(network.files[0], tmp_path)
    (tmp_path / "film.mp4").touch()
    assert len(model(tmp_path)) == 1
    assert f"skipped: {tmp_path}/film.mp4: is a video" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_archives_are_refused(
    network: Network,
    model: swahr.PoseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody writes into the pipe: reading it would wait for ever."""
    monkeypatch.setattr(api, "read_image", no_pipe(api.read_image))
    shutil.copy(network.files[0], tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "photos.zip").touch()
    for name, reason in (
        ("pipe.jpg", "is a pipe or a device, not a regular file; give image files"),
        ("photos.zip", "is an archive; unpack it, and give the folder"),
    ):
        path = tmp_path / name
        for images, error in ((path, InferenceError), ([path], ImageError)):
            with pytest.raises(error, match=f"^{path}: {reason}$"):
                model(images)
        model(tmp_path)
        assert f"skipped: {path}: {reason}" in caplog.text


# -- sources


def save_run(network: Network, folder: Path) -> Path:
    """A run's folder with its configuration, best weights and checkpoint."""
    folder.mkdir(parents=True)
    save_config(network.cfg, folder / "config.yaml")
    torch.save(network.state, folder / checkpoint.BEST)
    save_checkpoint(
        folder,
        identity=RunIdentity(name="tiny", config=network.cfg.dump()),
        weights=network.state,
        optimizer={},
        scaler={},
        progress=Progress(epoch=2),
    )
    return folder


def test_every_source_of_a_run_finds_the_same_people(
    network: Network, model: swahr.PoseModel, tmp_path: Path
) -> None:
    run = save_run(network, tmp_path / "renamed")
    alone = shutil.copy(run / checkpoint.NEWEST, tmp_path / "moved.pth.tar")
    expected = model(network.files[0])
    yaml = str(tmp_path / "named.yaml")
    save_config(network.cfg, yaml)  # TEST.MODEL_FILE names the weights
    for source in (run, str(run), run / checkpoint.BEST, run / checkpoint.NEWEST, alone, yaml):
        assert same(swahr.load(source)(network.files[0]), expected), source
    (run / checkpoint.BEST).rename(run / checkpoint.FINAL)
    assert swahr.load(run).source == str(run / checkpoint.FINAL)
    assert swahr.load(run, network.weights).source == str(network.weights)


def test_arguments_replace_the_configuration(network: Network) -> None:
    model = swahr.load(
        network.config,
        network.weights,
        flip=False,
        scales=[0.5, 1],
        max_people=2,
        batch_size=3,
        settings=["TEST.DETECTION_THRESHOLD", 0],
    )
    predictor = model.predictor
    assert predictor.flip_index is None and predictor.scales == [1, 0.5]
    assert predictor.batch_size == 3
    result = model(network.files[0])
    assert result.tags.shape[1] == 1
    assert repr(model) == (
        f"PoseModel('{network.weights}': 17 keypoints, input 64 px, no flip test, scales 1, 0.5, "
        "cpu)"
    )


@pytest.mark.parametrize(
    "name",
    [
        "coco/higher_hrnet/w32_512_adam_lr1e-3",
        "coco/higher_hrnet/w32_512_adam_lr1e-3_higherhrnet",
        "crowd_pose/higher_hrnet/w32_512_adam_lr1e-3",
        "crowd_pose/higher_hrnet/w48_640_adam_lr1e-3_higherhrnet",
    ],
)
def test_tensors_tell_the_published_experiments(name: str, tmp_path: Path) -> None:
    cfg = load_config(ROOT / f"experiments/{name}.yaml")
    with torch.device("meta"):
        state = published_state(build_model(cfg))
    weights = tmp_path / "published.pth"
    torch.save(
        {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}, weights
    )
    told = find_model(weights).cfg
    assert told.DATASET.INPUT_SIZE == cfg.DATASET.INPUT_SIZE
    assert told.LOSS.WITH_AE_LOSS == cfg.LOSS.WITH_AE_LOSS
    assert told.DATASET.DATASET == cfg.DATASET.DATASET
    for key in set(told.TEST) - {"IMAGES_PER_GPU"}:
        assert told.TEST[key] == cfg.TEST[key], key
    with torch.device("meta"):
        again = published_state(build_model(told))
    assert {n: v.shape for n, v in again.items()} == {n: v.shape for n, v in state.items()}


def test_weights_alone_are_loaded(network: Network, tmp_path: Path) -> None:
    shutil.copy(network.weights, tmp_path / "published.pth")
    model = swahr.load(tmp_path / "published.pth", settings=["DATASET.INPUT_SIZE", 64, *TEST])
    assert model.skeleton == swahr.COCO
    model.save_pretrained(tmp_path / "saved")
    assert "\n# published\n" in (tmp_path / "saved/README.md").read_text()
    published = ["TEST.PROJECT2IMAGE", "True", "TEST.NMS_KERNEL", "5", "TEST.NMS_PADDING", "2"]
    expected = swahr.load(network.config, network.weights, settings=[*TEST, *published])
    assert same(model(network.files[0]), expected(network.files[0]))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"stage2.": None}, "its tensors are not those of an HRNet; name its configuration"),
        ({"final_layers.": None}, "is a backbone without keypoint heads"),
        ({"final_layers.": 42, "final_layers.1": 21}, "has 21 keypoints, so its skeleton is not"),
        ({"final_layers.": 21}, "its tensors do not tell the number of keypoints; name its config"),
    ],
)
def test_tensors_that_do_not_tell_a_network(
    network: Network, tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    path = tmp_path / "weights.pth"
    state = dict(network.state)
    for prefix, channels in change.items():
        for name in [name for name in state if name.startswith(prefix)]:
            if channels is None:
                del state[name]
            else:
                state[name] = torch.zeros(channels, *state[name].shape[1:])
    if "backbone" not in line:
        state = {name: value for name, value in state.items() if "scale" not in name}
    torch.save(state, path)
    with pytest.raises(swahr.LoadError, match=f"^{path}: {line}"):
        published_settings(path)


def test_sources_that_cannot_be_loaded_are_one_line(network: Network, tmp_path: Path) -> None:
    with pytest.raises(swahr.LoadError, match="^none: no such file or folder$"):
        swahr.load("none")
    with pytest.raises(swahr.LoadError, match="is neither the folder of a run"):
        swahr.load(tmp_path)
    save_config(network.cfg, tmp_path / "config.yaml")
    with pytest.raises(swahr.LoadError, match="the run has neither model_best.pth.tar nor final_"):
        swahr.load(tmp_path)
    with pytest.raises(CheckpointError, match="no weights to test with: TEST.MODEL_FILE is empty"):
        swahr.load(network.config)
    with pytest.raises(swahr.LoadError, match="is a file of weights, and weights='b.pth' names"):
        swahr.load(network.weights, "b.pth")
    (tmp_path / "bad.pth").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match="bad.pth: no PyTorch checkpoint"):
        swahr.load(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("source", None, "a path"),
        ("source", 5, "a path"),
        ("source", "", "a path"),
        ("weights", 5, "a path"),
        ("weights", "", "a path"),
        ("batch_size", 0, "a whole number of 1 or more"),
        ("batch_size", "4", "a whole number of 1 or more"),
        ("batch_size", 1.5, "a whole number of 1 or more"),
        ("batch_size", True, "a whole number of 1 or more"),
        ("threshold", math.nan, "a number"),
        ("threshold", "0.3", "a number"),
        ("threshold", True, "a number"),
        ("scales", 0.5, "a list of numbers"),
        ("scales", "0.5", "a list of numbers"),
        ("scales", ["1"], "a list of numbers"),
        ("device", 1, 'text such as "cpu" or "cuda:1", or a torch.device'),
        ("settings", "TEST.FLIP_TEST True", "a list of keys and values, such as .*"),
        ("settings", {"TEST.FLIP_TEST": True}, "a list of keys and values, such as .*"),
    ],
)
def test_arguments_of_the_wrong_kind_are_one_line(
    network: Network, name: str, value: Any, right: str
) -> None:
    arguments: dict[str, Any] = {"source": network.config, "weights": network.weights}
    with pytest.raises(
        swahr.LoadError, match=f"^{name} is {re.escape(repr(value))}; it must be {right}$"
    ):
        swahr.load(**{**arguments, name: value})


def test_wrong_settings_name_the_argument(network: Network) -> None:
    for arguments, line in (
        ({"max_people": 0}, "max_people: DATASET.MAX_NUM_PEOPLE: must be above 0, not 0"),
        ({"settings": ["TEST.FUSE", 3]}, "settings: TEST.FUSE: must be true or false, not '3'"),
        (
            {"settings": ["TEST.NMS_KERNEL", 7]},
            "settings (TEST.NMS_KERNEL): TEST.NMS_PADDING: is 1; with NMS_KERNEL 7 it must be 3",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            swahr.load(network.config, network.weights, **arguments)
        assert line in caught.value.problems


def test_arrays_and_devices_of_pytorch_are_arguments(network: Network) -> None:
    model = swahr.load(
        network.config,
        network.weights,
        scales=np.array([0.5, 1]),
        device=torch.device("cpu"),
        batch_size=np.int64(2),
    )
    assert model.predictor.scales == [1, 0.5] and type(model.predictor.batch_size) is int
    assert model.predictor.device.type == "cpu"


def test_an_empty_path_is_not_the_current_folder(
    model: swahr.PoseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(swahr.LoadError, match="^folder is ''; it must be a path$"):
        model.save_pretrained("")
    with pytest.raises(swahr.LoadError, match="^source is ''; it must be a path$"):
        swahr.PoseModel.from_pretrained("")
    assert not list(tmp_path.iterdir())


# -- the documents' examples


def test_the_example_of_one_image(network: Network, tmp_path: Path) -> None:
    """It leaves out people whose score is below 0.1, of whom the untrained network finds some."""
    raised = copy.copy(network)
    raised.state = {
        name: value + 0.004 if re.match(r"final_layers.*bias", name) else value
        for name, value in network.state.items()
    }
    run = save_run(raised, tmp_path / "run")
    scores = swahr.load(run, device="cpu")(network.files[0]).scores
    sure = int((scores >= 0.1).sum())
    assert 0 < sure < len(scores)
    command = [sys.executable, ROOT / "examples/one_image.py", run, network.files[0]]
    done = subprocess.run(
        [*map(str, command), str(tmp_path / "drawn.jpg")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Result('{network.files[0]}', ")
    assert done.stdout.count("a person with score") == sure and "  left_knee " in done.stdout
    drawn = read_image(tmp_path / "drawn.jpg")
    assert drawn.shape == read_image(network.files[0]).shape


@pytest.mark.parametrize("name", ["one_image", "video", "onnx_numpy"])
def test_examples_say_how_they_are_used(name: str) -> None:
    if name == "onnx_numpy":
        pytest.importorskip("onnxruntime", reason="needs the extra export")
    command = [sys.executable, str(ROOT / f"examples/{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python examples/{name}.py ")
    assert done.stderr.count("\n") == 1


def gradio_page() -> Any:
    spec = importlib.util.spec_from_file_location("gradio_page", ROOT / "examples/gradio_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_a_page(network: Network, model: swahr.PoseModel) -> None:
    """What it does with an image, and with none."""
    page = gradio_page()
    image = read_image(network.files[0])
    result = model(image)
    limit = float(np.median(result.scores))
    drawn, rows = page.find(model, image, limit)
    assert drawn.shape == image.shape and (drawn != image).any()
    assert len(rows) == (result.scores >= limit).sum() < len(result)
    assert rows[0][1:] == result.boxes[0].round().tolist()
    assert page.find(model, None, 0.1) == (None, [])


def test_the_page_is_built_with_gradio(model: swahr.PoseModel) -> None:
    pytest.importorskip("gradio", reason="needs gradio")
    assert gradio_page().build_page(model).title == "SWAHR"


def test_without_gradio_the_page_names_it(
    model: swahr.PoseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit, match="needs gradio: pip install gradio$"):
        gradio_page().build_page(model)


def test_the_example_of_the_readme(network: Network, tmp_path: Path) -> None:
    """As it stands, with small files under the names in it."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"in Python:\n\n((?:    .*\n|\n)+)", readme)[1]
    (tmp_path / "models/pose_coco").mkdir(parents=True)
    weights = re.findall(r'"(models/[^"]*)"', block)
    yaml = re.findall(r'"(experiments/[^"]*)"', block)
    assert len(weights) == len(yaml) == 1 and (ROOT / yaml[0]).is_file()
    assert "threshold=0.1" in block  # the demo's network finds many people with scores of 0.02
    shutil.copy(network.weights, tmp_path / weights[0])
    (tmp_path / yaml[0]).parent.mkdir(parents=True)
    save_config(network.cfg, tmp_path / yaml[0])
    cv2.imwrite(str(tmp_path / "photo.jpg"), read_image(network.files[0]))
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(block))
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "17, 2)" in done.stdout and (tmp_path / "photo_people.jpg").is_file()


# -- the network that comes with the project


def test_the_demo_finds_drawn_people(tmp_path: Path) -> None:
    root = tmp_path / "calm"
    write_dataset(root, num_train=1, num_val=12, settings=PRESETS["calm"], seed=7, workers=1)
    truth = json.loads((root / "annotations/person_keypoints_val2017.json").read_text())
    files = [root / "images/val2017" / image["file_name"] for image in truth["images"]]
    found = zip(truth["images"], swahr.load("demo")(files))
    records = [record for image, result in found for record in result.to_coco(image["id"])]
    assert swahr.evaluate(truth, records, swahr.COCO)["AP"] > 0.5


def test_the_demo_is_small_and_described() -> None:
    folder = ROOT / "models/demo"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6e6
    card = (folder / "README.md").read_text()
    assert "make_synthetic" in card and "| AP |" in card


def test_a_folder_named_demo_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(swahr.LoadError, match="^demo: is neither the folder of a run"):
        swahr.load("demo")
