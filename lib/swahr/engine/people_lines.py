"""Lines about people that are written as soon as these are found: JSON lines, and CSV.

Each image's lines are appended at once, by whichever process found its people. So the files can be
followed during a run, and lose nothing when it ends early; with several processes, images come in
the order in which they are done.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from swahr.files import WriteError, write_text

Record = dict[str, Any]
JSON_LINES_NAME = "people.jsonl"
CSV_NAME = "people.csv"
ABOUT_PERSON = ("file_name", "frame", "time", "track_id", "score", "x", "y", "width", "height")


def _write_whole(file: FileIO, data: bytes) -> None:
    """Append data, as a rule in one call, so that lines of several processes do not mix. Of what
    does not fit nothing stays, unless another process has written behind it. Raises OSError.
    """
    written = 0
    try:
        while written < len(data):
            written += file.write(data[written:])
    except OSError:
        if os.fstat(file.fileno()).st_size == file.tell():
            file.truncate(file.tell() - written)
        raise


class LineFile:
    """A file that grows by whole lines. header: what it begins with."""

    def __init__(self, path: Path, header: str = "") -> None:
        self.path = path
        self.header = header

    def begin(self) -> None:
        """Make the file anew, with its header. Raises WriteError."""
        write_text(self.path, self.header)

    def add(self, image: Record, people: Sequence[Record]) -> None:
        """Append the lines of an image and its people, records as in people.json without ids.

        Raises WriteError if the disk is full.
        """
        data = self.lines(image, people).encode("utf-8", "surrogateescape")  # as names on disks are
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            with open(handle, "wb", buffering=0) as file:
                _write_whole(file, data)
        except OSError as error:
            reason = error.strerror or error
            raise WriteError(f"{self.path}: could not be written ({reason})") from None

    def lines(self, image: Record, people: Sequence[Record]) -> str:
        """The text for an image and its people."""
        raise NotImplementedError


class JsonLines(LineFile):
    """people.jsonl: a line for each image, also one without people: its record, with the records of
    its people as "people".
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / JSON_LINES_NAME)

    def lines(self, image: Record, people: Sequence[Record]) -> str:
        return json.dumps({**image, "people": list(people)}) + "\n"


class CsvTable(LineFile):
    """people.csv: a row for each person, with x, y and score of every joint.

    keypoints: the K names. The cells of what is not known are empty: x and y of a joint that was
    not found, frame and time of an image, the id of a person who is not followed.
    """

    def __init__(self, folder: Path, keypoints: Sequence[str]) -> None:
        joints = (f"{name}_{part}" for name in keypoints for part in ("x", "y", "score"))
        super().__init__(folder / CSV_NAME, _rows([[*ABOUT_PERSON, *joints]]))

    def lines(self, image: Record, people: Sequence[Record]) -> str:
        return _rows([self._row(image, person) for person in people])

    def _row(self, image: Record, person: Record) -> list[Any]:
        known = image | person | dict(zip(ABOUT_PERSON[-4:], person["bbox"]))
        cells = [known.get(name) for name in ABOUT_PERSON]
        points = person["keypoints"]
        for index, score in enumerate(person["keypoint_scores"]):
            x, y, visibility = points[3 * index : 3 * index + 3]
            cells += [x, y, score] if visibility else [None, None, score]
        return cells


def _rows(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
