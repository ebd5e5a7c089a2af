"""An exported network (.onnx) in place of a PoseNetwork: the same Predictor and decoder use it.

An engine opens a file and returns a function from images (B, 3, H, W) to the file's outputs by
name. To add one, write such a function and name it in ENGINES.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swahr.codec.maps import MapRule
from swahr.exported import (
    HEATMAPS,
    INPUT,
    REMEDY,
    TAGS,
    Description,
    ExportedError,
    describe_exported,
)
from swahr.models.network import StageOutput
from swahr.parts import choose

Floats = NDArray[np.float32]
Run = Callable[[Floats], dict[str, Floats]]


class ExportedNetwork(nn.Module):
    """images (B, 3, H, W) -> a StageOutput for each tag map of a joint, all of one resolution.

    The heatmaps, which are the same in all of them, are averaged over the network's resolutions,
    and with the flip test inside over both passes. So one set of tags is one "stage", and Predictor
    needs no other rule for exported networks. run: the engine's function.
    """

    device: torch.device

    def __init__(self, description: Description, run: Run, device: torch.device) -> None:
        super().__init__()
        self.description = description
        self.run = run
        self.device = device
        self.size_divisor = description.size_divisor
        stages = max(description.tag_maps, 1)
        self.use_heatmaps = [True] + [False] * (stages - 1)
        self.use_tags = [description.tag_maps > 0] * stages
        self.map_rules = {
            name: MapRule(tuple(signs), swap_joints, average)
            for name, (signs, swap_joints, average) in description.extra.items()
        }

    def forward(self, images: Tensor) -> list[StageOutput]:
        arrays = self.run(images.to("cpu", torch.float32).contiguous().numpy())
        maps = {name: torch.from_numpy(array).to(images.device) for name, array in arrays.items()}
        heatmaps = maps.pop(HEATMAPS)
        tags = maps.pop(TAGS, None)
        extra = maps or None
        if tags is None:
            return [StageOutput(None, heatmaps, None, extra)]
        return [StageOutput(None, heatmaps, of_stage, extra) for of_stage in tags.unbind(1)]


def open_onnxruntime(path: Path, device: torch.device, precision: str) -> Run:
    """ONNX Runtime; on a GPU with onnxruntime-gpu. precision: has no effect, the file decides."""
    try:
        import onnxruntime
    except ImportError:
        raise ExportedError(f"{path}: needs onnxruntime: {REMEDY}") from None
    on_gpu = device.type == "cuda"
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    settings = {"device_id": device.index or 0} if on_gpu else {}
    if provider not in onnxruntime.get_available_providers():
        raise ExportedError(
            f"{path}: this onnxruntime works on CPUs only; choose the device cpu (DEVICE cpu), or "
            "pip install onnxruntime-gpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[(provider, settings)])
    except Exception as error:  # its own types, for damaged files and unknown operations
        raise ExportedError(f"{path}: ONNX Runtime refuses it ({_first_line(error)})") from None
    if provider not in session.get_providers():
        raise ExportedError(
            f"{path}: ONNX Runtime cannot use the GPU, as libraries of CUDA or cuDNN are missing; "
            "choose the device cpu (DEVICE cpu)"
        )
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {INPUT: images})))


def open_openvino(path: Path, device: torch.device, precision: str) -> Run:
    """OpenVINO on CPUs. precision: of the convolutions, f32, or bf16 where the processor has it."""
    try:
        import openvino
    except ImportError:
        raise ExportedError(f"{path}: needs openvino: pip install 'swahr[openvino]'") from None
    if device.type != "cpu":
        raise ExportedError(
            f"{path}: the engine openvino works on CPUs only; choose the device cpu (DEVICE cpu)"
        )
    config = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        compiled = openvino.Core().compile_model(str(path), "CPU", config)
    except Exception as error:  # RuntimeError of its own
        raise ExportedError(f"{path}: OpenVINO refuses it ({_first_line(error)})") from None
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: Floats) -> dict[str, Floats]:
        # Its output buffers are used again by the next call.
        return {name: np.array(array) for name, array in zip(names, compiled(images).values())}

    return run


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


# TEST.ENGINE -> open(path, device, precision) -> images to outputs.
ENGINES: dict[str, Callable[[Path, torch.device, str], Run]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
}


def load_exported(cfg: Any, path: str | Path, device: torch.device | str) -> ExportedNetwork:
    """The network of a file, run by TEST.ENGINE; with AMP.* bf16, OpenVINO may compute in bf16.

    Raises ExportedError where the file cannot be read, or differs from the configuration.
    """
    file = Path(path)
    description = describe_exported(file)
    check_settings(cfg, file, description)
    device = torch.device(device)
    engine = choose(ENGINES, cfg.TEST.ENGINE, "TEST.ENGINE")
    precision = "bf16" if cfg.AMP.ENABLED and cfg.AMP.DTYPE == "bf16" else "f32"
    return ExportedNetwork(description, engine(file, device, precision), device)


def used_maps(cfg: Any) -> tuple[list[bool], list[bool]]:
    """For each resolution, low to high, whether its heatmaps and its tags are used in testing."""
    loss = cfg.LOSS
    test = cfg.TEST
    heatmaps = list(map(all, zip(loss.WITH_HEATMAPS_LOSS, test.WITH_HEATMAPS)))
    return heatmaps, list(map(all, zip(loss.WITH_AE_LOSS, test.WITH_AE)))


def check_settings(cfg: Any, path: Path, description: Description) -> None:
    """Raise ExportedError where the configuration asks for what a file cannot change."""
    use_heatmaps, use_tags = used_maps(cfg)
    fixed = (
        ("MODEL.NUM_JOINTS", description.joints, cfg.MODEL.NUM_JOINTS),
        ("TEST.WITH_HEATMAPS (and the loss)", description.use_heatmaps, use_heatmaps),
        ("TEST.WITH_AE (and the loss)", description.use_tags, use_tags),
        ("TEST.FLIP_TEST", True, cfg.TEST.FLIP_TEST or not description.flip),
    )
    for key, given, asked in fixed:
        if given != asked:
            raise ExportedError(
                f"{path}: was exported with {key} {given}, which cannot be changed to {asked}; "
                "export the network again, or use the file's own settings (without --cfg)"
            )
