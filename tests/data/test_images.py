"""Images of every kind come out as RGB; what is no image is named."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from swahr.data.images import MEAN, STD, ImageError, ImageStore, normalize, read_image
from tests.oracles import augment as oracle

RED = np.zeros((6, 8, 3), np.uint8)
RED[..., 2] = 200  # OpenCV writes BGR


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def test_colours_are_rgb(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encoded(RED))
    image = read_image(tmp_path / "red.png")
    assert image.shape == (6, 8, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert (image == [200, 0, 0]).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((6, 8), 77, np.uint8),
        np.full((6, 8), 77 * 256 + 5, np.uint16),
        np.full((6, 8, 4), 77, np.uint8),
        np.full((6, 8, 3), 77 * 256, np.uint16),
    ],
    ids=["grey", "grey, 16 bits", "transparent", "16 bits"],
)
def test_every_kind_becomes_eight_bit_rgb(pixels: np.ndarray) -> None:
    image = read_image(encoded(pixels))
    assert image.shape == (6, 8, 3) and (image == 77).all()


def test_exif_rotation_is_ignored() -> None:
    jpeg = encoded(RED, ".jpg")
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    assert read_image(turned).shape == (6, 8, 3)
    assert (read_image(turned) == read_image(jpeg)).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("part", [0.5, 0.9, 1])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    data = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), suffix)
    path = tmp_path / f"half{suffix}"
    path.write_bytes(data[: min(int(part * len(data)), len(data) - 9)])
    with pytest.raises(ImageError, match=f"half{suffix}: the file is cut off after"):
        read_image(path)


@pytest.mark.parametrize(
    "data, message", [(b"", "the file is empty"), (b"hello", "not an image that can be decoded")]
)
def test_no_image(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=rf"x\.jpg: {message}"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"nowhere\.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_an_error_raised_again_with_a_traceback_keeps_its_own_line() -> None:
    text = (
        "Caught ImageError in worker process 0.\nTraceback ...\n"
        "swahr.data.images.ImageError: 7: no such file"
    )
    assert str(ImageError(text)) == "7: no such file"
    assert str(pickle.loads(pickle.dumps(ImageError("7: empty")))) == "7: empty"


def zipped(folder: Path, prefix: str, method: int) -> ImageStore:
    with zipfile.ZipFile(folder / "train.zip", "w", method) as archive:
        archive.writestr(f"{prefix}a.png", encoded(RED))
        archive.writestr(f"{prefix}b.png", encoded(RED // 2))
    return ImageStore(folder / "train.zip")


@pytest.mark.parametrize("prefix", ["", "train/", "images/train/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_file_is_read_like_a_folder(tmp_path: Path, prefix: str, method: int) -> None:
    store = pickle.loads(pickle.dumps(zipped(tmp_path, prefix, method)))
    (tmp_path / "b.png").write_bytes(encoded(RED // 2))
    assert (store.read("b.png") == ImageStore(tmp_path).read("b.png")).all()
    assert (store.read("a.png") == read_image(encoded(RED))).all()
    assert (
        store.missing(["a.png", "c.png"])
        == ImageStore(tmp_path).missing(["b.png", "c.png"])
        == {"c.png"}
    )
    with pytest.raises(ImageError, match=r"train\.zip/c\.png: not in the zip file"):
        store.read("c.png")


def test_damage_in_a_zip_file_is_seen(tmp_path: Path) -> None:
    store = zipped(tmp_path, "", zipfile.ZIP_STORED)
    data = bytearray((tmp_path / "train.zip").read_bytes())
    data[60] ^= 1
    (tmp_path / "train.zip").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.png: damaged"):
        store.read("a.png")


def test_missing_looks_into_folders_below(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"")
    assert ImageStore(tmp_path).missing(["one/a.png", "one/b.png", "two/a.png"]) == {
        "one/b.png",
        "two/a.png",
    }


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder or zip file of images"):
        ImageStore(tmp_path / "val2017")
    (tmp_path / "val.zip").write_bytes(b"PK")
    with pytest.raises(
        ImageError, match=r"val\.zip: neither a folder nor a zip file that can be read"
    ):
        ImageStore(tmp_path / "val.zip")


def test_normalize() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    planes = normalize(images)
    assert planes.shape == (2, 3, 5, 7) and planes.is_contiguous()
    for image, plane in zip(images, planes):
        assert np.array_equal(oracle.normalize(image.numpy()), plane.numpy())
    assert torch.equal(normalize(images, torch.channels_last), planes)
    white = normalize(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)).flatten()
    torch.testing.assert_close(white, torch.tensor([(1 - m) / s for m, s in zip(MEAN, STD)]))
