"""Count the operations of a training step outside the network: no GPU is needed.

    python -m benchmarks.step_operations [KEY VALUE ...]

An operation is one call that PyTorch dispatches, whatever it works on; one call may start several
kernels on a GPU. "tensors" is how many tensors these calls get and give. Tensors are fake, without
values: no arithmetic is done, and the step takes the paths that it takes on a GPU.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
W32 = ROOT / "experiments/coco/higher_hrnet/w32_512_adam_lr1e-3.yaml"
PARTS = ("before the network", "network", "losses", "backward", "update")
NETWORK = ("network", "backward")


class OperationCounter(TorchDispatchMode):
    """While entered, counts dispatched operations and the tensors they get and give, by part.

    part: name of the part that operations count for, which the caller sets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.part = PARTS[0]
        self.operations: Counter[str] = Counter()
        self.tensors: Counter[str] = Counter()
        self.names: dict[str, Counter[str]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace in ("prim", "profiler"):  # questions, not work
            return result
        leaves = tree_leaves((args, kwargs, result))
        self.operations[self.part] += 1
        self.tensors[self.part] += sum(isinstance(leaf, Tensor) for leaf in leaves)
        self.names.setdefault(self.part, Counter())[str(func)] += 1
        return result

    @contextmanager
    def following(self, network: nn.Module) -> Iterator[None]:
        """Set `part` from what a step calls: the network, then Tensor.backward."""

        def enter(*_: Any) -> None:
            self.part = "network"

        def leave(*_: Any) -> None:
            self.part = "losses"

        plain = Tensor.backward

        def backward(tensor: Tensor, *args: Any, **options: Any) -> None:
            self.part = "backward"
            plain(tensor, *args, **options)
            self.part = "update"

        hooks = [network.register_forward_pre_hook(enter), network.register_forward_hook(leave)]
        Tensor.backward = backward  # type: ignore[method-assign]
        try:
            yield
        finally:
            Tensor.backward = plain  # type: ignore[method-assign]
            for hook in hooks:
                hook.remove()

    def outside_network(self) -> tuple[int, int]:
        """Operations and tensors of all parts but the network's forward and backward pass."""
        parts = [part for part in PARTS if part not in NETWORK]
        return (
            sum(self.operations[part] for part in parts),
            sum(self.tensors[part] for part in parts),
        )


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors that are made inside have no values; reading one (Tensor.item) raises an error."""
    from swahr.data.images import statistics

    statistics.cache_clear()  # constants of before do not fit, and fake ones must not stay
    try:
        with FakeTensorMode():
            yield
    finally:
        statistics.cache_clear()


def make_batch(size: int, sides: list[int], people: int = 3) -> Any:
    """A batch of two images of size x size pixels with maps of these sides."""
    from swahr.data.loaders import Batch

    return Batch(
        torch.zeros(2, size, size, 3, dtype=torch.uint8),
        [torch.zeros(2, people, 17, 3) for _ in sides],
        [torch.zeros(2, side, side, dtype=torch.uint8) for side in sides],
        torch.zeros(2, dtype=torch.int64),
        {},
    )


def build_step(cfg: Any) -> Any:
    """The TrainStep of a configuration, on the CPU but with the operations of a GPU, and as if
    reading a value took time.
    """
    from swahr.engine import setup
    from swahr.losses.criterion import build_criterion
    from swahr.models.build import build_model
    from swahr.models.depthwise import DepthwiseConv2d

    model = build_model(cfg)
    for layer in model.modules():
        if isinstance(layer, DepthwiseConv2d):
            layer.sum_in_float32 = False
    step = setup.build_train_step(cfg, model, build_criterion(cfg), torch.device("cpu"))
    step.host_reads = False
    step.encoder.drop_absent = False
    return step


def count_step(cfg: Any) -> OperationCounter:
    """The operations of the second step of a run; the first one makes the optimiser's state."""
    from swahr.engine.progress import Meter

    counter = OperationCounter()
    meter = Meter()
    with fake_tensors():
        batch = make_batch(cfg.DATASET.INPUT_SIZE, cfg.DATASET.OUTPUT_SIZE)
        batches = [batch] * cfg.TRAIN.ACCUMULATION_STEPS
        step = build_step(cfg)
        step(batches, 0.001)
        with counter, counter.following(step.model):
            result = step(batches, 0.001)
            meter.add(result.losses, result.bad, result.gradient_norm)
    return counter


def main() -> None:
    from swahr.config import load_config

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", action="store_true", help="list the operations by name too")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings")
    args = parser.parse_args()
    counter = count_step(load_config(W32, args.opts))
    print("| part | operations | tensors |\n|---|---:|---:|")
    for part in PARTS:
        print(f"| {part} | {counter.operations[part]:,} | {counter.tensors[part]:,} |")
    operations, tensors = counter.outside_network()
    print(f"| all but network and backward | {operations:,} | {tensors:,} |")
    if args.names:
        for part in PARTS:
            print(part, dict(counter.names.get(part, Counter()).most_common()))


if __name__ == "__main__":
    main()
