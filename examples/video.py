"""Follow the people of a video: print who is where, and write the video with skeletons and ids.

python examples/video.py SOURCE film.mp4 film_people.mp4

SOURCE is a run, a file of weights, or demo: the small network of models/demo, which was trained on
drawn people only.
"""

import sys
from pathlib import Path

import numpy as np

import swahr
from swahr.engine.video import Video, VideoWriter
from swahr.inference.smoothing import OneEuroFilter
from swahr.inference.tracking import Tracker
from swahr.visualize import draw_people

if len(sys.argv) != 4:
    sys.exit("usage: python examples/video.py SOURCE film.mp4 film_people.mp4")
source, film, drawn = sys.argv[1:]
model = swahr.load(source, threshold=0.1)
video = Video(film)  # also the number of a camera, or an address
tracker = Tracker(model.skeleton.sigmas)
smooth = OneEuroFilter()
with VideoWriter(Path(drawn), video) as writer:
    for frame in video:
        result = model(frame.image)
        points = np.concatenate([result.keypoints, result.keypoint_scores[..., None]], axis=2)
        people = np.nan_to_num(points)  # x, y and score, 0 where a joint was not found
        ids = tracker(people, result.scores, frame.time)
        people = smooth(ids, people, frame.time)
        image = draw_people(frame.image, people, model.skeleton, result.scores, ids=ids)
        writer.write(image, frame.time)
        print(f"{frame.time:.3f} s: people {ids.tolist()}")
print("drawn in", drawn)
