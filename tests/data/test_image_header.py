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


def box(name: str, *contents: bytes) -> bytes:
    body = b"".join(contents)
    return struct.pack(">I4s", 8 + len(body), name.encode()) + body


def avif(*turns: bytes, wide: bool = False) -> bytes:
    """The boxes of an AVIF file of 24 x 16 px whose primary item, the second, has these properties;
    the first is a thumbnail that is turned. wide: ids and indices are of the longer kind.
    """
    own = [b"\0\0\0\2", *range(3, 4 + len(turns))] if wide else [b"\0\2", *range(3, 4 + len(turns))]
    other = [b"\0\0\0\1" if wide else b"\0\1", 1, 2]
    associations = b""
    for item, *indices in (other, own):
        values = struct.pack(f">{len(indices)}{'H' if wide else 'B'}", *indices)
        associations += item + bytes([len(indices)]) + values
    flags = bytes([wide, 0, 0, wide])
    size = struct.pack(">4xII", 24, 16)
    thumbnail = box("irot", b"\1"), box("ispe", struct.pack(">4xII", 3, 2))
    meta = box(
        "meta",
        bytes(4),
        box("pitm", bytes([wide, 0, 0, 0]), own[0]),
        box(
            "iprp",
            box("ipco", *thumbnail, box("ispe", size), *turns),
            box("ipma", flags, struct.pack(">I", 2), associations),
        ),
    )
    return box("ftyp", b"avif", bytes(4), b"avifmif1") + meta + box("mdat", bytes(20))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(
    "turns, orientation",
    [
        ((), 1),
        ((box("irot", b"\0"),), 1),
        ((box("imir", b"\1"),), 2),
        ((box("irot", b"\2"),), 3),
        ((box("imir", b"\0"),), 4),
        ((box("irot", b"\1"), box("imir", b"\0")), 5),
        ((box("irot", b"\3"),), 6),
        ((box("irot", b"\3"), box("imir", b"\0")), 7),
        ((box("irot", b"\1"), box("imir", b"\1")), 7),
        ((box("irot", b"\1"),), 8),
    ],
)
def test_the_turns_of_avif_files(turns: tuple[bytes, ...], orientation: int, wide: bool) -> None:
    assert image_header(avif(*turns, wide=wide)) == ImageHeader(24, 16, orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_files_are_turned_as_viewers_turn_them(orientation: int) -> None:
    """Pillow writes an EXIF orientation as turns."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow writes the orientation")
    if not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exif_data = pillow.Exif()
    exif_data[274] = orientation
    file = io.BytesIO()
    pillow.fromarray(PIXELS).save(file, "AVIF", exif=exif_data)
    data = file.getvalue()
    assert image_header(data) == ImageHeader(24, 16, orientation)
    stored = read_image(data)
    assert stored.shape == PIXELS.shape
    assert np.array_equal(read_image(data, honour_exif=True), turn_upright(stored, orientation))


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


@pytest.mark.parametrize(
    "data",
    [jpeg(6), png(6), encoded(".webp"), encoded(".tiff"), avif(box("irot", b"\1"), wide=True)],
)
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
