"""Benchmarks of post-processing, targets and losses, against tests/oracles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import Bench, Row, benchmark

if TYPE_CHECKING:
    from swahr.codec.targets import StageTarget

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # tests/oracles

MAP_SIZE = (512, 768)
TAG_MAPS = 2
JOINTS = 17
THRESHOLD = 0.12  # of detection, as in the published settings
BATCH = 20  # in training


class CrowdMaps:
    """Maps of a crowd, on the CPU for the plain version and on the device for ours, and both
    decoders.
    """

    def __init__(self, bench: Bench, people: int, **changes: Any) -> None:
        """changes: further arguments of tests.oracles.crowds.crowd."""
        from swahr.codec.decode import AssociativeDecoder
        from swahr.codec.maps import Maps
        from swahr.skeleton import COCO
        from tests.oracles import crowds, decode

        self.decoder = AssociativeDecoder(
            grouping_order=COCO.grouping_order, detection_threshold=THRESHOLD
        )
        self.settings = decode.settings(COCO.grouping_order, detection_threshold=THRESHOLD)
        maps = crowds.crowd(people, MAP_SIZE, JOINTS, TAG_MAPS, **changes)
        self.plain_maps = maps[0][0].numpy(), maps[1][0].numpy()
        self.maps = Maps(maps[0].to(bench.device), maps[1].to(bench.device))
        self.name = f"{people} people{', noise' if changes else ''}"


def crowds(row: Callable[[int], Row], sizes: Sequence[int]) -> dict[str, Callable[[], Row]]:
    """The cases of crowds of these sizes."""
    return {f"{people} people": partial(row, people) for people in sizes}


@benchmark
def grouping(bench: Bench) -> Iterator[Row]:
    """Peaks to people; on the CPU, on a machine with a GPU too."""
    from swahr.codec.grouping import group
    from swahr.codec.peaks import find_peaks
    from swahr.codec.tile_bounds import tile_bounds
    from tests.oracles import decode as oracle

    def row(people: int) -> Row:
        crowd = CrowdMaps(bench, people)
        tiles = tile_bounds(crowd.plain_maps[0][..., None])
        peaks = find_peaks(*crowd.plain_maps, tiles, limit=30, threshold=THRESHOLD, radius=2)
        plain_peaks = oracle.top_peaks(*crowd.plain_maps, crowd.settings)
        rules = {
            "max_people": 30,
            "tag_threshold": 1.0,
            "use_detection_val": True,
            "ignore_too_much": False,
        }
        peak_of_joint = group(peaks, crowd.decoder.grouping_order, **rules)

        def same(got: NDArray[np.int64], want: NDArray[np.float32]) -> bool:
            """The same people with their joints at the same pixels."""
            pixels = peaks.pixels[np.arange(JOINTS), got]
            plain_pixels = want[..., 1] * MAP_SIZE[1] + want[..., 0]
            found = want[..., 2] > 0
            return np.array_equal(got >= 0, found) and np.array_equal(
                pixels[found], plain_pixels[found]
            )

        return bench.row(
            "grouping",
            f"{crowd.name}, {len(peak_of_joint)} groups",
            lambda: oracle.match(*plain_peaks, crowd.settings),
            lambda: group(peaks, crowd.decoder.grouping_order, **rules),
            same,
            goal_ratio=40 if people in (10, 30) else None,
        )

    yield from bench.each("grouping", crowds(row, bench.people))


@benchmark
def refinement(bench: Bench) -> Iterator[Row]:
    """The search for missing joints, with the bounds of tiles that it needs.

    Both versions start from the same people, and give them the joints that they find.
    """
    from swahr.codec.refine import find_missing
    from swahr.codec.refine_batch import find_missing_batch
    from swahr.codec.tile_bounds import tile_bounds
    from tests.oracles import decode as oracle

    def row(people: int) -> Row:
        crowd = CrowdMaps(bench, people)
        maps = crowd.plain_maps
        crowd.decoder.refine = False
        start = crowd.decoder(crowd.maps)[0]
        persons, joints = np.nonzero(start.keypoints[..., 2] == 0)
        means = start.tags[persons]
        images = np.zeros_like(joints)
        groups = oracle.match(*oracle.top_peaks(*maps, crowd.settings), crowd.settings)
        oracle.adjust(groups, maps[0])

        def plain() -> NDArray[np.float32]:
            everybody = groups.copy()
            for person in everybody:
                oracle.refine(person, *maps)
            return everybody[..., :3]

        def ours() -> NDArray[np.float32]:
            keypoints = start.keypoints.copy()
            if bench.cuda:
                found = find_missing_batch(
                    crowd.maps.heatmaps, crowd.maps.tags, images, joints, means
                )
            else:
                heat = tile_bounds(maps[0][..., None])
                found = find_missing(*maps, heat, tile_bounds(maps[1]), joints, means)
            positive = found[:, 2] > 0
            keypoints[persons[positive], joints[positive]] = found[positive]
            return keypoints

        case = f"{crowd.name}, {len(joints)} joints missing in {len(groups)} groups"
        return bench.row("refinement", case, plain, ours, np.array_equal, goal_ratio=40)

    yield from bench.each("refinement", crowds(row, bench.people))


@benchmark
def decoding(bench: Bench) -> Iterator[Row]:
    """Maps to people, peaks included; on a GPU the maps are there already."""
    from swahr.codec.maps import Maps
    from tests.oracles import decode as oracle

    def row(people: int, **changes: Any) -> Row:
        crowd = CrowdMaps(bench, people, **changes)
        groups = len(crowd.decoder(crowd.maps)[0].scores)
        goal_ms = {10: 3} if bench.cuda else {}
        goal_ratio = {} if bench.cuda else {5: 20, 20: 40}
        return bench.row(
            "decoding",
            f"{crowd.name}, {groups} groups",
            lambda: oracle.decode(*crowd.plain_maps, crowd.settings)[0][..., :3],
            lambda: crowd.decoder(crowd.maps)[0].keypoints,
            np.array_equal,
            goal_ms=goal_ms.get(people),
            goal_ratio=goal_ratio.get(people),
        )

    def batch_row() -> Row:
        crowd = CrowdMaps(bench, 10)
        both = (crowd.maps.heatmaps, crowd.maps.tags)
        maps = Maps(*(part.expand(8, *part.shape[1:]).contiguous() for part in both))
        return bench.row(
            "decoding", f"batch of 8 x {crowd.name}", None, lambda: crowd.decoder(maps), images=8
        )

    cases = crowds(row, bench.people)
    if 20 in bench.people:
        cases["20 people, noise"] = partial(row, 20, false_peaks=200, stray_tags=True)
    if bench.cuda:
        cases["batch of 8"] = batch_row
    yield from bench.each("decoding", cases)


@benchmark
def associative_loss(bench: Bench) -> Iterator[Row]:
    """Tag loss, forward and backward."""
    from swahr.losses.associative import associative_loss as loss
    from tests.oracles.losses import associative_loss as plain_loss

    def row(people: int) -> Row:
        generator = torch.Generator().manual_seed(people)
        tags = (
            torch.randn(BATCH, JOINTS, 128, 128, generator=generator)
            .to(bench.device)
            .requires_grad_()
        )
        index = torch.randint(tags[0].numel(), (BATCH, people, JOINTS), generator=generator).to(
            bench.device
        )
        present = (torch.rand(index.shape, generator=generator) < 0.8).to(bench.device)

        def run(function: Callable[..., Any]) -> tuple[torch.Tensor, torch.Tensor]:
            """The loss and its gradient."""
            tags.grad = None
            push, pull = function(tags, index, present, "exp")
            total = push.mean() + pull.mean()
            total.backward()
            assert tags.grad is not None
            return total.detach(), tags.grad

        def same(got: tuple[torch.Tensor, ...], want: tuple[torch.Tensor, ...]) -> bool:
            """Gradients are about 1e-4, so their tolerance is relative to the largest."""
            largest = want[1].abs().max().item()
            return torch.allclose(got[0], want[0]) and torch.allclose(
                got[1], want[1], rtol=1e-4, atol=1e-5 * largest
            )

        goal_ms = {30: 1} if bench.cuda else {}
        goal_ratio = {} if bench.cuda else {10: 15}
        return bench.row(
            "associative loss",
            f"forward and backward, batch {BATCH} x {people} people",
            lambda: run(plain_loss),
            lambda: run(loss),
            same,
            images=BATCH,
            goal_ms=goal_ms.get(people),
            goal_ratio=goal_ratio.get(people),
        )

    yield from bench.each("associative loss", crowds(row, sorted({3, 10, 30} & {*bench.people})))


PlainTarget = tuple[torch.Tensor, list[list[dict[int, int]]]]


def plain_target(joints: Sequence[NDArray[np.float32]], size: int) -> PlainTarget:
    """Heatmaps (B, K, size, size), and for each image and person its joints' places in the tag
    maps, of joints (N, K, 3) an image.
    """
    from tests.oracles import targets as oracle

    heatmaps = [torch.from_numpy(oracle.render(image, size, 2)) for image in joints]
    return torch.stack(heatmaps), [oracle.tag_index(image, size, True) for image in joints]


def same_target(got: StageTarget, want: PlainTarget) -> bool:
    """Whether a stage's targets are those of the plain version."""
    heatmaps, tag_index = want
    index = got.index.cpu().numpy()
    present = got.present.cpu().numpy()
    people = [
        [{k: int(index[b, n, k]) for k in np.flatnonzero(present[b, n])} for n in range(len(image))]
        for b, image in enumerate(tag_index)
    ]
    return torch.allclose(got.heatmaps.cpu(), heatmaps, atol=1e-6) and people == tag_index


@benchmark
def targets(bench: Bench) -> Iterator[Row]:
    """Joints of a batch to heatmaps and indices into the tag maps."""
    from swahr.codec.targets import TargetEncoder

    sizes = (128, 256)
    encoder = TargetEncoder(sizes=sizes, sigma=2, scale_aware=False, tag_per_joint=True)
    masks = [torch.ones(BATCH, size, size, device=bench.device) for size in sizes]

    def row(people: int) -> Row:
        rng = np.random.default_rng(people)
        joints = [
            rng.uniform(0, size, (BATCH, people, JOINTS, 3)).astype(np.float32) for size in sizes
        ]
        for stage in joints:
            stage[..., 2] = rng.random(stage.shape[:3]) < 0.8
        inputs = [torch.from_numpy(stage).to(bench.device) for stage in joints]

        def plain() -> list[PlainTarget]:
            return [plain_target(stage, size) for stage, size in zip(joints, sizes)]

        def same(got: list[StageTarget], want: list[PlainTarget]) -> bool:
            return all(map(same_target, got, want))

        return bench.row(
            "targets",
            f"128 and 256 px, batch {BATCH} x {people} people",
            plain,
            lambda: encoder(inputs, masks),
            same,
            images=BATCH,
            goal_ms=1 if bench.cuda else None,
            goal_ratio=None if bench.cuda else 1,
        )

    yield from bench.each("targets", crowds(row, sorted({3, 10, 30} & {*bench.people})))
