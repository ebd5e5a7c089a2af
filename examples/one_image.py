"""Find the people in one image: print them, and draw them.

python examples/one_image.py SOURCE photo.jpg photo_people.jpg

SOURCE is a run, a file of weights, or demo: the small network of models/demo, which was trained on
drawn people only.
"""

import sys

import swahr

if len(sys.argv) != 4:
    sys.exit("usage: python examples/one_image.py SOURCE photo.jpg photo_people.jpg")
source, photo, drawn = sys.argv[1:]
model = swahr.load(source, threshold=0.1)  # the lowest score of a person; 0 keeps everybody
result = model(photo)
print(result)
for score, box, keypoints in zip(result.scores, result.boxes, result.keypoints):
    print(f"a person with score {score:.2f} in the box {box.round().tolist()}")
    for name, (x, y) in zip(result.names, keypoints):
        print(f"  {name:<15} {x:7.1f} {y:7.1f}")  # nan where the joint was not found
print("drawn in", result.save(drawn))
