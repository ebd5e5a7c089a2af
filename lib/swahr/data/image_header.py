"""What an image file says of itself before it is decoded: size, orientation, and whether it is cut
off.

Knows JPEG (ITU T.81), PNG, WebP, TIFF 6.0, GIF, BMP and AVIF (ISO/IEC 23008-12). Numbers are only
read, never trusted: whatever is missing or broken gives None, and the decoder then says what is
wrong.
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
_BARE = (0x00, 0x01, *range(0xD0, 0xD8))  # JPEG markers without a length
_SCAN = 0xDA  # the JPEG marker before the pixels
_JPEG = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND"
_TAIL = 64  # bytes at the end of a file that are searched for its end first
_TIFF = (b"II*\0", b"MM\0*")
_EXIF = b"Exif\0\0"
# EXIF orientations of AVIF's quarter turns to the left, 0 to 3, after which the image is mirrored:
# not at all, top to bottom (axis 0) or left to right (axis 1).
_AVIF_ORIENTATIONS = {None: (1, 8, 3, 6), 0: (4, 5, 2, 7), 1: (2, 7, 4, 5)}


class ImageHeader(NamedTuple):
    """Width and height of the stored pixels, and the orientation as EXIF counts it, 1 to 8."""

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
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data.startswith(_PNG):
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
        if data[4:8] == b"ftyp" and data[8:12] != b"avis":  # a sequence has its turns elsewhere
            return _avif(data)
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


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG file lacks its end. OpenCV up to 4.13 returns such a JPEG image half
    grey.

    Other data may follow the end, like the film of a motion photo.
    """
    tail = max(0, len(data) - _TAIL)
    if data.startswith(_JPEG) and data.rfind(_JPEG_END, tail) < 0:
        # The end of a thumbnail is before the pixels.
        scans = (start for marker, start, _ in _segments(data) if marker == _SCAN)
        return data.find(_JPEG_END, next(scans, len(data))) < 0
    if data.startswith(_PNG) and data.rfind(_PNG_END, tail) < 0:
        return all(name != _PNG_END for name, _ in _chunks(data, len(_PNG), ">I4s", trailer=4))
    return False


def _jpeg(data: bytes) -> ImageHeader | None:
    orientation = UPRIGHT
    for marker, _, body in _segments(data):
        if marker == 0xE1 and body.startswith(_EXIF):
            orientation = _exif_orientation(body[len(_EXIF) :])
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", body, 1)
            return ImageHeader(width, height, orientation)
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The segments of a JPEG file up to the first scan: marker, where its contents start, contents.

    Bytes between segments are passed over, as decoders do.
    """
    position = len(_JPEG)
    while 0 <= (position := data.find(0xFF, position)) <= len(data) - 4:
        marker = data[position + 1]
        if marker == 0xFF or marker in _BARE:  # fill bytes
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, position + 4, data[position + 4 : position + 2 + length]
        if marker == _SCAN:
            return
        position += 2 + max(length, 2)


def _png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    orientation = UPRIGHT
    for name, body in _chunks(data, len(_PNG), ">I4s", trailer=4):
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


def _avif(data: bytes) -> ImageHeader:
    """The header that the properties of the primary item are. AVIF files say how they are turned
    with the properties irot and imir, and their EXIF orientation does not count.
    """
    meta = dict(_boxes(dict(_boxes(data))[b"meta"][4:]))
    (primary,) = struct.unpack_from(">I" if meta[b"pitm"][0] else ">H", meta[b"pitm"], 4)
    properties = dict(_boxes(meta[b"iprp"]))
    listed = list(_boxes(properties[b"ipco"]))
    own = dict(listed[i - 1] for i in _property_indices(properties[b"ipma"], primary) if i)
    width, height = struct.unpack_from(">II", own[b"ispe"], 4)
    turns = own[b"irot"][0] & 3 if b"irot" in own else 0
    axis = own[b"imir"][0] & 1 if b"imir" in own else None
    return ImageHeader(width, height, _AVIF_ORIENTATIONS[axis][turns])


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of the boxes of an AVIF file, or of a box of boxes."""
    start = 0
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + head)
            head = 16
        end = start + max(length, head) if length else len(data)
        yield name, data[start + head : end]
        start = end


def _property_indices(ipma: bytes, item: int) -> Iterator[int]:
    """The indices of an item's properties, from 1; 0 is none. ipma: contents of the box."""
    layout = ">IB" if ipma[0] else ">HB"
    is_wide = ipma[3] & 1
    (count,) = struct.unpack_from(">I", ipma, 4)
    position = 8
    for _ in range(count):
        owner, number = struct.unpack_from(layout, ipma, position)
        position += struct.calcsize(layout)
        size = number * (2 if is_wide else 1)
        if owner == item:
            values = struct.unpack_from(f">{number}{'H' if is_wide else 'B'}", ipma, position)
            yield from (value & (0x7FFF if is_wide else 0x7F) for value in values)
        position += size


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
