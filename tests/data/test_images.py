"""Images of every kind come out as RGB; what is no image is named."""

from __future__ import annotations

import pickle
import struct
import unicodedata
import zipfile
import zlib
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


NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)


def with_thumbnail(data: bytes) -> bytes:
    """A JPEG file with a whole one in its EXIF data."""
    inner = b"Exif\0\0" + encoded(RED, ".jpg")
    return data[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + data[2:]


@pytest.mark.parametrize("behind", [bytes(100), b"mp4 \xff\xda" + bytes(100)])
@pytest.mark.parametrize("thumbnail", [False, True])
def test_whatever_follows_a_whole_image_is_passed_over(thumbnail: bool, behind: bytes) -> None:
    """As in motion photos; the film may hold the bytes of any marker."""
    data = with_thumbnail(encoded(NOISE, ".jpg")) if thumbnail else encoded(NOISE, ".jpg")
    assert np.array_equal(read_image(data + behind), read_image(data))


def test_a_whole_png_image_may_be_followed_by_part_of_another() -> None:
    data = encoded(NOISE)
    assert np.array_equal(read_image(data + data[:-20]), read_image(data))


def test_bytes_between_the_segments_of_jpeg_files_are_passed_over() -> None:
    data = encoded(NOISE, ".jpg")
    place = data.index(b"\xff\xdb")
    stuffed = data[:place] + b"hello\xff\x00\xff\xff" + data[place:]
    assert np.array_equal(read_image(stuffed + b"\xff\xda" + bytes(100)), read_image(data))
    with pytest.raises(ImageError, match="the file is cut off after"):
        read_image(stuffed[:-90])


def test_the_end_of_a_thumbnail_is_not_that_of_the_image() -> None:
    data = with_thumbnail(encoded(NOISE, ".jpg"))
    with pytest.raises(ImageError, match="the file is cut off after"):
        read_image(data[:-90])


def test_a_file_that_was_cut_off_between_two_scans_is_refused() -> None:
    data = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert data.count(b"\xff\xda") > 1
    with pytest.raises(ImageError, match="the file is cut off after"):
        read_image(data[: data.rfind(b"\xff\xda")])


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


def test_a_member_that_unpacks_to_more_than_its_record_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte of zeros packs into a megabyte; no more than the record says is unpacked."""
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**7))
        archive.filelist[0].file_size = 1000
    asked: list[int] = []
    whole = zlib.decompressobj

    class Counted:
        def __init__(self, *options: int) -> None:
            self._packed = whole(*options)

        def decompress(self, data: bytes, limit: int) -> bytes:
            asked.append(limit)
            return self._packed.decompress(data, limit)

    monkeypatch.setattr(zlib, "decompressobj", Counted)
    with pytest.raises(ImageError, match=r"a\.png: unpacks to more than the 1000 bytes"):
        ImageStore(tmp_path / "bomb.zip").read("a.png")
    assert asked == [1001]


def test_a_member_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        archive.writestr("a.png", encoded(RED))
        archive.filelist[0].file_size = 2**31
    with pytest.raises(ImageError, match="2147483648 bytes are too many for an image"):
        ImageStore(tmp_path / "bomb.zip").read("a.png")


@pytest.mark.parametrize(
    "place, value",
    [(6, b"\x63"), (46, b"\xff"), (42, b"\xff\xff\xff\xff")],
    ids=["a later version", "a name that is no UTF-8", "a place of 64 bits"],
)
def test_a_zip_file_that_zipfile_cannot_list(tmp_path: Path, place: int, value: bytes) -> None:
    path = tmp_path / "train.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("\xe9.png")
        member.extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)  # the place, if it is not in the record
        archive.writestr(member, encoded(RED))
    data = bytearray(path.read_bytes())
    start = data.rfind(b"PK\1\2") + place
    data[start : start + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"train\.zip: neither a folder nor a zip file that can"):
        ImageStore(path)


@pytest.mark.parametrize("shape", [(2, 32767), (32767, 2)])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".ppm"])
def test_sides_that_opencv_cannot_warp_are_refused(shape: tuple[int, int], suffix: str) -> None:
    """Also of formats whose header is not known."""
    pixels = np.zeros((*shape, 3), np.uint8)
    width, height = shape[::-1]
    with pytest.raises(ImageError, match=f"x: {width} x {height} pixels; OpenCV can warp sides"):
        read_image(encoded(pixels, suffix), "x")
    most = read_image(encoded(pixels[:32766, :32766], suffix))
    assert cv2.warpAffine(most, np.eye(2, 3), (64, 64)).shape == (64, 64, 3)


@pytest.mark.parametrize("on_disk, asked", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_unicode_forms_find_each_other(tmp_path: Path, on_disk: str, asked: str, kind: str) -> None:
    """Of folders and files; macOS decomposes names, most others do not."""
    names = ["caf\u00e9/\u00fcber.png", "\u00e9.png"]
    stored = [unicodedata.normalize(on_disk, name) for name in names]
    wanted = [unicodedata.normalize(asked, name) for name in names]
    root = tmp_path / ("x.zip" if kind == "zip" else "x")
    if kind == "zip":
        with zipfile.ZipFile(root, "w") as archive:
            for name in stored:
                archive.writestr(name, encoded(RED))
    else:
        for name in stored:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded(RED))
    store = ImageStore(root)
    assert store.missing([*wanted, "e\u0301e.png", "caf\u00e8/a.png"]) == {
        "e\u0301e.png",
        "caf\u00e8/a.png",
    }
    store = pickle.loads(pickle.dumps(store))
    assert all(store.read(name).shape == (6, 8, 3) for name in wanted)


def test_a_zip_file_is_read_below_the_folder_of_its_own_name_only(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("data/images/1.png", "old_images/2.png", "3.png"):
            archive.writestr(name, encoded(RED))
    store = ImageStore(tmp_path / "images.zip")
    known = ["1.png", "old_images/2.png", "3.png"]
    assert store.missing([*known, "2.png", "images/1.png"]) == {"2.png", "images/1.png"}


def test_of_two_forms_the_exact_one_is_read(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "\u00e9.png") for form in ("NFC", "NFD")]
    for name, pixels in zip(names, (RED, RED // 2)):
        (tmp_path / name).write_bytes(encoded(pixels))
    store = ImageStore(tmp_path)
    assert not store.missing(names)
    assert [int(store.read(name).max()) for name in names] == [200, 100]


def test_missing_looks_into_folders_below(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"")
    assert ImageStore(tmp_path).missing(["one/a.png", "one/b.png", "two/a.png"]) == {
        "one/b.png",
        "two/a.png",
    }


def test_a_folder_name_that_is_too_long_is_not_there(tmp_path: Path) -> None:
    names = ["x" * 300 + "/a.png", "\u00e9" * 300 + "/b/a.png", "y" * 300 + ".png"]
    assert ImageStore(tmp_path).missing(names) == set(names)
    with pytest.raises(ImageError, match="no such folder or zip file of images"):
        ImageStore(tmp_path / ("x" * 300))


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(folder))

    (tmp_path / "one").mkdir()
    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(ImageError, match=r"one: cannot be listed \(Permission denied\)$") as error:
        ImageStore(tmp_path).missing(["one/a.png"])
    assert "\n" not in str(error.value)


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
