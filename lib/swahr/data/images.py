"""Images as 8-bit RGB arrays, from a folder or a zip file, and their normalisation for the network.

The colour order (RGB) and the statistics are declared only here. OpenCV decodes. The EXIF
orientation is ignored unless asked for, because annotations refer to the stored pixels.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swahr.data.image_header import (
    MAX_SIDE,
    TURNED,
    UPRIGHT,
    image_header,
    is_cut_off,
    without_orientation,
)
from swahr.data.zip_index import ZipError, ZipIndex

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's images, RGB, as fractions of 255
STD = (0.229, 0.224, 0.225)

Image = NDArray[np.uint8]


class ImageError(ValueError):
    """An image that cannot be read, or that differs from its annotation. The message names it."""

    def __init__(self, message: str) -> None:
        # A DataLoader raises a worker's error again, with the worker's traceback as the message.
        # The original message is the end of it.
        super().__init__(message.strip().rpartition("ImageError: ")[2])


def first_reasons(reasons: Mapping[int, str], most: int) -> list[str]:
    """The reasons why images are not used, at most `most` of them, and the number of the others.

    reasons: by image id.
    """
    lines = list(reasons.values())
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], f"... and {more} more images"]


def read_image(source: str | Path | bytes, name: str = "", *, honour_exif: bool = False) -> Image:
    """The image of a file, or of a file's contents, as (H, W, 3) uint8 RGB.

    Grey images get three equal channels, transparency is dropped, and 16 bits become 8. name: of
    the image in messages, if source is contents. honour_exif: turn and mirror the image as its EXIF
    orientation, or that of an AVIF file, says, as viewers show it; otherwise the stored pixels are
    returned.
    Raises ImageError if the file is missing, empty, cut off, no image, or has a side of more than
    32,766 px.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _read_bytes(Path(source))
    if not data:
        raise ImageError(f"{name}: the file is empty")
    if is_cut_off(data):
        raise ImageError(f"{name}: the file is cut off after {len(data)} bytes")
    header = image_header(data)
    if header is not None:
        _check_sides(name, header.width, header.height)
    try:
        decoded = cv2.imdecode(
            np.frombuffer(without_orientation(data), np.uint8),
            cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
        )
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({error.err})") from None
    if decoded is None:
        raise ImageError(f"{name}: not an image that can be decoded")
    image: Image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)  # type: ignore[assignment]
    _check_sides(name, image.shape[1], image.shape[0])
    return turn_upright(image, header.orientation) if honour_exif and header is not None else image


def turn_upright(image: Image, orientation: int) -> Image:
    """A stored image (H, W, 3) as people see it. orientation: the EXIF tag, 1 to 8 (EXIF 2.3)."""
    if orientation == UPRIGHT:
        return image
    if orientation in TURNED:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None


def _check_sides(name: str, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{name}: {width} x {height} pixels; OpenCV can warp sides of up to {MAX_SIDE} pixels"
        )


def normalize(
    images: Tensor,
    memory_format: torch.memory_format = torch.contiguous_format,
    mean_and_std: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Images (B, H, W, 3) uint8 on any device -> (B, 3, H, W) float32 in the given memory format:
    (x / 255 - MEAN) / STD.

    mean_and_std: what `statistics` gives for the device, for callers that keep it.
    """
    planes = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=memory_format)
    mean, std = mean_and_std or statistics(images.device)
    return planes.div_(255).sub_(mean).div_(std)


@cache
def statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD as (1, 3, 1, 1) tensors. They are cached, because copying them to a GPU for each
    batch would wait for it.
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
        """root: the folder or zip file; ImageError if it does not exist."""
        self.root = Path(root)
        if not os.path.exists(self.root):
            raise ImageError(f"{self.root}: there is no such folder or zip file of images")
        self._spelling: dict[str, str] = {}  # of names whose Unicode form on the disk differs
        self._archive: ZipIndex | None = None
        if not os.path.isdir(self.root):
            try:
                self._archive = ZipIndex(self.root)
            except ZipError as error:
                raise ImageError(str(error)) from None

    def path(self, file_name: str) -> str:
        """Where an image is, for messages. A member of a zip file is shown as if the file were a
        folder.
        """
        return str(self.root / self._spelling.get(file_name, file_name))

    def read_bytes(self, file_name: str) -> bytes:
        """The contents of an image file; ImageError if it cannot be read."""
        if self._archive is None:
            return _read_bytes(Path(self.path(file_name)))
        try:
            return self._archive.read(file_name)
        except ZipError as error:
            raise ImageError(str(error)) from None

    def read(self, file_name: str, size: tuple[int, int] | None = None) -> Image:
        """(H, W, 3) uint8 RGB, the stored pixels; ImageError as read_image.

        size: (w, h) that annotations give, if they do; if that is the size of the turned image, it
        is turned as its EXIF orientation says.
        """
        data = self.read_bytes(file_name)
        header = image_header(data)
        turned = header is not None and size is not None and header.is_turned_to(size)
        return read_image(data, self.path(file_name), honour_exif=turned)

    def missing(self, file_names: Iterable[str]) -> set[str]:
        """Those of the file names that do not exist. Each folder is listed once; ImageError if it
        cannot be.

        Composed and decomposed Unicode (NFC, NFD; macOS writes the latter) find each other, and
        are remembered for reading.
        """
        if self._archive is not None:
            return {name for name in file_names if name not in self._archive}
        by_folder: dict[str, set[str]] = defaultdict(set)
        for name in file_names:
            by_folder[os.path.dirname(name)].add(name)
        missing: set[str] = set()
        for folder, names in by_folder.items():
            found = _find_folder(self.root, folder)
            entries = _Listing(self.root / found) if found is not None else None
            for name in names:
                entry = entries.find(os.path.basename(name)) if entries else None
                if entry is None:
                    missing.add(name)
                elif (spelled := os.path.join(found or "", entry)) != name:
                    self._spelling[name] = spelled
        return missing


class AbsentImages(ImageStore):
    """A folder of images that does not exist, and is not needed: no image counts as missing, and
    none can be read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._spelling = {}
        self._archive = None

    def missing(self, file_names: Iterable[str]) -> set[str]:
        return set()


class _Listing:
    """The names in a folder; ImageError if it cannot be listed."""

    def __init__(self, folder: Path) -> None:
        try:
            self._names = set(os.listdir(folder))
        except OSError as error:
            raise ImageError(f"{folder}: cannot be listed ({error.strerror})") from None
        self._composed = {
            unicodedata.normalize("NFC", name): name for name in self._names if not name.isascii()
        }

    def find(self, name: str) -> str | None:
        """The name as the folder spells it; None if it is not there."""
        if name in self._names:
            return name
        return self._composed.get(unicodedata.normalize("NFC", name))


def _find_folder(root: Path, folder: str) -> str | None:
    """A folder below root as the disk spells it; None if there is none."""
    if os.path.isdir(root / folder):  # False, not OSError, where a name is too long
        return folder
    found = ""
    for part in Path(folder).parts:
        if not os.path.isdir(root / found) or (entry := _Listing(root / found).find(part)) is None:
            return None
        found = os.path.join(found, entry)
    return found if os.path.isdir(root / found) else None
