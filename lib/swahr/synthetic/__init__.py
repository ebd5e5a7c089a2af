"""Synthetic people: labelled images and videos from a seed, the same on every machine.

figure.py poses a person in space, outfit.py draws its clothes, paint.py turns both into shapes.
scene.py puts people before a background and labels them. dataset.py and video.py write files. This
package imports swahr.skeleton, swahr.files and swahr.progress_bar only; tools and benchmarks use
it.
"""

from swahr.synthetic.dataset import (
    BENCHMARKS,
    verify_benchmark,
    write_benchmark,
    write_dataset,
)
from swahr.synthetic.scene import PRESETS, Person, SceneSettings, SyntheticError, render_scene
from swahr.synthetic.video import render_walk, write_video

__all__ = [
    "BENCHMARKS",
    "PRESETS",
    "Person",
    "SceneSettings",
    "SyntheticError",
    "render_scene",
    "render_walk",
    "verify_benchmark",
    "write_benchmark",
    "write_dataset",
    "write_video",
]
