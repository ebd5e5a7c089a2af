"""Validation: the people of a whole data set, found by all processes together, and their average
precision.

Each process takes a share of the images, sorted by input size so that images of one size share a
batch. The results are in the order of the data set, whatever the number of processes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from swahr.codec.tile_bounds import NonFiniteError
from swahr.config import configured_skeleton, output_dir
from swahr.data.images import first_reasons
from swahr.data.keypoints import KeypointDataset, dataset_spec
from swahr.distributed import comm
from swahr.engine.checkpoint import VAL_IMAGES
from swahr.engine.datasets import build_validation_set
from swahr.engine.progress import setup_logging
from swahr.engine.provenance import (
    IN_TRAINING,
    Figures,
    describe_test,
    describe_test_of_split,
    describe_weights,
    figures_path,
    find_weights,
    fingerprint,
    results_name,
)
from swahr.engine.run_plots import draw_validation
from swahr.evaluation.metrics import format_table
from swahr.evaluation.records import NumberError
from swahr.evaluation.results import PartFiles, Record, to_records, write_results
from swahr.evaluation.scores import check_metrics, own_figures, score
from swahr.evaluation.swaps import Swaps
from swahr.files import write_text
from swahr.inference.exported_network import ExportedNetwork
from swahr.inference.load import load_model
from swahr.inference.pipeline import find_people
from swahr.inference.predictor import Predictor, build_predictor
from swahr.models.network import PoseNetwork, evaluating
from swahr.progress_bar import ProgressBar
from swahr.skeleton import Skeleton
from swahr.words import counted

logger = logging.getLogger(__name__)

MAX_LINES = 20  # skipped images that a report names; the rest is counted


class DivergedError(NonFiniteError):
    """People of a network whose maps are finite, but whose numbers are too large to be scored."""


class DatasetPeople(NamedTuple):
    """The people of a data set, found by all processes.

    records: result records in the order of the images. skipped: the reason for each image that
    could not be used, in the same order; it has no records.
    """

    records: list[Record]
    skipped: dict[int, str]


class ValidationReport(NamedTuple):
    """The outcome of a validation.

    name: of the network. split: DATASET.TEST. stats: the figures by name, {} for a set without
    annotations. weights, test: what was tested, and how. images: their number, skipped ones
    included. skipped: the reason for each skipped image. swaps: joints given to the wrong person;
    None for a set without annotations.
    """

    name: str
    split: str
    stats: dict[str, float]
    weights: str
    test: str
    images: int
    skipped: Mapping[int, str]
    swaps: Swaps | None = None

    def __str__(self) -> str:
        """Markdown: the table, then a list of what it was made with and of the skipped images."""
        head = (
            format_table(self.name, self.stats)
            if self.stats
            else f"{self.split} has no annotations, so no score"
        )
        return "\n".join(
            [
                head,
                "",
                f"- weights: {self.weights}",
                f"- test: {self.split}, {self.test}",
                *([f"- swaps: {self.swaps}"] if self.swaps else []),
                f"- images: {self.images}, {len(self.skipped)} skipped",
                *(f"  - {reason}" for reason in first_reasons(self.skipped, MAX_LINES)),
            ]
        )


def predict(
    dataset: KeypointDataset,
    predictor: Predictor,
    image_ids: Iterable[int] | None = None,
    *,
    workers: int = 4,
    skip_bad: bool = False,
    parts: PartFiles | None = None,
    resume: bool = False,
    progress: str = "",
) -> DatasetPeople:
    """The people of the images (default: all). Each process does a share of them, and all
    processes return the whole.

    parts: where the records of each image are written as soon as they are there. resume: take
    the records of images that are in `parts` from there. skip_bad: see find_people; skipped images
    are tried again on resume. progress: title of the progress bar, '' for none.
    """
    wanted = list(dataset.image_ids if image_ids is None else image_ids)
    done = _read_parts(parts, resume)
    groups = _own_groups(
        dataset, predictor, [image_id for image_id in wanted if image_id not in done]
    )
    found: dict[int, list[Record]] = {}
    skipped: dict[int, str] = {}
    count = sum(map(len, groups))
    with ProgressBar(progress, count, "image", shown=bool(progress)) as bar:
        for image_id, people, problem in find_people(
            dataset,
            predictor,
            groups,
            workers=workers,
            skip_bad=skip_bad,
            decoders=predictor.decoders,
        ):
            if people is None:
                skipped[image_id] = problem
            else:
                found[image_id] = to_records(image_id, people, dataset.category_id)
                if parts:
                    parts.append(comm.rank(), image_id, found[image_id])
            bar.update()
    for records, reasons in comm.all_gather((found, skipped)):
        done.update(records)
        skipped.update(reasons)
    return DatasetPeople(
        [record for image_id in wanted for record in done.get(image_id, ())],
        {image_id: skipped[image_id] for image_id in wanted if image_id in skipped},
    )


def _own_groups(
    dataset: KeypointDataset, predictor: Predictor, image_ids: Sequence[int]
) -> list[list[int]]:
    """This process's share of the images, in groups of one input size and of at most a batch."""
    sizes: dict[int, tuple[int, int]] = {}
    for image_id in image_ids:
        info = dataset.image_info(image_id)
        sizes[image_id] = predictor.geometries(info.width, info.height).input_size
    share = sorted(image_ids, key=sizes.__getitem__)[comm.rank() :: comm.world_size()]
    same_size = [list(group) for _, group in groupby(share, sizes.__getitem__)]
    step = predictor.batch_size
    return [
        group[start : start + step] for group in same_size for start in range(0, len(group), step)
    ]


def _read_parts(parts: PartFiles | None, resume: bool) -> dict[int, list[Record]]:
    """The records that an earlier validation left, on all processes; other part files are removed.

    The main process reads them, because the processes need not share a disk.
    """
    done: dict[int, list[Record]] = {}
    if parts and comm.is_main():
        done = parts.read() if resume else {}
        parts.clear(keep=done)
        if done:
            logger.info("resuming after %s of an earlier run", counted(len(done), "image"))
    return comm.all_gather(done)[0]


def validate_weights(cfg: Any, cfg_path: str | Path) -> ValidationReport:
    """Validate the weights that `find_weights` names; every process of tools/dist_valid.py calls
    this. The results are in the folder of the run, see `write_report`.
    """
    device = comm.select_device(cfg.DEVICE)
    with comm.process_group(device, cfg.DIST_BACKEND, cfg.DIST_TIMEOUT):
        setup_logging()
        path = find_weights(cfg, cfg_path)
        dataset = build_validation_set(cfg)
        check_metrics(dataset.skeleton, dataset_spec(cfg, train=False).protocol)
        model = load_model(cfg, path, device)
        weights = describe_weights(path)
        logger.info("weights: %s; %s", weights, describe_test(cfg))
        folder = output_dir(cfg, cfg_path)
        parts = PartFiles(folder / "results", fingerprint(cfg, weights))
        found = _predict(cfg, model, dataset, parts)
        return _report(cfg, dataset, found, folder, str(weights), parts)


class Validation:
    """`validate` for one training run, which keeps its predictor: what was fused, compiled or
    recorded for the first validation serves the others, with the weights of the day.
    """

    def __init__(self) -> None:
        self.predictor: Predictor | None = None

    def __call__(self, cfg: Any, model: PoseNetwork, **options: Any) -> dict[str, float]:
        """As `validate`, with its keywords. cfg: the same in every call."""
        with evaluating(model):
            if self.predictor is None or not self.predictor.refresh(model):
                self.predictor = _build(cfg, model, configured_skeleton(cfg))
        return validate(cfg, model, predictor=self.predictor, **options)


def validate(
    cfg: Any,
    model: PoseNetwork,
    *,
    folder: str | Path,
    dataset: KeypointDataset | None = None,
    weights: str = IN_TRAINING,
    predictor: Predictor | None = None,
) -> dict[str, float]:
    """Validate a network in memory, as training does between epochs; all processes call it, and all
    get the figures ({} for a set without annotations).

    model: the bare network, on its device; its mode is restored at the end. folder: of the run, see
    `write_report`. dataset: the set DATASET.TEST if it is open already. weights: what the report
    says of the weights. predictor: of the network with its present weights, if there is one.
    """
    dataset = dataset or build_validation_set(cfg)
    found = _predict(cfg, model, dataset, predictor=predictor)
    report = _report(cfg, dataset, found, folder, weights)
    if cfg.TRAIN.PLOTS and comm.is_main():
        draw_validation(Path(folder) / VAL_IMAGES, dataset, found.records)
    return report.stats


def _report(
    cfg: Any,
    dataset: KeypointDataset,
    found: DatasetPeople,
    folder: str | Path,
    weights: str,
    parts: PartFiles | None = None,
) -> ValidationReport:
    """The report of `write_report`, which the main process writes, on all processes."""
    report = None
    if comm.is_main():
        report = write_report(cfg, dataset, found, folder, weights)
        if parts:
            parts.clear()
    shared = comm.all_gather(report)[0]
    assert shared is not None, "the main process writes the report"
    return shared


def write_report(
    cfg: Any, dataset: KeypointDataset, found: DatasetPeople, folder: str | Path, weights: str
) -> ValidationReport:
    """Score the people of a data set, log the outcome and write it to the folder's results/.

    Under the name of `results_name`, a JSON file that can be uploaded has the records, a Markdown
    file the report, and a JSON file NAME_figures.json the figures. Raises DivergedError where the
    people have numbers that cannot be scored, MetricError.
    """
    path = Path(folder) / "results" / f"{results_name(cfg)}.json"
    write_results(path, found.records)
    for reason in first_reasons(found.skipped, MAX_LINES):
        logger.warning("skipped: %s", reason)
    logger.info(
        "%s in %s, %d skipped: %s",
        counted(len(found.records), "person", "people"),
        counted(len(dataset), "image"),
        len(found.skipped),
        path,
    )
    stats: dict[str, float] = {}
    swaps = None
    if dataset.has_annotations:
        protocol = dataset_spec(cfg, train=False).protocol
        try:
            stats, _, swaps = score(dataset.coco, found.records, dataset.skeleton, protocol)
        except NumberError as error:
            raise DivergedError(
                f"{error}: the network's training has diverged, or its weights are damaged"
            ) from None
        stats |= own_figures(dataset, found.records, protocol)
    report = ValidationReport(
        name=cfg.MODEL.NAME,
        split=cfg.DATASET.TEST,
        stats=stats,
        weights=weights,
        test=describe_test(cfg),
        images=len(dataset),
        skipped=found.skipped,
        swaps=swaps,
    )
    write_text(path.with_suffix(".md"), f"{report}\n")
    if stats:
        figures = Figures(weights, describe_test_of_split(cfg), stats)
        write_text(figures_path(path), json.dumps(figures._asdict(), indent=1) + "\n")
    return report


def _predict(
    cfg: Any,
    model: PoseNetwork | ExportedNetwork,
    dataset: KeypointDataset,
    parts: PartFiles | None = None,
    predictor: Predictor | None = None,
) -> DatasetPeople:
    """`predict` with the settings of a configuration; the model's mode is restored at the end."""
    with evaluating(model):
        return predict(
            dataset,
            predictor or _build(cfg, model, dataset.skeleton),
            workers=cfg.WORKERS,
            skip_bad=cfg.DATASET.ON_BAD_SAMPLE == "skip",
            parts=parts,
            resume=cfg.TEST.RESUME,
            progress=cfg.DATASET.TEST if cfg.TEST.LOG_PROGRESS else "",
        )


def _build(cfg: Any, model: PoseNetwork | ExportedNetwork, skeleton: Skeleton) -> Predictor:
    if isinstance(model, ExportedNetwork):
        device = model.device
    else:
        device = next(model.parameters()).device
    return build_predictor(cfg, model, skeleton, device)
