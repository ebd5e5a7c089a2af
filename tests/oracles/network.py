"""HigherHRNet in evaluation mode, step by step in NumPy, steered by nothing but the names and
shapes of its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Network:
    """One image at a time: maps are (C, h, w)."""

    def __init__(self, state: Mapping[str, Array]) -> None:
        self.state = {name: np.asarray(value, np.float64) for name, value in state.items()}

    def has(self, name: str) -> bool:
        return any(key.startswith(f"{name}.") for key in self.state)

    def count(self, name: str) -> int:
        """How many numbered children there are, up to the highest number."""
        numbers = (re.match(rf"{re.escape(name)}\.(\d+)\.", key) for key in self.state)
        return max((int(found[1]) + 1 for found in numbers if found), default=0)

    def conv(self, x: Array, name: str, stride: int = 1) -> Array:
        """Padded by half the kernel; groups as the weight's shape says."""
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        size = weight.shape[-1]
        pad = weight.shape[-1] // 2
        groups = len(x) // weight.shape[1]
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        parts = []
        for source, part in zip(np.split(padded, groups), np.split(weight, groups)):
            out = 0.0
            for dy in range(size):
                for dx in range(size):
                    window = source[:, dy : dy + x.shape[1] : stride, dx : dx + x.shape[2] : stride]
                    out = out + np.einsum("chw,oc->ohw", window, part[:, :, dy, dx])
            parts.append(out)
        out = np.concatenate(parts)
        return out if bias is None else out + bias[:, None, None]

    def double(self, x: Array, name: str) -> Array:
        """The transposed convolution: every input pixel leaves the whole kernel, and the result is
        cut to 2 h x 2 w.
        """
        weight = self.state[f"{name}.weight"]
        size = weight.shape[-1]
        (height, width) = x.shape[1:]
        out = np.zeros((weight.shape[1], 2 * height + 4, 2 * width + 4))
        for dy in range(size):
            for dx in range(size):
                stamp = np.einsum("chw,co->ohw", x, weight[:, :, dy, dx])
                out[:, dy : dy + 2 * height : 2, dx : dx + 2 * width : 2] += stamp
        start = {4: 1, 3: 1, 2: 0}[size]
        return out[:, start : start + 2 * height, start : start + 2 * width]

    def norm(self, x: Array, name: str) -> Array:
        weight, bias, mean, variance = (
            self.state[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias

    def group(self, x: Array, name: str, stride: int = 1, relu: bool = True) -> Array:
        out = self.norm(self.conv(x, f"{name}.0", stride), f"{name}.1")
        return np.maximum(out, 0) if relu else out

    def block(self, x: Array, name: str) -> Array:
        out = x
        last = 3 if self.has(f"{name}.conv3") else 2
        for step in range(1, last + 1):
            out = self.norm(self.conv(out, f"{name}.conv{step}"), f"{name}.bn{step}")
            out = np.maximum(out, 0) if step < last else out
        shortcut = (
            self.group(x, f"{name}.downsample", relu=False) if self.has(f"{name}.downsample") else x
        )
        return np.maximum(out + shortcut, 0)

    def blocks(self, x: Array, name: str) -> Array:
        for index in range(self.count(name)):
            x = self.block(x, f"{name}.{index}")
        return x

    def exchange(self, x: Array, name: str, source: int, target: int) -> Array:
        if source > target:
            return (
                self.group(x, name, relu=False)
                .repeat(2 ** (source - target), 1)
                .repeat(2 ** (source - target), 2)
            )
        for step in range(target - source):
            x = self.group(x, f"{name}.{step}", stride=2, relu=step < target - source - 1)
        return x

    def stage(self, maps: list[Array], name: str) -> list[Array]:
        for index in range(self.count(name)):
            module = f"{name}.{index}"
            maps = [self.blocks(x, f"{module}.branches.{branch}") for branch, x in enumerate(maps)]
            targets = self.count(f"{module}.fuse_layers")
            maps = [
                np.maximum(
                    sum(
                        self.exchange(x, f"{module}.fuse_layers.{target}.{source}", source, target)
                        for source, x in enumerate(maps)
                    ),
                    0,
                )
                for target in range(max(targets, 1))
            ]
        return maps

    def transition(self, maps: list[Array], name: str) -> list[Array]:
        out = []
        for branch in range(len(maps) + 1):
            layer = f"{name}.{branch}"
            x = maps[min(branch, len(maps) - 1)]
            if branch < len(maps):
                out.append(self.group(x, layer) if self.has(layer) else x)
                continue
            for step in range(self.count(layer)):
                x = self.group(x, f"{layer}.{step}", stride=2)
            out.append(x)
        return out

    def __call__(self, image: Array) -> list[tuple[Array | None, Array]]:
        """(3, H, W) -> for each resolution the scale maps, or None, and all the others: heatmaps,
        then tags.
        """
        x = np.maximum(self.norm(self.conv(image, "conv1", 2), "bn1"), 0)
        x = np.maximum(self.norm(self.conv(x, "conv2", 2), "bn2"), 0)
        maps = [self.blocks(x, "layer1")]
        for number in (1, 2, 3):
            maps = self.stage(self.transition(maps, f"transition{number}"), f"stage{number + 1}")
        x = maps[0]
        outputs = []
        for resolution in range(self.count("final_layers")):
            if resolution:
                name = f"deconv_layers.{resolution - 1}"
                if self.state[f"{name}.0.0.weight"].shape[0] > len(x):
                    x = np.concatenate([x, outputs[-1][1]])
                x = np.maximum(self.norm(self.double(x, f"{name}.0.0"), f"{name}.0.1"), 0)
                for block in range(1, self.count(name)):
                    x = self.block(x, f"{name}.{block}.0")
            scales = None
            if self.has(head := f"conv_scale_layers.{resolution}"):
                scales = self.conv(self.group(x, head), f"{head}.3")
            outputs.append((scales, self.conv(x, f"final_layers.{resolution}")))
        return outputs
