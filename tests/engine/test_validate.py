from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from swahr import cli
from swahr.codec.tile_bounds import NonFiniteError
from swahr.commands.report import write_validation_report
from swahr.config import load_config
from swahr.data.images import ImageError
from swahr.data.keypoints import KeypointDataset
from swahr.distributed import comm
from swahr.engine.validate import (
    Validation,
    ValidationReport,
    predict,
    validate,
    validate_weights,
    write_report,
)
from swahr.evaluation.metrics import METRICS, evaluate
from swahr.evaluation.results import PartFiles
from swahr.evaluation.scores import MetricError
from swahr.inference.predictor import Predictor
from swahr.models.build import build_model
from swahr.models.weights import CheckpointError
from swahr.report.page import ReportError
from swahr.skeleton import COCO, Skeleton
from tests.inference.toy_predictor import image, predictor

SKELETON = Skeleton("toy", ("red", "green"), (), (0.1, 0.1))
# Image id -> size and people; the order of the ids is not that of the sizes.
SCENES: dict[int, tuple[int, int, list[tuple[int, int]]]] = {
    9: (128, 64, [(20, 20), (100, 30)]),
    2: (64, 64, []),
    7: (60, 100, [(40, 50)]),
    4: (128, 64, [(60, 20)]),
    5: (64, 128, [(30, 20), (30, 90)]),
}


@pytest.fixture
def dataset(tmp_path: Path) -> KeypointDataset:
    people = []
    images = []
    (tmp_path / "images").mkdir()
    for image_id, (width, height, centers) in SCENES.items():
        cv2.imwrite(
            str(tmp_path / "images" / f"{image_id}.png"), image(width, height, centers)[..., ::-1]
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
            for i, (x, y) in enumerate(centers)
        ]
    content = {
        "images": images,
        "annotations": people,
        "categories": [{"id": 1, "name": "person", "keypoints": list(SKELETON.keypoints)}],
    }
    (tmp_path / "toy.json").write_text(json.dumps(content))
    return KeypointDataset(tmp_path / "toy.json", tmp_path / "images", SKELETON)


def record_shapes(people: Any) -> list[tuple[int, ...]]:
    """Shapes of the batches that a predictor's network gets from now on."""
    shapes = []
    network = people.model

    def recording(images: torch.Tensor) -> Any:
        shapes.append(tuple(images.shape))
        return network(images)

    people.model = recording
    return shapes


def break_image(dataset: KeypointDataset, image_id: int) -> bytes:
    """Cut an image file off; its whole content."""
    path = Path(dataset.images.path(f"{image_id}.png"))
    content = path.read_bytes()
    path.write_bytes(content[:100])
    return content


def test_everybody_is_found_in_the_order_of_the_images(dataset: KeypointDataset) -> None:
    records, skipped = predict(dataset, predictor())
    assert [record["image_id"] for record in records] == [9, 9, 7, 4, 5, 5]
    assert evaluate(dataset.coco, records, SKELETON)["AP"] == 1
    assert predict(dataset, predictor(), [5, 9]).records == records[4:] + records[:2]
    assert skipped == {}


@pytest.mark.parametrize(("batch_size", "workers"), [(2, 0), (8, 1), (3, 8)])
def test_batches_and_threads_change_nothing(
    dataset: KeypointDataset, batch_size: int, workers: int
) -> None:
    batched = predict(dataset, predictor(batch_size=batch_size), workers=workers)
    assert batched == predict(dataset, predictor())


def test_images_of_one_size_share_batches(dataset: KeypointDataset) -> None:
    people = predictor(batch_size=8)
    shapes = record_shapes(people)
    predict(dataset, people)
    assert sorted(shapes) == [(2, 3, 64, 64), (4, 3, 64, 128), (4, 3, 128, 64)]


def in_processes(
    monkeypatch: pytest.MonkeyPatch, count: int, function: Callable[[], Any]
) -> list[Any]:
    """What function() gives in each process of a group, played by threads."""
    process = threading.local()
    everybody = threading.Barrier(count, timeout=60)
    values = [None] * count

    def all_gather(value: Any) -> list[Any]:
        values[process.rank] = value
        everybody.wait()
        gathered = list(values)
        everybody.wait()
        return gathered

    def run(rank: int) -> Any:
        process.rank = rank
        return function()

    with monkeypatch.context() as patch, ThreadPoolExecutor(count) as pool:
        patch.setattr(comm, "rank", lambda: process.rank)
        patch.setattr(comm, "world_size", lambda: count)
        patch.setattr(comm, "all_gather", all_gather)
        return list(pool.map(run, range(count)))


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_number_of_processes_changes_nothing(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int
) -> None:
    whole = predict(dataset, predictor())
    parts = PartFiles(tmp_path / "parts", "run")
    results = in_processes(monkeypatch, count, lambda: predict(dataset, predictor(), parts=parts))
    assert results == [whole] * count
    shares = [len(path.read_text().splitlines()) for path in (tmp_path / "parts").iterdir()]
    assert sum(shares) == 5 and len(shares) == min(count, 5)
    parts.append(6, 9, [])  # an earlier run of more processes found nobody in image 9
    results = in_processes(
        monkeypatch, count, lambda: predict(dataset, predictor(), parts=parts, resume=True)
    )
    rest = [record for record in whole.records if record["image_id"] != 9]
    assert [found.records for found in results] == [rest] * count


def test_a_set_of_one_image_and_an_image_with_nobody(dataset: KeypointDataset) -> None:
    assert len(predict(dataset, predictor(), [4]).records) == 1
    assert predict(dataset, predictor(), [2]).records == []
    assert predict(dataset, predictor(), []).records == []


def test_an_interrupted_validation_is_resumed(dataset: KeypointDataset, tmp_path: Path) -> None:
    parts = PartFiles(tmp_path / "parts", "run")
    whole = predict(dataset, predictor())
    assert predict(dataset, predictor(), parts=parts) == whole
    counts = {image_id: len(records) for image_id, records in parts.read().items()}
    assert counts == {9: 2, 2: 0, 7: 1, 4: 1, 5: 2}
    parts.clear(keep={image_id: parts.read()[image_id] for image_id in (9, 2, 5)})
    people = predictor()
    shapes = record_shapes(people)
    assert predict(dataset, people, parts=parts, resume=True) == whole
    assert len(shapes) == 2  # the images 7 and 4
    shapes.clear()
    assert predict(dataset, people, parts=parts, resume=True) == whole and not shapes
    assert predict(dataset, people, parts=parts) == whole and len(shapes) == 5


def test_a_bad_image_stops_or_is_skipped(dataset: KeypointDataset) -> None:
    whole = predict(dataset, predictor())
    break_image(dataset, 7)
    with pytest.raises(ImageError, match=r"image 7: .*7.png"):
        predict(dataset, predictor())
    records, skipped = predict(dataset, predictor(), skip_bad=True)
    assert records == [record for record in whole.records if record["image_id"] != 7]
    assert list(skipped) == [7] and skipped[7].startswith("image 7: ") and "7.png" in skipped[7]


def test_images_that_any_process_skips_are_known_to_all(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_image(dataset, 7)
    break_image(dataset, 4)
    results = in_processes(monkeypatch, 5, lambda: predict(dataset, predictor(), skip_bad=True))
    assert [list(found.skipped) for found in results] == [[7, 4]] * 5


def test_a_skipped_image_is_tried_again_on_resume(dataset: KeypointDataset, tmp_path: Path) -> None:
    parts = PartFiles(tmp_path / "parts", "run")
    whole = predict(dataset, predictor())
    content = break_image(dataset, 7)
    predict(dataset, predictor(), skip_bad=True, parts=parts)
    Path(dataset.images.path("7.png")).write_bytes(content)
    assert predict(dataset, predictor(), parts=parts, resume=True) == whole


@pytest.fixture
def weights(config_file: Path) -> Path:
    torch.manual_seed(0)
    path = config_file.with_suffix(".pth")
    torch.save(build_model(load_config(config_file)).state_dict(), path)
    return path


FOLDER = "output/coco_kpt/pose_higher_hrnet/tiny"
NAME = "keypoints_val2017_results"


def validated(config_file: Path, weights: Path, *opts: Any) -> ValidationReport:
    """The report on the weights, as tools/dist_valid.py has it."""
    opts = ("TEST.FLIP_TEST", True, "TEST.MODEL_FILE", weights, *opts)
    return validate_weights(load_config(config_file, [str(opt) for opt in opts]), config_file)


def result_files(config_file: Path) -> dict[str, str]:
    folder = config_file.parent / FOLDER / "results"
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_validation_writes_results_and_a_report(config_file: Path, weights: Path) -> None:
    report = validated(config_file, weights, "TEST.DETECTION_THRESHOLD", 0)
    assert list(report.stats)[:3] == ["AP", "AP .5", "AP .75"]
    files = result_files(config_file)
    assert set(files) == {f"{NAME}.json", f"{NAME}.md", f"{NAME}_figures.json"}
    figures = json.loads(files[f"{NAME}_figures.json"])
    assert figures["figures"] == report.stats and figures["weights"] == report.weights
    records = json.loads(files[f"{NAME}.json"])
    assert records and {len(record["keypoints"]) for record in records} == {51}
    assert files[f"{NAME}.md"] == f"{report}\n"


def test_the_main_process_alone_writes_and_all_get_the_figures(
    config_file: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has a disk of its own here."""
    cfg = load_config(config_file, ["TRAIN.PLOTS", "True"])
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    figures = in_processes(
        monkeypatch, 2, lambda: validate(cfg, model, folder=tmp_path / f"disk{comm.rank()}")
    )
    assert figures[0] == figures[1] and "AP" in figures[0]
    assert {path.name for path in (tmp_path / "disk0").iterdir()} == {"results", "val_images.jpg"}
    assert not (tmp_path / "disk1").exists()


def test_figures_of_numpy_are_written_as_plain_numbers(
    config_file: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "mine", lambda dataset, records: np.float32(0.5))
    assert type(validated(config_file, weights).stats["mine"]) is float
    figures = json.loads(result_files(config_file)[f"{NAME}_figures.json"])["figures"]
    assert figures["mine"] == 0.5


def test_a_metric_that_would_replace_a_figure_is_refused_before_anybody_is_looked_for(
    config_file: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swahr.engine.validate.load_model", lambda *args: pytest.fail("loaded"))
    monkeypatch.setitem(METRICS, "AP", lambda dataset, records: 1.0)
    with pytest.raises(MetricError, match=r"^METRICS\['AP'\]: the scoring itself gives a figure"):
        validated(config_file, weights)


@pytest.mark.parametrize("number", [2, 51])  # a joint's score, and the person's
def test_people_of_a_diverged_network_are_told_as_such(
    dataset: KeypointDataset, tmp_path: Path, number: int
) -> None:
    """The maps are finite: training says of NonFiniteError what helps."""
    found = predict(dataset, predictor())
    record = found.records[2]
    if number == 2:
        record["keypoints"][2] = 4e28
    else:
        record["score"] = 4e28
    cfg = load_config("experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml")
    said = (
        r"^result 2 has the .*score 4e\+28 .*\(image 7\), .*: the network's training has diverged, "
    )
    with pytest.raises(NonFiniteError, match=said):
        write_report(cfg, dataset, found, tmp_path, "w")


def test_the_report_says_weights_settings_and_skipped_images() -> None:
    report = ValidationReport(
        "net",
        "val2017",
        {"AP": 0.5},
        "w.pth",
        "flip test",
        30,
        {i: f"image {i}" for i in range(25)},
    )
    lines = str(report).splitlines()
    assert lines[:7] == [
        "| Arch | AP |",
        "|---|---|",
        "| net | 0.500 |",
        "",
        "- weights: w.pth",
        "- test: val2017, flip test",
        "- images: 30, 25 skipped",
    ]
    assert lines[7:] == [*(f"  - image {i}" for i in range(20)), "  - ... and 5 more images"]


def test_the_log_says_weights_settings_and_skipped_images(
    config_file: Path,
    weights: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/annotations").symlink_to(images / "annotations")
    folder = tmp_path / "set/images/val2017"
    folder.mkdir(parents=True)
    for path in (images / "images/val2017").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    broken = sorted(folder.iterdir())[0]
    broken.write_bytes(b"")
    report = validated(
        config_file,
        weights,
        *("DATASET.ROOT", tmp_path / "set", "DATASET.ON_BAD_SAMPLE", "skip"),
    )
    log = capsys.readouterr().err
    assert f"weights: {weights} (epoch unknown, sha256 " in log
    assert "flip test, scales 1, input size 64 px" in log
    assert f"{broken}: the file is empty" in log
    assert " in 2 images, 1 skipped: " in log
    assert f"{broken}: the file is empty" in str(report) and "- images: 2, 1 skipped" in str(report)


def test_tests_with_other_settings_keep_their_own_files(config_file: Path, weights: Path) -> None:
    validated(config_file, weights)
    validated(config_file, weights, "TEST.FLIP_TEST", False)
    validated(config_file, weights, "TEST.SCALE_FACTOR", [0.5, 1])
    names = {NAME, f"{NAME}_noflip", f"{NAME}_scales0.5-1"}
    files = result_files(config_file)
    endings = (".json", ".md", "_figures.json")
    assert set(files) == {name + ending for name in names for ending in endings}
    assert "no flip test, scales 1, input size 64 px" in files[f"{NAME}_noflip.md"]
    assert "- test: val2017, flip test, scales 0.5, 1," in files[f"{NAME}_scales0.5-1.md"]


def test_training_gets_its_network_back_as_it_was(
    config_file: Path, weights: Path, tmp_path: Path
) -> None:
    cfg = load_config(config_file, ["TEST.FLIP_TEST", "True"])
    model = build_model(cfg)
    model.load_state_dict(torch.load(weights, weights_only=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stats = validate(cfg, model.train(), folder=tmp_path / "run")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert stats == validated(config_file, weights).stats
    report = (tmp_path / f"run/results/{NAME}.md").read_text()
    assert "- weights: those of the training run in progress\n" in report


def test_validations_of_a_training_run_share_a_predictor(
    config_file: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one sees the weights of then, as a validation of its own would."""
    cfg = load_config(config_file, ["TEST.FLIP_TEST", "True"])
    torch.manual_seed(1)
    model = build_model(cfg).train()
    kept = Validation()
    kept(cfg, model, folder=tmp_path / "run")
    first = kept.predictor
    model.load_state_dict(torch.load(weights, weights_only=True))
    kept(cfg, model, folder=tmp_path / "run")
    assert kept.predictor is first and model.training
    validate(cfg, model, folder=tmp_path / "anew")
    results = [tmp_path / run / f"results/{NAME}.json" for run in ("run", "anew")]
    assert results[0].read_bytes() == results[1].read_bytes() != b"[]"
    monkeypatch.setattr(Predictor, "refresh", lambda self, network: False)
    kept(cfg, model, folder=tmp_path / "run")
    assert kept.predictor is not first


def test_training_can_validate_an_open_data_set(
    config_file: Path, images: Path, tmp_path: Path
) -> None:
    cfg = load_config(config_file, ["TEST.FLIP_TEST", "True", "TEST.DETECTION_THRESHOLD", "1e9"])
    annotations = images / "annotations/person_keypoints_train2017.json"
    dataset = KeypointDataset(annotations, images / "images/train2017", COCO)
    stats = validate(cfg, build_model(cfg), folder=tmp_path / "run", dataset=dataset)
    assert stats["AP"] == 0
    report = (tmp_path / f"run/results/{NAME}.md").read_text()
    assert "- images: 8, 0 skipped" in report


def test_nobody_at_all_scores_zero(config_file: Path, weights: Path) -> None:
    report = validated(config_file, weights, "TEST.DETECTION_THRESHOLD", 1e9)
    undefined = {"AP (M)", "AP (L)", "AR (M)", "AR (L)"}  # everybody in these images is small
    expected = {name: -1.0 if name in undefined else 0.0 for name in report.stats}
    assert report.stats == expected and undefined < expected.keys()
    assert result_files(config_file)[f"{NAME}.json"] == "[]"


def test_without_annotations_there_are_results_but_no_score(
    config_file: Path, weights: Path, tmp_path: Path, images: Path
) -> None:
    content = json.loads((images / "annotations/person_keypoints_val2017.json").read_text())
    del content["annotations"]
    (tmp_path / "set/annotations").mkdir(parents=True)
    (tmp_path / "set/annotations/image_info_test-dev2017.json").write_text(json.dumps(content))
    (tmp_path / "set/images").mkdir()
    (tmp_path / "set/images/test2017").symlink_to(images / "images/val2017")
    report = validated(
        config_file,
        weights,
        *("DATASET.ROOT", tmp_path / "set", "DATASET.TEST", "test-dev2017"),
    )
    assert report.stats == {}
    assert str(report).startswith("test-dev2017 has no annotations, so no score\n")
    assert set(result_files(config_file)) == {
        "keypoints_test-dev2017_results.json",
        "keypoints_test-dev2017_results.md",
    }


def test_missing_weights_are_named(config_file: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing.pth: no such file"):
        validated(config_file, config_file.with_name("nothing.pth"))


def test_sets_with_keypoints_of_their_own_are_scored_in_pixels(
    dataset: KeypointDataset, tmp_path: Path
) -> None:
    found = predict(dataset, predictor())
    cfg = load_config("experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml")
    report = write_report(cfg, dataset, found, tmp_path, "w")
    names = ("error (mean px)", "error (median px)", "PCK 0.2")
    mean, median, pck = (report.stats[name] for name in names)
    assert 0 <= median <= 2 and 0 <= mean <= 2 and pck == 1
    assert "| error (mean px) | error (median px) | PCK 0.2 |" in str(report)


def test_the_table_is_followed_by_the_joints_given_to_the_wrong_person(
    dataset: KeypointDataset, tmp_path: Path
) -> None:
    found = predict(dataset, predictor())
    cfg = load_config("experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml")
    report = write_report(cfg, dataset, found, tmp_path, "w")
    assert "swaps" not in report.stats
    assert "\n- swaps: 0 of 12 joints given to the wrong person, in 0 of 5 images\n" in str(report)


def test_the_report_of_a_validation(
    config_file: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """--report: the figures of the table, and maps of the network on the worst images."""
    monkeypatch.setitem(METRICS, "images", lambda dataset, records: len(dataset))
    pytest.importorskip("jinja2", reason="needs the extra report")
    pytest.importorskip("matplotlib", reason="needs the extra report")
    opts = [f"TEST.MODEL_FILE={weights}", "TEST.FLIP_TEST=True", "TEST.DETECTION_THRESHOLD=0"]
    command = ["val", "--cfg", str(config_file), "--report", str(tmp_path / "html"), *opts]
    cli.run(command)
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "html/report.html")
    page = (tmp_path / "html/report.html").read_text()
    stats = json.loads(result_files(config_file)[f"{NAME}_figures.json"])["figures"]
    assert f'data-figure="AP .5">{stats["AP .5"]:.3f}<' in page
    assert page.count('data-map="heatmaps"') == page.count("<article") == 2
    assert "<h1>tiny</h1>" in page and 'data-figure="images">2.000<' in page


def test_a_report_needs_annotations_and_its_libraries(
    config_file: Path, weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((images / "annotations/person_keypoints_val2017.json").read_text())
    del content["annotations"]
    (tmp_path / "set/annotations").mkdir(parents=True)
    (tmp_path / "set/annotations/image_info_test.json").write_text(json.dumps(content))
    (tmp_path / "set/images").mkdir()
    (tmp_path / "set/images/test").symlink_to(images / "images/val2017")
    cfg = load_config(config_file, ["DATASET.ROOT", str(tmp_path / "set"), "DATASET.TEST", "test"])
    with pytest.raises(ReportError, match="^--report: test has no annotations to report on$"):
        write_validation_report(cfg, str(config_file), tmp_path / "html")
    monkeypatch.setattr("swahr.report.page.find_spec", lambda name: None)
    with pytest.raises(ReportError, match="^the report needs jinja2: pip install jinja2$"):
        cli.run(["val", "--cfg", str(config_file), "--report", str(tmp_path / "html")])
