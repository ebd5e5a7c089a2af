from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from swahr.config import load_config
from swahr.data.images import ImageError
from swahr.data.keypoints import KeypointDataset
from swahr.distributed import comm
from swahr.engine.validate import (
    find_people,
    find_weights,
    fingerprint,
    predict,
    prefetch,
    validate,
)
from swahr.evaluation.metrics import evaluate
from swahr.evaluation.results import PartFiles
from swahr.inference.predictor import PredictionError
from swahr.models.build import build_model
from swahr.models.weights import CheckpointError
from swahr.skeleton import Skeleton
from tests.inference.toy_predictor import image, predictor

SPOTS = Skeleton("spots", ("red", "green"), (), (0.1, 0.1))
# Image id -> size and people; the order of the ids is not that of the sizes.
SCENES: dict[int, tuple[int, int, list[tuple[int, int]]]] = {
    9: (128, 64, [(20, 20), (100, 30)]),
    2: (64, 64, []),
    7: (60, 100, [(40, 50)]),
    4: (128, 64, [(60, 20)]),
    5: (64, 128, [(30, 20), (30, 90)]),
}


@pytest.fixture
def spots(tmp_path: Path) -> KeypointDataset:
    people = []
    images = []
    (tmp_path / "images").mkdir()
    for image_id, (width, height, places) in SCENES.items():
        cv2.imwrite(
            str(tmp_path / "images" / f"{image_id}.png"), image(width, height, places)[..., ::-1]
        )
        images.append(
            {"id": image_id, "file_name": f"{image_id}.png", "width": width, "height": height}
        )
        people += [
            {
                "id": len(people) + i + 1,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "num_keypoints": 2,
                "keypoints": [x, y, 2, x, y + 20, 2],
                "bbox": [x - 8, y - 8, 16, 36],
                "area": 4000,
            }
            for i, (x, y) in enumerate(places)
        ]
    content = {
        "images": images,
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(SPOTS.keypoints)}],
    }
    (tmp_path / "spots.json").write_text(json.dumps(content))
    return KeypointDataset(tmp_path / "spots.json", tmp_path / "images", SPOTS)


def seen_by(people: Any) -> list[tuple[int, ...]]:
    """Shapes of the batches that a predictor's network gets from now on."""
    shapes = []
    network = people.model

    def watched(images: torch.Tensor) -> Any:
        shapes.append(tuple(images.shape))
        return network(images)

    people.model = watched
    return shapes


def test_everybody_is_found_in_the_order_of_the_images(spots: KeypointDataset) -> None:
    records = predict(spots, predictor())
    assert [record["image_id"] for record in records] == [9, 9, 7, 4, 5, 5]
    assert evaluate(spots.coco, records, SPOTS)["AP"] == 1
    assert predict(spots, predictor(), [5, 9]) == records[4:] + records[:2]


@pytest.mark.parametrize(("batch_size", "workers"), [(2, 0), (8, 1), (3, 8)])
def test_batches_and_threads_change_nothing(
    spots: KeypointDataset, batch_size: int, workers: int
) -> None:
    assert predict(spots, predictor(batch_size=batch_size), workers=workers) == predict(
        spots, predictor()
    )


def test_images_of_one_size_share_batches(spots: KeypointDataset) -> None:
    people = predictor(batch_size=8)
    shapes = seen_by(people)
    predict(spots, people)
    assert sorted(shapes) == [(2, 3, 64, 64), (4, 3, 64, 128), (4, 3, 128, 64)]


def in_processes(
    monkeypatch: pytest.MonkeyPatch, count: int, function: Callable[[], Any]
) -> list[Any]:
    """What function() gives in each process of a group, played by threads."""
    place = threading.local()
    everybody = threading.Barrier(count, timeout=60)
    values = [None] * count

    def all_gather(value: Any) -> list[Any]:
        values[place.rank] = value
        everybody.wait()
        gathered = list(values)
        everybody.wait()
        return gathered

    def run(rank: int) -> Any:
        place.rank = rank
        return function()

    with monkeypatch.context() as patch, ThreadPoolExecutor(count) as pool:
        patch.setattr(comm, "rank", lambda: place.rank)
        patch.setattr(comm, "world_size", lambda: count)
        patch.setattr(comm, "all_gather", all_gather)
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_sharing_out_changes_nothing(
    spots: KeypointDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int
) -> None:
    whole = predict(spots, predictor())
    parts = PartFiles(tmp_path / "parts", "run")
    results = in_processes(monkeypatch, count, lambda: predict(spots, predictor(), parts=parts))
    assert results == [whole] * count
    shares = [len(path.read_text().splitlines()) for path in (tmp_path / "parts").iterdir()]
    assert sum(shares) == 5 and len(shares) == min(count, 5)
    parts.append(6, 9, [])  # an earlier run of more processes found nobody in image 9
    results = in_processes(
        monkeypatch, count, lambda: predict(spots, predictor(), parts=parts, resume=True)
    )
    assert results == [[record for record in whole if record["image_id"] != 9]] * count


def test_a_set_of_one_image_and_an_image_with_nobody(spots: KeypointDataset) -> None:
    assert len(predict(spots, predictor(), [4])) == 1
    assert predict(spots, predictor(), [2]) == [] == predict(spots, predictor(), [])


def test_a_run_cut_off_goes_on_where_it_was(spots: KeypointDataset, tmp_path: Path) -> None:
    parts = PartFiles(tmp_path / "parts", "run")
    whole = predict(spots, predictor())
    assert predict(spots, predictor(), parts=parts) == whole
    assert {image: len(records) for image, records in parts.read().items()} == {
        9: 2,
        2: 0,
        7: 1,
        4: 1,
        5: 2,
    }
    kept = {image: records for image, records in parts.read().items() if image in (9, 2, 5)}
    parts.clear(keep=kept)
    people = predictor()
    shapes = seen_by(people)
    assert predict(spots, people, parts=parts, resume=True) == whole
    assert len(shapes) == 2  # the images 7 and 4
    shapes.clear()
    assert predict(spots, people, parts=parts, resume=True) == whole and not shapes
    assert predict(spots, people, parts=parts) == whole and len(shapes) == 5


def test_bad_images_stop_or_are_left_out_and_named(
    spots: KeypointDataset, caplog: pytest.LogCaptureFixture
) -> None:
    whole = predict(spots, predictor())
    path = Path(spots.images.path("7.png"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"image 7: .*7.png"):
        predict(spots, predictor())
    with caplog.at_level(logging.WARNING, "swahr"):
        assert predict(spots, predictor(), skip_bad=True) == [
            record for record in whole if record["image_id"] != 7
        ]
    assert "left out: image 7: " in caplog.text and "7.png" in caplog.text


class Threads:
    def read(self, image_id: str) -> np.ndarray:
        return np.zeros((30000 if image_id == "thin" else 64, 2, 3), np.uint8)


def test_images_too_thin_are_named_too() -> None:
    with pytest.raises(
        PredictionError, match="image thin: an image of 2 x 30000 pixels is too long and thin"
    ):
        list(find_people(Threads(), predictor(), [["thin"]]))
    [found] = find_people(Threads(), predictor(), [["thin"]], skip_bad=True)
    assert (
        found.image_id == "thin"
        and found.prediction is None
        and "too long and thin" in found.problem
    )


def test_ahead_keeps_the_order_and_its_distance() -> None:
    taken = []

    def items() -> Any:
        for i in range(6):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(3) as pool:
        results = prefetch(pool, lambda i: i * i, items(), 2)
        assert next(results) == 0 and taken == [0, 1, 2]
        assert list(results) == [1, 4, 9, 16, 25]
        assert list(prefetch(pool, str, [], 2)) == []


@pytest.fixture
def weights(config_file: Path) -> Path:
    torch.manual_seed(0)
    path = config_file.with_suffix(".pth")
    torch.save(build_model(load_config(config_file)).state_dict(), path)
    return path


def loaded(config_file: Path, *opts: Any) -> Any:
    return load_config(config_file, [str(opt) for opt in opts])


def test_validation_leaves_results_and_a_table(
    config_file: Path, weights: Path, tmp_path: Path
) -> None:
    cfg = loaded(config_file, "TEST.DETECTION_THRESHOLD", 0, "TEST.FLIP_TEST", True)
    stats = validate(cfg, folder=tmp_path / "run", weights=weights)
    assert list(stats)[:3] == ["AP", "AP .5", "AP .75"]
    files = {path.name: path.read_text() for path in (tmp_path / "run/results").iterdir()}
    assert set(files) == {"keypoints_val2017_results.json", "keypoints_val2017_results.md"}
    records = json.loads(files["keypoints_val2017_results.json"])
    assert records and {len(record["keypoints"]) for record in records} == {51}
    assert files["keypoints_val2017_results.md"].startswith("| Arch | AP | AP .5 |")


def test_training_gets_its_network_back_as_it_was(
    config_file: Path, weights: Path, tmp_path: Path
) -> None:
    cfg = loaded(config_file)
    model = build_model(cfg)
    model.load_state_dict(torch.load(weights, weights_only=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stats = validate(cfg, model.train(), folder=tmp_path / "run")
    assert model.training and all(
        torch.equal(value, before[name]) for name, value in model.state_dict().items()
    )
    assert stats == validate(cfg, folder=tmp_path / "again", weights=weights)


def test_nobody_at_all_scores_zero(config_file: Path, weights: Path, tmp_path: Path) -> None:
    stats = validate(
        loaded(config_file, "TEST.DETECTION_THRESHOLD", 1e9), folder=tmp_path, weights=weights
    )
    assert set(stats.values()) == {0.0}
    assert (tmp_path / "results/keypoints_val2017_results.json").read_text() == "[]"


def test_without_annotations_there_are_results_but_no_score(
    config_file: Path, weights: Path, tmp_path: Path, images: Path
) -> None:
    content = json.loads((images / "annotations/person_keypoints_val2017.json").read_text())
    del content["annotations"]
    (tmp_path / "set/annotations").mkdir(parents=True)
    (tmp_path / "set/annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    (tmp_path / "set/images").mkdir()
    (tmp_path / "set/images/test2017").symlink_to(images / "images/val2017")
    cfg = loaded(config_file, "DATASET.ROOT", tmp_path / "set", "DATASET.TEST", "test-dev2017")
    assert validate(cfg, folder=tmp_path, weights=weights) == {}
    assert [path.name for path in (tmp_path / "results").iterdir()] == [
        "keypoints_test-dev2017_results.json"
    ]


def test_the_weights_are_those_named_or_the_best_of_the_run(
    config_file: Path, weights: Path, tmp_path: Path
) -> None:
    assert find_weights(loaded(config_file, "TEST.MODEL_FILE", weights), config_file) == weights
    cfg = loaded(config_file)
    run = tmp_path / "output/coco_kpt/pose_higher_hrnet/tiny"
    with pytest.raises(
        ValueError,
        match=r"no weights to test with: TEST.MODEL_FILE is empty, and .*/tiny has neither "
        r"model_best.pth.tar nor final_state.pth.tar",
    ):
        find_weights(cfg, config_file)
    run.mkdir(parents=True)
    for name in ("final_state.pth.tar", "model_best.pth.tar"):
        (run / name).touch()
        assert find_weights(cfg, config_file) == run / name
    with pytest.raises(CheckpointError, match="nothing.pth: no such file"):
        validate(cfg, folder=tmp_path, weights=tmp_path / "nothing.pth")


def test_runs_are_told_apart_by_what_decides_their_results(
    config_file: Path, weights: Path
) -> None:
    def name(*opts: Any) -> str:
        return fingerprint(loaded(config_file, *opts), weights)

    same = [("TEST.RESUME", True), ("TEST.IMAGES_PER_GPU", 3), ("WORKERS", 7), ("TRAIN.LR", 0.5)]
    others: Sequence[Sequence[Any]] = [
        ("TEST.FLIP_TEST", True),
        ("TEST.SCALE_FACTOR", [0.5, 1]),
        ("DATASET.TEST", "x"),
    ]
    assert {name(*opts) for opts in same} == {name()}
    assert len({name(), *(name(*opts) for opts in others)}) == 4
    before = name()
    weights.write_bytes(weights.read_bytes() + b"0")
    assert name() != before
