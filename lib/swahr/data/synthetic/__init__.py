"""Synthetic people: labelled pictures from a seed, the same on every machine.

figure.py poses a person in space, outfit.py dresses it, paint.py turns it into shapes, background.py gives it a place,
scene.py puts people into a picture and labels them, annotate.py says it in COCO's or CrowdPose's words, writer.py writes
the files.
"""

from swahr.data.synthetic.scene import PRESETS, Person, SceneSettings, SyntheticError, render_scene
from swahr.data.synthetic.writer import write_dataset

__all__ = ["PRESETS", "Person", "SceneSettings", "SyntheticError", "render_scene", "write_dataset"]
