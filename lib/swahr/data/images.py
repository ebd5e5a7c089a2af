"""Images as 8-bit RGB arrays, from a folder or a zip file, and their normalisation for the network.

The colour order (RGB) and the statistics are declared here and nowhere else. Decoding is OpenCV's,
with the EXIF orientation ignored unless asked for, because annotations are given in the stored
image's pixels.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's images, RGB, as fractions of 255
STD = (0.229, 0.224, 0.225)

Image = NDArray[np.uint8]

_MARKERS = {
    b"\xff\xd8": (b"\xff\xda", b"\xff\xd9"),
    b"\x89PNG": (b"IHDR", b"IEND"),
}  # start of file, of pixels, end


class ImageError(ValueError):
    """An image that cannot be read, or is not what its annotation says; the message names it."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's error again with the worker's traceback as message, of
        # which this is the end.
        super().__init__(message.strip().rpartition("ImageError: ")[2])


def read_image(source: str | Path | bytes, name: str = "", *, honour_exif: bool = False) -> Image:
    """The image of a file, or of a file's contents, as (H, W, 3) uint8 RGB.

    Grey images get three equal channels, transparency is dropped, 16 bits become 8. honour_exif:
    turn the image as its EXIF orientation says and viewers show it; otherwise the stored pixels
    are returned, which annotations refer to. Raises ImageError, naming the file (or `name`), where
    it is missing, empty, cut off or no image.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror})") from None
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if _is_cut_off(data):
        raise ImageError(f"{name}: the file is cut off after {len(data)} bytes")
    orientation = 0 if honour_exif else cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | orientation)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({error.err})") from None
    if image is None:
        raise ImageError(f"{name}: not an image that can be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)  # type: ignore[return-value]


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG file lacks its last marker; OpenCV up to 4.13 returns such a JPEG image
    half grey.
    """
    for start, (pixels, end) in _MARKERS.items():
        if data.startswith(start) and data.rfind(end, max(0, len(data) - 64)) < 0:
            return data.rfind(end) < data.rfind(
                pixels
            )  # other data may follow the end; a thumbnail's end comes before
    return False


def normalize(
    images: Tensor, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """Images (B, H, W, 3) uint8 on any device -> (B, 3, H, W) float32 in the given memory format:
    (x / 255 - MEAN) / STD.
    """
    planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format)
    mean, std = _statistics(images.device)
    return planes.div_(255).sub_(mean).div_(std)


@cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD as (1, 3, 1, 1) tensors, kept: copying them to a GPU for each batch would wait
    for it.
    """
    with torch.inference_mode(False):
        return (
            torch.tensor(MEAN, device=device).view(1, 3, 1, 1),
            torch.tensor(STD, device=device).view(1, 3, 1, 1),
        )


class ImageStore:
    """The images of one folder or zip file, by file name. Keeps no file open, so it can be shared
    with worker processes.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.exists():
            raise ImageError(f"{self.root}: there is no such folder or zip file of images")
        self._archive = None if self.root.is_dir() else ZipIndex(self.root)

    def path(self, file_name: str) -> str:
        """Where an image is, for messages; a member of a zip file as if the file were a folder."""
        return str(self.root / file_name)

    def read(self, file_name: str) -> Image:
        """(H, W, 3) uint8 RGB; ImageError as read_image."""
        path = self.path(file_name)
        return (
            read_image(path)
            if self._archive is None
            else read_image(self._archive.read(file_name), path)
        )

    def missing(self, file_names: Iterable[str]) -> set[str]:
        """Those of the file names that are not there; each folder is listed once."""
        if self._archive is not None:
            return {name for name in file_names if name not in self._archive}
        by_folder: dict[str, set[str]] = defaultdict(set)
        for name in file_names:
            by_folder[os.path.dirname(name)].add(name)
        found: set[str] = set()
        for folder in by_folder:
            if (self.root / folder).is_dir():
                with os.scandir(self.root / folder) as entries:
                    found.update(os.path.join(folder, entry.name) for entry in entries)
        return set().union(*by_folder.values()) - found


class ZipIndex:
    """Where the members of a zip file are, in a few flat arrays.

    zipfile's own index of COCO's 118,287 images takes some hundred bytes and Python objects for
    each, in every
    worker, and its open file must not be shared between processes; these arrays are shared, and a
    read opens the file for itself. Members are known by their path below the folder named like the
    zip file, if there is one ("train2017/1.jpg" in train2017.zip: "1.jpg").
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (OSError, zipfile.BadZipFile) as error:
            raise ImageError(
                f"{path}: neither a folder nor a zip file that can be read ({error})"
            ) from None
        names = np.array(
            [m.filename.rpartition(f"{path.stem}/")[2].encode() for m in members], np.bytes_
        )
        order = np.argsort(names)
        self._names = names[order]
        fields = [(m.header_offset, m.compress_size, m.compress_type, m.CRC) for m in members]
        self._fields = np.array(fields, np.int64).reshape(-1, 4)[order]

    def _row(self, name: str) -> int:
        row = int(np.searchsorted(self._names, np.bytes_(name.encode())))
        return row if row < len(self._names) and self._names[row] == name.encode() else -1

    def __contains__(self, name: str) -> bool:
        return self._row(name) >= 0

    def read(self, name: str) -> bytes:
        """A member's contents; ImageError where it is missing or damaged."""
        where = self._path / name
        row = self._row(name)
        if row < 0:
            raise ImageError(f"{where}: not in the zip file")
        offset, size, method, crc = self._fields[row].tolist()
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                header = file.read(
                    30
                )  # its last two numbers are the lengths of the name and the extra field behind it
                file.seek(sum(struct.unpack("<HH", header[26:])), os.SEEK_CUR)
                data = file.read(size)
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
        except (OSError, struct.error, zlib.error) as error:
            raise ImageError(f"{where}: cannot be read ({error})") from None
        if zlib.crc32(data) != crc:
            raise ImageError(
                f"{where}: damaged in the zip file (or compressed in a way other than deflate)"
            )
        return data
