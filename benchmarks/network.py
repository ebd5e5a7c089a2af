"""Benchmarks of the network and of whole runs, from files to results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Bench, Row, benchmark, close

ROOT = Path(__file__).resolve().parents[1]
W32 = ROOT / "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"
TINY = ROOT / "experiments/synthetic/tiny_192_cpu.yaml"
JOINTS = 17
BATCH = 20
SIZE = 512  # px, of the network's input
IMAGE = (480, 640, 3)
MIXED = ["AMP.ENABLED", True, "AMP.DTYPE", "bf16"]
# How far the network's maps may be from the plain ones, as a fraction of the largest value. Fused
# layers round differently: W32 with random weights differed by 2e-6 in float32 on a CPU. GPUs
# convolve float32 in TF32, which has 11 bits: rounding to these on a CPU changed the maps by 2e-3.
# bf16 has 8 bits, and changed them by 3e-2. A single convolution of zeros changes them by 7e-2 to
# 6e-1, so the bound for bf16 does not see every wrong layer.
TOLERANCE = 1e-4
TF32_TOLERANCE = 1e-2
BF16_TOLERANCE = 0.1


def make_images(bench: Bench, train: int, val: int) -> Path:
    """Root of a set of synthetic images like COCO's, three people each; made once for all
    benchmarks.
    """
    from swahr.synthetic import SceneSettings, write_dataset

    scenes = SceneSettings(
        width=(560, 640), height=(420, 480), people=(3, 3), figure_height=(0.3, 0.9), crowd=0.0
    )
    root = bench.folder / f"images_{train}_{val}"
    write_dataset(root, num_train=train, num_val=val, settings=scenes, workers=os.cpu_count() or 1)
    return root


class NetworkWithCrowd:
    """A network whose maps are almost zero, with the maps of a crowd added.

    seconds: time in the network. added_seconds: time that only the benchmark needs. maps: the
    network's own heatmaps of the last call.
    """

    def __init__(self, model: Callable[[Tensor], Any], people: int, flip_index: Any) -> None:
        self.model = model
        self.people = people
        self.flip_index = list(flip_index)
        self.seconds = 0.0
        self.added_seconds = 0.0
        self.maps: list[Tensor] = []
        self.crowds: dict[Any, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> list[Any]:
        """images: (2 B, 3, h, w), B images and their mirror images."""
        start = time.perf_counter()
        outputs = self.model(images)
        done = time.perf_counter()
        self.maps = [output.heatmaps for output in outputs]
        crowded = []
        for output in outputs:
            heat, tag = self.crowd(output.heatmaps)
            heatmaps = (output.heatmaps.unflatten(0, (2, -1)) + heat).flatten(0, 1)
            tags = output.tags
            if tags is not None:
                tags = (tags.unflatten(0, (2, -1)) + tag).flatten(0, 1)
            crowded.append(output._replace(heatmaps=heatmaps, tags=tags))
        self.seconds += done - start
        self.added_seconds += time.perf_counter() - done
        return crowded

    def crowd(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps and tags (2, 1, K, h, w) of the crowd and its mirror image."""
        from tests.oracles.crowds import crowd

        size = tuple(like.shape[2:])
        if size not in self.crowds:
            heatmaps, tags = crowd(self.people, size, JOINTS, tag_maps=1)
            both = [
                torch.stack([maps, maps.flip(3)[:, self.flip_index]])
                for maps in (heatmaps, tags[..., 0])
            ]
            self.crowds[size] = both[0].to(like.device), both[1].to(like.device)
        return self.crowds[size]


def crowd_predictor(
    bench: Bench, opts: list[Any], people: int = 3, device: torch.device | None = None
) -> Any:
    """A predictor with flip testing whose network has W32's size, and finds a crowd in every
    image. opts: settings, key and value in turn. device: another one than the benchmark's.
    """
    from swahr.config import load_config
    from swahr.inference.predictor import build_predictor
    from swahr.skeleton import COCO

    cfg = load_config(W32, list(map(str, opts)))
    model = random_network(cfg)
    with torch.no_grad():
        for layer in model.head.final_layers:
            for parameter in layer.parameters():
                parameter *= 1e-20  # less than the last bit of the crowd's maps
    predictor = build_predictor(cfg, model, COCO, device or bench.device)
    predictor.model = NetworkWithCrowd(predictor.model, people, COCO.flip_index)
    return predictor


def random_network(cfg: Any) -> Any:
    """The network with random weights and batch norms of unit variance.

    In a network as it is before training, most layers change the maps by less than 1e-4 of their
    largest value, so that nobody would see that one is wrong.
    """
    from swahr.models.build import build_model
    from tests.models.tiny_networks import randomized

    return randomized(build_model(cfg))


def tolerance(bench: Bench, dtype: torch.dtype) -> float:
    """Of maps that two networks compute, one of them in this type."""
    if dtype == torch.bfloat16:
        return BF16_TOLERANCE
    return TF32_TOLERANCE if bench.cuda else TOLERANCE


@benchmark
def network(bench: Bench) -> Iterator[Row]:
    """W32 in evaluation: with folded batch norms and without scale heads, against the network as
    it is trained. Both get the same images.
    """
    from swahr.acceleration.fuse import optimize_for_inference
    from swahr.config import load_config

    torch.manual_seed(0)
    model = random_network(load_config(W32)).to(bench.device)
    batch = 16 if bench.cuda else 1
    fast = optimize_for_inference(model)
    images = torch.randn(batch, 3, SIZE, SIZE, device=bench.device)

    def row(dtype: torch.dtype) -> Row:
        with (
            torch.inference_mode(),
            torch.autocast(bench.device.type, dtype, enabled=dtype != torch.float32),
        ):
            return bench.row(
                "network",
                f"W32, {SIZE} px, batch {batch}, {str(dtype)[6:]}",
                lambda: model(images)[-1].heatmaps,
                lambda: fast(images.contiguous(memory_format=torch.channels_last))[-1].heatmaps,
                lambda got, want: close(got, want, tolerance(bench, dtype)),
                images=batch,
                goal_ratio=None if bench.cuda else 1.5,
            )

    dtypes = (torch.float32, torch.bfloat16) if bench.cuda else (torch.float32,)
    yield from bench.each("network", {str(dtype)[6:]: partial(row, dtype) for dtype in dtypes})


@benchmark
def latency(bench: Bench) -> Iterator[Row]:
    """One image with flip testing, from its pixels to its people. Plain is the network as it is
    trained, in float32.
    """
    on_gpu = [["TEST.CUDNN_FUSE"], ["TEST.CUDA_GRAPHS"], ["TEST.CUDNN_FUSE", "TEST.CUDA_GRAPHS"]]
    yield from latencies(bench, [[], *on_gpu] if bench.cuda else [[]])


def latencies(bench: Bench, variants: list[list[str]]) -> Iterator[Row]:
    """A row for each list of settings that are switched on."""
    image = np.random.default_rng(0).integers(0, 256, IMAGE, np.uint8)
    mixed = MIXED if bench.cuda else []
    limit = tolerance(bench, torch.bfloat16 if mixed else torch.float32)
    plain = crowd_predictor(bench, ["TEST.FUSE", False])

    def row(names: list[str]) -> Row:
        ours = crowd_predictor(bench, [*mixed, *(part for name in names for part in (name, True))])

        def same(got: list[Any], want: list[Any]) -> bool:
            """The same people, who are the crowd's, and the same maps of the network's own."""
            pairs = zip(ours.model.maps, plain.model.maps, strict=True)
            return same_people(got, want) and all(close(a, b, limit) for a, b in pairs)

        size = f"{IMAGE[1]} x {IMAGE[0]}"
        return bench.row(
            "latency",
            ", ".join([f"W32, {size}, flip, 3 people", *(["bf16"] if mixed else []), *names]),
            lambda: plain([image]),
            lambda: ours([image]),
            same,
            goal_ms=4 if bench.cuda else None,
        )

    cases = {", ".join(names) or "no settings": partial(row, names) for names in variants}
    yield from bench.each("latency", cases)


def same_people(got: list[Any], want: list[Any]) -> bool:
    """The same people; a joint may be half a pixel off, as fused networks round differently."""
    pairs = list(zip(got, want, strict=True))
    return all(
        a.keypoints.shape == b.keypoints.shape
        and np.allclose(a.keypoints[..., :2], b.keypoints[..., :2], rtol=0, atol=0.5)
        for a, b in pairs
    )


@benchmark
def validation(bench: Bench) -> Iterator[Row]:
    """Files to people with flip testing, as tools/dist_valid.py does it before it scores them.

    There is no plain version.
    """
    from swahr.data.keypoints import KeypointDataset
    from swahr.engine.validate import predict
    from swahr.skeleton import COCO

    batch = 32 if bench.cuda else 1
    root, split = (
        (bench.data, "train2017")
        if bench.data
        else (make_images(bench, 1, 2000 if bench.cuda else 10), "val2017")
    )
    dataset = KeypointDataset(
        root / f"annotations/person_keypoints_{split}.json", root / f"images/{split}", COCO
    )
    count = len(dataset)
    predictor = crowd_predictor(
        bench, ["TEST.IMAGES_PER_GPU", batch, *(MIXED if bench.cuda else [])]
    )

    def run(image_ids: list[int]) -> tuple[float, float]:
        """Seconds in all, and in the network."""
        network = predictor.model
        network.seconds = 0.0
        network.added_seconds = 0.0
        start = time.perf_counter()
        predict(dataset, predictor, image_ids, workers=os.cpu_count() or 1)
        bench.wait()
        return time.perf_counter() - start - network.added_seconds, network.seconds

    run(dataset.image_ids[: count // 5])  # kernels are selected and compiled
    seconds, inside = run(dataset.image_ids)
    source = f" of {root.name}" if bench.data else ""
    case = f"W32, 512 px, flip, 3 people, {count} images{source}, batch {batch}"
    yield Row(
        "validation",
        case,
        None,
        1e3 * seconds,
        images=count,
        goal_ms=count / 0.9 if bench.cuda else None,
        share=None if bench.cuda else inside / seconds,
        goal_share=None if bench.cuda else 0.9,
    )


@benchmark
def training(bench: Bench) -> Iterator[Row]:
    """Steps of training, data loading included. On a GPU, mixed precision against float32, and the
    difference of their mean losses.
    """
    yield from trainings(bench, {"bf16": MIXED_TRAINING} if bench.cuda else {})


MIXED_TRAINING = [*MIXED, "TRAIN.CHANNELS_LAST", True]


def trainings(bench: Bench, variants: dict[str, list[Any]]) -> Iterator[Row]:
    """A row for float32 if there is none yet, and a row for each variant against it.

    variants: settings by name.
    """
    file, name, steps = (W32, "W32, 512 px", 200) if bench.cuda else (TINY, "tiny, 192 px", 20)
    num_images = 1000 if bench.cuda else 40
    name = f"{name}, batch {BATCH}"

    def run(*more: Any) -> tuple[float, Tensor]:
        opts = [
            "DATASET.ROOT",
            make_images(bench, num_images, 1),
            "DATASET.REPEAT",
            steps * BATCH // num_images,
            "WORKERS",
            os.cpu_count() or 1,
            "TRAIN.IMAGES_PER_GPU",
            BATCH,
            "MODEL.PRETRAINED",
            "",
        ]
        return train(bench, file, [*opts, *more], steps)

    def plain_row() -> Row:
        bench.cache["float32"] = run("AMP.ENABLED", False)
        seconds = bench.cache["float32"][0]
        return Row("training", f"{name}, float32", None, 1e3 * seconds, images=BATCH)

    def row(variant: str, more: list[Any]) -> Row:
        seconds, losses = run(*more)
        made = Row("training", f"{name}, {variant}", None, 1e3 * seconds, images=BATCH)
        made.goal_ms = 1e3 * BATCH / 450
        if bench.cache["float32"]:
            plain_seconds, plain = bench.cache["float32"]
            difference = (losses.mean() / plain.mean() - 1).abs().item()
            made.plain_ms = 1e3 * plain_seconds
            made.case += f" against float32; mean loss differs by {100 * difference:.2f} %"
            made.same = difference < 0.02
        return made

    cases: dict[str, Callable[[], Row]] = {}
    if "float32" not in bench.cache:
        bench.cache["float32"] = None  # stays so if it fails, and is not tried again
        cases["float32"] = plain_row
    cases |= {variant: partial(row, variant, more) for variant, more in variants.items()}
    yield from bench.each("training", cases)


def build_trainer(bench: Bench, file: Path, opts: list[Any]) -> Any:
    """The Trainer of an experiment, from new weights, whose validations do nothing."""
    from swahr.config import load_config
    from swahr.distributed.signals import StopRequest
    from swahr.engine import setup

    cfg = load_config(file, [*map(str, opts), "AUTO_RESUME", "False"])
    return setup.build_trainer(
        cfg, bench.folder / "run", None, bench.device, StopRequest(), lambda *args, **options: {}
    )


def train(bench: Bench, file: Path, opts: list[Any], steps: int) -> tuple[float, Tensor]:
    """Train from new weights; return the seconds of a step, loading included, and the loss
    (steps,) of every step.
    """
    from swahr.losses.criterion import total_loss

    trainer = build_trainer(bench, file, opts)
    losses = []
    start = 0.0
    for step, batch in enumerate(trainer.loader):
        if step == steps // 4:  # after the warm-up of loaders and kernels
            bench.wait()
            start = time.perf_counter()
        batch = batch.to(bench.device, non_blocking=True)
        result = trainer.train_step([batch], trainer.schedule(step))
        losses.append(total_loss(result.losses))
        for hook in trainer.hooks.values():
            hook.after_step(trainer)
    bench.wait()
    return (time.perf_counter() - start) / (steps - steps // 4), torch.stack(losses).cpu()


@benchmark
def training_sample(bench: Bench) -> Iterator[Row]:
    """One image of a batch, on one core of the CPU.

    "decode, augment": contents of a JPEG file to the augmented image, joints and masks, which is
    what our loading workers do. "to targets": the same, the image normalised and the targets made,
    for a batch; the published workers do all of it, ours leave the rest to the device.
    """
    import cv2

    from benchmarks.postprocessing import plain_target, same_target
    from swahr.codec.targets import TargetEncoder
    from swahr.data.images import normalize, read_image
    from swahr.data.loaders import start_worker
    from swahr.data.transforms import Affine, Compose, Flip, Sample
    from swahr.skeleton import COCO
    from tests.oracles import augment as oracle

    rng = np.random.default_rng(0)
    blurred = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 2)
    data = cv2.imencode(".jpg", blurred)[1].tobytes()
    joints = rng.uniform(0, 480, (3, JOINTS, 3)).astype(np.float32)
    mask = np.ones((480, 640), np.uint8)
    sizes = (128, 256)
    shape: dict[str, Any] = {"input_size": 512, "output_sizes": sizes}
    outputs = shape | {"flip_index": COCO.flip_index}
    affine = Affine(**shape)
    transform = Compose([affine, Flip(flip_index=COCO.flip_index)], **shape)
    generator = np.random.default_rng(0)
    params = affine.draw(640, 480, generator)._asdict()
    params["mirrored"] = generator.random() < 0.5
    encoder = TargetEncoder(sizes=sizes, sigma=2, scale_aware=False, tag_per_joint=True)

    def augmented() -> tuple[Any, Any, Any]:
        sample = Sample(read_image(data), [joints], [mask])
        return transform(sample, np.random.default_rng(0))

    def plain_augmented() -> tuple[Any, Any, Any]:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), flags), cv2.COLOR_BGR2RGB)
        return oracle.augment(image, joints, mask, **params, **outputs)

    def same_sample(got: tuple[Any, Any, Any], want: tuple[Any, Any, Any]) -> bool:
        pairs = zip([got[0], *got[1], *got[2]], [want[0], *want[1], *want[2]])
        return all(np.allclose(a, b) for a, b in pairs)

    def batch() -> tuple[Tensor, list[Any]]:
        samples = [augmented() for _ in range(BATCH)]
        images = normalize(torch.from_numpy(np.stack([sample[0] for sample in samples])))
        stages = range(len(sizes))
        stacked = [
            [torch.from_numpy(np.stack([sample[part][i] for sample in samples])) for i in stages]
            for part in (1, 2)
        ]
        return images, encoder(*stacked)

    def plain_batch() -> tuple[Tensor, list[Any]]:
        samples = [
            oracle.training_sample(data, joints, mask, **params, **outputs) for _ in range(BATCH)
        ]
        images = torch.from_numpy(np.stack([sample[0] for sample in samples]))
        stages = [np.stack([sample[1][i] for sample in samples]) for i in range(len(sizes))]
        return images, [plain_target(stage, size) for stage, size in zip(stages, sizes)]

    def same_batch(got: tuple[Tensor, list[Any]], want: tuple[Tensor, list[Any]]) -> bool:
        same_images = torch.allclose(got[0], want[0], atol=1e-5)
        return same_images and all(map(same_target, got[1], want[1]))

    start_worker(0)
    name = "training sample"
    case = "640 x 480 to 512, 3 people"

    def sample_row() -> Row:
        return bench.row(
            name,
            f"{case}: decode, augment",
            plain_augmented,
            augmented,
            same_sample,
            goal_ms=3,
        )

    def batch_row() -> Row:
        with one_thread():
            return bench.row(
                name,
                f"{case}: to targets, batch {BATCH}",
                plain_batch,
                batch,
                same_batch,
                images=BATCH,
            )

    yield from bench.each(name, {"decode, augment": sample_row, "to targets": batch_row})


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread, as the plain version does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@benchmark
def scale_head(bench: Bench) -> Iterator[Row]:
    """The depthwise convolution of a scale head on a CPU, whose weight's gradient is our own."""
    from swahr.models.depthwise import DepthwiseConv2d

    if bench.cuda:
        return
    torch.manual_seed(0)
    conv = DepthwiseConv2d(JOINTS, kernel_size=9)
    cases = {
        "float32": (torch.float32, torch.contiguous_format),
        "float32, channels_last": (torch.float32, torch.channels_last),
        "bf16, channels_last": (torch.bfloat16, torch.channels_last),
    }

    def row(name: str) -> Row:
        dtype, layout = cases[name]
        maps, gradient = torch.randn(2, 8, JOINTS, 96, 96).to(dtype)
        maps = maps.contiguous(memory_format=layout).requires_grad_()
        gradient = gradient.contiguous(memory_format=layout)

        def run(ours: bool) -> Tensor:
            """The gradient of the weight."""
            conv.sum_in_float32 = ours
            conv.weight.grad = None
            with torch.autocast("cpu", maps.dtype, enabled=maps.dtype != torch.float32):
                output = conv(maps)
            output.backward(gradient)
            assert conv.weight.grad is not None
            return conv.weight.grad

        return bench.row(
            "scale head",
            f"{JOINTS} filters of 9 x 9, 96 px, batch 8, {name}",
            lambda: run(False),
            lambda: run(True),
            lambda got, want: close(got, want, 30 * torch.finfo(dtype).eps),
            images=8,
        )

    yield from bench.each("scale head", {name: partial(row, name) for name in cases})
