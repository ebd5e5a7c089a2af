"""People in images of one's own: a folder of images, or a video, to COCO-style JSON and drawn
skeletons.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from tqdm import tqdm

from swahr.config import configured_skeleton
from swahr.data.images import Image, read_image
from swahr.distributed import comm
from swahr.engine.progress import setup_logging
from swahr.engine.provenance import find_weights
from swahr.evaluation.results import Record, to_records
from swahr.files import make_folder, write_text
from swahr.inference.load import load_network
from swahr.inference.pipeline import ImageResult, find_people, prefetch
from swahr.inference.predictor import Prediction, Predictor, build_predictor
from swahr.skeleton import Skeleton
from swahr.visualize import draw_people, save_image

WRITABLE = (".jpg", ".jpeg", ".png")  # images of other formats are drawn as .png
JSON_NAME = "people.json"


class InferenceError(ValueError):
    """Images that are not there, or no place for what is drawn; the message says which."""


class Folder:
    """The files of a folder by their names, hidden ones aside."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InferenceError(f"--img_dir {root}: there is no such folder")
        self.names = sorted(
            path.name for path in self.root.iterdir() if path.is_file() and path.name[0] != "."
        )
        if not self.names:
            raise InferenceError(f"--img_dir {root}: the folder holds no files")

    def read(self, name: str) -> Image:
        return read_image(self.root / name)


class Video:
    """A video's frames by their numbers, from 0; each can be read until it is forgotten."""

    def __init__(self, path: str | Path) -> None:
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InferenceError(f"--video {path}: cannot be opened as a video")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.length = max(
            int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        )  # as the file claims; 0 where unknown
        self._frames: dict[int, Image] = {}

    def groups(self, size: int) -> Iterator[list[int]]:
        """The numbers of up to `size` frames at a time, which are then kept in memory."""
        count = 0
        while True:
            group: list[int] = []
            while len(group) < size and (read := self._capture.read())[0]:
                self._frames[count] = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
                group.append(count)
                count += 1
            if not group:
                return
            yield group

    def read(self, number: int) -> Image:
        return self._frames[number]

    def forget(self, number: int) -> None:
        del self._frames[number]


class _Seen(NamedTuple):
    """An image's size (w, h) and people, or the reason why there are none."""

    size: tuple[int, int]
    prediction: Prediction | None
    problem: str = ""


def infer_folder(
    cfg: Any, cfg_path: str | Path, img_dir: str | Path, save_dir: str | Path, threshold: float
) -> dict[str, str]:
    """Write the people of every image of a folder to save_dir: people.json, and the images with
    skeletons drawn.

    Called by all processes alike; each does a part. threshold: the score from which people are
    drawn; the JSON has all. Returns the files that are no images, with the reasons.
    """
    device = comm.select_device(cfg.DEVICE)
    folder = Folder(img_dir)
    save_dir = _check_save_dir(save_dir, folder.root)
    with (
        comm.process_group(device, cfg.DIST_BACKEND),
        ThreadPoolExecutor(max(cfg.WORKERS, 1)) as pool,
    ):
        predictor, skeleton = _build(cfg, cfg_path, device)
        mine = folder.names[comm.rank() :: comm.world_size()]
        step = predictor.batch_size
        groups = [mine[start : start + step] for start in range(0, len(mine), step)]

        def draw(found: ImageResult) -> tuple[str, _Seen]:
            if found.prediction is None:
                return found.image_id, _Seen((0, 0), None, found.problem)
            image = folder.read(found.image_id)
            name = found.image_id
            target = save_dir / (name if name.lower().endswith(WRITABLE) else f"{name}.png")
            save_image(target, _drawn(image, found.prediction, skeleton, threshold))
            return name, _Seen((image.shape[1], image.shape[0]), found.prediction)

        seen: dict[str, _Seen] = {}
        found = find_people(folder, predictor, groups, workers=cfg.WORKERS, skip_bad=True)
        drawn = prefetch(pool, draw, found, cfg.WORKERS)
        main = comm.is_main()
        seen.update(
            tqdm(drawn, total=len(mine), unit="image", dynamic_ncols=True, disable=not main)
        )
        seen = {name: what for part in comm.all_gather(seen) for name, what in part.items()}
        results = [(name, seen[name]) for name in folder.names if not seen[name].problem]
        if main:
            write_text(save_dir / JSON_NAME, _to_json(results, skeleton))
    return {name: seen[name].problem for name in folder.names if seen[name].problem}


def infer_video(
    cfg: Any, cfg_path: str | Path, video: str | Path, save_dir: str | Path, threshold: float
) -> None:
    """Write the people of every frame of a video to save_dir: people.json, and the video (.mp4)
    with skeletons drawn.

    By one process, frame after frame; parameters as of infer_folder.
    """
    device = comm.select_device(cfg.DEVICE)
    source = Video(video)
    seen = []
    save_dir = _check_save_dir(save_dir, Path(video).parent)
    predictor, skeleton = _build(cfg, cfg_path, device)
    target = save_dir / f"{Path(video).stem}.mp4"
    writer = None
    found = find_people(source, predictor, source.groups(predictor.batch_size), workers=cfg.WORKERS)
    for number, people, _ in tqdm(
        found, total=source.length or None, unit="frame", dynamic_ncols=True
    ):
        image = source.read(number)
        size = (image.shape[1], image.shape[0])
        writer = writer or cv2.VideoWriter(
            str(target), cv2.VideoWriter.fourcc(*"mp4v"), source.fps, size
        )
        if not writer.isOpened():
            raise InferenceError(
                f"{target}: this OpenCV cannot write the video, or the disk does not take it"
            )
        writer.write(cv2.cvtColor(_drawn(image, people, skeleton, threshold), cv2.COLOR_RGB2BGR))
        seen.append((f"{Path(video).name}#{number}", _Seen(size, people)))
        source.forget(number)
    if writer is None:
        raise InferenceError(f"--video {video}: it has no frames that can be read")
    writer.release()
    write_text(save_dir / JSON_NAME, _to_json(seen, skeleton))


def _build(cfg: Any, cfg_path: str | Path, device: torch.device) -> tuple[Predictor, Skeleton]:
    setup_logging()
    skeleton = configured_skeleton(cfg)
    return build_predictor(
        cfg, load_network(cfg, find_weights(cfg, cfg_path), device), skeleton, device
    ), skeleton


def _check_save_dir(save_dir: str | Path, source: Path) -> Path:
    path = Path(save_dir)
    if path.resolve() == source.resolve():
        raise InferenceError(
            f"--save_dir {save_dir} is where the images are; they would be drawn over"
        )
    if path.exists() and not path.is_dir():
        raise InferenceError(f"--save_dir {save_dir} is no folder")
    return make_folder(path)


def _drawn(image: Image, people: Prediction | None, skeleton: Skeleton, threshold: float) -> Image:
    """The image with the people who are sure enough, less the joints that are not half as sure."""
    if people is None:
        return image
    sure = people.scores >= threshold
    return draw_people(
        image, people.keypoints[sure], skeleton, people.scores[sure], threshold=threshold / 2
    )


def _to_json(results: Sequence[tuple[str, _Seen]], skeleton: Skeleton) -> str:
    """images, annotations and categories as in COCO's files; keypoints have a score where COCO has
    the visibility.
    """
    images = []
    annotations = list[Record]()
    for number, (name, seen) in enumerate(results, 1):
        images.append(
            {"id": number, "file_name": name, "width": seen.size[0], "height": seen.size[1]}
        )
        annotations += to_records(number, seen.prediction) if seen.prediction else []
    numbered = [{"id": number, **person} for number, person in enumerate(annotations, 1)]
    person = {
        "id": 1,
        "name": "person",
        "keypoints": skeleton.keypoints,
        "skeleton": [(a + 1, b + 1) for a, b in skeleton.limbs],
    }
    return json.dumps({"images": images, "annotations": numbered, "categories": [person]})
