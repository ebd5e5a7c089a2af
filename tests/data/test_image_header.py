"""Sizes and EXIF orientations read from files, compared with what OpenCV decodes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from swahr.data.image_header import ImageHeader, image_header
from swahr.data.images import read_image, turn_upright

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def encoded(suffix: str, pixels: np.ndarray = PIXELS, *options: int) -> bytes:
    return cv2.imencode(suffix, pixels, options)[1].tobytes()


def exif(orientation: int, order: str = ">") -> bytes:
    """EXIF data with this tag alone, in either byte order."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(f"{order}HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


def jpeg(orientation: int, order: str = ">", pixels: np.ndarray = PIXELS) -> bytes:
    body = b"Exif\0\0" + exif(orientation, order)
    plain = encoded(".jpg", pixels)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def png(orientation: int) -> bytes:
    plain = encoded(".png")
    body = b"eXIf" + exif(orientation)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + chunk + plain[33:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_the_size_of_every_format(suffix: str) -> None:
    assert image_header(encoded(suffix)) == ImageHeader(24, 16, 1)


def test_the_size_of_webp_and_jpeg_of_other_kinds() -> None:
    lossy = encoded(".webp", PIXELS, cv2.IMWRITE_WEBP_QUALITY, 50)
    clear = encoded(".webp", np.dstack([PIXELS, PIXELS[..., :1]]), cv2.IMWRITE_WEBP_QUALITY, 50)
    progressive = encoded(".jpg", PIXELS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    for data in (lossy, clear, progressive, b"GIF89a" + struct.pack("<HH", 24, 16)):
        assert image_header(data) == ImageHeader(24, 16, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_an_orientation_is_honoured_as_opencv_does(orientation: int, order: str) -> None:
    data = jpeg(orientation, order)
    assert image_header(data) == ImageHeader(24, 16, orientation)
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    image = read_image(data, honour_exif=True)
    assert np.array_equal(image, turned[..., ::-1]) and image.flags.c_contiguous
    assert np.array_equal(read_image(data), read_image(jpeg(1)))


def test_the_orientation_of_png_and_tiff() -> None:
    assert image_header(png(6)) == ImageHeader(24, 16, 6)
    tiff = struct.pack("<4sIH", b"II*\0", 8, 3)
    for tag, kind, value in ((256, 4, 24), (257, 3, 16), (274, 3, 8)):
        tiff += struct.pack("<HHII", tag, kind, 1, value)
    assert image_header(tiff) == ImageHeader(24, 16, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_are_turned_once_or_not_at_all(orientation: int) -> None:
    """OpenCV turns them whatever it is asked for."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow writes the orientation")
    file = io.BytesIO()
    pillow.fromarray(PIXELS).save(file, "TIFF", tiffinfo={274: orientation})
    data = file.getvalue()
    assert image_header(data) == ImageHeader(24, 16, orientation)
    assert np.array_equal(read_image(data), PIXELS)
    assert np.array_equal(read_image(data, honour_exif=True), turn_upright(PIXELS, orientation))


def test_bitmaps_with_the_old_header() -> None:
    """That of OS/2, with sides of 16 bits."""
    row = PIXELS[:1, :4]
    head = struct.pack("<2sIHHI", b"BM", 26 + 12, 0, 0, 26) + struct.pack("<IHHHH", 12, 4, 1, 1, 24)
    data = head + row.tobytes()
    assert image_header(data) == ImageHeader(4, 1, 1)
    assert np.array_equal(read_image(data), row[..., ::-1])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_is_upright(orientation: int) -> None:
    assert image_header(jpeg(orientation)) == ImageHeader(24, 16, 1)


@pytest.mark.parametrize("data", [jpeg(6), png(6), encoded(".webp"), encoded(".tiff")])
def test_damage_is_no_error(data: bytes) -> None:
    for length in range(0, min(len(data), 400)):
        image_header(data[:length])
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data[:400])
        damaged[rng.integers(4, len(damaged))] = rng.integers(256)
        image_header(bytes(damaged))
    assert image_header(b"hello") is None


def test_every_real_image(shared: Path) -> None:
    for path in sorted((shared / "data/coco_mini/images/val2017").iterdir())[:20]:
        header = image_header(path.read_bytes())
        assert header is not None
        assert read_image(path).shape == (header.height, header.width, 3)
