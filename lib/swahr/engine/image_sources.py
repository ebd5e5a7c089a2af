"""What inference reads: image files, folders and globs of them, and what else a source can be. The
frames of videos: see video.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from swahr.data.images import Image, ImageError, read_image

WRITABLE = (".jpg", ".jpeg", ".png")  # images of other formats are drawn as .png
VIDEOS = frozenset(
    f".{name}"
    for name in ("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts")
    + ("ogv", "ts", "webm", "wmv")
)
ARCHIVES = (".7z", ".rar", ".tar", ".tgz", ".zip")


class InferenceError(ValueError):
    """Images that do not exist, or a place that results cannot be written to; the message names
    it.
    """


class ImageFiles:
    """Image files, by names that are their paths below the folder that holds them all.

    sources: image files, folders, and globs such as 'photos/**/*.jpg'. recursive: also read the
    folders in a folder; otherwise they are in `skipped_folders`. exclude: a folder that is never
    read, such as that of the results, unless a source names it or what is in it. Hidden files and
    folders in a folder are ignored, and files that several sources name are read once. `excluded`
    counts what globs match in that folder. Raises InferenceError if a source does not exist or has
    no files, and for the only source if it is an archive, a pipe or a device.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        *,
        recursive: bool = False,
        exclude: str | Path | None = None,
    ) -> None:
        self.title = ", ".join(map(str, sources[:3])) + (", ..." if len(sources) > 3 else "")
        self.skipped_folders: list[Path] = []
        self.excluded = 0
        if len(sources) == 1 and (reason := why_no_image(sources[0])):
            raise InferenceError(f"{sources[0]}: {reason}")
        self._recursive = recursive
        self._exclude = "" if exclude is None else os.path.realpath(exclude)
        paths: dict[Path, None] = {}  # an ordered set
        folders: list[Path] = []
        for source in sources:
            for path in self._outside(_expand(source)):
                if path.is_dir():
                    folders.append(path)
                    paths |= dict.fromkeys(self._files_in(path))
                else:
                    folders.append(path.parent)
                    paths[path] = None
        if not paths:
            deeper = len(self.skipped_folders)
            hint = f" outside its {deeper} folder(s); --recursive reads these" if deeper else ""
            raise InferenceError(f"{self.title}: the folder holds no files{hint}")
        root = os.path.commonpath(folders)
        self.paths = {path.relative_to(root).as_posix(): path for path in paths}
        self.names = list(self.paths)

    def read(self, name: str) -> Image:
        """The image as viewers show it: turned as its EXIF orientation says. Raises ImageError."""
        path = self.paths[name]
        if is_video(path):
            raise ImageError(f"{path}: is a video, a source of its own; run swahr predict on it")
        if reason := why_no_image(path):
            raise ImageError(f"{path}: {reason}")
        return read_image(path, honour_exif=True)

    def drawn_names(self) -> dict[str, str]:
        """The name under which each image is drawn: its own name if that is a format that can be
        written, else with .png behind it, or -2.png if there is such an image, and so on.
        """
        drawn = {name: name for name in self.names if name.lower().endswith(WRITABLE)}
        used = set(drawn)
        for name in self.names:
            if name in drawn:
                continue
            target = f"{name}.png"
            count = 2
            while target in used:
                target = f"{name}-{count}.png"
                count += 1
            drawn[name] = target
            used.add(target)
        return drawn

    def _outside(self, paths: list[Path]) -> list[Path]:
        """The paths of a source that are not in the excluded folder; all of them if all are, as the
        source then names what is in that folder.
        """
        outside = [path for path in paths if not self._excludes(path)]
        if not outside:
            return paths
        self.excluded += len(paths) - len(outside)
        return outside

    def _excludes(self, path: Path) -> bool:
        folder = os.path.realpath(path if path.is_dir() else path.parent)
        return bool(self._exclude) and Path(folder).is_relative_to(self._exclude)

    def _files_in(self, folder: Path) -> Iterator[Path]:
        """The files of a folder in the order of their paths."""
        files: list[Path] = []
        seen = {os.path.realpath(folder)}  # links to folders can lead back
        for parent, children, names in os.walk(folder, followlinks=True):
            files += [Path(parent, name) for name in names if name[0] != "."]
            deeper = []
            for child in children:
                place = os.path.realpath(os.path.join(parent, child))
                if child[0] != "." and place not in seen and place != self._exclude:
                    seen.add(place)
                    deeper.append(child)
            if not self._recursive:
                self.skipped_folders += [Path(parent, child) for child in sorted(deeper)]
                deeper = []
            children[:] = deeper
        yield from sorted(files)


def is_video(source: str | Path) -> bool:
    """Whether a source is a video file by its ending, an address, or the number of a camera."""
    text = str(source)
    if "://" in text:
        return True
    if text.isdecimal():
        return not Path(text).exists()
    return Path(text).suffix.lower() in VIDEOS


def why_no_image(path: str | os.PathLike[str]) -> str:
    """Why what is at a path holds no image, and what to do; '' for folders, paths where nothing is,
    and other files, of which the decoder says it.
    """
    place = os.path.expanduser(path)
    if not os.path.exists(place) or os.path.isdir(place):
        return ""
    if not os.path.isfile(place):  # reading a pipe would wait
        return "is a pipe or a device, not a regular file; give image files"
    if Path(place).suffix.lower() in ARCHIVES:
        return "is an archive; unpack it, and give the folder"
    return ""


def _expand(source: str | Path) -> list[Path]:
    """The absolute paths that a source names: itself if it exists, else what it matches as a
    glob.
    """
    text = os.path.expanduser(source)
    found = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
    if not found:
        raise InferenceError(f"{source}: there is no such file or folder, and nothing matches it")
    return [Path(os.path.abspath(path)) for path in found]
