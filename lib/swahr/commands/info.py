"""Say what a file of weights is: its network, its size, its test settings, whether it loads.

    swahr info models/pose_coco/pose_higher_hrnet_w32_512.pth
    swahr info output/coco_kpt/pose_higher_hrnet/w32_512_adam_lr1e-3
    swahr info w32.onnx
    swahr info demo

SOURCE is a file of weights, an exported network, the folder of a run or of a published model, a
YAML file, or demo, the network that comes with the project; the same that swahr.load takes. GMACs
are for one image of DATASET.INPUT_SIZE, counted by the published rule.
Exit status: 0 it loads; 1 it does not; 2 there is no such file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swahr.commands.flags import Parser, add_import_flag
from swahr.config import configured_skeleton, resolve_path
from swahr.distributed.launch import is_known
from swahr.engine.model_files import DEMO, LoadError, find_model
from swahr.engine.provenance import describe_test, describe_weights
from swahr.exported import Description, is_exported, load_onnx
from swahr.inference.exported_network import ExportedNetwork
from swahr.inference.load import load_model
from swahr.models.flops import count_macs, count_parameters
from swahr.models.weights import read_state_dict
from swahr.parts import import_modules

Rows = list[tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", help="weights, a folder or a YAML file")
    add_import_flag(parser)
    args = parser.parse_args(arguments)
    import_modules(args.modules)
    source = args.source
    if not source:
        raise LoadError("SOURCE is empty; name a file or a folder")
    if source != DEMO and not resolve_path(source).exists():
        raise LoadError(f"{source}: no such file or folder")
    rows, problem = describe(source)
    for name, value in [*rows, ("loads", f"no: {problem}" if problem else "yes")]:
        print(f"{name:<12} {value}")
    return 1 if problem else 0


def describe(source: str) -> tuple[Rows, str]:
    """What is known of a source, and why it cannot be loaded, '' if it can."""
    rows: Rows = []
    path = resolve_path(source)
    try:
        if path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
            rows += _file_rows(path)
        cfg, weights, kind = find_model(source)
        if not rows:
            rows += _file_rows(weights)
        skeleton = configured_skeleton(cfg)
        rows += [
            ("kind", kind),
            ("network", f"{cfg.MODEL.BACKBONE}, {cfg.MODEL.HEAD}"),
            ("keypoints", f"{skeleton.num_keypoints} ({skeleton.name})"),
            ("test", describe_test(cfg)),
        ]
        network = load_model(cfg, weights, "cpu")
        if isinstance(network, ExportedNetwork):
            return rows + _exported_rows(network.description), ""
        published, _ = count_macs(network, cfg.DATASET.INPUT_SIZE)
        rows += [
            ("parameters", f"{count_parameters(network):,}"),
            ("GMACs", f"{published / 1e9:.2f} for {cfg.DATASET.INPUT_SIZE} px"),
        ]
    except ValueError as error:
        if not is_known(error):
            raise
        return rows, str(error)
    return rows, ""


def _file_rows(path: Path) -> Rows:
    """Of any file of weights. Raises CheckpointError."""
    weights = describe_weights(path)
    rows = [
        ("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
        ("sha256", weights.digest),
    ]
    if weights.epoch is not None:
        rows.append(("epoch", str(weights.epoch)))
    if is_exported(path):
        return rows + _initializer_rows(load_onnx(path))
    state = read_state_dict(path)
    values = sum(tensor.numel() for tensor in state.values())
    return [*rows, ("tensors", f"{len(state)} with {values:,} values")]


def _initializer_rows(model: Any) -> Rows:
    """The constants of an ONNX file, which are the network's weights, and its input and outputs."""
    constants = model.graph.initializer
    values = sum(math.prod(tensor.dims) for tensor in constants)
    return [
        ("tensors", f"{len(constants)} with {values:,} values"),
        ("input", ", ".join(map(_shape, model.graph.input))),
        ("outputs", ", ".join(map(_shape, model.graph.output))),
    ]


def _shape(value: Any) -> str:
    """Name and shape of an input or output, such as images (batch, 3, 32*rows, 32*columns)."""
    sizes = [size.dim_param or str(size.dim_value) for size in value.type.tensor_type.shape.dim]
    return f"{value.name} ({', '.join(sizes)})"


def _exported_rows(description: Description) -> Rows:
    flip = "both passes of the flip test inside" if description.flip else "one pass"
    return [
        ("computes", f"{flip}, {description.dtype}, {description.tag_maps} tags a joint"),
        ("exported", f"by swahr {description.version} from {description.weights_sha256}"),
    ]
