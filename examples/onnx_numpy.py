"""Find the people in one image with an exported network: NumPy, OpenCV, ONNX Runtime and the
compiled decoder of swahr, without PyTorch.

swahr export RUN_OR_WEIGHTS --output w32.onnx --flip
python examples/onnx_numpy.py w32.onnx photo.jpg
"""

import sys

import cv2
import numpy as np
import onnxruntime

from swahr import geometry, load_config
from swahr.codec.associative import ArrayDecoder, decoder_settings
from swahr.exported import describe_exported
from swahr.skeleton import load_skeleton

if len(sys.argv) != 3:
    sys.exit("usage: python examples/onnx_numpy.py w32.onnx photo.jpg")
file, photo = sys.argv[1:]
about = describe_exported(file)
skeleton = load_skeleton(file)
cfg = load_config(file)  # the settings that the network was exported with

# From the image to the network's input: the short side to INPUT_SIZE, RGB, normalised.
pixels = cv2.imread(photo)
if pixels is None:
    sys.exit(f"{photo}: is no image that OpenCV reads")
image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
height, width = image.shape[:2]
place = geometry.input_geometry(width, height, cfg.DATASET.INPUT_SIZE, 1.0, 1.0)
matrix = geometry.input_matrix(place.center, place.box_scale, place.size)
warped = cv2.warpAffine(image, matrix, place.size)
normalized = (warped / np.float32(255) - np.float32(about.mean)) / np.float32(about.std)
images = np.ascontiguousarray(normalized.transpose(2, 0, 1)[None], np.float32)

# (1, K, h, w) and (1, T, K, h, w), at half of the input's size.
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
heatmaps, tags = session.run(["heatmaps", "tags"], {"images": images})
size = place.size if cfg.TEST.PROJECT2IMAGE else heatmaps.shape[:1:-1]  # (w, h)


def enlarge(maps):
    """Maps (K, h, w) as large as they are decoded; a centre after the joints is left out."""
    joints = maps[: len(skeleton.keypoints)]
    return np.stack([cv2.resize(joint, size) for joint in joints])


decoder = ArrayDecoder(**decoder_settings(cfg, skeleton))
stacked_tags = np.stack([enlarge(of_pass) for of_pass in tags[0]], -1)
[people] = decoder.decode_arrays(enlarge(heatmaps[0])[None], stacked_tags[None])
points = geometry.to_image(people.keypoints, place.center, place.box_scale, size)
for score, person, joints in zip(people.scores, points, people.keypoints):
    print(f"a person with score {score:.2f}")
    for name, (x, y), found in zip(skeleton.keypoints, person, joints[:, 2] > 0):
        if found:
            print(f"  {name:<15} {x:7.1f} {y:7.1f}")
