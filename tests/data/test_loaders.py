"""Samples are the same for every number of workers and ranks; an image that cannot be read stops
the run, or is replaced.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from swahr.data import loaders
from swahr.data.images import ImageError
from swahr.data.keypoints import KeypointDataset, ScaleSigma
from swahr.data.loaders import Batch, EpochSampler, TrainingSet, build_train_loader, collate
from swahr.data.transforms import Affine, TransformError
from swahr.skeleton import COCO

Tree = Callable[..., Path]


def opened(root: Path, **options: Any) -> KeypointDataset:
    file = root / "annotations/person_keypoints_train2017.json"
    return KeypointDataset(file, root / "images/train2017", COCO, **options)


def settings(**others: Any) -> CfgNode:
    data = {
        "TRANSFORMS": ["affine", "flip"],
        "INPUT_SIZE": 32,
        "OUTPUT_SIZE": [8, 16],
        "MAX_ROTATION": 30.0,
        "MIN_SCALE": 0.75,
        "MAX_SCALE": 1.5,
        "SCALE_TYPE": "short",
        "MAX_TRANSLATE": 40.0,
        "FLIP": 0.5,
        "ON_BAD_SAMPLE": "stop",
        "REPEAT": 1,
    }
    train = {"IMAGES_PER_GPU": 2, "SEED": 3, "ACCUMULATION_STEPS": 1}
    tree = {"DATASET": data, "TRAIN": train, "WORKERS": 0, "PIN_MEMORY": True}
    for key, value in others.items():
        section = next((part for part in (data, train) if key in part), tree)
        section[key] = value
    return CfgNode(tree)


def flat(batch: Batch) -> list[torch.Tensor]:
    return [batch.images, *batch.joints, *batch.masks, batch.image_ids]


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def epochs(loader: Any, count: int = 2) -> Iterator[Batch]:
    for epoch in range(count):
        loader.batch_sampler.set_epoch(epoch)
        yield from loader


def test_batches(tree: Tree) -> None:
    batch = next(iter(build_train_loader(settings(IMAGES_PER_GPU=4), opened(tree()))))
    assert batch.images.shape == (4, 32, 32, 3) and batch.images.dtype == torch.uint8
    assert [tuple(t.shape) for t in batch.joints] == [(4, 31, 17, 3)] * 2 and batch.joints[
        0
    ].dtype == torch.float32
    assert [tuple(t.shape) for t in batch.masks] == [(4, 8, 8), (4, 16, 16)] and batch.masks[
        0
    ].dtype == torch.uint8
    assert sorted(batch.image_ids.tolist()) == [10, 11, 12, 13] and batch.replaced == {}
    people = dict(
        zip(batch.image_ids.tolist(), (batch.joints[0][..., 2] > 0).any(-1).sum(-1).tolist())
    )
    assert people == {10: 1, 11: 0, 12: 2, 13: 31}
    assert same(batch.to("cpu", non_blocking=True), batch)


def test_a_batch_without_people(tree: Tree) -> None:
    batch = next(iter(build_train_loader(settings(), opened(tree((0, 0))))))
    assert batch.joints[0].shape == (2, 1, 17, 3) and not batch.joints[0].any()


def test_four_columns_and_the_center(tree: Tree) -> None:
    loader = build_train_loader(
        settings(), opened(tree((1, 2)), with_center=True, sigma=ScaleSigma())
    )
    assert next(iter(loader)).joints[1].shape == (2, 2, 18, 4)


def test_workers_change_nothing(tree: Tree) -> None:
    dataset = opened(tree((1, 0, 2, 31, 1, 1)))
    alone, others = (build_train_loader(settings(WORKERS=workers), dataset) for workers in (0, 2))
    assert len(alone) == len(others) == 3
    batches = list(zip(epochs(alone), epochs(others), strict=True))
    assert len(batches) == 6 and all(same(one, other) for one, other in batches)
    first, second = (batches[i][0] for i in (0, 3))
    assert not torch.equal(first.images, second.images)


def test_two_ranks_with_half_the_batch_see_what_one_with_the_whole_sees(tree: Tree) -> None:
    dataset = opened(tree((1,) * 9))
    whole = list(epochs(build_train_loader(settings(IMAGES_PER_GPU=4), dataset)))
    halves = [list(epochs(build_train_loader(settings(), dataset, rank, 2))) for rank in (0, 1)]
    steps = list(epochs(build_train_loader(settings(ACCUMULATION_STEPS=2), dataset)))
    assert len(whole) == len(halves[0]) == len(halves[1]) == 4 and len(steps) == 8
    for step, batch in enumerate(whole):
        for parts in ([half[step] for half in halves], steps[2 * step : 2 * step + 2]):
            assert all(
                torch.equal(torch.cat(pair), tensor)
                for *pair, tensor in zip(*map(flat, parts), flat(batch))
            )


@pytest.mark.parametrize(
    "images, batch, processes, group, steps",
    [
        (10, 2, 1, 1, 5),
        (11, 2, 1, 1, 5),
        (10, 2, 2, 1, 2),
        (10, 2, 2, 2, 2),
        (9, 1, 2, 3, 3),
        (1, 4, 2, 1, 1),
        (3, 2, 2, 2, 2),
    ],
)
def test_steps_of_an_epoch(images: int, batch: int, processes: int, group: int, steps: int) -> None:
    samplers = [
        EpochSampler(images, batch, rank=r, world_size=processes, seed=1, group=group)
        for r in range(processes)
    ]
    assert (
        {len(sampler) for sampler in samplers}
        == {steps}
        == {len(list(sampler)) for sampler in samplers}
    )
    seen = [
        index for sampler in samplers for part in sampler for epoch, index in part if epoch == 0
    ]
    assert len(seen) == steps * batch * processes
    assert len(set(seen)) == len(seen)  # no image twice with the same augmentation
    counts = np.bincount(np.array(seen) % images, minlength=images)
    assert counts.max() - counts.min() <= 1


def test_an_epoch_resumes_at_a_step() -> None:
    sampler = EpochSampler(20, 3, seed=5)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.set_epoch(4, start_step=2)
    assert list(sampler) == whole[2:] and len(sampler) == 6
    sampler.set_epoch(5)
    orders = [[index for _, index in itertools.chain(*part)] for part in (whole, sampler)]
    assert orders[0] != orders[1] and sorted(orders[0]) != orders[0]
    assert not np.array_equal(EpochSampler(20, 3, seed=6).permutation(4), sampler.permutation(4))


def test_the_order_is_not_drawn_from_the_numbers_of_a_sample() -> None:
    """Those of [seed, epoch] alone are those of the sample [seed, epoch, 0]."""
    of_sample = np.random.default_rng(np.random.SeedSequence([5, 4, 0]))
    order = EpochSampler(20, 3, seed=5).permutation(4)
    assert not np.array_equal(order, of_sample.permutation(20))


def test_how_batches_are_loaded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers stay from epoch to epoch; memory is pinned for a GPU alone."""
    dataset = opened(tree((1, 1)))
    for workers in (0, 2):
        loader = build_train_loader(settings(WORKERS=workers), dataset)
        assert (loader.num_workers, loader.persistent_workers) == (workers, workers > 0)
    for wanted, has_gpu in itertools.product((True, False), repeat=2):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)  # noqa: B023
        loader = build_train_loader(settings(PIN_MEMORY=wanted), dataset)
        assert loader.pin_memory == (wanted and has_gpu)


def test_a_worker_has_one_thread_and_reuses_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: calls.append(("threads", count)))
    monkeypatch.setattr(loaders, "keep_memory", lambda limit: calls.append(("memory", limit)))
    loaders.start_worker(3)
    assert calls == [("threads", 0), ("memory", 32 * 2**20)]


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, "cannot be read (No such file or directory)"),
    "zero bytes": (lambda path: path.write_bytes(b""), "the file is empty"),
    "truncated": (
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        "the file is cut off after 500 bytes",
    ),
    "wrong size": (
        lambda path: cv2.imwrite(str(path), np.zeros((40, 60, 3), np.uint8)),
        "the file has 60 x 40 pixels, the annotation file says 64 x 48",
    ),
}


@pytest.mark.parametrize("damage, workers", [*((kind, 0) for kind in DAMAGES), ("zero bytes", 1)])
def test_a_bad_image_stops_with_one_line(tree: Tree, damage: str, workers: int) -> None:
    root = tree((1, 1))
    dataset = opened(root)
    path = root / "images/train2017/11.png"
    do_damage, message = DAMAGES[damage]
    do_damage(path)
    loader = build_train_loader(settings(WORKERS=workers), dataset)
    with pytest.raises(ImageError) as error:
        list(loader)
    if workers:
        # The garbage collector would do it too, but waits five seconds.
        loader._iterator._shutdown_workers()
    assert str(error.value) == f"image 11: {path}: {message}"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_image_is_replaced_by_the_next(tree: Tree, damage: str) -> None:
    root = tree((1, 1, 1, 1))
    dataset = opened(root)
    DAMAGES[damage][0](root / "images/train2017/11.png")
    samples = [
        list(epochs(build_train_loader(settings(ON_BAD_SAMPLE="skip", WORKERS=w), dataset)))
        for w in (0, 1)
    ]
    assert all(same(one, other) for one, other in zip(*samples, strict=True))
    bad = [batch.replaced for batch in samples[0]]
    reason = f"image 11: {root / 'images/train2017/11.png'}: {DAMAGES[damage][1]}"
    assert sorted(map(len, bad)) == [0, 0, 1, 1] and all(part in ({}, {11: reason}) for part in bad)
    for first in (0, 2):
        ids = torch.cat([batch.image_ids for batch in samples[0][first : first + 2]])
        assert sorted(ids.tolist()) == [10, 12, 12, 13]


@pytest.mark.parametrize("workers", [0, 1])
def test_transforms_that_give_other_sizes_stop_with_one_line(tree: Tree, workers: int) -> None:
    loader = build_train_loader(settings(TRANSFORMS=["flip"], WORKERS=workers), opened(tree()))
    with pytest.raises(TransformError) as error:
        next(iter(loader))
    if workers:
        loader._iterator._shutdown_workers()
    said = r"image 1[0-3]: the transforms give an image of 64 x 48 px"
    assert re.match(said, str(error.value))
    assert "\n" not in str(error.value)


def test_no_image_can_be_read(tree: Tree) -> None:
    root = tree((1, 1))
    samples = TrainingSet(opened(root), Affine(input_size=32, output_sizes=(8,)), skip_bad=True)
    assert len(samples) == 2 and collate([samples[0, 0]]).images.shape == (1, 32, 32, 3)
    for path in (root / "images/train2017").iterdir():
        path.write_bytes(b"no image")
    said = "none of its 2 images can be used; the last one: image 11: .*11.png: not an image"
    with pytest.raises(ImageError, match=said):
        samples[0, 0]


def test_a_broken_segmentation_is_told_as_such(tree: Tree) -> None:
    dataset = opened(tree((1, 1)))
    dataset.arrays.outlines = lambda image_id: [{"size": [48, 64]}] if image_id == 11 else []
    [batch] = build_train_loader(settings(ON_BAD_SAMPLE="skip"), dataset)
    assert "11.png: a segmentation of its annotations is broken" in batch.replaced[11]


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_set_smaller_than_a_step_is_filled_with_other_crops(tree: Tree, repeat: int) -> None:
    """The same ones when the epoch is resumed."""
    options = {"IMAGES_PER_GPU": 4, "ACCUMULATION_STEPS": 3, "REPEAT": repeat}
    loader = build_train_loader(settings(**options), opened(tree((1, 1, 1))))
    whole = list(loader)
    assert len(torch.unique(torch.cat([batch.images for batch in whole]), dim=0)) == 12
    ids = torch.cat([batch.image_ids for batch in whole]).tolist()
    assert [ids.count(image_id) for image_id in (10, 11, 12)] == [4, 4, 4]
    loader.batch_sampler.set_epoch(0, start_step=2)
    [last] = loader
    assert same(last, whole[2])
