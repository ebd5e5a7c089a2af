"""How exactly a small network finds the parts of one animal after minutes of training on a CPU.

    python -m benchmarks.fine_tuning --out /tmp/mouse

makes a labelled folder in DeepLabCut's form (116 frames of 640 x 480 pixels of a dark animal in a
light arena, four parts), converts it by tools/dlc_to_coco.py, trains
experiments/finetune/tiny_cpu.yaml on four fifths of the frames and prints the errors in pixels of
the best animal of each held-out frame. The animal is drawn; real frames are harder.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 116
WIDTH = 640
HEIGHT = 480
PARTS = ("snout", "leftear", "rightear", "tailbase")
SHIFT = 4  # binary digits after the point of the coordinates that OpenCV draws at


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--seed", type=int, default=0, help="of the frames (default: %(default)s)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings of the training")
    args = parser.parse_args()
    labels = make_frames(args.out / "dlc", args.seed)
    data = args.out / "data"
    run_tool("dlc_to_coco", labels, "--images", labels.parent, "--out", data, "--val", 0.2)
    settings = ["DATASET.ROOT", data, "DATASET.SKELETON", data / "skeleton.yaml"]
    start = time.perf_counter()
    run_tool(
        "dist_train",
        *("--cfg", ROOT / "experiments/finetune/tiny_cpu.yaml", "--device", "cpu"),
        *("--name", "fine_tuning", *settings, "OUTPUT_DIR", args.out / "output"),
        *("LOG_DIR", args.out / "log", *args.opts),
    )
    minutes = (time.perf_counter() - start) / 60
    run = next((args.out / "output").rglob("final_state.pth.tar")).parent
    errors = held_out_errors(run, data)
    print(
        f"training {minutes:.1f} minutes; {len(errors)} held-out frames: mean error "
        f"{errors.mean():.2f} px, median {np.median(errors):.2f} px, largest {errors.max():.1f} px"
    )


def run_tool(name: str, *arguments: Any) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
    subprocess.run(command, check=True)


def held_out_errors(run: Path, data: Path) -> NDArray[np.float64]:
    """(N, K) distances in pixels between the joints of the best animal and the labels."""
    import swahr

    model = swahr.load(run, run / "final_state.pth.tar", device="cpu")
    truth = json.loads((data / "annotations/person_keypoints_val.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    distances = []
    for annotation in truth["annotations"]:
        result = model(data / "images/val" / names[annotation["image_id"]])
        labelled = np.reshape(annotation["keypoints"], (-1, 3))[:, :2]
        found = result.keypoints[0] if len(result.keypoints) else np.full(labelled.shape, np.inf)
        distances.append(np.linalg.norm(found - labelled, axis=1))
    return np.array(distances)


def make_frames(folder: Path, seed: int) -> Path:
    """Draw the frames and write their labels -> the CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    arena = draw_arena(rng)
    path = folder / "CollectedData_made.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = 2 * len(PARTS)
        writer.writerow(["scorer", *["made"] * columns])
        writer.writerow(["bodyparts", *np.repeat(PARTS, 2)])
        writer.writerow(["coords", *["x", "y"] * len(PARTS)])
        for number in range(FRAMES):
            name = f"img{number:04d}.png"
            image, points = draw_frame(arena, rng)
            cv2.imwrite(str(folder / name), image)
            writer.writerow([f"labeled-data/made/{name}", *points.round(2).ravel()])
    return path


def draw_arena(rng: np.random.Generator) -> NDArray[np.float32]:
    """(HEIGHT, WIDTH, 3): a light floor within darker walls, with stains."""
    image = np.full((HEIGHT, WIDTH, 3), 70, np.float32)
    cv2.rectangle(image, (60, 30), (580, 450), (185, 188, 190), -1)
    for _ in range(60):
        center = rng.uniform((60, 30), (580, 450)).astype(int).tolist()
        shade = float(rng.uniform(150, 200))
        cv2.circle(image, center, int(rng.integers(2, 9)), (shade, shade, shade), -1, cv2.LINE_AA)
    slope = np.linspace(0.8, 1.1, WIDTH, dtype=np.float32)
    return cv2.GaussianBlur(image, (0, 0), 2) * slope[:, None]


def draw_frame(
    arena: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A frame (HEIGHT, WIDTH, 3) uint8 and its parts (K, 2) in pixels."""
    image = arena.copy()
    middle = rng.uniform((130, 100), (510, 380))
    heading = rng.uniform(0, 2 * np.pi)
    bend = rng.uniform(-0.9, 0.9)
    length = rng.uniform(34, 48)
    forward = direction(heading)
    nose_way = direction(heading + bend)
    side = direction(heading + bend + np.pi / 2)
    neck = middle + 0.75 * length * forward
    snout = neck + 0.8 * length * nose_way
    ears = [neck + 0.28 * length * nose_way + sign * 0.3 * length * side for sign in (-1, 1)]
    tail = middle - length * forward
    fur = float(rng.uniform(25, 50))
    curve = tail_points(tail, heading + np.pi, length, rng)
    cv2.polylines(image, [fixed(curve)], False, (fur + 40,) * 3, 3, cv2.LINE_AA, SHIFT)
    fill_ellipse(image, middle, (length, 0.52 * length), heading, fur)
    fill_ellipse(
        image, neck + 0.2 * length * nose_way, (0.55 * length, 0.33 * length), heading + bend, fur
    )
    fill_ellipse(
        image,
        snout - 0.2 * length * nose_way,
        (0.25 * length, 0.13 * length),
        heading + bend,
        fur + 10,
    )
    for ear in ears:
        fill_ellipse(image, ear, (0.15 * length, 0.13 * length), heading + bend, fur + 45)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.4))
    image = image * rng.uniform(0.85, 1.15) + rng.normal(0, 5, image.shape)
    points = np.array([snout, *ears, tail]) + rng.normal(0, 0.8, (len(PARTS), 2))
    return image.clip(0, 255).astype(np.uint8), points


def direction(angle: float) -> NDArray[np.float64]:
    return np.array([np.cos(angle), np.sin(angle)])


def tail_points(
    start: NDArray[np.float64], angle: float, length: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(10, 2): a tail that winds away from the body."""
    turns = angle + np.cumsum(rng.normal(0, 0.3, 10))
    return start + np.cumsum(0.17 * length * np.stack([np.cos(turns), np.sin(turns)], 1), axis=0)


def fill_ellipse(
    image: NDArray[np.float32],
    center: NDArray[np.float64],
    axes: tuple[float, float],
    angle: float,
    shade: float,
) -> None:
    cv2.ellipse(
        image,
        fixed(center).tolist(),
        fixed(np.array(axes)).tolist(),
        np.degrees(angle),
        *(0, 360, (shade, shade, shade + 3), -1, cv2.LINE_AA, SHIFT),
    )


def fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels with SHIFT binary digits after the point, as OpenCV's drawing takes them."""
    return np.round(points * (1 << SHIFT)).astype(np.int32)


if __name__ == "__main__":
    main()
