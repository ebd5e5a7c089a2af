"""COCO result records: made from predictions, written whole or not at all, and kept as they are
produced.

A record is what the servers of COCO take: image_id, category_id, keypoints [x, y, score] * K in
image pixels, score; and bbox, the box (x, y, width, height) around the K points, as the published
results have it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import json_tricks
import numpy as np
from numpy.typing import NDArray

from swahr.files import WriteError, write_text

Record = dict[str, Any]
DECIMALS = 4  # of a pixel; more would only make the files longer


class PeopleFound(Protocol):
    """What records are made from: keypoints (P, K, 3) as x, y, score in image pixels, and scores
    (P,).
    """

    @property
    def keypoints(self) -> NDArray[np.floating]: ...

    @property
    def scores(self) -> NDArray[np.floating]: ...


def to_records(image_id: int, prediction: PeopleFound, category_id: int = 1) -> list[Record]:
    """One record for each of the P people found in an image, in their order; [] where there is
    nobody.
    """
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
    """Write records as one JSON list that can be uploaded; NumPy numbers and arrays are written as
    plain ones.
    """
    write_text(path, json_tricks.dumps(list(records), primitives=True))


class PartFiles:
    """The records of a run in progress: a file of JSON lines [image_id, records] for each process,
    in one folder.

    run: what sets this run apart from others in the folder, as part of a file name; files of other
    runs are not read, and removed by `clear`. A line that a killed process left half written counts
    as not there.
    """

    def __init__(self, folder: str | Path, run: str) -> None:
        self.folder = Path(folder)
        self.run = run

    def read(self) -> dict[int, list[Record]]:
        """Records by image, of all processes of this run so far."""
        found: dict[int, list[Record]] = {}
        for path in sorted(self.folder.glob(f"part-{self.run}-*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    image_id, records = json.loads(line)
                except ValueError:
                    continue
                found[image_id] = records
        return found

    def clear(self, keep: Mapping[int, Sequence[Record]] | None = None) -> None:
        """Remove the parts of every run; what is to be kept is in one file before, so that nothing
        is ever lost.
        """
        kept = self.folder / f"part-{self.run}-kept.jsonl"
        if keep:
            write_text(kept, "".join(_line(*item) for item in keep.items()))
        for path in self.folder.glob("part-*.jsonl"):
            if not keep or path != kept:
                path.unlink(missing_ok=True)

    def append(self, process: int, image_id: int, records: Sequence[Record]) -> None:
        """Keep the records of an image, in the file of process number `process`. WriteError where
        the disk is full.
        """
        path = self.folder / f"part-{self.run}-{process}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(_line(image_id, records))
        except OSError as error:
            raise WriteError(f"{path}: could not be written ({error.strerror or error})") from None


def _line(image_id: int, records: Sequence[Record]) -> str:
    return json_tricks.dumps([image_id, records], primitives=True) + "\n"
