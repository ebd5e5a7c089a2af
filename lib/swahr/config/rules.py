"""The rules for a complete, well-typed configuration. Rules for one key are in the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from typing import Any

from swahr.config.errors import Problem
from swahr.config.paths import configured_skeleton
from swahr.config.schema import SCHEMA, Key, lookup
from swahr.exported import is_exported
from swahr.skeleton import SKELETON_OF, SkeletonError
from swahr.words import counted

# Maps -> the switches of the stages that use them in testing, and that learn them.
_SWITCHES = {
    "heatmaps": ("TEST.WITH_HEATMAPS", "LOSS.WITH_HEATMAPS_LOSS"),
    "tags": ("TEST.WITH_AE", "LOSS.WITH_AE_LOSS"),
}

# The key that names parts -> those of this project. Others are the user's own.
PARTS: dict[str, tuple[str, ...]] = {
    "MODEL.BACKBONE": ("hrnet", "timm"),
    "MODEL.HEAD": ("higher_hrnet",),
    "LOSS.TERMS": ("heatmap", "scale", "associative"),
    "DATASET.TRANSFORMS": ("affine", "flip"),
    "TRAIN.LR_SCHEDULE": ("linear", "step"),
    "TRAIN.OPTIMIZER": ("adam", "sgd"),
    "TRAIN.HOOKS": ("ema", "clip_norm", "best_weights", "early_stopping", "curves", "share_cpu"),
    "TEST.DECODER": ("associative",),
    "TEST.ENGINE": ("onnxruntime", "openvino"),
}

# Beginnings of keys: how PyTorch computes, which exported networks leave to their engine.
OF_PYTORCH = (
    "AMP.",
    "CUDNN.",
    "FP16.",
    "TEST.FUSE",
    "TEST.CUDNN_FUSE",
    "TEST.COMPILE",
    "TEST.CUDA_GRAPHS",
)

# Beginnings of keys that no part reads.
_NOT_OF_PARTS = (*OF_PYTORCH, "DEBUG.", "TRAIN.CHECKPOINT", "TEST.ENGINE")

# One entry for each transposed convolution of the default head.
_DECONV_LISTS = tuple(
    f"MODEL.EXTRA.DECONV.{name}" for name in ("NUM_CHANNELS", "KERNEL_SIZE", "CAT_OUTPUT")
)


def find_problems(cfg: Any) -> Iterator[Problem]:
    """Every problem of a configuration that can be found without its network.

    The first key of a problem is the one that is wrong; the others are those that make it wrong.
    """
    wrong = list(_values(cfg))
    yield from wrong
    broken = {key for problem in wrong for key in problem.keys}
    for check in (_names, _stages, _deconvs, _branches, _joints, _data, _training, _testing):
        for problem in check(cfg):
            if broken.isdisjoint(problem.keys):  # else it only follows from a wrong value
                yield problem


def find_size_problems(cfg: Any, strides: Sequence[int], size_divisor: int) -> Iterator[Problem]:
    """Every problem of the configured sizes with the network.

    strides: input pixels to a pixel of the output, for each stage, low to high. size_divisor: the
    sides of the network's input are multiples of it.
    """
    stages = cfg.LOSS.NUM_STAGES
    if stages != len(strides):
        text = f"is {stages}; the network has {counted(len(strides), 'output resolution')}"
        yield Problem(("LOSS.NUM_STAGES", "MODEL.HEAD", "MODEL.BACKBONE"), text)
    backbone = cfg.MODEL.BACKBONE
    size = cfg.DATASET.INPUT_SIZE
    outputs = cfg.DATASET.OUTPUT_SIZE
    if size % size_divisor:
        text = f"must be a multiple of {size_divisor}, not {size}"
        yield Problem(("DATASET.INPUT_SIZE", "MODEL.BACKBONE"), text)
    elif outputs and outputs != output_sizes(size, strides):
        text = (
            f"is {outputs}; with INPUT_SIZE {size} the maps of the network have sides "
            f"{output_sizes(size, strides)}"
        )
        yield Problem(("DATASET.OUTPUT_SIZE", "DATASET.INPUT_SIZE", "LOSS.NUM_STAGES"), text)
    # The size divisor of a backbone of the user's own need not be its lowest resolution's stride.
    known = _family(backbone) in PARTS["MODEL.BACKBONE"]
    one_image = cfg.TRAIN.IMAGES_PER_GPU == 1 and not cfg.MODEL.SYNC_BN
    if size == size_divisor and known and one_image:
        text = (
            f"is 1; with INPUT_SIZE {size} the lowest resolution is one pixel, and batch norm "
            f"needs more; it must be 2 or more, or INPUT_SIZE {2 * size} or more"
        )
        yield Problem(("TRAIN.IMAGES_PER_GPU", "DATASET.INPUT_SIZE", "MODEL.BACKBONE"), text)


def output_sizes(input_size: int, strides: Sequence[int]) -> list[int]:
    """The sides of the network's output maps in pixels, for each stage."""
    return [input_size // stride for stride in strides]


def find_untrained_maps(cfg: Any, reads: Set[tuple[str, int]]) -> Iterator[Problem]:
    """A problem for heatmaps, and one for tags, if testing uses them where no loss reads them.

    reads: the maps that the losses read, as (name, stage). Tags decide nothing for one person an
    image. A decoder of the user's own may use other maps, so with one there is no problem.
    """
    if SCHEMA["TEST.DECODER"].default != cfg.TEST.DECODER:
        return
    for maps, term, factor, raised in (
        ("heatmaps", "heatmap", "LOSS.HEATMAPS_LOSS_FACTOR", "it"),
        ("tags", "associative", "LOSS.PUSH_LOSS_FACTOR", "it or LOSS.PULL_LOSS_FACTOR"),
    ):
        used, learnt = _SWITCHES[maps]
        stages = _stages_with(cfg, used, learnt)
        alone = maps == "tags" and cfg.DATASET.MAX_NUM_PEOPLE == 1
        if alone or not reads.isdisjoint((maps, stage) for stage in stages):
            continue
        named = term in cfg.LOSS.TERMS
        key = factor if named else "LOSS.TERMS"
        right = f"raise {raised} above 0 there" if named else f"name {term} too"
        text = (
            f"is {lookup(cfg, key)}: no loss reads the {maps} that testing uses ({used}); {right}, "
            "or start from trained weights (MODEL.PRETRAINED)"
        )
        yield Problem((key,), text)


def _values(cfg: Any) -> Iterator[Problem]:
    """The range or the choices of each key."""
    for name, key in SCHEMA.items():
        value = lookup(cfg, name)
        for entry in value if isinstance(value, list) else [value]:
            if not key.accepts(entry):
                yield Problem((name,), f"must be {key.right}, not {entry}")
                break


def _names(cfg: Any) -> Iterator[Problem]:
    """Texts of which the schema cannot list all values."""
    if not re.fullmatch(r"(cpu|cuda(:\d+)?)?", cfg.DEVICE):
        yield Problem(("DEVICE",), f"must be cpu, cuda, cuda:N or empty, not {cfg.DEVICE}")
    if re.search(r"[/\\\0]", cfg.RUN_NAME) or cfg.RUN_NAME in (".", ".."):
        yield Problem(("RUN_NAME",), f"must be the name of one folder, not {cfg.RUN_NAME}")
    for name in () if cfg.DATASET.SKELETON else ("DATASET.DATASET", "DATASET.DATASET_TEST"):
        if lookup(cfg, name) not in SKELETON_OF:
            known = ", ".join(SKELETON_OF)
            text = f"must be one of {known}, not {lookup(cfg, name)}"
            yield Problem((name,), f"{text}; other sets need DATASET.SKELETON")


def _stages(cfg: Any) -> Iterator[Problem]:
    """Lists with one entry for each stage; lists of one entry were spread before."""
    stages = cfg.LOSS.NUM_STAGES
    for name, key in SCHEMA.items():
        length = len(lookup(cfg, name)) if key.per_stage else stages
        if length != stages:
            right = f"1 or {stages}" if stages > 1 else "1"
            text = f"has length {length}; LOSS.NUM_STAGES is {stages}, so it must be {right}"
            yield Problem((name, "LOSS.NUM_STAGES"), text)


def _deconvs(cfg: Any) -> Iterator[Problem]:
    """MODEL.EXTRA.DECONV, which describes the default head."""
    if not _has_default_head(cfg):
        return
    count = "MODEL.EXTRA.DECONV.NUM_DECONVS"
    deconvs = lookup(cfg, count)
    stages = cfg.LOSS.NUM_STAGES
    if stages != deconvs + 1:
        outputs = counted(deconvs + 1, "output resolution")
        text = f"is {stages}; the network has {outputs} ({count} is {deconvs})"
        yield Problem(("LOSS.NUM_STAGES", count), text)
    for name in _DECONV_LISTS:
        length = len(lookup(cfg, name))
        if length < deconvs:
            text = f"has length {length}; NUM_DECONVS is {deconvs}, so it must be {deconvs}"
            yield Problem((name, count), text)


def _has_default_head(cfg: Any) -> bool:
    head: str = cfg.MODEL.HEAD
    return head == SCHEMA["MODEL.HEAD"].default


def _branches(cfg: Any) -> Iterator[Problem]:
    """MODEL.EXTRA.STAGE2 to STAGE4: lists with one entry for each branch."""
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
        return  # _names reports the unknown data set
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
            given = counted(joints, "joint")
            text = f"is {lookup(cfg, key)}; the skeleton {skeleton.name} has {given}{center}"
            yield Problem((key, "DATASET.SKELETON", "DATASET.DATASET", "DATASET.WITH_CENTER"), text)


def _data(cfg: Any) -> Iterator[Problem]:
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
        text = "needs a MOMENTUM above 0"
        yield Problem(("TRAIN.NESTEROV", "TRAIN.OPTIMIZER", "TRAIN.MOMENTUM"), text)
    if cfg.FP16.ENABLED and cfg.FP16.STATIC_LOSS_SCALE == 1 and not cfg.FP16.DYNAMIC_LOSS_SCALE:
        text = "must not be 1: small gradients are 0 in fp16 then; without it, the scale is dynamic"
        yield Problem(("FP16.STATIC_LOSS_SCALE", "FP16.ENABLED", "FP16.DYNAMIC_LOSS_SCALE"), text)
    if cfg.TRAIN.RESUME and not cfg.TRAIN.CHECKPOINT:
        text = "needs TRAIN.CHECKPOINT, the file to resume from"
        yield Problem(("TRAIN.RESUME", "TRAIN.CHECKPOINT"), text)


def _testing(cfg: Any) -> Iterator[Problem]:
    scales = cfg.TEST.SCALE_FACTOR
    if not scales:
        yield Problem(("TEST.SCALE_FACTOR",), "is empty; it needs at least one scale")
    elif 1 not in scales and len(scales) > 1:
        text = f"several scales need 1 among them, which tags come from, unlike {scales}"
        yield Problem(("TEST.SCALE_FACTOR",), text)
    if len(set(scales)) != len(scales):
        yield Problem(("TEST.SCALE_FACTOR",), f"has a scale twice: {scales}")
    if cfg.TEST.FAST_DECODE and SCHEMA["TEST.DECODER"].default != cfg.TEST.DECODER:
        text = (
            f"works with TEST.DECODER {SCHEMA['TEST.DECODER'].default} only, not {cfg.TEST.DECODER}"
        )
        yield Problem(("TEST.FAST_DECODE", "TEST.DECODER"), text)
    kernel = cfg.TEST.NMS_KERNEL
    padding = cfg.TEST.NMS_PADDING
    if kernel % 2 == 0:
        yield Problem(("TEST.NMS_KERNEL",), f"must be odd, not {kernel}")
    elif padding != kernel // 2:
        text = f"is {padding}; with NMS_KERNEL {kernel} it must be {kernel // 2}"
        yield Problem(("TEST.NMS_PADDING", "TEST.NMS_KERNEL"), text)
    for maps, (used, learnt) in _SWITCHES.items():
        if not _stages_with(cfg, used, learnt):
            text = f"uses no resolution that learns {maps} ({learnt}); testing needs at least one"
            yield Problem((used, learnt, "LOSS.NUM_STAGES"), text)


def _stages_with(cfg: Any, *keys: str) -> list[int]:
    """The stages at which all these switches are on."""
    switches = zip(*(lookup(cfg, key) for key in keys), strict=False)
    return [stage for stage, on in enumerate(switches) if all(on)]


def without_effect(cfg: Any) -> Iterator[tuple[str, str]]:
    """The keys that change nothing, with the reason: always, or because of another setting. Lists
    whose last entries are not used are among them.

    A part of the user's own may read any key that is not in _NOT_OF_PARTS. With one, nothing is
    said of those that depend on another setting.
    """
    own = _uses_own_parts(cfg)
    reasons: dict[str, str] = {}  # the first one of each key
    for rule in (_conditions, _deconvs_without_effect, _losses_without_effect, _run_without_effect):
        for name, reason in rule(cfg):
            reasons.setdefault(name, reason)
    for name, reason in reasons.items():
        if SCHEMA[name].no_effect or not own or name.startswith(_NOT_OF_PARTS):
            yield name, reason


def _uses_own_parts(cfg: Any) -> bool:
    """Whether a setting names a part that is not one of this project's."""
    for key, known in PARTS.items():
        value = lookup(cfg, key)
        names = value if isinstance(value, list) else [value]
        if key == "MODEL.BACKBONE":
            names = [_family(value)]
        if any(name and name not in known for name in names):
            return True
    return False


def _conditions(cfg: Any) -> Iterator[tuple[str, str]]:
    """Key.no_effect and Key.only_with."""
    for name, key in SCHEMA.items():
        if reason := _reason_without_effect(cfg, key):
            yield name, reason


def _deconvs_without_effect(cfg: Any) -> Iterator[tuple[str, str]]:
    deconvs = cfg.MODEL.EXTRA.DECONV.NUM_DECONVS
    if deconvs == 0:
        yield "MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS", "only with NUM_DECONVS above 0"
    for name in _DECONV_LISTS:
        length = len(lookup(cfg, name))
        if length and deconvs == 0:
            yield name, "only with NUM_DECONVS above 0"
        elif deconvs < length:
            yield name, f"after its entry {deconvs}, as NUM_DECONVS is {deconvs}"


def _losses_without_effect(cfg: Any) -> Iterator[tuple[str, str]]:
    if "scale" not in cfg.LOSS.TERMS:
        yield "LOSS.SCALE_LOSS_FACTOR", "only with LOSS.TERMS scale"
    if not _stages_with(cfg, "LOSS.WITH_HEATMAPS_LOSS", "LOSS.HEATMAPS_LOSS_FACTOR"):
        for name in ("LOSS.WEIGHT_ADAPTIVE", "LOSS.GAMMA"):
            yield name, "only with LOSS.HEATMAPS_LOSS_FACTOR above 0"
    if not _stages_with(cfg, "LOSS.WITH_AE_LOSS", "LOSS.PUSH_LOSS_FACTOR"):
        yield "LOSS.AE_LOSS_TYPE", "only with LOSS.PUSH_LOSS_FACTOR above 0"


def _run_without_effect(cfg: Any) -> Iterator[tuple[str, str]]:
    """How training ends and what it draws, and how testing runs the network."""
    if cfg.TRAIN.VAL_INTERVAL == 0:
        yield "TRAIN.PATIENCE", "only with TRAIN.VAL_INTERVAL above 0"
    if cfg.DEBUG.SAVE_HEATMAPS_PRED:
        yield "DEBUG.SAVE_HEATMAPS_GT", "DEBUG.SAVE_HEATMAPS_PRED draws them too"
    elif cfg.DEBUG.SAVE_HEATMAPS_GT:
        if _has_default_head(cfg) and not cfg.MODEL.SCALE_HEADS:
            yield "DEBUG.SAVE_HEATMAPS_PRED", "DEBUG.SAVE_HEATMAPS_GT draws them too"
    else:
        text = "only with DEBUG.SAVE_HEATMAPS_GT or DEBUG.SAVE_HEATMAPS_PRED"
        yield "DEBUG.SAVE_TAGMAPS_PRED", text
    if cfg.TEST.COMPILE:
        yield "TEST.CUDNN_FUSE", "only with TEST.COMPILE False"
    # With --weights another file may be tested, so that the reasons name this one.
    if is_exported(cfg.TEST.MODEL_FILE):
        # AMP.* can make OpenVINO compute in bf16.
        used = () if cfg.TEST.ENGINE == "onnxruntime" else ("AMP.", "FP16.")
        for name in SCHEMA:
            if name.startswith(OF_PYTORCH) and not name.startswith(used):
                yield name, "on TEST.MODEL_FILE, which is an exported network"
    elif cfg.TEST.MODEL_FILE:
        yield "TEST.ENGINE", "on TEST.MODEL_FILE, which is not an exported network"


def _reason_without_effect(cfg: Any, key: Key) -> str:
    """Why a key changes nothing, '' if it does; what its only_with depends on counts first."""
    if not key.only_with:
        return key.no_effect
    name, _ = key.only_with
    reason = _reason_without_effect(cfg, SCHEMA[name])
    return reason or ("" if _is_met(lookup(cfg, name), key.only_with) else condition(key.only_with))


def _is_met(value: Any, only_with: tuple[str, Any]) -> bool:
    """Whether Key.only_with is met where its other key has this value."""
    name, wanted = only_with
    if name == "MODEL.BACKBONE":
        return _family(value) == _family(wanted)
    return wanted in value if isinstance(value, list) else bool(value == wanted)


def _family(backbone: str) -> str:
    """The name of a backbone in models.build.BACKBONES: timm of timm/resnet18."""
    return backbone.split("/")[0]


def condition(only_with: tuple[str, Any]) -> str:
    """Key.only_with in words, such as "only with TRAIN.OPTIMIZER sgd"."""
    name, value = only_with
    return f"only with {name}" if value is True else f"only with {name} {value}"
