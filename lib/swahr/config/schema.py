"""Every key of the configuration, with its default, what it means, its unit and the values it
takes.

Published keys keep their names and their defaults (those of HigherHRNet and SWAHR), with one
exception: WORLD_SIZE is 0, so that the learning rate follows the real number of replicas. A list's
default shows the type of its entries. S is LOSS.NUM_STAGES, the number of output resolutions; K is
the number of joints. [no effect] marks published keys that are accepted and do nothing.
"""

from __future__ import annotations

from yacs.config import CfgNode

defaults = CfgNode()

defaults.OUTPUT_DIR = (
    ""  # folder of checkpoints and results, relative to the current folder; '' = output
)
defaults.LOG_DIR = ""  # folder of TensorBoard logs, relative to the current folder; '' = log
defaults.DATA_DIR = (
    ""  # prefix of DATASET.ROOT, MODEL.PRETRAINED and TEST.MODEL_FILE where these are relative
)
defaults.GPUS = [
    0
]  # [no effect] every GPU in CUDA_VISIBLE_DEVICES is used, or as many as --gpus says
defaults.DEVICE = ""  # cpu, cuda or cuda:N; '' = CUDA where there is a GPU, else cpu
defaults.WORKERS = (
    4  # processes that load images, for each replica; 0 = load in the training process
)
defaults.WORLD_SIZE = (
    0  # factor of TRAIN.LR in the linear schedule; 0 = replicas x TRAIN.ACCUMULATION_STEPS
)
defaults.PRINT_FREQ = 20  # steps between two log lines and two panels of training images
defaults.AUTO_RESUME = False  # go on from the run's last checkpoint where there is one
defaults.REQUIRES = [
    ""
]  # modules that the configuration needs; a tool says which --import is missing
defaults.PIN_MEMORY = True  # page-locked host memory for batches on their way to a GPU
defaults.RANK = 0  # [no effect] each process learns its own rank from the launcher
defaults.VERBOSE = True  # [no effect] how much is logged is the logging module's business
defaults.DIST_BACKEND = (
    "nccl"  # nccl or gloo, for replicas on GPUs; replicas on the CPU always talk over gloo
)
defaults.MULTIPROCESSING_DISTRIBUTED = True  # [no effect] one process for each GPU, always

# -----------------------------------------------------------------------------------------------------
# mixed precision
defaults.AMP = CfgNode()
defaults.AMP.ENABLED = False  # mixed precision, in training and testing; losses stay float32
defaults.AMP.DTYPE = "bf16"  # bf16 (Ampere and later) or fp16 (with loss scaling)

defaults.FP16 = CfgNode()  # the published names; FP16.ENABLED is AMP.ENABLED with AMP.DTYPE fp16
defaults.FP16.ENABLED = False  # the one of FP16.ENABLED and AMP.ENABLED that is set last decides
defaults.FP16.STATIC_LOSS_SCALE = (
    1.0  # factor of the loss under fp16 where DYNAMIC_LOSS_SCALE is off; above 0
)
defaults.FP16.DYNAMIC_LOSS_SCALE = (
    False  # let the loss scale find itself; takes the place of STATIC_LOSS_SCALE
)

# ---------------------------------------------------------------------------------------------------------------
# cuDNN
defaults.CUDNN = CfgNode()
defaults.CUDNN.BENCHMARK = (
    True  # time the convolution algorithms once for each input size and keep the fastest
)
defaults.CUDNN.DETERMINISTIC = False  # only algorithms that give the same bits every time; slower
defaults.CUDNN.ENABLED = True  # use cuDNN at all

# -------------------------------------------------------------------------------------------------------------
# network
defaults.MODEL = CfgNode()
defaults.MODEL.NAME = (
    "pose_multi_resolution_net_v16"  # pose_higher_hrnet, which every file must say
)
defaults.MODEL.BACKBONE = "hrnet"  # a name in models.build.BACKBONES; timm/NAME = a network of timm
defaults.MODEL.HEAD = "higher_hrnet"  # a name in models.build.HEADS
defaults.MODEL.INIT_WEIGHTS = (
    True  # fresh weights with standard deviation 0.001; False keeps PyTorch's own
)
defaults.MODEL.PRETRAINED = (
    ""  # checkpoint that training starts from, limited to EXTRA.PRETRAINED_LAYERS; '' = none
)
defaults.MODEL.NUM_JOINTS = 17  # heatmaps, K; + 1 with DATASET.WITH_CENTER
defaults.MODEL.TAG_PER_JOINT = True  # one tag map for each joint, or one for all of them
defaults.MODEL.SYNC_BN = False  # batch norm statistics over all replicas; needs GPUs
defaults.MODEL.SCALE_HEADS = (
    True  # SWAHR's scale maps; False = plain HigherHRNet, and LOSS.SCALE_ADAPTIVE False
)

defaults.MODEL.EXTRA = CfgNode()
defaults.MODEL.EXTRA.STEM_INPLANES = 64  # [no effect] the stem has 64 channels
defaults.MODEL.EXTRA.FINAL_CONV_KERNEL = (
    1  # kernel of the heads that give heatmaps and tags, px: 1 or 3
)
defaults.MODEL.EXTRA.FPN_CHANNELS = (
    64  # width of the feature pyramid on a backbone of timm; above 0
)
defaults.MODEL.EXTRA.PRETRAINED_LAYERS = [
    "*"
]  # layers taken from MODEL.PRETRAINED, by name; ['*'] = all that fit


def _stage(modules: int, channels: list[int]) -> CfgNode:
    stage = CfgNode()
    stage.NUM_MODULES = modules  # exchange units, one after the other
    stage.NUM_BRANCHES = len(channels)  # parallel resolutions: 2, 3 and 4 in stages 2, 3 and 4
    stage.BLOCK = "BASIC"  # BASIC or BOTTLENECK
    stage.NUM_BLOCKS = [4] * len(channels)  # residual blocks in each branch
    stage.NUM_CHANNELS = channels  # channels of each branch
    stage.FUSE_METHOD = "SUM"  # how branches are joined: SUM
    return stage


defaults.MODEL.EXTRA.STAGE2 = _stage(1, [32, 64])  # the defaults are HRNet-W32
defaults.MODEL.EXTRA.STAGE3 = _stage(4, [32, 64, 128])
defaults.MODEL.EXTRA.STAGE4 = _stage(3, [32, 64, 128, 256])

defaults.MODEL.EXTRA.DECONV = CfgNode()
defaults.MODEL.EXTRA.DECONV.NUM_DECONVS = (
    1  # transposed convolutions, each doubling the size: S - 1; 0 for HRNet
)
defaults.MODEL.EXTRA.DECONV.NUM_CHANNELS = [
    32
]  # channels after each; NUM_DECONVS entries, as in the next lists
defaults.MODEL.EXTRA.DECONV.KERNEL_SIZE = [4]  # kernel of each, px: 2, 3 or 4
defaults.MODEL.EXTRA.DECONV.NUM_BASIC_BLOCKS = 4  # residual blocks after each
defaults.MODEL.EXTRA.DECONV.CAT_OUTPUT = [
    True
]  # also feed it the heatmaps and tags of the resolution below

# ----------------------------------------------------------------------------------------------------------------
# loss
defaults.LOSS = CfgNode()
defaults.LOSS.NUM_STAGES = 1  # output resolutions, S = DECONV.NUM_DECONVS + 1
defaults.LOSS.TERMS = ["heatmap", "scale", "associative"]  # names in losses.criterion.LOSSES
defaults.LOSS.WITH_HEATMAPS_LOSS = [True]  # S entries: heatmap loss at this resolution
defaults.LOSS.HEATMAPS_LOSS_FACTOR = [1.0]  # S entries: its weight
defaults.LOSS.WITH_AE_LOSS = [
    True
]  # S entries: the network gives tags, with a grouping loss, at this resolution
defaults.LOSS.AE_LOSS_TYPE = "max"  # push between two people's tags: exp or max
defaults.LOSS.PUSH_LOSS_FACTOR = [0.001]  # S entries: weight of push (tags of different people)
defaults.LOSS.PULL_LOSS_FACTOR = [0.001]  # S entries: weight of pull (tags within a person)
defaults.LOSS.SCALE_ADAPTIVE = True  # SAHR: targets widened or narrowed by the scale maps
defaults.LOSS.WEIGHT_ADAPTIVE = True  # WAHR: easy background weighs less
defaults.LOSS.GAMMA = 0.01  # exponent of the target in WAHR's weight; 0 or more
defaults.LOSS.SCALE_LOSS_FACTOR = (
    1.0  # weight of the squared scale maps on the joints, beside the heatmap loss
)

# ----------------------------------------------------------------------------------------------------
# data and targets
defaults.DATASET = CfgNode()
defaults.DATASET.ROOT = ""  # folder of the data set (see data/README.md)
defaults.DATASET.DATASET = (
    "coco_kpt"  # to train on: coco_kpt or crowd_pose_kpt; any name with DATASET.SKELETON
)
defaults.DATASET.DATASET_TEST = (
    "coco"  # to test on: coco or crowd_pose; any name with DATASET.SKELETON
)
defaults.DATASET.SKELETON = (
    ""  # coco, crowd_pose or the path of a skeleton's YAML file; '' = by DATASET.DATASET
)
defaults.DATASET.NUM_JOINTS = 17  # joints of the skeleton; + 1 with WITH_CENTER
defaults.DATASET.MAX_NUM_PEOPLE = (
    30  # most people found in an image when testing; training takes all
)
defaults.DATASET.TRAIN = "train2017"  # split for training
defaults.DATASET.TEST = "val2017"  # split for testing
defaults.DATASET.DATA_FORMAT = (
    "jpg"  # images in folders (jpg) or in zip files of the same name (zip)
)
defaults.DATASET.TRANSFORMS = [
    "affine",
    "flip",
]  # augmentation, in this order: names in data.transforms.TRANSFORMS
defaults.DATASET.MAX_ROTATION = (
    30.0  # training images are turned by up to this many degrees either way
)
defaults.DATASET.MIN_SCALE = 0.75  # smallest training window, in units of the image's side; above 0
defaults.DATASET.MAX_SCALE = 1.25  # largest training window; at least MIN_SCALE
defaults.DATASET.SCALE_TYPE = "short"  # the side that the window is measured by: short or long
defaults.DATASET.MAX_TRANSLATE = (
    40.0  # the window is shifted by up to this x its side / 200, px each way
)
defaults.DATASET.INPUT_SIZE = (
    512  # training images and the short side of test images, px; a multiple of 32
)
defaults.DATASET.OUTPUT_SIZE = [
    128,
    256,
    512,
]  # S entries: sides of the output maps, px: INPUT_SIZE / 4, / 2, ...
defaults.DATASET.FLIP = 0.5  # share of training images that are mirrored; 0 to 1
defaults.DATASET.SIGMA = (
    -1.0
)  # standard deviation of target Gaussians, map px; below 0: map side / 64
defaults.DATASET.SCALE_AWARE_SIGMA = (
    False  # a sigma for each person, by size: BASE_SIGMA x person / BASE_SIZE
)
defaults.DATASET.BASE_SIZE = 256.0  # size of the person whose sigma is BASE_SIGMA, px
defaults.DATASET.BASE_SIGMA = 2.0  # its sigma, map px
defaults.DATASET.INT_SIGMA = False  # round those sigmas up to whole numbers
defaults.DATASET.WITH_CENTER = False  # the centre of a person's joints is one more joint
defaults.DATASET.REPEAT = (
    1  # times an epoch goes through the images, augmented anew: for sets of a few images
)
defaults.DATASET.MIN_KEYPOINTS = (
    0  # leave out training images in which nobody has this many labelled keypoints
)
defaults.DATASET.STRICT = (
    True  # stop at annotations that contradict each other; False = repair or leave out
)
defaults.DATASET.ON_BAD_SAMPLE = (
    "stop"  # an image that cannot be read: stop, or skip (log it and take another)
)

# ------------------------------------------------------------------------------------------------------------
# training
defaults.TRAIN = CfgNode()
defaults.TRAIN.LR = 0.001  # learning rate; of one replica (see WORLD_SIZE) in the linear schedule, in all in the other
defaults.TRAIN.LR_SCHEDULE = (
    "linear"  # linear (warm-up, then to 0 at END_EPOCH) or step (x LR_FACTOR at LR_STEP)
)
defaults.TRAIN.WARM_UP_EPOCH = (
    3  # epochs over which the linear schedule rises from 0.1 to 1 x the learning rate
)
defaults.TRAIN.LR_STEP = [90, 110]  # epochs at which the step schedule falls, rising
defaults.TRAIN.LR_FACTOR = 0.1  # by this factor; above 0
defaults.TRAIN.OPTIMIZER = "adam"  # adam or sgd
defaults.TRAIN.MOMENTUM = 0.9  # of SGD; 0 to 1
defaults.TRAIN.WD = 0.0001  # weight decay of SGD (never applied to Adam, as published); 0 or more
defaults.TRAIN.NESTEROV = False  # Nesterov momentum in SGD
defaults.TRAIN.GAMMA1 = 0.99  # [no effect]
defaults.TRAIN.GAMMA2 = 0.0  # [no effect]
defaults.TRAIN.BEGIN_EPOCH = 0  # first epoch, counted from 0
defaults.TRAIN.END_EPOCH = 140  # epoch before which training ends
defaults.TRAIN.RESUME = False  # [no effect] see AUTO_RESUME
defaults.TRAIN.CHECKPOINT = ""  # [no effect] see AUTO_RESUME and MODEL.PRETRAINED
defaults.TRAIN.IMAGES_PER_GPU = 32  # images of one replica in one forward pass
defaults.TRAIN.ACCUMULATION_STEPS = (
    1  # forward passes to one optimiser step: 1 GPU with 8 follows a recipe for 8 GPUs
)
defaults.TRAIN.SHUFFLE = (
    True  # [no effect] training images are always shuffled, in an order given by SEED and epoch
)
defaults.TRAIN.SEED = 0  # seed of weights, order and augmentation; 0 or more
defaults.TRAIN.VAL_INTERVAL = 10  # epochs between two validations; 0 = only after the last epoch
defaults.TRAIN.CHECKPOINT_MINUTES = (
    30.0  # minutes between two checkpoints within an epoch; 0 = only at its end
)
defaults.TRAIN.MAX_BAD_STEPS = (
    20  # steps in a row with a loss that is no finite number before training stops
)
defaults.TRAIN.BEST_METRIC = (
    "AP"  # the figure of validation that decides which weights are the best
)
defaults.TRAIN.PATIENCE = (
    0  # validations without a better BEST_METRIC before training stops; 0 = never
)
defaults.TRAIN.EMA = (
    0.0  # decay of the moving average of the weights that is validated and kept; 0 = none
)
defaults.TRAIN.CLIP_NORM = 0.0  # largest norm of the gradient; 0 = no limit
defaults.TRAIN.HOOKS = [""]  # further hooks: names in engine.hooks.HOOKS
defaults.TRAIN.CHANNELS_LAST = (
    False  # channels innermost in memory; faster on recent GPUs in mixed precision
)
defaults.TRAIN.COMPILE = False  # torch.compile the network

# -------------------------------------------------------------------------------------------------------------
# testing
defaults.TEST = CfgNode()
defaults.TEST.IMAGES_PER_GPU = (
    32  # images of one size in one forward pass on a GPU (a CPU takes one); same results
)
defaults.TEST.DECODER = "associative"  # maps to people: a name in codec.decode.DECODERS
defaults.TEST.FLIP_TEST = False  # average over the image and its mirror image
defaults.TEST.SCALE_FACTOR = [
    1.0
]  # scales to average over, such as [0.5, 1.0, 2.0]; one is 1, for the tags
defaults.TEST.PROJECT2IMAGE = False  # resize all maps to the input size before peaks are looked for
defaults.TEST.WITH_HEATMAPS = [True]  # S entries: resolutions whose heatmaps are averaged
defaults.TEST.WITH_AE = [
    True
]  # S entries: resolutions whose tags are used (where LOSS.WITH_AE_LOSS gives any)
defaults.TEST.NMS_KERNEL = 3  # a peak is the highest within this window, map px; odd
defaults.TEST.NMS_PADDING = 1  # (NMS_KERNEL - 1) / 2
defaults.TEST.DETECTION_THRESHOLD = 0.2  # lowest peak that counts as a joint
defaults.TEST.TAG_THRESHOLD = (
    1.0  # a joint whose tag is farther than this from everyone's starts a new person
)
defaults.TEST.USE_DETECTION_VAL = True  # prefer the higher peak among equally near tags
defaults.TEST.IGNORE_TOO_MUCH = (
    False  # drop joints that would start one person more than MAX_NUM_PEOPLE
)
defaults.TEST.ADJUST = True  # move each joint a quarter px towards its higher neighbour
defaults.TEST.REFINE = True  # look for each person's missing joints by tag
defaults.TEST.IGNORE_CENTER = True  # with DATASET.WITH_CENTER: leave the centre out of the results
defaults.TEST.MODEL_FILE = (
    ""  # checkpoint to test; '' = model_best.pth.tar of this configuration's run
)
defaults.TEST.LOG_PROGRESS = True  # show a progress bar
defaults.TEST.FUSE = True  # fold batch norms into the convolutions; same results, faster
defaults.TEST.COMPILE = False  # torch.compile the network
defaults.TEST.CUDA_GRAPHS = (
    False  # on a GPU: record the network once for each input size, and replay it
)
defaults.TEST.RESUME = False  # keep the finished images of a validation that was interrupted

# -------------------------------------------------------------------------------------- images in
# the training log
defaults.DEBUG = CfgNode()
defaults.DEBUG.DEBUG = True  # draw panels every PRINT_FREQ steps
defaults.DEBUG.SAVE_BATCH_IMAGES_GT = False  # [no effect] joints are drawn on the panels
defaults.DEBUG.SAVE_BATCH_IMAGES_PRED = False  # [no effect]
defaults.DEBUG.SAVE_HEATMAPS_GT = True  # target heatmaps
defaults.DEBUG.SAVE_HEATMAPS_PRED = True  # predicted heatmaps and scale maps
defaults.DEBUG.SAVE_TAGMAPS_PRED = True  # tag maps

defaults.freeze()
