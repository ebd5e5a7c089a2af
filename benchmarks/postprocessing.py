"""Post-processing, targets and losses: pieces of tools/benchmark.py, against tests/oracles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bench, Row, piece

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # tests/oracles

MAP_SIZE = (512, 768)
TAG_MAPS = 2
JOINTS = 17
THRESHOLD = 0.12  # of detection, as in the published settings
BATCH = 20  # in training


class Crowd:
    """Maps of a crowd, on the CPU for the plain version and on the device for ours, and both
    decoders.
    """

    def __init__(self, bench: Bench, people: int, **changes: Any) -> None:
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


@piece
def grouping(bench: Bench) -> Iterator[Row]:
    """Peaks to people; on the CPU, on a machine with a GPU too."""
    from swahr.codec.grouping import group
    from swahr.codec.peaks import find_peaks
    from swahr.codec.tile_bounds import tile_bounds
    from tests.oracles import decode as oracle

    def row(people: int) -> Row:
        crowd = Crowd(bench, people)
        tiles = tile_bounds(crowd.plain_maps[0][..., None])
        peaks = find_peaks(*crowd.plain_maps, tiles, limit=30, threshold=THRESHOLD, radius=2)
        plain_peaks = oracle.top_peaks(*crowd.plain_maps, crowd.settings)
        rules = {
            "max_people": 30,
            "tag_threshold": 1.0,
            "use_detection_val": True,
            "ignore_too_much": False,
        }
        members = group(peaks, crowd.decoder.grouping_order, **rules)
        return bench.row(
            "grouping",
            f"{crowd.name}, {len(members)} groups",
            lambda: oracle.match(*plain_peaks, crowd.settings),
            lambda: group(peaks, crowd.decoder.grouping_order, **rules),
            lambda got, want: np.array_equal(got >= 0, want[..., 2] > 0),
            goal_ratio=40 if people in (10, 30) else None,
        )

    yield from map(row, bench.people)


@piece
def refinement(bench: Bench) -> Iterator[Row]:
    """Adjustment and the search for missing joints, with what only they need."""
    from swahr.codec.refine import find_missing, find_missing_batch
    from swahr.codec.tile_bounds import tile_bounds
    from tests.oracles import decode as oracle

    def row(people: int) -> Row:
        crowd = Crowd(bench, people)
        maps = crowd.plain_maps
        tiles = tile_bounds(crowd.plain_maps[0][..., None])
        crowd.decoder.refine = False
        found = crowd.decoder(crowd.maps)[0]
        persons, joints = np.nonzero(found.keypoints[..., 2] == 0)
        means = found.tags[persons]
        images = np.zeros_like(joints)
        groups = oracle.match(*oracle.top_peaks(*maps, crowd.settings), crowd.settings)

        def plain() -> None:
            everybody = groups.copy()
            oracle.adjust(everybody, maps[0])
            for person in everybody:
                oracle.refine(person, *maps)

        def ours() -> None:
            if bench.cuda:
                find_missing_batch(crowd.maps.heatmaps, crowd.maps.tags, images, joints, means)
            else:
                find_missing(*maps, tiles, tile_bounds(maps[1]), joints, means)

        case = f"{crowd.name}, {len(joints)} joints missing in {len(groups)} groups"
        return bench.row("refinement", case, plain, ours, goal_ratio=40)

    yield from map(row, bench.people)


@piece
def decoding(bench: Bench) -> Iterator[Row]:
    """Maps to people, peaks included; on a GPU the maps are there already."""
    from swahr.codec.maps import Maps
    from tests.oracles import decode as oracle

    def row(people: int, **changes: Any) -> Row:
        crowd = Crowd(bench, people, **changes)
        groups = len(crowd.decoder(crowd.maps)[0].scores)
        goal_ms, goal_ratio = ({10: 3}, {}) if bench.cuda else ({}, {5: 20, 20: 40})
        return bench.row(
            "decoding",
            f"{crowd.name}, {groups} groups",
            lambda: oracle.decode(*crowd.plain_maps, crowd.settings)[0][..., :3],
            lambda: crowd.decoder(crowd.maps)[0].keypoints,
            np.array_equal,
            goal_ms=goal_ms.get(people),
            goal_ratio=goal_ratio.get(people),
        )

    yield from map(row, bench.people)
    if 20 in bench.people:
        yield row(20, false_peaks=200, stray_tags=True)
    if bench.cuda:
        crowd = Crowd(bench, 10)
        maps = Maps(
            *(
                a.expand(8, *a.shape[1:]).contiguous()
                for a in (crowd.maps.heatmaps, crowd.maps.tags)
            )
        )
        yield bench.row(
            "decoding", f"batch of 8 x {crowd.name}", None, lambda: crowd.decoder(maps), images=8
        )


@piece
def associative_loss(bench: Bench) -> Iterator[Row]:
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

        def run(function: Callable[..., Any]) -> torch.Tensor:
            tags.grad = None
            push, pull = function(tags, index, present, "exp")
            total = push.mean() + pull.mean()
            total.backward()
            return total

        goal_ms, goal_ratio = ({30: 1}, {}) if bench.cuda else ({}, {10: 15})
        return bench.row(
            "associative loss",
            f"forward and backward, batch {BATCH} x {people} people",
            lambda: run(plain_loss),
            lambda: run(loss),
            torch.allclose,
            images=BATCH,
            goal_ms=goal_ms.get(people),
            goal_ratio=goal_ratio.get(people),
        )

    yield from map(row, sorted({3, 10, 30} & {*bench.people}))


@piece
def targets(bench: Bench) -> Iterator[Row]:
    from swahr.codec.targets import StageTarget, TargetEncoder
    from tests.oracles import targets as oracle

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

        def plain() -> list[torch.Tensor]:
            heatmaps = []
            for stage, size in zip(joints, sizes):
                heatmaps.append(
                    torch.stack(
                        [torch.from_numpy(oracle.render(image, size, 2)) for image in stage]
                    )
                )
                for image in stage:
                    oracle.tag_index(image, size, True)
            return heatmaps

        def same(got: list[StageTarget], want: list[torch.Tensor]) -> bool:
            return all(
                torch.allclose(stage.heatmaps.cpu(), maps, atol=1e-6)
                for stage, maps in zip(got, want)
            )

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

    yield from map(row, sorted({3, 10, 30} & {*bench.people}))
