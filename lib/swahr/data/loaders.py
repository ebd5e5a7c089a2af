"""Training batches: the order of the images, their distribution over ranks, and how samples are
collated.

Everything about a sample follows from (seed, epoch, index), so that runs agree for every number of
workers and processes, and can resume in the middle of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from yacs.config import CfgNode

from swahr.allocator import keep_memory
from swahr.data.images import ImageError
from swahr.data.keypoints import KeypointDataset
from swahr.data.transforms import Joints, Sample, Transform, TransformError, build_transforms
from swahr.words import counted

KEPT_MEMORY = 32 * 2**20  # bytes that a loading worker keeps when they are freed


class LoadedSample(NamedTuple):
    """One augmented image.

    replaced: the reason for each image that could not be used and that it replaces, by id.
    """

    sample: Sample
    image_id: int
    replaced: dict[int, str]


class Batch(NamedTuple):
    """B samples.

    images: (B, S, S, 3) uint8.
    joints: for each output (B, N, K, 3|4) float32 in its px, N >= 1, 0 where a sample has fewer
    people.
    masks: for each output (B, h, w) uint8.
    image_ids: (B,) int64. replaced: the reason for each image that could not be used and was
    replaced, by id.
    """

    images: Tensor
    joints: list[Tensor]
    masks: list[Tensor]
    image_ids: Tensor
    replaced: dict[int, str]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        joints = [move(t) for t in self.joints]
        masks = [move(t) for t in self.masks]
        return Batch(move(self.images), joints, masks, move(self.image_ids), self.replaced)


class TrainingSet(Dataset[LoadedSample]):
    """Augmented samples of a data set, by (epoch, index).

    Indices may exceed the number of images: index + n x images is the same image, augmented in
    another way.
    """

    def __init__(
        self,
        dataset: KeypointDataset,
        transform: Transform,
        *,
        seed: int = 0,
        skip_bad: bool = False,
        repeat: int = 1,
    ) -> None:
        """skip_bad: replace an image that cannot be used by the next one that can, instead of
        raising its ImageError. repeat: times that each image occurs in an epoch. A TransformError
        is raised again with the id of its image.
        """
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.skip_bad = skip_bad
        self.repeat = repeat
        # An array: the numbers of a list would be copied to every worker.
        self._image_ids = np.array(dataset.image_ids, np.int64)

    def __len__(self) -> int:
        return len(self._image_ids) * self.repeat

    def __getitem__(self, key: tuple[int, int]) -> LoadedSample:
        epoch, index = key
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch, index]))
        replaced: dict[int, str] = {}
        images = len(self._image_ids)
        for step in range(images):
            image_id = int(self._image_ids[(index + step) % images])
            try:
                image = self.dataset.read(image_id)
                mask = self.dataset.mask(image_id)
            except ImageError as error:
                if not self.skip_bad:
                    raise
                replaced[image_id] = str(error)
                continue
            sample = Sample(image, [self.dataset.joints(image_id)], [mask])
            try:
                sample = self.transform(sample, rng)
            except TransformError as error:
                raise TransformError(f"image {image_id}: {error}") from None
            return LoadedSample(sample, image_id, replaced)
        raise ImageError(
            f"{self.dataset.annotation_file}: none of its {counted(images, 'image')} can be used; "
            f"the last one: {replaced[image_id]}"
        )


def collate(loaded: Sequence[LoadedSample]) -> Batch:
    """Stack samples; people are padded with zeros (no joint visible) to the largest number in the
    batch, at least one.
    """
    samples = [item.sample for item in loaded]
    outputs = range(len(samples[0].masks))
    joints = [torch.from_numpy(_pad([sample.joints[i] for sample in samples])) for i in outputs]
    masks = [default_collate([sample.masks[i] for sample in samples]) for i in outputs]
    # In a worker, default_collate writes straight into shared memory.
    images = default_collate([sample.image for sample in samples])
    ids = torch.tensor([item.image_id for item in loaded], dtype=torch.int64)
    replaced = {key: reason for item in loaded for key, reason in item.replaced.items()}
    return Batch(images, joints, masks, ids, replaced)


def _pad(joints: Sequence[Joints]) -> NDArray[np.float32]:
    padded = np.zeros((len(joints), max(1, *map(len, joints)), *joints[0].shape[1:]), np.float32)
    for row, people in zip(padded, joints):
        row[: len(people)] = people
    return padded


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for one rank.

    An epoch is a permutation of the images drawn from (seed, epoch). Each step takes the next
    batch_size x world_size of them, of which rank r takes the r-th part: two ranks with half the
    batch see what one rank with the whole batch sees. An epoch has as many steps as fit, in whole
    groups of `group` (accumulated) steps, so that every rank and every update has its full number
    of images; the remaining images differ from epoch to epoch. A set too small for one group is
    repeated to fill it, each time with higher indices, so that TrainingSet augments it anew.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        group: int = 1,
    ) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.steps = max(1, num_images // (batch_size * world_size * group)) * group
        self.epoch = 0
        self.start_step = 0

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch to iterate over; start_step: the first step, to resume in the middle of
        an epoch.
        """
        self.epoch = epoch
        self.start_step = start_step

    def __len__(self) -> int:
        """Steps of a whole epoch."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.permutation(self.epoch)
        images_per_step = self.batch_size * self.world_size
        for step in range(self.start_step, self.steps):
            first = step * images_per_step + self.rank * self.batch_size
            rounds, positions = np.divmod(
                np.arange(first, first + self.batch_size), self.num_images
            )
            indices = order[positions] + rounds * self.num_images
            yield [(self.epoch, index) for index in indices.tolist()]

    def permutation(self, epoch: int) -> NDArray[np.int64]:
        """The order of the images in an epoch, (num_images,).

        Its random stream differs from those of the samples, [seed, epoch, index].
        """
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch], spawn_key=(0,)))
        return rng.permutation(self.num_images)


def build_train_loader(
    cfg: CfgNode, dataset: KeypointDataset, rank: int = 0, world_size: int = 1
) -> DataLoader[LoadedSample]:
    """The loader of one rank's training batches; `.batch_sampler.set_epoch(epoch, start_step)`
    chooses the epoch.
    """
    skip_bad = cfg.DATASET.ON_BAD_SAMPLE == "skip"
    samples = TrainingSet(
        dataset,
        build_transforms(cfg, dataset.trained_skeleton),
        seed=cfg.TRAIN.SEED,
        skip_bad=skip_bad,
        repeat=cfg.DATASET.REPEAT,
    )
    sampler = EpochSampler(
        len(samples),
        cfg.TRAIN.IMAGES_PER_GPU,
        rank=rank,
        world_size=world_size,
        seed=cfg.TRAIN.SEED,
        group=cfg.TRAIN.ACCUMULATION_STEPS,
    )
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=cfg.WORKERS,
        persistent_workers=cfg.WORKERS > 0,
        collate_fn=collate,
        worker_init_fn=start_worker,
        pin_memory=cfg.PIN_MEMORY and torch.cuda.is_available(),
    )


def start_worker(_: int) -> None:
    """Make a process a data loading worker: one thread, since there are many workers, and memory
    that is reused.
    """
    cv2.setNumThreads(0)
    keep_memory(KEPT_MEMORY)
