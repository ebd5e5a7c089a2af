"""A network as an ONNX file: torch.export traces it, with any batch and any size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from swahr.acceleration.fuse import fold_batch_norms
from swahr.exported import HEATMAPS, INPUT, REMEDY, TAGS, Description, ExportedError
from swahr.inference.predictor import Predictor
from swahr.models.network import PoseNetwork

# Number of the traced images, and their sides in units of Description.size_divisor. All of them
# differ, so that no two are taken for one, and from those of the check, so that it would see one
# that was taken for a constant.
EXAMPLE = (3, 2, 5)


class AveragedMaps(nn.Module):
    """What an exported network computes: normalised images (B, 3, H, W) float32 -> heatmaps
    (B, K, h, w), tags (B, T, K or 1, h, w) and the further maps, all float32 of the network's
    highest resolution.

    predictor: its network, flip_index, use_heatmaps, use_tags and map_rules are used, and the same
    averaging over resolutions and passes. It neither resizes to the input nor drops the centre.
    """

    def __init__(self, predictor: Predictor, network: nn.Module) -> None:
        super().__init__()
        self.network = network  # so that its weights are those of this module
        self.predictor = predictor

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.predictor.maps_of(images, 1.0, ())
        tags = {TAGS: torch.stack(maps.tags, 1)} if maps.tags else {}
        return {HEATMAPS: maps.heatmaps, **tags, **maps.extra}


def averaged_maps(
    network: PoseNetwork,
    *,
    use_heatmaps: list[bool],
    use_tags: list[bool],
    flip_index: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float32,
) -> AveragedMaps:
    """The module to export: batch norms folded, without what only the loss reads.

    flip_index: of all K joints, for both passes of the flip test inside. dtype: of the
    convolutions.
    """
    folded = fold_batch_norms(network).to("cpu", dtype)
    predictor = Predictor(
        folded,
        lambda maps: [],  # the maps are the result
        num_keypoints=0,
        input_size=0,
        use_heatmaps=use_heatmaps,
        use_tags=use_tags,
        map_rules=network.head.map_rules,
        flip_index=flip_index,
        project=False,
        input_dtype=dtype,
    )
    return AveragedMaps(predictor, folded).eval()


def write_onnx(module: AveragedMaps, description: Description, path: Path) -> None:
    """Write the file. Raises ExportedError without the packages, or where the network cannot be
    run, traced or written.
    """
    _import_packages()
    batch, rows, columns = EXAMPLE
    divisor = description.size_divisor
    height = rows * divisor
    width = columns * divisor
    example = torch.zeros(batch, 3, height, width)
    dim = torch.export.Dim
    sizes = {0: dim("batch"), 2: divisor * dim("rows"), 3: divisor * dim("columns")}
    asked = f"{batch} images of {width} x {height} px in {description.dtype}"
    with _refusing(f"this network cannot compute {asked} on a CPU"), torch.no_grad():
        maps = module(example)
    with _refusing("torch.export cannot trace this network"), _quiet():
        traced = torch.export.export(module, (example,), dynamic_shapes=(sizes,))
    with _refusing("torch.onnx cannot write this network"), _quiet():
        program = torch.onnx.export(
            traced,
            input_names=[INPUT],
            output_names=list(maps),
            dynamic_shapes=(sizes,),  # gives names only: `traced` has the sizes
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for output, values in zip(program.model.graph.outputs, maps.values()):
        if output.shape is not None:
            output.shape[-2] = f"{values.shape[-2] // rows}*rows"
            output.shape[-1] = f"{values.shape[-1] // columns}*columns"
    program.model.metadata_props.update(description.to_metadata())
    program.model.producer_name = "swahr"
    program.model.producer_version = description.version
    program.save(path, external_data=False)


def _import_packages() -> None:
    """Those that torch.onnx imports, before a network is traced for minutes."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportedError(f"export needs onnx and onnxscript: {REMEDY} ({error})") from None


@contextmanager
def _refusing(problem: str) -> Iterator[None]:
    """Whatever a user's network raises within, or torch for it, becomes one line."""
    try:
        yield
    except Exception as error:
        raise ExportedError(f"{problem}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The first cause in one line; torch.onnx wraps it in pages of advice, twice."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
