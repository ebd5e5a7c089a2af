"""Maps to people in plain loops: every joint of every person one at a time, whole maps for each
person, munkres.

It is slow on purpose: results (tests) and time (tools/benchmark.py) of `swahr.codec.decode` are
compared with it. Settings have the names of AssociativeDecoder's arguments.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from munkres import Munkres

DEFAULTS = dict(
    max_people=30,
    detection_threshold=0.1,
    tag_threshold=1.0,
    nms_kernel=5,
    nms_padding=2,
    use_detection_val=True,
    ignore_too_much=False,
    adjust=True,
    refine=True,
)


def settings(grouping_order, **changes):
    return SimpleNamespace(grouping_order=grouping_order, **(DEFAULTS | changes))


def top_peaks(heatmaps, tags, s):
    """heatmaps (K, H, W), tags (K or 1, H, W, T) -> the best M: tags (K, M, T), points (K, M, 2),
    scores (K, M).
    """
    maps = torch.from_numpy(heatmaps)[None]
    pooled = torch.nn.functional.max_pool2d(maps, s.nms_kernel, 1, s.nms_padding)
    maps = maps * (maps == pooled)
    count, height, width = heatmaps.shape
    scores, index = maps.view(count, -1).topk(min(s.max_people, height * width), dim=1)
    index = index.numpy()
    scores = scores.numpy()
    tags = np.broadcast_to(tags, (count, *tags.shape[1:])).reshape(count, height * width, -1)
    return (
        np.stack([t[i] for t, i in zip(tags, index)]),
        np.stack([index % width, index // width], 2),
        scores,
    )


def match(tags, points, scores, s):
    """-> people (N, K, 3 + T) float32: x, y, score, tag; 0 where a joint is missing."""
    no_joints = np.zeros((len(tags), 3 + tags.shape[2]))
    people = {}
    people_tags = {}

    def new_person(joint_type, joint, tag):
        people.setdefault(tag[0], no_joints.copy())[joint_type] = joint
        people_tags[tag[0]] = [tag]

    for k in s.grouping_order:
        joints = np.concatenate([points[k], scores[k, :, None], tags[k]], 1)
        sure = joints[:, 2] > s.detection_threshold
        joints = joints[sure]
        joint_tags = tags[k][sure]
        if len(joints) == 0:
            continue
        if not people:
            for joint, tag in zip(joints, joint_tags):
                new_person(k, joint, tag)
            continue
        first_tags = list(people)[: s.max_people]
        if s.ignore_too_much and len(first_tags) == s.max_people:
            continue
        means = np.array([np.mean(people_tags[key], axis=0) for key in first_tags])
        distances = np.linalg.norm(joints[:, None, 3:] - means[None], ord=2, axis=2)
        costs = (
            np.round(distances) * 100 - joints[:, 2:3] if s.use_detection_val else distances.copy()
        )
        if len(joints) > len(first_tags):
            costs = np.concatenate(
                [costs, np.full((len(joints), len(joints) - len(first_tags)), 1e10)], 1
            )
        for row, column in Munkres().compute(costs.tolist()):
            if column < len(first_tags) and distances[row, column] < s.tag_threshold:
                people[first_tags[column]][k] = joints[row]
                people_tags[first_tags[column]].append(joint_tags[row])
            else:
                new_person(k, joints[row], joint_tags[row])
    return np.array(list(people.values())).astype(np.float32).reshape(-1, *no_joints.shape)


def quarter(heatmap, x, y):
    height, width = heatmap.shape
    dx = 0.25 if heatmap[y, min(x + 1, width - 1)] > heatmap[y, max(x - 1, 0)] else -0.25
    dy = 0.25 if heatmap[min(y + 1, height - 1), x] > heatmap[max(y - 1, 0), x] else -0.25
    return dx, dy


def adjust(people, heatmaps):
    for person in people:
        for k, joint in enumerate(person):
            if joint[2] > 0:
                dx, dy = quarter(heatmaps[k], int(joint[0]), int(joint[1]))
                joint[0] += dx + 0.5
                joint[1] += dy + 0.5


def refine(person, heatmaps, tags):
    """Search all joints of one person (K, 3 + T), and write those that are missing."""
    own = [tags[k, int(y), int(x)] for k, (x, y, score) in enumerate(person[:, :3]) if score > 0]
    mean = np.mean(own, axis=0)
    found = []
    for k, heatmap in enumerate(heatmaps):
        distance = ((tags[k] - mean[None, None, :]) ** 2).sum(axis=2) ** 0.5
        y, x = np.unravel_index(np.argmax(heatmap - np.round(distance)), heatmap.shape)
        dx, dy = quarter(heatmap, x, y)
        found.append((x + 0.5 + dx, y + 0.5 + dy, heatmap[y, x]))
    for k, joint in enumerate(found):
        if joint[2] > 0 and person[k, 2] == 0:
            person[k, :3] = joint


def decode(heatmaps, tags, s):
    """heatmaps (K, H, W), tags (K or 1, H, W, T), float32 arrays -> people (N, K, 3 + T), scores
    (N,).
    """
    people = match(*top_peaks(heatmaps, tags, s), s)
    if s.adjust:
        adjust(people, heatmaps)
    scores = np.array([person[:, 2].mean() for person in people], np.float32)
    if s.refine:
        for person in people:
            everywhere = (
                np.tile(tags, (len(heatmaps), 1, 1, 1)) if len(tags) < len(heatmaps) else tags
            )
            refine(person, heatmaps, everywhere)
    return people, scores
