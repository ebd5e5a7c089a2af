"""The package as plain functions of NumPy arrays, as ../shared/parity/check.py calls it; no logic
of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from swahr import geometry
from swahr.codec import targets
from swahr.codec.decode import build_decoder
from swahr.codec.maps import Maps
from swahr.config import configured_skeleton, load_config
from swahr.data.keypoints import KeypointDataset
from swahr.data.loaders import Batch
from swahr.engine.schedule import build_optimizer, build_scaler
from swahr.engine.train_step import TrainStep
from swahr.engine.validate import predict
from swahr.evaluation.metrics import evaluate as score
from swahr.inference.predictor import build_predictor
from swahr.inference.tta import PassMaps, average_scales
from swahr.losses.criterion import Criterion, build_criterion, total_loss
from swahr.models.build import build_model
from swahr.models.network import StageOutput
from swahr.models.weights import load_state, load_weights, published_state
from swahr.skeleton import COCO, CROWD_POSE

Array = np.ndarray[Any, Any]


def _array(tensor: torch.Tensor | None) -> Array | None:
    return None if tensor is None else tensor.detach().numpy()


def _gradient(tensor: torch.Tensor | None) -> Array | None:
    """Zeros where the loss does not depend on it."""
    if tensor is None:
        return None
    return _array(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)


def _weightless(criterion: Criterion) -> list[str]:
    """The losses of weight 0, which are not computed here, and 0 in the published code."""
    return [
        f"{name}{stage}"
        for term in criterion.terms
        for name, weights in term.weights.items()
        for stage, weight in enumerate(weights)
        if weight == 0
    ]


def network_forward(
    cfg_file: str, opts: list[str], weights: Mapping[str, Array], images: Array
) -> list[dict[str, Array | None]]:
    model = build_model(load_config(cfg_file, opts)).eval()
    state = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
    load_state(model, state)
    with torch.no_grad():
        outputs = model(torch.from_numpy(images))
    return [
        {"scale": _array(s.scales), "heatmap": _array(s.heatmaps), "tag": _array(s.tags)}
        for s in outputs
    ]


def parameter_shapes(cfg_file: str, opts: list[str]) -> tuple[list[tuple[str, list[int]]], int]:
    model = build_model(load_config(cfg_file, opts))
    shapes = [(name, list(value.shape)) for name, value in published_state(model).items()]
    return shapes, sum(parameter.numel() for parameter in model.parameters())


def losses(
    cfg_file: str,
    opts: list[str],
    outputs: Sequence[Mapping[str, Array | None]],
    heatmaps: Sequence[Array],
    masks: Sequence[Array],
    joints: Sequence[Array],
) -> dict[str, Any]:
    tensors = [
        {
            name: None if a is None else torch.tensor(a, requires_grad=True)
            for name, a in stage.items()
        }
        for stage in outputs
    ]
    wanted = [
        targets.StageTarget(
            torch.from_numpy(h),
            torch.from_numpy(m).float(),
            torch.from_numpy(j[..., 0]).long(),
            torch.from_numpy(j[..., 1] > 0),
        )
        for h, m, j in zip(heatmaps, masks, joints)
    ]
    criterion = build_criterion(load_config(cfg_file, opts))
    values = criterion(
        [StageOutput(stage["scale"], stage["heatmap"], stage["tag"]) for stage in tensors], wanted
    )  # type: ignore[arg-type]
    total = total_loss(values)
    total.backward()  # type: ignore[no-untyped-call]
    gradients = [{name: _gradient(t) for name, t in stage.items()} for stage in tensors]
    return {
        "total": total.item(),
        "values": {
            **dict.fromkeys(_weightless(criterion), np.zeros(len(heatmaps[0]), np.float32)),
            **{name: _array(value) for name, value in values.items()},
        },
        "gradients": gradients,
    }


def _batch_of_one(joints: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(joints, np.float64))[None]


def render_heatmaps(joints: Array, size: int, sigma: float) -> Array:
    return targets.render_heatmaps(_batch_of_one(joints), size, sigma)[0].numpy()


def render_scale_aware(joints: Array, size: int) -> Array:
    return targets.render_scale_aware(_batch_of_one(joints), size)[0].numpy()


def tag_index(joints: Array, size: int, tag_per_joint: bool) -> list[tuple[int, int]]:
    index, present = targets.tag_index(_batch_of_one(joints), size, tag_per_joint)
    return [(int(person), int(index[0, person, joint])) for person, joint in present[0].nonzero()]


def augment_matrix(center: Sequence[float], scale: float, size: int, rotation: float) -> Array:
    return geometry.augment_matrix(center, scale, size, rotation)


def test_geometry(
    width: int, height: int, input_size: int, scale: float, min_scale: float
) -> geometry.InputGeometry:
    return geometry.input_geometry(width, height, input_size, scale, min_scale)


def to_image(
    points: Array, center: Sequence[float], box_scale: Sequence[float], size: tuple[int, int]
) -> Array:
    return geometry.to_image(points, center, box_scale, size)


def decode(
    cfg_file: str,
    opts: list[str],
    network: Callable[[float, bool], list[Array]],
    image_size: tuple[int, int],
) -> tuple[Array, Array]:
    cfg = load_config(cfg_file, [*opts, "TEST.FUSE", "False"])
    skeleton, width, height = configured_skeleton(cfg), *image_size
    predictor = build_predictor(cfg, torch.nn.Identity(), skeleton)  # type: ignore[arg-type]
    [(_, batch)] = predictor.prepare([np.zeros((height, width, 3), np.uint8)])

    def stages(scale: float, mirrored: bool) -> list[StageOutput]:
        maps = [torch.from_numpy(stage)[None] for stage in network(scale, mirrored)]
        k = cfg.MODEL.NUM_JOINTS
        return [
            StageOutput(a[:, :k], a[:, k : 2 * k], a[:, 2 * k :] if a.shape[1] > 2 * k else None)
            for a in maps
        ]

    def aggregate(scale: float) -> PassMaps:
        mirrored = stages(scale, True) if predictor.flip_index else None
        [image_geometry] = batch.geometries
        size = image_geometry.full_size[::-1]
        return predictor.aggregate(scale, stages(scale, False), mirrored, size)

    maps = average_scales(aggregate(scale) for scale in predictor.scales)
    [people] = predictor.decode(batch, maps)
    return people.keypoints, people.scores


def decode_maps(
    cfg_file: str, opts: list[str], heatmaps: Array, tags: Array
) -> tuple[Array, Array]:
    cfg = load_config(cfg_file, opts)
    skeleton = configured_skeleton(cfg)
    is_decoded = cfg.DATASET.WITH_CENTER and not cfg.TEST.IGNORE_CENTER
    decoder = build_decoder(cfg, skeleton.trained(is_decoded))
    maps = Maps(torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None])
    [people] = decoder(maps)
    return people.keypoints, people.scores


def validate(
    cfg_file: str,
    opts: list[str],
    weights_file: str,
    image_dir: str,
    annotation_file: str,
    image_ids: list[int],
) -> list[dict[str, Any]]:
    cfg = load_config(cfg_file, opts)
    skeleton = configured_skeleton(cfg)
    model = build_model(cfg)
    load_weights(model, weights_file)
    dataset = KeypointDataset(annotation_file, image_dir, skeleton)
    return predict(dataset, build_predictor(cfg, model, skeleton), image_ids).records


def train_steps(
    cfg_file: str,
    opts: list[str],
    weights_file: str,
    batches: Sequence[Mapping[str, Any]],
    rates: Sequence[float],
) -> tuple[list[dict[str, float]], dict[str, Array]]:
    cfg = load_config(cfg_file, opts)
    device = torch.device("cpu")
    model = build_model(cfg)
    load_weights(model, weights_file)
    step = TrainStep(
        model=model,
        encoder=targets.build_target_encoder(cfg),
        criterion=build_criterion(cfg),
        optimizer=build_optimizer(cfg, model),
        scaler=build_scaler(cfg, device),
        device=device,
    )
    values = []
    for arrays, rate in zip(batches, rates, strict=True):
        images = torch.from_numpy(arrays["images"])
        joints = [torch.from_numpy(stage).float() for stage in arrays["joints"]]
        masks = [torch.from_numpy(stage.astype(np.uint8)) for stage in arrays["masks"]]
        result = step([Batch(images, joints, masks, torch.arange(len(images)), {})], rate)
        losses = {name: float(value) for name, value in result.losses.items()}
        unused = dict.fromkeys(_weightless(step.criterion), 0.0)
        values.append({"total": sum(losses.values()), **unused, **losses})
    state = published_state(model)
    return values, {name: t.numpy() for name, t in state.items() if t.dtype == torch.float32}


def evaluate(dataset: str, ground_truth_file: str, detections_file: str) -> dict[str, float]:
    skeleton, protocol = (COCO, "coco") if dataset == "coco" else (CROWD_POSE, "crowd_pose")
    return score(ground_truth_file, detections_file, skeleton, protocol)
