"""Write a trained network as an ONNX file that any engine runs, checked against PyTorch.

    swahr export output/coco_kpt/pose_higher_hrnet/w32_512_adam_lr1e-3 --output w32.onnx
    swahr export models/pose_coco/pose_higher_hrnet_w32_512.pth --output w32.onnx --flip

SOURCE is the folder of a run, a file of weights, or what else swahr.load takes; with --cfg it is a
file of weights for that experiment. KEY VALUE pairs change the settings, which the file holds, as
it holds the skeleton. The file takes images of any number and size; docs/export.md says what its
input and outputs mean. It is run on an image, by ONNX Runtime: maps within 1e-4 of the largest
value (--half: 1e-2) and the same people as PyTorch's, or there is no file. Needs
pip install 'swahr[export]'.

Exit status: 0 done; 2 wrong settings or weights, or a file that was refused; 3 a file that cannot
be written; 1 any other error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from swahr import __version__
from swahr.commands.flags import Parser, add_flag, add_import_flag, not_empty
from swahr.config import OWN_SKELETON, configured_skeleton
from swahr.config.schema import SCHEMA, unflatten
from swahr.data.images import MEAN, STD, Image, read_image
from swahr.engine.model_files import ModelFiles, find_model
from swahr.engine.provenance import describe_weights
from swahr.engine.published import portable_settings
from swahr.export.check import BOUNDS, Agreement, compare
from swahr.export.write import averaged_maps, write_onnx
from swahr.exported import Description, ExportedError, is_exported
from swahr.files import WriteError, make_folder
from swahr.inference.exported_network import load_exported, used_maps
from swahr.inference.load import load_network
from swahr.inference.predictor import build_predictor
from swahr.models.network import PoseNetwork
from swahr.parts import import_modules
from swahr.skeleton import COCO, SKELETONS, Skeleton, skeleton_yaml
from swahr.synthetic import PRESETS, render_scene
from swahr.words import counted

# Settings that choose how PyTorch runs a network. The file holds their plain values.
OF_PYTORCH = {
    **{name: key.default for name, key in SCHEMA.items() if name.startswith(("AMP.", "FP16."))},
    "TEST.FUSE": False,
    "TEST.CUDNN_FUSE": False,
    "TEST.COMPILE": False,
    "TEST.CUDA_GRAPHS": False,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help="folder of a run, weights or YAML file")
    add_flag(
        parser,
        "--output",
        type=not_empty,
        required=True,
        metavar="FILE",
        help="the file: NAME.onnx",
    )
    add_flag(parser, "--format", default="onnx", choices=("onnx",), help="default: onnx")
    add_flag(parser, "--cfg", type=not_empty, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument("--half", action="store_true", help="convolutions in float16")
    parser.add_argument(
        "--flip", action="store_true", help="both passes of the flip test inside the file"
    )
    add_flag(
        parser,
        "--image",
        type=not_empty,
        metavar="FILE",
        help="image of the check (default: one that is drawn)",
    )
    add_import_flag(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings")
    args = parser.parse_intermixed_args(arguments)
    import_modules(args.modules)
    source, weights = (args.cfg, args.source) if args.cfg else (args.source, None)
    model = find_model(source, weights, args.opts)
    image = read_image(args.image, honour_exif=True) if args.image else drawn_image()
    agreement = export(model, args.output, half=args.half, flip=args.flip, image=image)
    size = Path(args.output).stat().st_size / 1e6
    people = counted(agreement.people, "person is", "people are")
    nobody = "" if agreement.people else "; nobody was found: --image with people checks more"
    print(
        f"{args.output}: {size:.1f} MB; maps differ from PyTorch's by {agreement.maps:.1e} of the "
        f"largest value, {people} the same{nobody}"
    )


def drawn_image() -> Image:
    """An image of people, the same on every machine: (H, W, 3) uint8 RGB."""
    return render_scene(0, 0, PRESETS["calm"], COCO)[0]


def export(
    model: ModelFiles,
    output: str | Path,
    *,
    half: bool = False,
    flip: bool = False,
    image: Image | None = None,
) -> Agreement:
    """Write the file, once it is checked on the image (H, W, 3) uint8 RGB, and say how far it
    agrees with PyTorch.

    Raises ExportedError, CheckpointError or WriteError; what was at `output` is then whole.
    """
    path = Path(output)
    if not is_exported(path):
        raise ExportedError(f"--output {output}: the name of an exported network ends in .onnx")
    if is_exported(model.weights):
        raise ExportedError(f"{model.weights}: is exported already")
    cfg = with_values(model.cfg, OF_PYTORCH | ({"TEST.FLIP_TEST": True} if flip else {}))
    network = load_network(cfg, model.weights, "cpu")
    skeleton = configured_skeleton(cfg)
    description = describe(cfg, network, skeleton, model.weights, half=half, flip=flip)
    module = averaged_maps(
        network,
        use_heatmaps=description.use_heatmaps,
        use_tags=description.use_tags,
        flip_index=skeleton.trained(cfg.DATASET.WITH_CENTER).flip_index if flip else None,
        dtype=torch.float16 if half else torch.float32,
    )
    make_folder(path.parent)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write_onnx(module, description, temporary)
        shown = drawn_image() if image is None else image
        agreement = check(cfg, network, temporary, skeleton, shown)
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"{path}: could not be written ({error.strerror or error})") from error
    except ExportedError as error:
        reason = str(error).removeprefix(f"{temporary}: ")
        raise ExportedError(f"{path}: is not written: {reason}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return agreement


def describe(
    cfg: Any, network: PoseNetwork, skeleton: Skeleton, weights: Path, *, half: bool, flip: bool
) -> Description:
    """What the file will say of itself."""
    use_heatmaps, use_tags = used_maps(cfg)
    settings = portable_settings(cfg)
    if cfg.DATASET.SKELETON and cfg.DATASET.SKELETON not in SKELETONS:
        settings["DATASET.SKELETON"] = OWN_SKELETON
    about = describe_weights(weights)
    return Description(
        version=__version__,
        settings=unflatten(settings).dump(),
        skeleton=skeleton_yaml(skeleton),
        joints=skeleton.trained(cfg.DATASET.WITH_CENTER).num_keypoints,
        tag_maps=sum(use_tags) * (2 if flip else 1),
        flip=flip,
        dtype="float16" if half else "float32",
        use_heatmaps=use_heatmaps,
        use_tags=use_tags,
        size_divisor=network.size_divisor,
        mean=list(MEAN),
        std=list(STD),
        extra={name: list(rule) for name, rule in network.head.map_rules.items()},
        weights_sha256=about.digest,
        epoch=about.epoch,
    )


def check(
    cfg: Any, network: PoseNetwork, path: Path, skeleton: Skeleton, image: Image
) -> Agreement:
    """The file, run by ONNX Runtime, against the network. Raises ExportedError if they differ."""
    exported = load_exported(with_values(cfg, {"TEST.ENGINE": "onnxruntime"}), path, "cpu")
    decoded = skeleton if cfg.TEST.IGNORE_CENTER else skeleton.trained(cfg.DATASET.WITH_CENTER)
    return compare(
        build_predictor(cfg, exported, skeleton),
        build_predictor(cfg, network, skeleton),
        image,
        BOUNDS[exported.description.dtype],
        decoded.sigmas,
    )


def with_values(cfg: Any, values: dict[str, Any]) -> Any:
    """A frozen copy of a configuration with other values, by their dotted names."""
    changed = cfg.clone()
    changed.defrost()
    changed.merge_from_list([part for pair in values.items() for part in pair])
    changed.freeze()
    return changed
