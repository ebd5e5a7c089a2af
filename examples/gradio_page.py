"""A web page that finds the people in an image.

python examples/gradio_page.py [SOURCE]

SOURCE is a run, a file of weights, or demo (which is taken if nothing is given): the small network
of models/demo, which was trained on drawn people only. Needs gradio: pip install gradio
"""

import sys
from functools import partial

import swahr


def find(model, image, threshold):
    """The image (H, W, 3) RGB with its people drawn, and a row for each of them."""
    if image is None:
        return None, []
    result = model(image)
    shown = result.select(result.scores >= threshold)
    rows = [
        [round(float(score), 3), *box.round().tolist()]
        for score, box in zip(shown.scores, shown.boxes)
    ]
    return shown.draw(), rows


def build_page(model):
    """The page: an image and a threshold in, a drawing and a table out."""
    try:
        import gradio
    except ImportError:
        sys.exit("examples/gradio_page.py needs gradio: pip install gradio")
    return gradio.Interface(
        partial(find, model),
        inputs=[
            gradio.Image(type="numpy", label="image"),
            gradio.Slider(0, 1, value=0.1, label="lowest score of a person"),
        ],
        outputs=[
            gradio.Image(label="people"),
            gradio.Dataframe(headers=["score", "left", "top", "right", "bottom"], label="boxes"),
        ],
        title="SWAHR",
        flagging_mode="never",
    )


if __name__ == "__main__":
    build_page(swahr.load(*sys.argv[1:] or ["demo"])).launch()
