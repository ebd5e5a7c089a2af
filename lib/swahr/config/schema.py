"""The table of all settings: one line a key.

A module of a user adds a key of its own with one line, before the configuration is loaded:

    from swahr.config.schema import SCHEMA, Key
    SCHEMA["TOY.WIDTH"] = Key(8, above=0, meaning="channels of the toy backbone")

Published keys keep their names and their defaults (those of HigherHRNet and SWAHR), with two
exceptions: WORLD_SIZE is 0, so that the learning rate follows the real number of processes, and
MODEL.NAME is the only name that is accepted. Rules between several keys are in `rules.py`.
`python tools/dist_train.py --list-keys` prints this table; docs/settings.md is made from it.
"""

# ruff: noqa: E501  (a line of the table is as long as its key needs)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yacs.config import CfgNode

SCALARS = (bool, int, float, str)
_ON_HRNET = ("MODEL.BACKBONE", "hrnet")
_ON_TIMM = ("MODEL.BACKBONE", "timm/NAME")
_WITH_AFFINE = ("DATASET.TRANSFORMS", "affine")
_WITH_ASSOCIATIVE = ("LOSS.TERMS", "associative")
_WITH_HEATMAP = ("LOSS.TERMS", "heatmap")
_WITH_PANELS = ("DEBUG.DEBUG", True)


@dataclass(frozen=True)
class Key:
    """One setting.

    default: a bool, int, float, text, or a list of one of these with at least one entry. It gives
    the type: the type of a list's entries is that of its first one.
    above, below (exclusive), at_least, at_most (inclusive): bounds of the number, or of each entry.
    choices: the values that are accepted, of each entry in a list.
    per_stage: a list with one entry for each of LOSS.NUM_STAGES stages; one entry stands for all.
    only_with: (other key, value) without which this key changes nothing; where the other key is a
    list, one of its entries. Nor does this key change anything where the other key changes nothing.
    no_effect: the reason why a published key is accepted and changes nothing.
    aliases: what other spellings stand for, in lower case, such as the truth values of a key that
    was once true or false.
    """

    default: Any
    meaning: str
    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[Any, ...] = ()
    per_stage: bool = False
    only_with: tuple[str, Any] | None = None
    no_effect: str = ""
    aliases: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = self.default[0] if isinstance(self.default, list) and self.default else self.default
        if not isinstance(first, SCALARS):
            raise TypeError(
                f"the default of a key is a bool, int, float, text or a list of these, with at "
                f"least one entry, not {self.default!r}"
            )
        if self.per_stage and not isinstance(self.default, list):
            raise TypeError(f"the default of a key per stage is a list, not {self.default!r}")

    def spelled(self, value: Any) -> Any:
        """The value that an alias stands for; other values as they are."""
        return self.aliases.get(str(value).lower(), value) if self.aliases else value

    @property
    def right(self) -> str:
        """The accepted values in words, such as "one of exp, max" or "above 0"; '' if any."""
        if self.choices:
            return ("one of " if len(self.choices) > 1 else "") + ", ".join(
                str(choice) or "''" for choice in self.choices
            )
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:g} to {self.at_most:g}"
        bounds = (
            ("above {:g}", self.above),
            ("{:g} or more", self.at_least),
            ("below {:g}", self.below),
            ("{:g} or less", self.at_most),
        )
        return " and ".join(text.format(bound) for text, bound in bounds if bound is not None)

    def accepts(self, value: Any) -> bool:
        """Whether one value of the key's type, an entry where the key is a list, is accepted."""
        if self.choices:
            return value in self.choices
        return not (
            (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
            or (self.at_least is not None and value < self.at_least)
            or (self.at_most is not None and value > self.at_most)
        )


def _hrnet_stage(number: int, modules: int, channels: list[int]) -> dict[str, Key]:
    """The keys of one stage of HRNet."""
    name = f"MODEL.EXTRA.STAGE{number}"
    # fmt: off
    return {
        f"{name}.NUM_MODULES": Key(modules, "exchange units, one after the other", above=0, only_with=_ON_HRNET),
        f"{name}.NUM_BRANCHES": Key(number, "parallel resolutions", choices=(number,), only_with=_ON_HRNET),
        f"{name}.BLOCK": Key("BASIC", "kind of residual block", choices=("BASIC", "BOTTLENECK"), only_with=_ON_HRNET),
        f"{name}.NUM_BLOCKS": Key([4] * number, "residual blocks of each branch", above=0, only_with=_ON_HRNET),
        f"{name}.NUM_CHANNELS": Key(channels, "channels of each branch", above=0, only_with=_ON_HRNET),
        f"{name}.FUSE_METHOD": Key("SUM", "how the branches are joined", choices=("SUM",), only_with=_ON_HRNET),
    }
    # fmt: on


# fmt: off
SCHEMA: dict[str, Key] = {
    # The run
    "OUTPUT_DIR": Key("", "folder of checkpoints and results, relative to the current folder; '' = output"),
    "LOG_DIR": Key("", "folder of TensorBoard logs, relative to the current folder; '' = log"),
    "DATA_DIR": Key("", "prefix of DATASET.ROOT, MODEL.PRETRAINED and TEST.MODEL_FILE where these are relative"),
    "RUN_NAME": Key("", "name of the run and of its folder; '' = name of the YAML file; not taken from a _BASE_ file"),
    "REQUIRES": Key([""], "modules that the configuration needs; if --import does not name them, the tool stops and says so"),
    "AUTO_RESUME": Key(False, "resume from the run's last checkpoint if there is one"),
    "RESUME_CHANGED": Key(False, "resume although settings that decide what is learnt have changed (--allow-changes)"),
    "DEVICE": Key("", "cpu, cuda or cuda:N; '' = cuda if there is a GPU, else cpu"),
    "WORKERS": Key(4, "processes that load images, for each training process; 0 = load in the training process", at_least=0),
    "WORLD_SIZE": Key(0, "factor of TRAIN.LR; 0 = number of processes x TRAIN.ACCUMULATION_STEPS", at_least=0, only_with=("TRAIN.LR_SCHEDULE", "linear")),
    "PRINT_FREQ": Key(20, "steps between two log lines", above=0),
    "PIN_MEMORY": Key(True, "page-locked host memory for batches that go to a GPU"),
    "DIST_BACKEND": Key("nccl", "backend of processes on GPUs; processes on the CPU always use gloo", choices=("nccl", "gloo")),
    "DIST_TIMEOUT": Key(30.0, "minutes that one process waits for another, for instance while rank 0 scores a validation", above=0, at_most=1e5),
    "STOP_SECONDS": Key(30, "seconds that processes get to stop and save after a signal before they are killed; torchrun has its own", above=0),
    "GPUS": Key([0], "GPUs to use", no_effect="every visible GPU is used, or as many as --gpus says"),
    "RANK": Key(0, "number of this process", no_effect="the launcher gives it"),
    "VERBOSE": Key(True, "how much is logged", no_effect="the logging module decides"),
    "MULTIPROCESSING_DISTRIBUTED": Key(True, "one process for each GPU", no_effect="there is always one process for each GPU"),

    # Mixed precision. FP16.* are the published names: FP16.ENABLED is AMP.ENABLED with AMP.DTYPE fp16, and the one set last decides.
    "AMP.ENABLED": Key(False, "mixed precision in training and testing; losses stay float32"),
    "AMP.DTYPE": Key("bf16", "bf16 (Ampere and later), fp16 (with loss scaling), or auto: bf16 where the device has units for it, else float32", choices=("bf16", "fp16", "auto"), only_with=("AMP.ENABLED", True)),
    "FP16.ENABLED": Key(False, "published name of AMP.ENABLED with AMP.DTYPE fp16; the one set last decides"),
    "FP16.STATIC_LOSS_SCALE": Key(1.0, "factor of the loss under fp16; not 1 (1 stands for none given, which means dynamic)", above=0, only_with=("FP16.DYNAMIC_LOSS_SCALE", False)),
    "FP16.DYNAMIC_LOSS_SCALE": Key(False, "adjust the loss scale during training instead of STATIC_LOSS_SCALE", only_with=("FP16.ENABLED", True)),

    "CUDNN.BENCHMARK": Key(True, "time the convolution algorithms once for each input size and keep the fastest"),
    "CUDNN.DETERMINISTIC": Key(False, "use only algorithms that give the same bits every time; slower"),
    "CUDNN.ENABLED": Key(True, "use cuDNN at all"),

    # Network. The defaults of MODEL.EXTRA are HRNet-W32.
    "MODEL.NAME": Key("pose_higher_hrnet", "name of the model in folders and tables", choices=("pose_higher_hrnet",)),
    "MODEL.BACKBONE": Key("hrnet", "a name in models.build.BACKBONES; timm/NAME = a network of timm"),
    "MODEL.HEAD": Key("higher_hrnet", "a name in models.build.HEADS"),
    "MODEL.INIT_WEIGHTS": Key(True, "initial weights with standard deviation 0.001; False keeps those of PyTorch"),
    "MODEL.PRETRAINED": Key("", "checkpoint that training starts from, limited to EXTRA.PRETRAINED_LAYERS; '' = none"),
    "MODEL.NUM_JOINTS": Key(17, "number of heatmaps, K; with DATASET.WITH_CENTER one more, which is added if it is missing", above=0),
    "MODEL.TAG_PER_JOINT": Key(True, "one tag map for each joint; False = one for all joints"),
    "MODEL.SYNC_BN": Key(False, "batch norm statistics over all processes; needs GPUs"),
    "MODEL.SCALE_HEADS": Key(True, "scale maps of SWAHR; False = plain HigherHRNet, and LOSS.SCALE_ADAPTIVE False"),
    "MODEL.EXTRA.STEM_INPLANES": Key(64, "channels of the stem", no_effect="the stem has 64 channels"),
    "MODEL.EXTRA.STEM_BLOCKS": Key(4, "residual blocks between the stem and stage 2; fewer for a small network", above=0, only_with=_ON_HRNET),
    "MODEL.EXTRA.FINAL_CONV_KERNEL": Key(1, "kernel of the heads that give heatmaps and tags, px", choices=(1, 3)),
    "MODEL.EXTRA.FPN_CHANNELS": Key(64, "channels of the feature pyramid", above=0, only_with=_ON_TIMM),
    "MODEL.EXTRA.PRETRAINED_LAYERS": Key(["*"], "layers taken from MODEL.PRETRAINED, by name; ['*'] = all that fit"),
    **_hrnet_stage(2, 1, [32, 64]),
    **_hrnet_stage(3, 4, [32, 64, 128]),
    **_hrnet_stage(4, 3, [32, 64, 128, 256]),
    "MODEL.EXTRA.DECONV.NUM_DECONVS": Key(1, "transposed convolutions, each doubling the size; 0 = bottom-up HRNet", at_least=0),
    "MODEL.EXTRA.DECONV.NUM_CHANNELS": Key([32], "channels after each transposed convolution", above=0),
    "MODEL.EXTRA.DECONV.KERNEL_SIZE": Key([4], "kernel of each transposed convolution, px", choices=(2, 3, 4)),
    "MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS": Key(4, "residual blocks after each transposed convolution", at_least=0),
    "MODEL.EXTRA.DECONV.CAT_OUTPUT": Key([True], "its input includes the heatmaps and tags of the resolution below"),

    # Loss
    "LOSS.NUM_STAGES": Key(1, "output resolutions of the network, low to high", at_least=1, at_most=16),
    "LOSS.TERMS": Key(["heatmap", "scale", "associative"], "names in losses.criterion.LOSSES"),
    "LOSS.WITH_HEATMAPS_LOSS": Key([True], "heatmap loss at this stage", per_stage=True),
    "LOSS.HEATMAPS_LOSS_FACTOR": Key([1.0], "weight of the heatmap loss", at_least=0, per_stage=True, only_with=_WITH_HEATMAP),
    "LOSS.WITH_AE_LOSS": Key([True], "the network gives tags at this stage, with a grouping loss", per_stage=True),
    "LOSS.AE_LOSS_TYPE": Key("max", "how the tags of two people are pushed apart", choices=("exp", "max"), only_with=_WITH_ASSOCIATIVE),
    "LOSS.PUSH_LOSS_FACTOR": Key([0.001], "weight of the push loss (tags of different people)", at_least=0, per_stage=True, only_with=_WITH_ASSOCIATIVE),
    "LOSS.PULL_LOSS_FACTOR": Key([0.001], "weight of the pull loss (tags of one person)", at_least=0, per_stage=True, only_with=_WITH_ASSOCIATIVE),
    "LOSS.SCALE_ADAPTIVE": Key(True, "SAHR: the scale maps widen or narrow the targets"),
    "LOSS.WEIGHT_ADAPTIVE": Key(True, "WAHR: pixels that are predicted well weigh less", only_with=_WITH_HEATMAP),
    "LOSS.GAMMA": Key(0.01, "exponent of the target in the weight of WAHR", at_least=0, only_with=("LOSS.WEIGHT_ADAPTIVE", True)),
    "LOSS.SCALE_LOSS_FACTOR": Key(1.0, "weight of the squared scale maps on the joints", at_least=0, only_with=("LOSS.SCALE_ADAPTIVE", True)),

    # Data and targets
    "DATASET.ROOT": Key("", "folder of the data set (see data/README.md)"),
    "DATASET.DATASET": Key("coco_kpt", "data set to train on: coco_kpt or crowd_pose_kpt; any name with DATASET.SKELETON"),
    "DATASET.DATASET_TEST": Key("coco", "data set to test on: coco or crowd_pose; any name with DATASET.SKELETON"),
    "DATASET.SKELETON": Key("", "coco, crowd_pose or the path of a skeleton's YAML file; '' = that of DATASET.DATASET. NUM_JOINTS, DATASET and DATASET_TEST follow from it unless they are set beside it or later"),
    "DATASET.NUM_JOINTS": Key(17, "joints of the skeleton; as MODEL.NUM_JOINTS", above=0),
    "DATASET.MAX_NUM_PEOPLE": Key(30, "most people found in an image when testing; training takes all", above=0),
    "DATASET.TRAIN": Key("train2017", "split for training"),
    "DATASET.TEST": Key("val2017", "split for testing"),
    "DATASET.DATA_FORMAT": Key("jpg", "images in folders (jpg) or in zip files of the same name (zip)", choices=("jpg", "zip")),
    "DATASET.TRANSFORMS": Key(["affine", "flip"], "augmentation, in this order: names in data.transforms.TRANSFORMS"),
    "DATASET.MAX_ROTATION": Key(30.0, "training images are turned by up to this many degrees either way", at_least=0, only_with=_WITH_AFFINE),
    "DATASET.MIN_SCALE": Key(0.75, "smallest training window, relative to the image's side", above=0, only_with=_WITH_AFFINE),
    "DATASET.MAX_SCALE": Key(1.25, "largest training window, relative to the image's side", above=0, only_with=_WITH_AFFINE),
    "DATASET.SCALE_TYPE": Key("short", "side of the image that the window is relative to", choices=("short", "long"), only_with=_WITH_AFFINE),
    "DATASET.MAX_TRANSLATE": Key(40.0, "the window is shifted by up to this x its side / 200, px each way", at_least=0, at_most=1e4, only_with=_WITH_AFFINE),
    "DATASET.INPUT_SIZE": Key(512, "side of training images and short side of test images, px; the network says of what it is a multiple", above=0),
    "DATASET.OUTPUT_SIZE": Key([128, 256, 512], "sides of the output maps, px; not set or [] = INPUT_SIZE divided by the strides of the network", above=0),
    "DATASET.FLIP": Key(0.5, "probability that a training image is mirrored", at_least=0, at_most=1, only_with=("DATASET.TRANSFORMS", "flip")),
    "DATASET.SIGMA": Key(-1.0, "standard deviation of target Gaussians, map px; below 0 = map side / 64", at_most=100, only_with=("DATASET.SCALE_AWARE_SIGMA", False)),
    "DATASET.SCALE_AWARE_SIGMA": Key(False, "a sigma for each person, by size: BASE_SIGMA x person / BASE_SIZE"),
    "DATASET.BASE_SIZE": Key(256.0, "size of the person whose sigma is BASE_SIGMA, px", at_least=1, only_with=("DATASET.SCALE_AWARE_SIGMA", True)),
    "DATASET.BASE_SIGMA": Key(2.0, "sigma of a person of BASE_SIZE, map px", above=0, at_most=100, only_with=("DATASET.SCALE_AWARE_SIGMA", True)),
    "DATASET.INT_SIGMA": Key(False, "make whole numbers of these sigmas: round(sigma + 0.5)", only_with=("DATASET.SCALE_AWARE_SIGMA", True)),
    "DATASET.WITH_CENTER": Key(False, "the centre of a person's joints is one more joint"),
    "DATASET.REPEAT": Key(1, "times an epoch reads each image, augmented anew; for sets of a few images", above=0),
    "DATASET.MIN_KEYPOINTS": Key(0, "skip training images in which nobody has this many labelled keypoints", at_least=0),
    "DATASET.CATEGORIES": Key([""], "names of the categories that are used, as one; [''] = all whose keypoints are the skeleton's"),
    "DATASET.NEGATIVES": Key(False, "also train on images without people"),
    "DATASET.STRICT": Key(True, "stop at annotations that contradict each other; False = repair or skip them"),
    "DATASET.ON_BAD_SAMPLE": Key("stop", "an image that cannot be read: stop, or skip (log it and take another)", choices=("stop", "skip")),

    # Training
    "TRAIN.LR": Key(0.001, "learning rate: of one process with LR_SCHEDULE linear (see WORLD_SIZE), else of all together", above=0),
    "TRAIN.LR_SCHEDULE": Key("linear", "linear (warm-up, then to 0 at END_EPOCH), step (x LR_FACTOR at LR_STEP), or another name in engine.schedule.SCHEDULES"),
    "TRAIN.WARM_UP_EPOCH": Key(3, "epochs over which the rate rises from 0.1 to 1 x LR", at_least=0, only_with=("TRAIN.LR_SCHEDULE", "linear")),
    "TRAIN.LR_STEP": Key([90, 110], "epochs at which the rate falls, rising", above=0, only_with=("TRAIN.LR_SCHEDULE", "step")),
    "TRAIN.LR_FACTOR": Key(0.1, "factor of the rate at each LR_STEP", above=0, only_with=("TRAIN.LR_SCHEDULE", "step")),
    "TRAIN.OPTIMIZER": Key("adam", "adam, sgd, or another name in engine.schedule.OPTIMIZERS"),
    "TRAIN.MOMENTUM": Key(0.9, "momentum of SGD", at_least=0, below=1, only_with=("TRAIN.OPTIMIZER", "sgd")),
    "TRAIN.WD": Key(0.0001, "weight decay of SGD (not applied to Adam, as published)", at_least=0, only_with=("TRAIN.OPTIMIZER", "sgd")),
    "TRAIN.NESTEROV": Key(False, "Nesterov momentum of SGD", only_with=("TRAIN.OPTIMIZER", "sgd")),
    "TRAIN.GAMMA1": Key(0.99, "parameter of an optimiser", no_effect="no optimiser here has it"),
    "TRAIN.GAMMA2": Key(0.0, "parameter of an optimiser", no_effect="no optimiser here has it"),
    "TRAIN.BEGIN_EPOCH": Key(0, "first epoch, counted from 0", at_least=0),
    "TRAIN.END_EPOCH": Key(140, "epoch before which training ends", above=0),
    "TRAIN.RESUME": Key(False, "resume from TRAIN.CHECKPOINT if AUTO_RESUME finds nothing, or stop with an error"),
    "TRAIN.CHECKPOINT": Key("", "checkpoint that TRAIN.RESUME resumes from", only_with=("TRAIN.RESUME", True)),
    "TRAIN.IMAGES_PER_GPU": Key(32, "images of one process in one forward pass", above=0),
    "TRAIN.ACCUMULATION_STEPS": Key(1, "forward passes to one optimiser step: 1 GPU with 8 follows a recipe for 8 GPUs", above=0),
    "TRAIN.SHUFFLE": Key(True, "shuffle the training images", no_effect="they are always shuffled, in an order given by SEED and epoch"),
    "TRAIN.SEED": Key(0, "seed of weights, order and augmentation", at_least=0),
    "TRAIN.VAL_INTERVAL": Key(10, "epochs between two validations; 0 = only after the last epoch", at_least=0),
    "TRAIN.CHECKPOINT_MINUTES": Key(30.0, "minutes between two checkpoints within an epoch; 0 = only at its end", at_least=0),
    "TRAIN.MAX_BAD_STEPS": Key(20, "steps in a row with a non-finite loss or gradient before training stops", above=0),
    "TRAIN.BEST_METRIC": Key("AP", "the figure of validation that decides which weights are the best"),
    "TRAIN.PATIENCE": Key(0, "validations without a better BEST_METRIC before training stops; 0 = never", at_least=0),
    "TRAIN.EMA": Key(0.0, "decay of the moving average of the weights that is validated and kept; 0 = none", at_least=0, below=1),
    "TRAIN.CLIP_NORM": Key(0.0, "largest norm of the gradient; 0 = no limit", at_least=0),
    "TRAIN.FREEZE": Key([""], "parts of the network that are not trained, batch norms included: first components of names in files of weights, such as conv1, bn1, layer1"),
    "TRAIN.PLOTS": Key(True, "draw curves.png and val_images.jpg at each validation"),
    "TRAIN.HOOKS": Key([""], "further hooks: names in engine.hooks.HOOKS"),
    "TRAIN.CHANNELS_LAST": Key(False, "channels innermost in memory; for mixed precision"),
    "TRAIN.CPU_KERNELS": Key(False, "own convolutions for training in float32 on a CPU: up to 2.6 times as fast as PyTorch's and equal up to rounding; needs CHANNELS_LAST"),
    "TRAIN.COMPILE": Key("", "torch.compile the step's network, targets and losses in this mode; '' = off", choices=("", "default", "reduce-overhead", "max-autotune"), aliases={"false": "", "true": "default"}),
    "TRAIN.CUDA_GRAPHS": Key(False, "on one GPU: record the whole step once for each shape, and replay it"),

    # Testing
    "TEST.IMAGES_PER_GPU": Key(32, "images of one size in one forward pass on a GPU (1 on a CPU); same results", above=0),
    "TEST.DECODER": Key("associative", "how maps become people: a name in codec.decode.DECODERS"),
    "TEST.FAST_DECODE": Key(False, "average before resizing, and read tags only where joints are: the same people up to rounding, with a fraction of the memory traffic"),
    "TEST.FLIP_TEST": Key(False, "average over the image and its mirror image"),
    "TEST.SCALE_FACTOR": Key([1.0], "scales to average over, such as [0.5, 1.0, 2.0]; tags come from 1, which must be among several", above=0),
    "TEST.PROJECT2IMAGE": Key(False, "resize all maps to the input size before peaks are searched"),
    "TEST.WITH_HEATMAPS": Key([True], "the heatmaps of this stage are averaged", per_stage=True),
    "TEST.WITH_AE": Key([True], "the tags of this stage are used, if LOSS.WITH_AE_LOSS gives any", per_stage=True),
    "TEST.NMS_KERNEL": Key(3, "a peak is the highest value within this window, map px; odd", above=0),
    "TEST.NMS_PADDING": Key(1, "(NMS_KERNEL - 1) / 2", at_least=0),
    "TEST.DETECTION_THRESHOLD": Key(0.2, "peaks above this count as joints", at_least=0),
    "TEST.TAG_SCALE": Key(1.0, "tags are multiplied by this before grouping; 2 suits networks trained with AE_LOSS_TYPE max, whose people are half as far apart as with exp", above=0, at_most=1e6),
    "TEST.TAG_THRESHOLD": Key(1.0, "a joint whose tag, times TAG_SCALE, is this far or farther from everyone's starts a new person", above=0, at_most=1e6),
    "TEST.USE_DETECTION_VAL": Key(True, "prefer the higher peak among equally near tags"),
    "TEST.IGNORE_TOO_MUCH": Key(False, "drop joints that would start one person more than MAX_NUM_PEOPLE"),
    "TEST.ADJUST": Key(True, "move each joint a quarter px towards its higher neighbour", only_with=("TEST.SUBPIXEL", False)),
    "TEST.SUBPIXEL": Key(False, "place joints between pixels by a parabola through the logarithm of the heatmap, in place of ADJUST's quarter px"),
    "TEST.REFINE": Key(True, "search for each person's missing joints by tag"),
    "TEST.OKS_NMS": Key(0.0, "drop people whose OKS with a better one is above this, against doubled people; 0 = nobody, as published", at_least=0, below=1),
    "TEST.IGNORE_CENTER": Key(True, "the centre takes no part in grouping; results never contain it", only_with=("DATASET.WITH_CENTER", True)),
    "TEST.MODEL_FILE": Key("", "checkpoint or exported network (.onnx) to test; '' = model_best.pth.tar of the run"),
    "TEST.ENGINE": Key("onnxruntime", "what runs an exported network (TEST.MODEL_FILE x.onnx): a name in inference.exported_network.ENGINES, onnxruntime or openvino"),
    "TEST.LOG_PROGRESS": Key(True, "show a progress bar"),
    "TEST.FUSE": Key(True, "fold batch norms into the convolutions; same results, faster"),
    "TEST.CUDNN_FUSE": Key(False, "on a GPU: cuDNN adds shortcuts and applies ReLUs inside convolutions; not with COMPILE", only_with=("TEST.FUSE", True)),
    "TEST.COMPILE": Key(False, "torch.compile the network"),
    "TEST.CUDA_GRAPHS": Key(False, "on a GPU: record the network for each input size that comes often, and replay it"),
    "TEST.RESUME": Key(False, "keep the finished images of a validation that was interrupted"),

    # Images in the training log
    "DEBUG.DEBUG": Key(True, "draw panels of training images, at most one an epoch"),
    "DEBUG.SAVE_BATCH_IMAGES_GT": Key(False, "panel of annotated joints", no_effect="there is no such panel"),
    "DEBUG.SAVE_BATCH_IMAGES_PRED": Key(False, "panel of predicted joints", no_effect="there is no such panel"),
    "DEBUG.SAVE_HEATMAPS_GT": Key(True, "draw target heatmaps; SAVE_HEATMAPS_PRED draws them too", only_with=_WITH_PANELS),
    "DEBUG.SAVE_HEATMAPS_PRED": Key(True, "draw predicted heatmaps and scale maps; SAVE_HEATMAPS_GT draws the heatmaps too", only_with=_WITH_PANELS),
    "DEBUG.SAVE_TAGMAPS_PRED": Key(True, "draw tag maps", only_with=_WITH_PANELS),
}
# fmt: on


def default_values() -> dict[str, Any]:
    """{'WORKERS': 4, ...}: the default of each key by its dotted name."""
    return {
        name: list(key.default) if isinstance(key.default, list) else key.default
        for name, key in SCHEMA.items()
    }


def sections() -> tuple[str, ...]:
    """The dotted names of all sections, such as MODEL, MODEL.EXTRA, MODEL.EXTRA.DECONV."""
    names = (name[:end] for name in SCHEMA for end, letter in enumerate(name) if letter == ".")
    return tuple(dict.fromkeys(names))


def defaults() -> CfgNode:
    """The yacs tree of all defaults, frozen."""
    cfg = unflatten(default_values())
    cfg.freeze()
    return cfg


def flatten(cfg: CfgNode, prefix: str = "") -> dict[str, Any]:
    """The values of a tree by their dotted names: {'MODEL.EXTRA.DECONV.NUM_DECONVS': 1, ...}."""
    flat: dict[str, Any] = {}
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def unflatten(values: dict[str, Any]) -> CfgNode:
    """The tree of values by their dotted names, not frozen; the inverse of `flatten`."""
    cfg = CfgNode()
    for name, value in values.items():
        *path, last = name.split(".")
        node = cfg
        for section in path:
            node = node.setdefault(section, CfgNode())
        node[last] = list(value) if isinstance(value, list) else value
    return cfg


def lookup(cfg: Any, name: str) -> Any:
    """The value, or the section, of a dotted name."""
    for part in name.split("."):
        cfg = cfg[part]
    return cfg
