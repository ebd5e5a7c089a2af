"""Where the members of a zip file are, in a few flat arrays that worker processes share."""

from __future__ import annotations

import os
import struct
import unicodedata
import zipfile
import zlib
from pathlib import Path

import numpy as np

from swahr.files import why_unreadable

MAX_MEMBER = 2**30  # bytes of one image file; a larger record is a mistake, or an attack
# What zipfile raises for damaged files, and for versions of the format that it does not know. Names
# in another encoding give ValueError, places from 2^63 on OverflowError.
_UNREADABLE = (OSError, ValueError, OverflowError, NotImplementedError, zipfile.BadZipFile)


class ZipError(ValueError):
    """A zip file or a member that cannot be read; the message names it."""


def _below(folder: str, name: str) -> str:
    """The path of a member below the last folder of this name in it; whole if there is none."""
    return f"/{name}".rpartition(f"/{folder}/")[2].removeprefix("/")


class ZipIndex:
    """The members of a zip file. Keeps no file open, so it can be shared with worker processes.

    For COCO's 118,287 images the index of `zipfile` takes some hundred bytes and several Python
    objects each, in every worker, and its open file must not be shared between processes. These
    arrays are shared, and each read opens the file again. Members are known by their path below the
    folder named like the zip file, if there is one ("train2017/1.jpg" in train2017.zip: "1.jpg").
    Composed and decomposed Unicode (NFC, NFD) find each other.
    """

    def __init__(self, path: Path) -> None:
        """path: of the zip file. ZipError if it cannot be read as one."""
        self._path = path
        if reason := why_unreadable(path):
            raise ZipError(f"{path}: neither a folder nor a zip file that can be read ({reason})")
        try:
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if not m.filename.endswith("/")]
            fields = np.array(
                [
                    (m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC)
                    for m in members
                ],
                np.int64,
            )
        except _UNREADABLE as error:
            raise ZipError(
                f"{path}: neither a folder nor a zip file that can be read ({error})"
            ) from None
        texts = [_below(path.stem, member.filename) for member in members]
        names = np.array([text.encode() for text in texts], np.bytes_)
        order = np.argsort(names)
        self._names = names[order]
        self._fields = fields.reshape(-1, 5)[order]
        self._composed = {
            unicodedata.normalize("NFC", texts[index]): row
            for row, index in enumerate(order.tolist())
            if not texts[index].isascii()
        }

    def _row(self, name: str) -> int:
        row = int(np.searchsorted(self._names, np.bytes_(name.encode())))
        if row < len(self._names) and self._names[row] == name.encode():
            return row
        return self._composed.get(unicodedata.normalize("NFC", name), -1)

    def __contains__(self, name: str) -> bool:
        return self._row(name) >= 0

    def read(self, name: str) -> bytes:
        """The contents of a member; ZipError if it is missing or damaged, or if it would unpack to
        more bytes than the index of the zip file says.
        """
        member = self._path / name
        row = self._row(name)
        if row < 0:
            raise ZipError(f"{member}: not in the zip file")
        offset, packed_size, size, method, crc = self._fields[row].tolist()
        if max(size, packed_size) > MAX_MEMBER:
            raise ZipError(f"{member}: {max(size, packed_size)} bytes are too many for an image")
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                header = file.read(30)  # ends with the lengths of the name and of the extra field
                file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)
                data = file.read(packed_size)
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except (OSError, struct.error, zlib.error) as error:
            raise ZipError(f"{member}: cannot be read ({error})") from None
        if len(data) > size:
            raise ZipError(f"{member}: unpacks to more than the {size} bytes that its record says")
        if zlib.crc32(data) != crc:
            raise ZipError(
                f"{member}: damaged in the zip file (or compressed in a way other than deflate)"
            )
        return data
