"""A made data set as large as COCO's training set, and what it takes to have it open: coco_sized.py
CONFIG ROOT.

Prints, as JSON and in MiB, the most memory that opening it took, what each loading worker has to
itself after it has looked at every annotation and given a batch, and what all processes take
together.
"""

from __future__ import annotations

import copy
import json
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader, get_worker_info

from swahr.config import load_config
from swahr.data.keypoints import build_dataset
from swahr.data.loaders import build_train_loader
from swahr.skeleton import COCO

IMAGES = 118_287
PEOPLE = 262_465
WITH_PEOPLE = 64_115  # of COCO's train2017; the last: images with people
WIDTH = 640
HEIGHT = 480
WORKERS = 8


def write(root: Path) -> None:
    """Annotations of people, a hundredth of them crowds, three in five with keypoints. The images
    are in a zip file whose entries all lead to the same image.
    """
    rng = np.random.default_rng(0)
    people = [person(rng) for _ in range(1000)]
    owners = np.concatenate(
        [np.arange(WITH_PEOPLE), rng.integers(0, WITH_PEOPLE, PEOPLE - WITH_PEOPLE)]
    )
    names = [f"{number:012}.jpg" for number in range(1, IMAGES + 1)]
    images = (
        f'{{"id":{i},"file_name":"{name}","width":{WIDTH},"height":{HEIGHT},"license":3,"date_captured":'
        f'"2013-11-14 17:02:52","coco_url":"http://images.cocodataset.org/train2017/{name}"}}'
        for i, name in enumerate(names, 1)
    )
    annotations = (
        f'{{"id":{i},"image_id":{owner + 1},{people[i % len(people)]}}}'
        for i, owner in enumerate(owners.tolist(), 1)
    )
    category = json.dumps({"id": 1, "name": "person", "keypoints": list(COCO.keypoints)})
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/person_keypoints_train2017.json").write_text(
        f'{{"images":[{",".join(images)}],"annotations":[{",".join(annotations)}],"categories":[{category}]}}'
    )
    (root / "images").mkdir()
    image = cv2.imencode(".jpg", rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
    with zipfile.ZipFile(root / "images/train2017.zip", "w") as archive:
        archive.writestr(names[0], image)
        for name in names[1:]:
            entry = copy.copy(archive.filelist[0])
            entry.filename = name
            archive.filelist.append(entry)


def person(rng: np.random.Generator) -> str:
    """The fields of an annotation, its ids aside."""
    seen = rng.integers(1, 3, (17, 1)) * (rng.random() < 0.6)
    keypoints = np.hstack([rng.integers(0, (WIDTH, HEIGHT), (17, 2)) * (seen > 0), seen])
    crowd = rng.random() < 0.01
    outline = (
        {"size": [HEIGHT, WIDTH], "counts": [1000] * 300 + [WIDTH * HEIGHT - 300_000]}
        if crowd
        else [rng.uniform(0, HEIGHT, 2 * int(rng.integers(10, 50))).round(2).tolist()]
    )
    fields = {
        "category_id": 1,
        "iscrowd": int(crowd),
        "area": 12345.67,
        "bbox": [10.25, 20.5, 300.75, 200.125],
        "num_keypoints": int((seen > 0).sum()),
        "keypoints": keypoints.flatten().tolist(),
        "segmentation": outline,
    }
    return json.dumps(fields, separators=(",", ":"))[1:-1]


def memory(pid: int | str, *kinds: str) -> float:
    """MiB of a process: the sum of some entries of /proc/PID/status or smaps_rollup."""
    text = "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "smaps_rollup"))
    wanted = tuple(f"{kind}:" for kind in kinds)
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(wanted)) / 1024


def look_at_everything(worker: int) -> None:
    """Read every annotation, and a quarter of the outlines: what is a Python object is copied into
    this process by it.
    """
    dataset = get_worker_info().dataset.dataset
    for number, image_id in enumerate(dataset.image_ids):
        dataset.image_info(image_id)
        dataset.joints(image_id)
        if number % 4 == 0:  # parsing them takes longer than all the rest
            dataset.arrays.outlines(image_id)


def measure(config: str, root: str) -> dict[str, object]:
    cfg = load_config(
        config, ["DATASET.ROOT", root, "DATASET.DATA_FORMAT", "zip", "WORKERS", str(WORKERS)]
    )
    dataset = build_dataset(cfg, cfg.DATASET.TRAIN, train=True)
    peak = memory("self", "VmHWM")
    loader: DataLoader = build_train_loader(cfg, dataset)
    start = loader.worker_init_fn
    loader.worker_init_fn = lambda worker: (start(worker), look_at_everything(worker))
    batches = iter(loader)
    shapes = {tuple(next(batches).images.shape) for _ in range(WORKERS)}
    workers = [process.pid for process in batches._workers]
    return {
        "images": len(dataset),
        "people": len(dataset.arrays.labelled),
        "shapes": sorted(shapes),
        "peak": peak,
        "own": [memory(pid, "Private_Clean", "Private_Dirty") for pid in workers],
        "together": sum(memory(pid, "Pss") for pid in ["self", *workers]),
    }


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
