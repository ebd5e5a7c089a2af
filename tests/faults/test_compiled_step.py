"""The network itself compiles into one graph; slow, as half a thousand operations are traced."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from benchmarks.step_operations import W32, make_batch
from swahr.codec.targets import build_target_encoder
from swahr.config import load_config
from swahr.engine import setup
from swahr.engine.loss_network import pad_people
from swahr.losses.criterion import build_criterion, total_loss
from swahr.models.build import build_model
from swahr.models.network import StageOutput


def test_higher_hrnet_is_one_graph() -> None:
    cfg = load_config(W32, ["TRAIN.COMPILE", "True", "AMP.ENABLED", "True", "AMP.DTYPE", "bf16"])
    step = setup.build_train_step(cfg, build_model(cfg), build_criterion(cfg), torch.device("cpu"))
    batch = make_batch(cfg.DATASET.INPUT_SIZE // 4, [32, 64])
    step.encoder.sizes = (32, 64)
    joints = [pad_people(joints) for joints in batch.joints]
    explained = torch._dynamo.explain(step.loss_network._orig_mod)(
        batch.images, joints, batch.masks
    )
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons


def test_more_people_than_the_padding_compile_the_step_once_more() -> None:
    cfg = load_config(W32, ["DATASET.INPUT_SIZE", "64", "DATASET.OUTPUT_SIZE", "[16, 32]"])
    criterion = build_criterion(cfg)
    encoder = build_target_encoder(cfg)
    encoder.drop_absent = False
    maps = [StageOutput(*(torch.zeros(2, 17, side, side) for _ in "abc")) for side in (16, 32)]
    counter = CompileCounterWithBackend("eager")

    @torch.compile(backend=counter, fullgraph=True)
    def losses(joints: list[Tensor], masks: list[Tensor]) -> Tensor:
        return total_loss(criterion(maps, encoder(joints, masks)))

    graphs = []
    for people in (3, 30, 40, 100, 200):
        batch = make_batch(64, [16, 32], people)
        losses([pad_people(joints) for joints in batch.joints], batch.masks)
        graphs.append(counter.frame_count)
    assert graphs == [1, 1, 2, 2, 2]
