"""What an image file says of itself before it is decoded: size, and EXIF orientation.

Knows JPEG (ITU T.81), PNG, WebP, TIFF 6.0, GIF and BMP. Numbers are only read, never trusted:
whatever is missing or broken gives None, and the decoder then says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_SIDE = 32766  # px of an image that is used; OpenCV's warpAffine takes no more
UPRIGHT = 1  # the EXIF orientation of images that are stored as they are seen
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_WIDTH = 256  # tags of TIFF and EXIF
_HEIGHT = 257
_ORIENTATION = 274
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG markers among those of frames that start none
_BARE = (0x01, *range(0xD0, 0xD8))  # JPEG markers without a length
_TIFF = (b"II*\0", b"MM\0*")
_EXIF = b"Exif\0\0"


class ImageHeader(NamedTuple):
    """Width and height of the stored pixels, and the EXIF orientation, 1 to 8."""

    width: int
    height: int
    orientation: int

    def is_turned_to(self, size: tuple[int, int]) -> bool:
        """Whether (w, h) is the size of the image as its EXIF orientation turns it, and not that of
        the stored pixels.
        """
        return (
            self.orientation in TURNED
            and (self.width, self.height) != size
            and (self.height, self.width) == size
        )


def image_header(data: bytes) -> ImageHeader | None:
    """The header of an image file's contents; None if the format is unknown or the file broken."""
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:4] in _TIFF:
            tags = _tiff_tags(data)
            return ImageHeader(tags[_WIDTH], tags[_HEIGHT], _orientation(tags))
        if data[:4] == b"GIF8":
            width, height = struct.unpack_from("<HH", data, 6)
            return ImageHeader(width, height, UPRIGHT)
        if data[:2] == b"BM":
            old = data[14] == 12  # the length of the header of OS/2's files
            width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
            return ImageHeader(abs(width), abs(height), UPRIGHT)
    except (struct.error, IndexError, KeyError):
        pass
    return None


def without_orientation(data: bytes) -> bytes:
    """The contents of a TIFF file with the orientation 1; others as they are.

    OpenCV turns the images of TIFF files even where it is told not to.
    """
    if data[:4] not in _TIFF:
        return data
    changed = bytearray(data)
    try:
        for tag, kind, place in _entries(data):
            if tag == _ORIENTATION:
                struct.pack_into(kind, changed, place, UPRIGHT)
    except struct.error:
        pass  # the decoder says what is wrong
    return bytes(changed)


def _jpeg(data: bytes) -> ImageHeader | None:
    orientation = UPRIGHT
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:  # fill bytes
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + length]
        if marker == 0xE1 and body.startswith(_EXIF):
            orientation = _exif_orientation(body[len(_EXIF) :])
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", body, 1)
            return ImageHeader(width, height, orientation)
        position += 2 + max(length, 2)
    return None


def _png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    orientation = UPRIGHT
    for name, body in _chunks(data, 8, ">I4s", trailer=4):
        if name == b"eXIf":
            orientation = _exif_orientation(body)
    return ImageHeader(width, height, orientation)


def _webp(data: bytes) -> ImageHeader | None:
    width = 0
    height = 0
    orientation = UPRIGHT
    for name, body in _chunks(data, 12, "<4sI", trailer=0):
        if name == b"VP8X":
            width = int.from_bytes(body[4:7], "little") + 1
            height = int.from_bytes(body[7:10], "little") + 1
        elif name == b"VP8L" and not width:
            bits = int.from_bytes(body[1:5], "little")
            width = (bits & 0x3FFF) + 1
            height = (bits >> 14 & 0x3FFF) + 1
        elif name == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        elif name == b"EXIF":
            orientation = _exif_orientation(body.removeprefix(_EXIF))
    return ImageHeader(width, height, orientation) if width else None


def _chunks(data: bytes, start: int, layout: str, trailer: int) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a PNG or WebP file, as far as they are whole.

    layout: of a chunk's head, a length and a name in either order. trailer: bytes behind a chunk;
    WebP's chunks have even lengths instead.
    """
    while start + 8 <= len(data):
        fields = struct.unpack_from(layout, data, start)
        name, length = fields if isinstance(fields[0], bytes) else fields[::-1]
        yield name, data[start + 8 : start + 8 + length]
        start += 8 + length + (trailer or length % 2)


def _exif_orientation(data: bytes) -> int:
    """The orientation in EXIF data, which have TIFF's layout; 1 if there is none."""
    try:
        return _orientation(_tiff_tags(data))
    except (struct.error, KeyError):
        return UPRIGHT


def _orientation(tags: dict[int, int]) -> int:
    value = tags.get(_ORIENTATION, UPRIGHT)
    return value if UPRIGHT < value <= 8 else UPRIGHT


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The whole numbers in the first directory of a TIFF file, by tag."""
    return {tag: struct.unpack_from(kind, data, place)[0] for tag, kind, place in _entries(data)}


def _entries(data: bytes) -> Iterator[tuple[int, str, int]]:
    """The whole numbers in the first directory of a TIFF file: tag, format of struct, place."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if kind in (3, 4):  # 16 and 32 bits
            yield tag, order + " HI"[kind - 2], entry + 8
