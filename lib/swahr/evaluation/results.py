"""COCO result records: made from predictions, written atomically, and kept while a run produces
them.

A record has the fields that COCO's server accepts: image_id, category_id, keypoints
[x, y, score] * K in image pixels, and score. It also has bbox, the box (x, y, width, height) around
the K points, as in the published results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import json_tricks
import numpy as np
from numpy.typing import NDArray

from swahr.evaluation.records import Record
from swahr.files import WriteError, write_text

DECIMALS = 4  # of a pixel; more only makes files longer


class PeopleFound(Protocol):
    """The people of one image: keypoints (P, K, 3) as x, y, score in image pixels; scores (P,)."""

    @property
    def keypoints(self) -> NDArray[np.floating]: ...

    @property
    def scores(self) -> NDArray[np.floating]: ...


def to_records(image_id: int, prediction: PeopleFound, category_id: int = 1) -> list[Record]:
    """One record for each of the P people found in an image, in their order."""
    keypoints = np.asarray(prediction.keypoints, np.float64)
    if not len(keypoints):
        return []
    low = keypoints[..., :2].min(1)
    high = keypoints[..., :2].max(1)
    boxes = np.concatenate([low, high - low], 1).round(DECIMALS).tolist()
    points = keypoints.reshape(len(keypoints), -1).round(DECIMALS).tolist()
    scores = np.asarray(prediction.scores, np.float64).tolist()
    return [
        {
            "image_id": int(image_id),
            "category_id": int(category_id),
            "keypoints": flat,
            "score": score,
            "bbox": box,
        }
        for flat, score, box in zip(points, scores, boxes)
    ]


def write_results(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as one JSON list that can be uploaded; NumPy numbers and arrays become plain
    ones.
    """
    write_text(path, json_tricks.dumps(list(records), primitives=True))


class PartFiles:
    """The records of a run in progress: in one folder, a file of JSON lines [image_id, records] for
    each rank.

    fingerprint: part of the file names that tells this run from others in the folder. Files of
    other runs are not read; `clear` removes them. An incomplete line of a killed process is
    ignored.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.folder = Path(folder)
        self.fingerprint = fingerprint

    def read(self) -> dict[int, list[Record]]:
        """Records by image id, of all ranks of this run so far."""
        found: dict[int, list[Record]] = {}
        for path in sorted(self.folder.glob(f"part-{self.fingerprint}-*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    image_id, records = json.loads(line)
                except ValueError:
                    continue
                found[image_id] = records
        return found

    def clear(self, keep: Mapping[int, Sequence[Record]] | None = None) -> None:
        """Remove the files of every run. What is to be kept is written to one file first, so that
        nothing is ever lost.
        """
        kept = self.folder / f"part-{self.fingerprint}-kept.jsonl"
        if keep:
            write_text(kept, "".join(_line(*item) for item in keep.items()))
        for path in self.folder.glob("part-*.jsonl"):
            if not keep or path != kept:
                path.unlink(missing_ok=True)

    def append(self, rank: int, image_id: int, records: Sequence[Record]) -> None:
        """Add the records of an image to the file of a rank. WriteError if the disk is full."""
        path = self.folder / f"part-{self.fingerprint}-{rank}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(_line(image_id, records))
        except OSError as error:
            raise WriteError(f"{path}: could not be written ({error.strerror or error})") from None


def _line(image_id: int, records: Sequence[Record]) -> str:
    return json_tricks.dumps([image_id, records], primitives=True) + "\n"
