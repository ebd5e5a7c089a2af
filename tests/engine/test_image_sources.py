from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from swahr.data.images import ImageError, read_image
from swahr.engine import image_sources
from swahr.engine.image_sources import ImageFiles, InferenceError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images with folders in it; they are only listed, so empty files will do."""
    root = tmp_path / "photos"
    for name in ("b.jpg", "a.png", "a.bmp", ".hidden.jpg", "x/a.png", "x/y/c.tif", ".cache/d.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_is_read_without_the_folders_in_it(photos: Path) -> None:
    files = ImageFiles([photos])
    assert files.names == ["a.bmp", "a.png", "b.jpg"]
    assert files.skipped_folders == [photos / "x"]


def test_recursive_reads_the_folders_too(photos: Path) -> None:
    files = ImageFiles([photos], recursive=True)
    assert files.names == ["a.bmp", "a.png", "b.jpg", "x/a.png", "x/y/c.tif"]
    assert files.skipped_folders == []


def test_links_that_lead_back_are_read_once(photos: Path) -> None:
    (photos / "x/back").symlink_to(photos)
    assert len(ImageFiles([photos], recursive=True).names) == 5


def test_the_folder_of_the_results_is_not_read(photos: Path) -> None:
    assert ImageFiles([photos], recursive=True, exclude=photos / "x").names == [
        "a.bmp",
        "a.png",
        "b.jpg",
    ]
    assert ImageFiles([photos], exclude=photos / "x").skipped_folders == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**/*.*", ["a.bmp", "a.png", "b.jpg"]),
        ("*", ["a.bmp", "a.png", "b.jpg"]),
        ("x/*.png", ["a.png"]),  # names the folder itself; whoever writes there refuses
    ],
)
def test_a_glob_does_not_match_the_folder_of_the_results(
    photos: Path, pattern: str, names: list[str]
) -> None:
    assert ImageFiles([photos / pattern], exclude=photos / "x").names == names


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["b.jpg", "a.png"], ["b.jpg", "a.png"]),
        (["a.*"], ["a.bmp", "a.png"]),
        (["**/*.png"], ["a.png", "x/a.png"]),
        (["x/a.png", "a.png"], ["x/a.png", "a.png"]),
        (["x/a.png"], ["a.png"]),
        (["x", "b.jpg"], ["x/a.png", "b.jpg"]),
        (["b.jpg", "b.jpg", "*.jpg"], ["b.jpg"]),
        (["."], ["a.bmp", "a.png", "b.jpg"]),
    ],
)
def test_files_folders_and_globs_can_be_given(
    photos: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], names: list[str]
) -> None:
    monkeypatch.chdir(photos)
    assert ImageFiles(sources).names == names


def test_a_file_that_looks_like_a_glob_is_a_file(photos: Path) -> None:
    (photos / "[a].png").touch()
    assert ImageFiles([photos / "[a].png"]).names == ["[a].png"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "none.jpg: there is no such file or folder, and nothing matches it"),
        ("*.gif", r"\*.gif: there is no such file or folder, and nothing matches it"),
        ("empty", "empty: the folder holds no files$"),
        (
            "nested",
            r"nested: the folder holds no files outside its 1 folder\(s\); --recursive reads these",
        ),
    ],
)
def test_sources_without_files_are_named(
    photos: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (photos / "empty").mkdir()
    (photos / "nested/deeper").mkdir(parents=True)
    monkeypatch.chdir(photos)
    with pytest.raises(InferenceError, match=message):
        ImageFiles([source])


def test_no_two_images_are_drawn_to_one_file(photos: Path) -> None:
    for name in ("a.bmp.png", "c.JPG", "a"):
        (photos / name).touch()
    drawn = ImageFiles([photos], recursive=True).drawn_names()
    assert drawn == {
        "a": "a-2.png",
        "a.bmp": "a.bmp-2.png",
        "a.bmp.png": "a.bmp.png",
        "a.png": "a.png",
        "b.jpg": "b.jpg",
        "c.JPG": "c.JPG",
        "x/a.png": "x/a.png",
        "x/y/c.tif": "x/y/c.tif.png",
    }


def no_pipe(read: Callable[..., Any]) -> Callable[..., Any]:
    """A function that reads a file, if it is no pipe."""

    def read_file(path: Path, **options: Any) -> Any:
        assert os.path.isfile(path), f"{path} is read"
        return read(path, **options)

    return read_file


ARCHIVE = "is an archive; unpack it, and give the folder$"
PIPE = "is a pipe or a device, not a regular file; give image files$"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("film.MOV", "is a video, a source of its own; run swahr predict on it$"),
        ("more.ZIP", ARCHIVE),
        ("pipe.jpg", PIPE),
    ],
)
def test_what_is_no_image_says_what_to_give(
    photos: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    """Nobody writes into the pipe: reading it would wait for ever."""
    monkeypatch.setattr(image_sources, "read_image", no_pipe(read_image))
    path = photos / name
    os.mkfifo(path) if name == "pipe.jpg" else path.touch()
    for sources in ([photos], [photos / "*"], [path, photos / "a.png"]):
        files = ImageFiles(sources)
        with pytest.raises(ImageError, match=f"^{path}: {reason}"):
            files.read(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_the_only_source_is_refused_at_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos / "more.zip").touch()
    (photos / "folder.zip").mkdir()
    (photos / "folder.zip/a.png").touch()
    os.mkfifo(photos / "pipe")
    monkeypatch.chdir(photos)
    monkeypatch.setenv("HOME", str(photos))
    for source, reason in (("more.zip", ARCHIVE), ("~/more.zip", ARCHIVE), ("pipe", PIPE)):
        with pytest.raises(InferenceError, match=f"^{source}: {reason}"):
            ImageFiles([source])
    assert ImageFiles(["folder.zip"]).names == ["a.png"]


def phone_photo(image: np.ndarray, orientation: int) -> bytes:
    """A JPEG file of an image, with an EXIF orientation."""
    entry = struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + b"\0\0\0\0"
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    return jpeg[:2] + segment + jpeg[2:]


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda a: a), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, 3))],
)
def test_images_are_read_as_viewers_show_them(
    tmp_path: Path, orientation: int, turned: object
) -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :16] = 255
    (tmp_path / "photo.jpg").write_bytes(phone_photo(image, orientation))
    seen = ImageFiles([tmp_path]).read("photo.jpg")
    expected = turned(image)  # type: ignore[operator]
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).max() < 16
