"""People in pictures of one's own: a folder of files, or a video, to COCO-style JSON and pictures with skeletons."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from swahr.config import configured_skeleton
from swahr.data.images import Image, read_image
from swahr.engine import distributed
from swahr.engine.progress import setup_logging
from swahr.engine.validate import Found, ahead, find_people, find_weights, load_network
from swahr.evaluation.results import Record, to_records, write_text
from swahr.inference.predictor import Prediction, Predictor, build_predictor
from swahr.skeleton import Skeleton
from swahr.visualize import draw_people, save_image

logger = logging.getLogger(__name__)

WRITABLE = (".jpg", ".jpeg", ".png")  # other pictures are drawn as .png
