"""What must hold between settings, and which settings have no effect beside others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from swahr.config.errors import Problem
from swahr.config.keys import lookup
from swahr.config.paths import configured_skeleton
from swahr.skeleton import SKELETON_OF, SkeletonError

CHOICES: dict[str, tuple[Any, ...]] = {
    "DIST_BACKEND": ("nccl", "gloo"),
    "AMP.DTYPE": ("bf16", "fp16"),
    "MODEL.NAME": ("pose_higher_hrnet",),
    "MODEL.EXTRA.FINAL_CONV_KERNEL": (1, 3),
    "MODEL.EXTRA.DECONV.KERNEL_SIZE": (2, 3, 4),
    **{f"MODEL.EXTRA.STAGE{number}.BLOCK": ("BASIC", "BOTTLENECK") for number in (2, 3, 4)},
    **{f"MODEL.EXTRA.STAGE{number}.FUSE_METHOD": ("SUM",) for number in (2, 3, 4)},
    **{f"MODEL.EXTRA.STAGE{number}.NUM_BRANCHES": (number,) for number in (2, 3, 4)},
    "LOSS.AE_LOSS_TYPE": ("exp", "max"),
    "DATASET.DATA_FORMAT": ("jpg", "zip"),
    "DATASET.SCALE_TYPE": ("short", "long"),
    "DATASET.ON_BAD_SAMPLE": ("stop", "skip"),
    "TRAIN.LR_SCHEDULE": ("linear", "step"),
    "TRAIN.OPTIMIZER": ("adam", "sgd"),
}
DATASETS = dict.fromkeys(("DATASET.DATASET", "DATASET.DATASET_TEST"), tuple(SKELETON_OF))

ABOVE_ZERO = (
    "PRINT_FREQ",
    "FP16.STATIC_LOSS_SCALE",
    "MODEL.NUM_JOINTS",
    "MODEL.EXTRA.FPN_CHANNELS",
    "MODEL.EXTRA.DECONV.NUM_CHANNELS",
    *(
        f"MODEL.EXTRA.STAGE{n}.{key}"
        for n in (2, 3, 4)
        for key in ("NUM_MODULES", "NUM_BLOCKS", "NUM_CHANNELS")
    ),
    "LOSS.NUM_STAGES",
    "DATASET.NUM_JOINTS",
    "DATASET.MAX_NUM_PEOPLE",
    "DATASET.MIN_SCALE",
    "DATASET.INPUT_SIZE",
    "DATASET.REPEAT",
    "DATASET.OUTPUT_SIZE",
    "DATASET.BASE_SIZE",
    "DATASET.BASE_SIGMA",
    "TRAIN.LR",
    "TRAIN.LR_FACTOR",
    "TRAIN.LR_STEP",
    "TRAIN.END_EPOCH",
    "TRAIN.IMAGES_PER_GPU",
    "TRAIN.ACCUMULATION_STEPS",
    "TRAIN.MAX_BAD_STEPS",
    "TEST.IMAGES_PER_GPU",
    "TEST.SCALE_FACTOR",
    "TEST.NMS_KERNEL",
    "TEST.TAG_THRESHOLD",
)
NOT_BELOW_ZERO = (
    "WORKERS",
    "WORLD_SIZE",
    "MODEL.EXTRA.DECONV.NUM_DECONVS",
    "MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS",
    "LOSS.HEATMAPS_LOSS_FACTOR",
    "LOSS.PUSH_LOSS_FACTOR",
    "LOSS.PULL_LOSS_FACTOR",
    "LOSS.GAMMA",
    "LOSS.SCALE_LOSS_FACTOR",
    "DATASET.MAX_ROTATION",
    "DATASET.MAX_TRANSLATE",
    "DATASET.MIN_KEYPOINTS",
    "TRAIN.WARM_UP_EPOCH",
    "TRAIN.WD",
    "TRAIN.BEGIN_EPOCH",
    "TRAIN.SEED",
    "TRAIN.VAL_INTERVAL",
    "TRAIN.CHECKPOINT_MINUTES",
    "TRAIN.PATIENCE",
    "TRAIN.EMA",
    "TRAIN.CLIP_NORM",
    "TEST.NMS_PADDING",
    "TEST.DETECTION_THRESHOLD",
)
ZERO_TO_ONE = ("DATASET.FLIP", "TRAIN.MOMENTUM")

PER_STAGE = (
    "LOSS.WITH_HEATMAPS_LOSS",
    "LOSS.HEATMAPS_LOSS_FACTOR",
    "LOSS.WITH_AE_LOSS",
    "LOSS.PUSH_LOSS_FACTOR",
    "LOSS.PULL_LOSS_FACTOR",
    "DATASET.OUTPUT_SIZE",
    "TEST.WITH_HEATMAPS",
    "TEST.WITH_AE",
)


def find_problems(cfg: Any) -> Iterator[Problem]:
    """Everything that is wrong with a complete, well-typed configuration; each problem names the
    keys it comes from.
    """
    for check in (_choices, _ranges, _stages, _stage_lists, _joints, _sizes, _training, _testing):
        yield from check(cfg)


def _choices(cfg: Any) -> Iterator[Problem]:
    names = {} if cfg.DATASET.SKELETON else DATASETS
    for key, allowed in (CHOICES | names).items():
        for value in _entries(lookup(cfg, key)):
            if value not in allowed:
                right = (
                    str(allowed[0])
                    if len(allowed) == 1
                    else "one of " + ", ".join(map(str, allowed))
                )
                hint = "; other sets need DATASET.SKELETON" if key in DATASETS else ""
                yield Problem((key,), f"must be {right}, not {value}{hint}")
                break
    if not re.fullmatch(r"(cpu|cuda(:\d+)?)?", cfg.DEVICE):
        yield Problem(("DEVICE",), f"must be cpu, cuda, cuda:N or empty, not {cfg.DEVICE}")


def _entries(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _ranges(cfg: Any) -> Iterator[Problem]:
    rules: tuple[tuple[Sequence[str], Callable[[float], bool], str], ...] = (
        (ABOVE_ZERO, lambda value: value > 0, "above 0"),
        (NOT_BELOW_ZERO, lambda value: value >= 0, "0 or more"),
        (ZERO_TO_ONE, lambda value: 0 <= value <= 1, "from 0 to 1"),
    )
    for keys, holds, right in rules:
        for key in keys:
            wrong = [value for value in _entries(lookup(cfg, key)) if not holds(value)]
            if wrong:
                yield Problem((key,), f"must be {right}, not {wrong[0]}")


def _stages(cfg: Any) -> Iterator[Problem]:
    """The number of output resolutions and everything that has an entry for each."""
    stages = cfg.LOSS.NUM_STAGES
    deconvs = cfg.MODEL.EXTRA.DECONV.NUM_DECONVS
    number = "LOSS.NUM_STAGES"
    count = "MODEL.EXTRA.DECONV.NUM_DECONVS"
    if stages != deconvs + 1:
        text = (
            f"is {stages}; the network has {deconvs + 1} output resolutions ({count} is {deconvs})"
        )
        yield Problem((number, count), text)
    for key in PER_STAGE:
        length = len(lookup(cfg, key))
        if length != stages:
            yield Problem(
                (key, number),
                f"has length {length}; LOSS.NUM_STAGES is {stages}, so it must be {stages}",
            )
    for key in ("NUM_CHANNELS", "KERNEL_SIZE", "CAT_OUTPUT"):
        length = len(cfg.MODEL.EXTRA.DECONV[key])
        if length < deconvs:
            text = f"has length {length}; NUM_DECONVS is {deconvs}, so it must be {deconvs}"
            yield Problem((f"MODEL.EXTRA.DECONV.{key}", count), text)


def _stage_lists(cfg: Any) -> Iterator[Problem]:
    for section in ("MODEL.EXTRA.STAGE2", "MODEL.EXTRA.STAGE3", "MODEL.EXTRA.STAGE4"):
        branches = lookup(cfg, section).NUM_BRANCHES
        for key in ("NUM_BLOCKS", "NUM_CHANNELS"):
            length = len(lookup(cfg, section)[key])
            if length != branches:
                text = f"has length {length}; NUM_BRANCHES is {branches}, so it must be {branches}"
                yield Problem((f"{section}.{key}", f"{section}.NUM_BRANCHES"), text)


def _joints(cfg: Any) -> Iterator[Problem]:
    """The skeleton, and the numbers that follow from it."""
    training = cfg.DATASET.DATASET
    testing = cfg.DATASET.DATASET_TEST
    if not cfg.DATASET.SKELETON and not {training, testing} <= set(SKELETON_OF):
        return  # an unknown data set, which _choices names
    if not cfg.DATASET.SKELETON and SKELETON_OF[training] != SKELETON_OF[testing]:
        text = f"is {testing}; it must have the joints of DATASET.DATASET, which is {training}"
        yield Problem(("DATASET.DATASET_TEST", "DATASET.DATASET"), text)
    try:
        skeleton = configured_skeleton(cfg)
    except (OSError, TypeError, ValueError) as error:
        text = f"{cfg.DATASET.SKELETON} is not the YAML file of a skeleton ({error})"
        yield Problem(
            ("DATASET.SKELETON",), str(error) if isinstance(error, SkeletonError) else text
        )
        return
    joints = skeleton.num_keypoints + cfg.DATASET.WITH_CENTER
    for key in ("MODEL.NUM_JOINTS", "DATASET.NUM_JOINTS"):
        if lookup(cfg, key) != joints:
            center = " with its centre (DATASET.WITH_CENTER)" if cfg.DATASET.WITH_CENTER else ""
            text = (
                f"is {lookup(cfg, key)}; the skeleton {skeleton.name} has {joints} joints{center}"
            )
            yield Problem((key, "DATASET.SKELETON", "DATASET.DATASET", "DATASET.WITH_CENTER"), text)


def _sizes(cfg: Any) -> Iterator[Problem]:
    size = cfg.DATASET.INPUT_SIZE
    outputs = cfg.DATASET.OUTPUT_SIZE
    if size % 32:
        yield Problem(("DATASET.INPUT_SIZE",), f"must be a multiple of 32, not {size}")
    elif size > 0:
        right = [size // 4 * 2**stage for stage in range(len(outputs))]
        if outputs != right:
            keys = ("DATASET.OUTPUT_SIZE", "DATASET.INPUT_SIZE")
            yield Problem(
                keys, f"is {outputs}; with INPUT_SIZE {size} the network's maps have sides {right}"
            )
    smallest = cfg.DATASET.MIN_SCALE
    largest = cfg.DATASET.MAX_SCALE
    if smallest > largest:
        text = f"is {smallest}; it must not be above MAX_SCALE, which is {largest}"
        yield Problem(("DATASET.MIN_SCALE", "DATASET.MAX_SCALE"), text)
    if cfg.DATASET.SIGMA == 0:
        yield Problem(("DATASET.SIGMA",), "must be above 0, or below 0 for the map's side / 64")


def _training(cfg: Any) -> Iterator[Problem]:
    begin = cfg.TRAIN.BEGIN_EPOCH
    end = cfg.TRAIN.END_EPOCH
    steps = cfg.TRAIN.LR_STEP
    if begin >= end:
        text = f"is {begin}; it must be below END_EPOCH, which is {end}"
        yield Problem(("TRAIN.BEGIN_EPOCH", "TRAIN.END_EPOCH"), text)
    if steps != sorted(set(steps)):
        yield Problem(("TRAIN.LR_STEP",), f"must rise from entry to entry, unlike {steps}")
    if cfg.TRAIN.NESTEROV and cfg.TRAIN.OPTIMIZER == "sgd" and not cfg.TRAIN.MOMENTUM:
        yield Problem(
            ("TRAIN.NESTEROV", "TRAIN.OPTIMIZER", "TRAIN.MOMENTUM"), "needs a MOMENTUM above 0"
        )


def _testing(cfg: Any) -> Iterator[Problem]:
    scales = cfg.TEST.SCALE_FACTOR
    if 1 not in scales:
        yield Problem(
            ("TEST.SCALE_FACTOR",),
            f"must contain 1, the scale that tags come from, unlike {scales}",
        )
    if len(set(scales)) != len(scales):
        yield Problem(("TEST.SCALE_FACTOR",), f"has a scale twice: {scales}")
    kernel = cfg.TEST.NMS_KERNEL
    padding = cfg.TEST.NMS_PADDING
    if kernel % 2 == 0:
        yield Problem(("TEST.NMS_KERNEL",), f"must be odd, not {kernel}")
    elif padding != kernel // 2:
        text = f"is {padding}; with NMS_KERNEL {kernel} it must be {kernel // 2}"
        yield Problem(("TEST.NMS_PADDING", "TEST.NMS_KERNEL"), text)
    for used, learnt, maps in (
        ("TEST.WITH_HEATMAPS", "LOSS.WITH_HEATMAPS_LOSS", "heatmaps"),
        ("TEST.WITH_AE", "LOSS.WITH_AE_LOSS", "tags"),
    ):
        if not any(map(all, zip(lookup(cfg, used), lookup(cfg, learnt), strict=False))):
            text = f"uses no resolution that learns {maps} ({learnt}); testing needs at least one"
            yield Problem((used, learnt, "LOSS.NUM_STAGES"), text)


def without_effect(cfg: Any) -> Iterator[tuple[str, str]]:
    """Keys that change nothing, with the reason: always, and beside the other settings."""
    yield from {
        "GPUS": "every visible GPU is used, or --gpus many",
        "RANK": "the launcher gives it",
        "VERBOSE": "see the logging module",
        "MULTIPROCESSING_DISTRIBUTED": "always one process for each GPU",
        "MODEL.EXTRA.STEM_INPLANES": "the stem has 64 channels",
        "TRAIN.GAMMA1": "not used by any optimiser here",
        "TRAIN.GAMMA2": "not used by any optimiser here",
        "TRAIN.RESUME": "use AUTO_RESUME",
        "TRAIN.CHECKPOINT": "use AUTO_RESUME or MODEL.PRETRAINED",
        "TRAIN.SHUFFLE": "training images are always shuffled",
        "DEBUG.SAVE_BATCH_IMAGES_GT": "no such panel",
        "DEBUG.SAVE_BATCH_IMAGES_PRED": "no such panel",
    }.items()
    conditions: tuple[tuple[bool, str, tuple[str, ...]], ...] = (
        (
            cfg.TRAIN.LR_SCHEDULE != "step",
            "only with TRAIN.LR_SCHEDULE step",
            ("TRAIN.LR_STEP", "TRAIN.LR_FACTOR"),
        ),
        (
            cfg.TRAIN.LR_SCHEDULE != "linear",
            "only with TRAIN.LR_SCHEDULE linear",
            ("TRAIN.WARM_UP_EPOCH", "WORLD_SIZE"),
        ),
        (
            cfg.TRAIN.OPTIMIZER != "sgd",
            "only with TRAIN.OPTIMIZER sgd",
            ("TRAIN.MOMENTUM", "TRAIN.WD", "TRAIN.NESTEROV"),
        ),
        (not cfg.LOSS.WEIGHT_ADAPTIVE, "only with LOSS.WEIGHT_ADAPTIVE", ("LOSS.GAMMA",)),
        (not cfg.LOSS.SCALE_ADAPTIVE, "only with LOSS.SCALE_ADAPTIVE", ("LOSS.SCALE_LOSS_FACTOR",)),
        (
            not cfg.DATASET.SCALE_AWARE_SIGMA,
            "only with DATASET.SCALE_AWARE_SIGMA",
            ("DATASET.BASE_SIZE", "DATASET.BASE_SIGMA", "DATASET.INT_SIGMA"),
        ),
        (not cfg.DATASET.WITH_CENTER, "only with DATASET.WITH_CENTER", ("TEST.IGNORE_CENTER",)),
        (
            not cfg.FP16.ENABLED,
            "only with fp16",
            ("FP16.STATIC_LOSS_SCALE", "FP16.DYNAMIC_LOSS_SCALE"),
        ),
        (not cfg.AMP.ENABLED, "only with AMP.ENABLED", ("AMP.DTYPE",)),
    )
    for idle, reason, keys in conditions:
        if idle:
            yield from ((key, reason) for key in keys)
