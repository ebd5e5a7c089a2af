"""Find people in images or in a video: their keypoints as files, and drawn skeletons.

    swahr predict photo.jpg 'photos/*.png' more_photos --weights pose_higher_hrnet_w32_512.pth
    swahr predict film.mp4 --weights RUN_FOLDER --track --save video,csv
    swahr predict 0 --weights RUN_FOLDER --show          # the first camera
    find photos -name '*.jpg' | swahr predict - --weights RUN_FOLDER

A source is image files, folders and globs, or one video: a file, an address (rtsp://, http://), or
the number of a camera; - reads paths from stdin, one a line. Images are read as viewers show them
(EXIF orientation).

--save_dir gets what --save names: every image, or the video, with its people drawn; people.json in
COCO's format; people.jsonl with a line for each image as soon as it is done; people.csv with a row
for each person. Files that are not images are listed at the end and change nothing else. After
Ctrl-C, a kill or an error, the files have the images that are done. Exit status: 0 done, unless no
file is an image; 2 wrong settings, weights or images; 3 a file that cannot be written; 130 after
Ctrl-C, 143 after SIGTERM; 1 any other error.

{scores}
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from swahr.commands.flags import (
    add_flag,
    add_weights_flag,
    check_no_key,
    check_run_config,
    finite_number,
    load_run_config,
    named_folder,
    not_empty,
    parse_flags,
    run_parser,
    run_settings,
)
from swahr.config import check_files, defaults
from swahr.distributed import comm
from swahr.distributed.launch import launch
from swahr.distributed.place import check_place
from swahr.engine.image_sources import ImageFiles, InferenceError, is_video
from swahr.engine.infer import OUTPUTS, Results, infer_images, infer_video
from swahr.engine.model_files import find_model
from swahr.engine.people_file import Summary
from swahr.engine.provenance import find_weights
from swahr.engine.video import Video
from swahr.parts import with_modules
from swahr.words import counted

# The one text about scores; docs/predict.md has it too, which a test compares.
SCORES = """\
Scores: a joint's score is the value of its heatmap where the joint was placed, about 1 where the
network is sure, and 0 where the joint was not found. It is no probability, and networks differ.
A person's score is the mean of the scores that its joints had before refinement. A joint that was
not found until then counts as 0, also if refinement adds it, so that half a person has about half
the score. --threshold is the lowest score of a person. The default, 0.1, finds nearly everybody,
and some who are not there; 0.3 is better for drawings and counts; --all keeps everybody, which AP
needs. Of the people who are left, joints with a score above the threshold are drawn as discs, those
above half of it as rings with dashed limbs, and others not at all. In people.json, a joint's
visibility is 2 above half of the threshold, 1 below it, and 0 if it was not found;
"keypoint_scores" has the scores."""
STDIN = "-"
NOTHING = "none"


def parse_args() -> argparse.Namespace:
    description = (__doc__ or "").replace("{scores}", SCORES)
    parser = run_parser(
        description, "--world_size", "--gpus", instead="--weights", takes_sources=True
    )
    add_weights_flag(parser)
    parser.add_argument(
        "--img",
        type=not_empty,
        nargs="+",
        action="extend",
        default=[],
        metavar="SOURCE",
        help="the source; the flag itself may be omitted",
    )
    add_flag(parser, "--img_dir", type=named_folder, metavar="DIR", help="folder of images")
    parser.add_argument(
        "--recursive", action="store_true", help="read the folders in a folder of images too"
    )
    add_flag(
        parser,
        "--video",
        type=not_empty,
        metavar="FILE",
        help="a video, whatever its name ends in",
    )
    add_flag(
        parser,
        "--save_dir",
        type=named_folder,
        default="found",
        metavar="DIR",
        help="folder of the results, made if needed (%(default)s)",
    )
    add_flag(
        parser,
        "--save",
        type=not_empty,
        metavar="LIST",
        help=f"what is written, of {','.join(OUTPUTS)}, with commas between, or {NOTHING} "
        "(images,json; of a video: video,json)",
    )
    add_flag(
        parser,
        "--threshold",
        type=finite_number,
        default=0.1,
        metavar="S",
        help="draw and write the people with at least this score, see above (%(default)s)",
    )
    for flag, about in (
        ("--all", "write people with lower scores to the files too"),
        ("--show", "show the drawn images in a window; q ends, space shows the next image"),
        ("--track", "give people ids through a video"),
        ("--smooth", "and less jitter (a one-euro filter); includes --track"),
        ("--show-maps", "also write what the network sees in each image, as NAME_maps.png"),
    ):
        parser.add_argument(flag, action="store_true", help=about)
    args = parse_flags(parser, takes_models=True)
    images, opts = split_sources(args.opts)
    flagged, more_opts = split_sources(args.img)
    args.opts = opts + more_opts
    args.img = images + flagged
    if not all(args.img):
        parser.error("SOURCE is empty; name images or a video")
    given = sum((bool(args.img), args.img_dir is not None, args.video is not None))
    if given != 1:
        parser.error("give images (or --img), --img_dir or --video, and only one of them")
    return args


def split_sources(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The images and the settings among the words of a command. A word whose first part is a
    section of the configuration, and that is not a file, begins a setting: KEY VALUE or KEY=VALUE.
    Raises ConfigError for a word that is neither a file nor, but nearly, a key.
    """
    known = defaults()
    images: list[str] = []
    opts: list[str] = []
    remaining = iter(words)
    for word in remaining:
        key, equals, _ = word.partition("=")
        if key.partition(".")[0] not in known or Path(word).exists():
            check_no_key(word)
            images.append(word)
        elif equals:
            opts.append(word)
        else:
            opts += [word, *islice(remaining, 1)]
    return images, opts


def main() -> None:
    args = parse_args()
    cfg, weights = load_model(args)
    video = find_video(args)
    results = find_results(args, is_video=video is not None)
    if video is not None:
        check_alone(video)
        report_ignored_processes(args, "a video is read by one process")
        source = Video(video)
        found = infer_video(cfg, weights, source, results, track=args.track, smooth=args.smooth)
        print(describe(found, results, "frame"))
        return
    if args.track or args.smooth:
        raise InferenceError("--track and --smooth follow people through a video; give one")
    files = find_images(args)
    if args.show:
        report_ignored_processes(args, "--show needs one process")
    processes = 1 if args.show else comm.count_processes(cfg.DEVICE, args.processes)

    def start(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        launch(with_modules(function, args.modules), arguments, processes)

    found = infer_images(cfg, weights, files, results, start=start)
    if comm.is_main():
        report_skipped(files, found.skipped)
        print(describe(found, results, "image"))


def load_model(args: argparse.Namespace) -> tuple[Any, Path]:
    """The configuration and the file of weights. Raises ConfigError, CheckpointError or LoadError
    here, before any process starts.
    """
    if args.show_maps:
        args.opts = ["TEST.FUSE=False", *args.opts]  # fused networks have no scale maps
    if args.weights is not None:
        weights = args.weights if args.cfg else None
        model = find_model(args.cfg or args.weights, weights, run_settings(args))
        return check_run_config(args, model.cfg), model.weights
    cfg = load_run_config(args)
    check_files(cfg, model_file=True)
    return cfg, find_weights(cfg, args.cfg)


def find_video(args: argparse.Namespace) -> str | None:
    """The video among the sources; None for images. Raises InferenceError for several."""
    if args.video is not None:
        return str(args.video)
    videos = [source for source in args.img if is_video(source)]
    if videos and len(args.img) > 1:
        raise InferenceError(
            f"{videos[0]}: a video is a source of its own; run the command once for each"
        )
    return videos[0] if videos else None


def check_alone(video: str) -> None:
    """Raises InferenceError or LaunchError where a launcher started several processes, which would
    all write the same files.
    """
    check_place()
    count = comm.world_size()
    if count > 1:
        raise InferenceError(
            f"{video}: a video is read by one process, and the launcher started {count}; start one "
            "without torchrun or srun"
        )


def report_ignored_processes(args: argparse.Namespace, why: str) -> None:
    """Name the flag for several processes where there can be one only."""
    if args.processes is not None and args.processes > 1:
        flag = f"{args.given_flags['processes']} {args.processes}"
        print(f"{flag} is ignored: {why}", file=sys.stderr)


def find_images(args: argparse.Namespace) -> ImageFiles:
    """The images of the sources. Raises InferenceError."""
    if args.img_dir is not None and not Path(args.img_dir).is_dir():
        raise InferenceError(f"--img_dir {args.img_dir}: there is no such folder")
    sources = args.img if args.img_dir is None else [args.img_dir]
    if STDIN in sources:
        sources = [source for source in sources if source != STDIN] + read_paths(sys.stdin)
    return ImageFiles(sources, recursive=args.recursive, exclude=args.save_dir)


def read_paths(lines: Iterable[str]) -> list[str]:
    """The paths of lines; empty lines count nothing. Raises InferenceError if there are none."""
    paths = [line.rstrip("\r\n") for line in lines]
    if not any(paths):
        raise InferenceError("-: stdin has no paths; it should have one a line")
    return [path for path in paths if path]


def find_results(args: argparse.Namespace, *, is_video: bool) -> Results:
    """What becomes of the people. Raises InferenceError for an unknown word of --save."""
    usual = "video,json" if is_video else "images,json"
    text = usual if args.save is None else args.save
    words = [] if text == NOTHING else [word.strip() for word in text.split(",")]
    for word in words:
        if word not in OUTPUTS:
            known = ", ".join(OUTPUTS)
            raise InferenceError(f"--save {text}: {word!r} is none of {known}, or {NOTHING} alone")
    return Results(
        Path(args.save_dir),
        frozenset(words),
        args.threshold,
        keep_all=args.all,
        show=args.show,
        maps=args.show_maps,
    )


def describe(found: Summary, results: Results, unit: str) -> str:
    """What was found, in one line. unit: what an image of the source is called."""
    images = counted(found.images, unit)
    if not found.people:
        best = found.best_score
        if best is None or best >= results.threshold:
            return f"nobody was found in {images}"
        return (
            f"nobody has a score of {results.threshold:g} or more (--threshold) in {images}; "
            f"the highest is {best:.3f}"
        )
    where = f"; see {results.folder}" if results.outputs else ""
    empty = f", none in {counted(found.empty, unit)}" if found.empty else ""
    return f"{counted(found.people, 'person', 'people')} in {images}{empty}{where}"


def report_skipped(files: ImageFiles, skipped: dict[str, str]) -> None:
    """Name what was not used. Raises InferenceError if that is everything."""
    if files.skipped_folders:
        print(
            f"{counted(len(files.skipped_folders), 'folder')} skipped (--recursive reads them):",
            *files.skipped_folders,
            sep="\n  ",
            file=sys.stderr,
        )
    if files.excluded:
        print(f"not read: {counted(files.excluded, 'file')} in --save_dir", file=sys.stderr)
    count = len(files.names)
    if skipped:
        print(
            f"{len(skipped)} of {counted(count, 'file')} skipped:",
            *skipped.values(),
            sep="\n  ",
            file=sys.stderr,
        )
    if len(skipped) == count:
        files_read = "the file is no" if count == 1 else f"none of the {count:,} files is an"
        raise InferenceError(f"{files.title}: {files_read} image")
