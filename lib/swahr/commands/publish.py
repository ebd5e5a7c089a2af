"""Write a trained network as a folder that describes itself: weights, settings and a model card.

    swahr publish output/coco_kpt/pose_higher_hrnet/w32_512_adam_lr1e-3 --out hub/w32_512

RUN is the folder of a run, or what else swahr.load takes. OUT gets model.safetensors, config.json,
README.md with the figures that training and dist_valid measured with these weights, and
skeleton.yaml for keypoints of your own. swahr.load(OUT) loads it.

Exit status: 0 done; 2 wrong settings or weights; 3 a file that cannot be written; 1 any other
error.
"""

from __future__ import annotations

from collections.abc import Sequence

from swahr.commands.flags import Parser, add_flag, add_import_flag, named_folder
from swahr.engine.model_files import find_model
from swahr.engine.published import publish
from swahr.parts import import_modules


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a run, weights or YAML file")
    add_flag(
        parser,
        "--out",
        type=named_folder,
        required=True,
        metavar="DIR",
        help="folder, made if needed",
    )
    parser.add_argument("--half", action="store_true", help="weights in float16: half the size")
    add_import_flag(parser)
    args = parser.parse_args(arguments)
    import_modules(args.modules)
    print(publish(find_model(args.run), args.out, half=args.half))
