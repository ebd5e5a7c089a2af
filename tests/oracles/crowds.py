"""Maps like those of a network for crowds, made from a seed: for tests of the decoder and for
tools/benchmark.py.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

RADIUS = 12  # half the side of what is drawn around a joint, in pixels of the network's map


def crowd(
    people,
    size=(512, 768),
    joints=17,
    tag_maps=2,
    false_peaks=3,
    noise=0.01,
    stray_tags=False,
    seed=0,
):
    """heatmaps (1, K, H, W) and tags (1, K, H, W, T) of that many people, drawn at half the size
    and enlarged.

    Of a person's joints about 3/4 are found, 1/8 are too weak to be peaks and 1/8 are missing.
    `false_peaks` further peaks have the tag of one of the people, or any tag with stray_tags. Away
    from joints heatmaps hold noise, and tags vary slowly.
    """
    rng = np.random.default_rng([seed, people])
    height = size[0] // 2
    width = size[1] // 2
    heatmaps = np.abs(rng.normal(0, noise, (joints, height, width))).astype(np.float32)
    background = torch.from_numpy(rng.normal(0, 1, (tag_maps, joints, 9, 13)).astype(np.float32))
    tags = F.interpolate(background, (height, width), mode="bicubic", align_corners=True).numpy()
    tags += rng.normal(0, 0.05, tags.shape).astype(np.float32)

    def draw(k, x, y, score, tag):
        left = max(int(x) - RADIUS, 0)
        top = max(int(y) - RADIUS, 0)
        area = np.s_[top : int(y) + RADIUS + 1, left : int(x) + RADIUS + 1]
        v, u = np.mgrid[area][:, : height - top, : width - left]
        peak = score * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 8)
        own = peak > heatmaps[k][area]
        heatmaps[k][area][own] = peak[own]
        tags[:, k][(slice(None), *area)][:, own] = tag + rng.normal(0, 0.05, (tag_maps, own.sum()))

    identities = rng.permutation(people) + rng.normal(0, 0.1, people)
    middles = rng.uniform((width * 0.1, height * 0.15), (width * 0.9, height * 0.85), (people, 2))
    spread = height / 8
    for tag, middle in zip(identities, middles):
        for k in range(joints):
            x, y = np.clip(middle + rng.normal(0, (spread / 2, spread)), 0, (width - 1, height - 1))
            luck = rng.random()
            if luck < 7 / 8:
                draw(k, x, y, rng.uniform(0.3, 1) if luck < 3 / 4 else rng.uniform(0.02, 0.08), tag)
    for _ in range(false_peaks):
        tag = rng.uniform(-1, people + 30) if stray_tags or not people else rng.choice(identities)
        draw(
            rng.integers(joints),
            rng.uniform(0, width - 1),
            rng.uniform(0, height - 1),
            rng.uniform(0.15, 0.3),
            tag,
        )
    heat = F.interpolate(
        torch.from_numpy(heatmaps)[None], size, mode="bilinear", align_corners=False
    )
    tag_stack = [
        F.interpolate(torch.from_numpy(t)[None], size, mode="bilinear", align_corners=False)
        for t in tags
    ]
    return heat, torch.stack(tag_stack, -1)
