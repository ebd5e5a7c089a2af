"""Matches and precision are those of the COCO evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from swahr.evaluation.matching import (
    MAX_FOUND,
    average_precision,
    load_run,
    match,
    precision_recall,
)
from swahr.evaluation.metrics import EvaluationError, evaluate
from tests.report.made import SKELETON, found, person, random_set, truth, unlabel


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", ["coco", "crowd_pose"])
def test_figures_are_those_of_the_evaluation(seed: int, protocol: str) -> None:
    annotations, records = random_set(seed)
    stats = evaluate(annotations, records, SKELETON, protocol)
    run = load_run(annotations, records, SKELETON, protocol)
    precision, recall = precision_recall(run, match(run))
    ours = {
        "AP": precision.mean(),
        "AP .5": precision[0].mean(),
        "AP .75": precision[5].mean(),
        "AR": recall.mean(),
        "AR .5": recall[0],
    }
    assert 0.02 < stats["AP"] < 0.98
    assert ours == pytest.approx({name: stats[name] for name in ours}, abs=1e-12)


@pytest.mark.parametrize(("name", "low", "high"), [("(M)", 32, 96), ("(L)", 96, 1e5)])
def test_people_who_are_ignored_are_as_in_area_ranges(name: str, low: float, high: float) -> None:
    annotations, records = random_set(5)
    run = load_run(annotations, records, SKELETON)
    sizes = np.sqrt(run.truth.areas)
    boxes = np.sqrt(run.found.boxes[:, 2] * run.found.boxes[:, 3])
    matches = match(
        run,
        counted=(sizes >= low) & (sizes <= high),
        found_counted=(boxes >= low) & (boxes <= high),
    )
    stats = evaluate(annotations, records, SKELETON)
    assert average_precision(run, matches) == pytest.approx(stats[f"AP {name}"], abs=1e-12)


def test_weighted_images_are_images_that_are_there_several_times() -> None:
    annotations, records = random_set(1)
    run = load_run(annotations, records, SKELETON)
    weights = np.arange(len(run.truth.image_ids)) % 3
    copies = truth(images=0)
    copied = []
    for image, weight in zip(run.truth.image_ids.tolist(), weights.tolist()):
        for _ in range(weight):
            number = len(copies["images"]) + 1
            copies["images"].append({"id": number, "file_name": f"{number}.png"})
            for annotation in annotations["annotations"]:
                if annotation["image_id"] == image:
                    copies["annotations"].append({**annotation, "image_id": number})
            copied += [
                {**record, "image_id": number} for record in records if record["image_id"] == image
            ]
    expected = evaluate(copies, copied, SKELETON)
    precision, recall = precision_recall(run, match(run), weights)
    assert precision.mean() == pytest.approx(expected["AP"], abs=1e-9)
    assert recall.mean() == pytest.approx(expected["AR"], abs=1e-12)


@pytest.mark.parametrize("protocol", ["coco", "crowd_pose"])
def test_a_changed_run_is_that_of_changed_records(protocol: str) -> None:
    annotations, records = random_set(4)
    run = load_run(annotations, records, SKELETON, protocol)
    random = np.random.default_rng(0)
    keypoints = run.found.keypoints + random.normal(0, 5, run.found.keypoints.shape)
    keypoints[::3] = run.found.keypoints[::3]
    scores = random.random(len(keypoints))
    removed = scores < 0.3
    changed = run.with_keypoints(keypoints).without(removed)
    changed = changed.with_scores(scores[~removed])
    images = run.truth.image_ids[run.found.image]
    made = [
        {"image_id": image, "category_id": 1, "keypoints": points, "score": score}
        for image, points, score in zip(
            images[~removed].tolist(),
            keypoints[~removed].reshape(-1, 15).tolist(),
            scores[~removed].tolist(),
        )
    ]
    expected = load_run(annotations, made, SKELETON, protocol)
    assert np.array_equal(changed.found.keypoints, expected.found.keypoints)
    assert np.array_equal(changed.found.scores, expected.found.scores)
    labelled = ~run.truth.ignored[expected.pairs[1]]
    assert changed.oks[labelled] == pytest.approx(expected.oks[labelled], abs=1e-12)
    assert 0.1 < expected.oks[labelled].mean() < 0.9


def test_each_detection_has_its_person() -> None:
    annotations = truth(person(1, 1), person(2, 2, 0), person(3, 2, 1), images=3)
    records = [found(2, 1, 0.3), found(2, 0, 0.8), found(1, 0, 0.5), found(1, 1, 0.6)]
    run = load_run(annotations, records, SKELETON)
    assert run.found.scores.tolist() == [0.6, 0.5, 0.8, 0.3]
    assert match(run).person[0].tolist() == [-1, 0, 1, 2]
    detection, people = run.pairs
    assert detection.tolist() == [0, 1, 2, 2, 3, 3]
    assert people.tolist() == [0, 0, 1, 2, 1, 2]


def test_a_crowd_takes_any_number_of_detections() -> None:
    crowd = person(1, iscrowd=1, num_keypoints=0, keypoints=[0] * 15)
    nobody = person(2, place=1, num_keypoints=0, keypoints=[0] * 15)
    records = [found(place=0), found(place=0, score=0.8), found(place=1), found(place=1, score=0.8)]
    run = load_run(truth(crowd, nobody, person(3, place=2)), records, SKELETON)
    matches = match(run)
    assert matches.person[0].tolist() == [0, 1, 0, -1]
    assert matches.ignored[0].tolist() == [True, True, True, False]


def test_only_the_detections_with_the_highest_scores_count() -> None:
    records = [found(score=number / 100) for number in range(30)]
    run = load_run(truth(person(1)), records, SKELETON)
    assert len(run.found.scores) == MAX_FOUND
    assert run.found.scores.min() == 0.1


def test_nobody_found_and_nobody_there() -> None:
    run = load_run(truth(person(1)), [], SKELETON)
    assert average_precision(run, match(run)) == 0
    run = load_run(truth(), [found()], SKELETON)
    assert average_precision(run, match(run)) == -1


def test_an_area_that_is_not_given_is_a_part_of_the_box() -> None:
    annotation = person(1)
    del annotation["area"], annotation["num_keypoints"], annotation["iscrowd"]
    run = load_run(truth(annotation, unlabel(person(2), 0)), [], SKELETON)
    assert run.truth.areas.tolist() == [0.53 * 100 * 200, 10000]
    assert not run.truth.ignored.any()


def test_boxes_lie_around_the_joints_that_were_found() -> None:
    """The record has the others at 0, 0. AP by area stays that of COCO, which has them too."""
    some, without_scores = found(off=0), found(off=0, score=0.8)
    some["keypoints"][:3] = [0, 0, 0]
    without_scores["keypoints"][2::3] = [0] * 5
    annotations = truth(person(1))
    run = load_run(annotations, [some, without_scores], SKELETON)
    assert run.found.has_joint.tolist() == [[False] + [True] * 4, [True] * 5]
    assert run.found.boxes.tolist() == [[50, 150, 100, 100], [50, 50, 100, 200]]
    assert load_run(annotations, [], SKELETON).found.boxes.shape == (0, 4)


def test_people_of_two_categories_are_refused() -> None:
    said = r"2 categories \(ids 1, 2\): annotations and results must all have the same category_id"
    with pytest.raises(EvaluationError, match=said):
        load_run(truth(person(1), person(2, category_id=2)), [], SKELETON)
