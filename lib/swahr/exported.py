"""What an exported network's file (.onnx) says of itself. It is read without torch.

docs/export.md explains the file's input, its outputs and this description.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from swahr.files import why_unreadable

SUFFIX = ".onnx"
INPUT = "images"
HEATMAPS = "heatmaps"
TAGS = "tags"
PREFIX = "swahr."  # of the names of the file's metadata
REMEDY = "pip install 'swahr[export]'"


class ExportedError(ValueError):
    """A file that is not an exported network, or cannot be used as asked; the message is one
    line.
    """


class Description(NamedTuple):
    """The metadata of an exported network.

    version: of swahr. settings: the merged configuration, YAML. skeleton: YAML, as a skeleton file
    holds it; without the centre. joints: K, the number of heatmaps. tag_maps: T, tags of each
    joint. flip: whether the file does both passes of the flip test. dtype: of the convolutions,
    float32 or float16. use_heatmaps, use_tags: for each resolution of the network, low to high,
    whether its maps are in the file's. size_divisor: height and width are multiples of it. mean,
    std: of RGB as fractions of 255. extra: further outputs by name, with the fields of their
    codec.maps.MapRule. weights_sha256, epoch: of the file that was exported.
    """

    version: str
    settings: str
    skeleton: str
    joints: int
    tag_maps: int
    flip: bool
    dtype: str
    use_heatmaps: list[bool]
    use_tags: list[bool]
    size_divisor: int
    mean: list[float]
    std: list[float]
    extra: dict[str, list[Any]]
    weights_sha256: str
    epoch: int | None = None

    def to_metadata(self) -> dict[str, str]:
        """Names and texts, as ONNX files hold them; values that are no texts are JSON."""
        return {
            PREFIX + name: value if isinstance(value, str) else json.dumps(value)
            for name, value in self._asdict().items()
        }


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of an exported network."""
    return Path(path).suffix.lower() == SUFFIX


def describe_exported(path: str | os.PathLike[str]) -> Description:
    """The description in a file. Raises ExportedError where there is none."""
    file = Path(path)
    changed = file.stat().st_mtime_ns if os.path.isfile(file) else 0
    return _read(file, changed)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> Description:
    """changed: the time of the file's last change, so that a new file is read again."""
    texts = {entry.key: entry.value for entry in load_onnx(path).metadata_props}
    if PREFIX + "settings" not in texts:
        raise ExportedError(
            f"{path}: was not written by `swahr export`: its settings and skeleton are missing"
        )
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(Description).items():
        text = texts.get(PREFIX + name)
        if text is None:
            raise ExportedError(f"{path}: its metadata lack {PREFIX}{name}; export it again")
        values[name] = text if kind is str else _value(path, name, text)
    return Description(**values)


def _value(path: Path, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ExportedError(f"{path}: its metadata {PREFIX}{name} are damaged: {text}") from None


def load_onnx(path: Path) -> Any:
    """The ModelProto of a file. Raises ExportedError where it is none."""
    try:
        import onnx
    except ImportError:
        raise ExportedError(f"{path}: needs onnx: {REMEDY}") from None
    if reason := why_unreadable(path):
        raise ExportedError(f"{path}: {reason}")
    try:
        return onnx.load(path)
    except Exception:  # protobuf and onnx raise their own types for damaged files
        raise ExportedError(
            f"{path}: no ONNX file, or only a part of one (was the copy cut short?)"
        ) from None
