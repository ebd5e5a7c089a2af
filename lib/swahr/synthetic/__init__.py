"""Synthetic people: labelled images from a seed, the same on every machine.

figure.py poses a person in space, outfit.py dresses it, paint.py and head.py turn it into shapes,
placing.py says where it stands before which background.py; scene.py makes that an image with
labels, annotate.py puts them in COCO's or CrowdPose's words, writer.py writes the files. The
settings are in settings.py.
"""

from swahr.synthetic.scene import Person, render_scene
from swahr.synthetic.settings import PRESETS, SceneSettings, SyntheticError
from swahr.synthetic.writer import write_dataset

__all__ = ["PRESETS", "Person", "SceneSettings", "SyntheticError", "render_scene", "write_dataset"]
