"""Exported networks: what the file holds, that it is refused where it differs, and that every way
to run it finds PyTorch's people.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import swahr
from swahr.commands import export as command
from swahr.commands import info
from swahr.config import load_config
from swahr.data.images import normalize, read_image
from swahr.engine.image_sources import ImageFiles
from swahr.engine.infer import Results, infer_images
from swahr.engine.model_files import find_model
from swahr.engine.validate import validate_weights
from swahr.export import check
from swahr.export.write import write_onnx
from swahr.exported import Description, ExportedError, describe_exported
from swahr.files import write_bytes
from swahr.inference.exported_network import open_onnxruntime
from swahr.inference.load import load_model, load_network
from swahr.inference.predictor import build_predictor
from swahr.inference.tta import average_stages, mirror_back
from swahr.models.weights import CheckpointError, read_state_dict
from swahr.skeleton import COCO, load_skeleton
from tests.export.conftest import Toys

NEEDED = "needs pip install 'swahr[export]'"
onnx = pytest.importorskip("onnx", reason=NEEDED)
onnxruntime = pytest.importorskip("onnxruntime", reason=NEEDED)
pytest.importorskip("onnxscript", reason=NEEDED)

ROOT = Path(__file__).resolve().parents[2]
NO_OPENVINO = "needs pip install 'swahr[openvino]'"


def rewritten(toys: Toys) -> Any:
    """In place of write_onnx, which takes seconds: the graph of toys.file() with a description."""
    file = toys.file()  # written before write_onnx is replaced

    def write(module: Any, description: Description, path: Path) -> None:
        model = onnx.load(file)
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, description.to_metadata())
        onnx.save(model, path)

    return write


def people_of(model: swahr.PoseModel, path: Path) -> list[np.ndarray]:
    result = model(path)
    return [result.keypoints, result.scores, result.tags]


def assert_same_people(model: swahr.PoseModel, other: swahr.PoseModel, path: Path) -> None:
    found = people_of(model, path)
    expected = people_of(other, path)
    assert len(expected[1]) > 2
    for got, want in zip(found, expected):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2)


# -- the file


@pytest.mark.parametrize("flip", [False, True])
def test_outputs_are_the_averaged_maps_for_any_batch_and_size(toys: Toys, flip: bool) -> None:
    network = load_network(toys.cfg, toys.weights, "cpu").eval()
    session = onnxruntime.InferenceSession(toys.file(flip=flip))
    for batch, height, width in ((1, 64, 64), (2, 96, 128)):
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            passes = [average_stages(network(images), use_heatmaps=[True] * 2, use_tags=[True])]
            if flip:
                mirrored = network(images.flip(3))
                maps = average_stages(mirrored, use_heatmaps=[True] * 2, use_tags=[True])
                passes.append(mirror_back(maps, COCO.flip_index))
        heatmaps, tags = session.run(["heatmaps", "tags"], {"images": images.numpy()})
        assert heatmaps.shape == (batch, 17, height // 2, width // 2)
        assert tags.shape == (batch, 1 + flip, 17, height // 2, width // 2)
        expected = torch.stack([maps.heatmaps for maps in passes]).mean(0)
        np.testing.assert_allclose(heatmaps, expected, atol=1e-5)
        np.testing.assert_allclose(tags, torch.stack([m.tags[0] for m in passes], 1), atol=1e-5)


def test_the_file_says_what_it_is(toys: Toys) -> None:
    about = describe_exported(toys.file(flip=True))
    assert about.version == swahr.__version__ and about.flip and about.dtype == "float32"
    assert (about.joints, about.tag_maps, about.size_divisor) == (17, 2, 32)
    assert (about.use_heatmaps, about.use_tags) == ([True, True], [True, False])
    assert load_skeleton(toys.file(flip=True)) == COCO
    cfg = load_config(toys.file(flip=True))
    assert cfg.TEST.DETECTION_THRESHOLD == toys.cfg.TEST.DETECTION_THRESHOLD
    assert str(toys.file(flip=True)) == cfg.TEST.MODEL_FILE and cfg.OUTPUT_DIR == ""
    image = np.full((1, 32, 32, 3), 100, np.uint8)
    expected = normalize(torch.from_numpy(image))[0, :, 0, 0]
    np.testing.assert_allclose((100 / 255 - np.array(about.mean)) / about.std, expected, 1e-5)


def test_half_computes_in_float16_and_says_so(toys: Toys) -> None:
    file = toys.file(half=True)
    assert describe_exported(file).dtype == "float16"
    weights = {tensor.data_type for tensor in onnx.load(file).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in weights
    kinds = {value.type.tensor_type.elem_type for value in onnx.load(file).graph.output}
    assert kinds == {onnx.TensorProto.FLOAT}
    assert swahr.load(file, device="cpu")(toys.images[0]).scores.dtype == np.float32


def test_a_skeleton_of_ones_own_is_in_the_file(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "write_onnx", rewritten(toys))
    text = describe_exported(toys.file()).skeleton.replace("name: coco", "name: mine")
    (tmp_path / "mine.yaml").write_text(text)
    model = toys.model("DATASET.SKELETON", tmp_path / "mine.yaml")
    command.export(model, tmp_path / "mine.onnx", image=read_image(toys.images[0]))
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "mine.onnx").rename(tmp_path / "moved.onnx")
    loaded = swahr.load(tmp_path / "moved.onnx", device="cpu")
    assert loaded.skeleton.name == "mine" and loaded.skeleton.keypoints == COCO.keypoints


def test_the_file_holds_no_settings_of_pytorch(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without AMP they have no effect, which would be said of files whose user set none."""
    monkeypatch.setattr(command, "write_onnx", rewritten(toys))
    mixed = ["AMP.ENABLED", True, "AMP.DTYPE", "auto", "TEST.CUDNN_FUSE", True]
    static = ["FP16.ENABLED", True, "FP16.STATIC_LOSS_SCALE", 128]
    for name, opts in (("mixed", mixed), ("static", static)):
        path = tmp_path / f"{name}.onnx"
        command.export(toys.model(*opts), path, image=read_image(toys.images[0]))
        settings = yaml.safe_load(describe_exported(path).settings)
        assert settings["AMP"] == {"ENABLED": False, "DTYPE": "bf16"}
        caplog.clear()
        load_config(path)
        assert not caplog.records


def test_files_of_before_say_nothing_of_mixed_precision(
    toys: Toys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = onnx.load(toys.file())
    (settings,) = (each for each in model.metadata_props if each.key == "swahr.settings")
    settings.value = settings.value.replace("DTYPE: bf16", "DTYPE: auto")
    assert "DTYPE: auto" in settings.value
    onnx.save(model, tmp_path / "old.onnx")
    load_config(tmp_path / "old.onnx")
    assert not caplog.records


# -- the check


def test_a_file_that_differs_is_refused(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.onnx").write_text("of before")
    monkeypatch.setattr(command, "write_onnx", rewritten(toys))
    bounds = {"float32": check.Bounds(1e-9, 0.99, 1.0)}
    monkeypatch.setattr(command, "BOUNDS", bounds)
    line = r"toy.onnx: is not written: heatmaps differ from PyTorch's by .* at most 1e-09 is round"
    with pytest.raises(ExportedError, match=line):
        command.export(toys.model(), tmp_path / "toy.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"]
    assert (tmp_path / "toy.onnx").read_text() == "of before"


def test_other_people_and_numbers_are_differences(toys: Toys) -> None:
    cfg = command.with_values(toys.cfg, command.OF_PYTORCH)
    exported = build_predictor(cfg, load_model(cfg, toys.file(), "cpu"), COCO)
    reference = build_predictor(cfg, load_network(cfg, toys.weights, "cpu"), COCO)
    image = read_image(toys.images[0])
    bounds = check.BOUNDS["float32"]
    agreement = check.compare(exported, reference, image, bounds, COCO.sigmas)
    assert 0 < agreement.maps < 1e-5 and agreement.people > 4
    decoder = exported.decoder
    exported.decoder = lambda maps: [
        people._replace(keypoints=people.keypoints + np.float32(30)) for people in decoder(maps)
    ]
    line = (
        r"people are found and PyTorch's are .* 100% must be; the maps agree \(they differ by "
        rf"{agreement.maps:.1e} of the largest value\), .*: give --image FILE with people"
    )
    with pytest.raises(ExportedError, match=line):
        check.compare(exported, reference, image, bounds, COCO.sigmas)
    run = exported.model.run
    exported.model.run = lambda images: {name: a * np.nan for name, a in run(images).items()}
    with pytest.raises(ExportedError, match="heatmaps differ from PyTorch's by nan of the largest"):
        check.compare(exported, reference, image, bounds, COCO.sigmas)


# -- running it


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("engine", ["", "onnxruntime", "openvino"])
def test_every_engine_finds_the_people_of_pytorch(toys: Toys, engine: str, flip: bool) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino", reason=NO_OPENVINO)
    model = swahr.load(toys.file(flip=flip), engine=engine, device="cpu")
    assert "flip test" in repr(model) and "no flip test" not in repr(model)
    expected = swahr.load(toys.config, toys.weights, device="cpu")
    for path in toys.images:
        assert_same_people(model, expected, path)


def test_scales_and_batches_work_as_in_pytorch(toys: Toys) -> None:
    arguments: dict[str, Any] = {"scales": [0.5, 1], "batch_size": 2, "device": "cpu"}
    expected = swahr.load(toys.config, toys.weights, **arguments)
    for flip in (False, True):
        assert_same_people(swahr.load(toys.file(flip=flip), **arguments), expected, toys.images[0])
    plain = swahr.load(toys.file(), flip=False, device="cpu")
    assert_same_people(
        plain, swahr.load(toys.config, toys.weights, flip=False, device="cpu"), toys.images[0]
    )


def test_validation_and_inference_take_the_file(toys: Toys, tmp_path: Path) -> None:
    """Its own settings serve; with --cfg those of the experiment."""
    from_file = load_config(
        toys.file(), ["DATASET.ROOT", str(toys.folder / "data"), "WORKERS", "0", "DEVICE", "cpu"]
    )
    own = load_config(toys.config, ["TEST.MODEL_FILE", str(toys.file())])
    pytorch = load_config(toys.config, ["TEST.MODEL_FILE", str(toys.weights)])
    reports = [validate_weights(cfg, toys.config) for cfg in (from_file, own, pytorch)]
    for report in reports:
        assert report.stats == pytest.approx(reports[-1].stats, abs=1e-3)
    assert "toy.onnx" in reports[0].weights and reports[0].images == 3
    files = ImageFiles([toys.images[0]])
    results = Results(tmp_path / "found", frozenset({"images", "json"}))
    found = infer_images(from_file, toys.file(), files, results)
    assert (found.images, found.skipped) == (1, {})
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "people.json",
        toys.images[0].name,
    }


@pytest.mark.parametrize("name", ["val", "predict"])
@pytest.mark.parametrize("words", [["TEST.MODEL_FILE", "{}"], ["TEST.MODEL_FILE={}"]])
def test_no_configuration_is_needed(
    toys: Toys, name: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    module = __import__(f"swahr.commands.{name}", fromlist=["main"])
    given = ["--save_dir", "found", "a.jpg"] if name == "predict" else []
    given += [word.format(toys.file()) for word in words]
    monkeypatch.setattr(sys, "argv", [name, *given, "--print-config"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "BACKBONE: toy" in printed and f"MODEL_FILE: {toys.file()}" in printed
    monkeypatch.setattr(sys, "argv", [name, *given[: -len(words)], "TEST.MODEL_FILE", "x.pth"])
    with pytest.raises(SystemExit):
        module.main()
    assert "give --weights" in capsys.readouterr().err


def test_info_says_what_the_file_is(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([str(toys.file(flip=True))]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line[13:] for line in lines}
    assert rows["kind"] == "an exported network" and rows["loads"] == "yes"
    assert rows["keypoints"] == "17 (coco)" and rows["network"] == "toy, higher_hrnet"
    assert rows["input"] == "images (batch, 3, 32*rows, 32*columns)"
    assert rows["outputs"] == (
        "heatmaps (batch, 17, 16*rows, 16*columns), tags (batch, 2, 17, 16*rows, 16*columns)"
    )
    assert rows["computes"] == "both passes of the flip test inside, float32, 2 tags a joint"
    assert rows["exported"].startswith(f"by swahr {swahr.__version__} from ")


def test_the_example_works_without_torch(toys: Toys) -> None:
    photo = toys.images[0]
    program = (
        "import runpy, sys; sys.argv[0] = 'x'; "
        f"runpy.run_path({str(ROOT / 'examples/onnx_numpy.py')!r}); "
        "print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, str(toys.file(flip=True)), str(photo)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    assert modules == "[]"
    expected = swahr.load(toys.file(flip=True), device="cpu")(photo)
    people = [line for line in lines if line.startswith("a person")]
    assert people == [f"a person with score {score:.2f}" for score in expected.scores]
    points = np.array([line.split()[1:] for line in lines if line[0] == " "], float)
    found = ~np.isnan(expected.keypoints[..., 0])
    close = np.abs(points - expected.keypoints[found]).max(1) < 1
    assert close.mean() > 0.95  # OpenCV resizes with other roundings


def test_the_example_names_a_photo_that_is_none(toys: Toys, tmp_path: Path) -> None:
    photo = tmp_path / "none.jpg"
    command = [sys.executable, ROOT / "examples/onnx_numpy.py", toys.file(), photo]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1 and f"{photo}: is no image that OpenCV reads\n" in done.stderr


# -- what cannot be done


def test_what_the_file_decides_cannot_be_changed(toys: Toys) -> None:
    with pytest.raises(ExportedError, match="exported with TEST.FLIP_TEST True, which cannot be"):
        swahr.load(toys.file(flip=True), flip=False)
    settings = ["TEST.WITH_HEATMAPS", "[True, False]"]
    with pytest.raises(ExportedError, match=r"with TEST.WITH_HEATMAPS .* \[True, True\], which"):
        swahr.load(toys.file(), settings=settings)
    with pytest.raises(ExportedError, match="with MODEL.NUM_JOINTS 17, which cannot be changed to"):
        swahr.load(toys.file(), settings=["DATASET.SKELETON", "crowd_pose"])
    with pytest.raises(ValueError, match="TEST.ENGINE is 'tvm'; it is one of onnxruntime, openv"):
        swahr.load(toys.file(), engine="tvm")
    with pytest.raises(swahr.LoadError, match="weights.pth: has no engine but PyTorch; engine='op"):
        swahr.load(toys.config, toys.weights, engine="openvino")
    with pytest.raises(CheckpointError, match="toy.onnx: is an exported network, which can be te"):
        read_state_dict(toys.file())


def test_the_name_and_the_source_of_an_export(toys: Toys, tmp_path: Path) -> None:
    with pytest.raises(ExportedError, match=r"--output x.pt: the name .* ends in .onnx$"):
        command.export(toys.model(), "x.pt")
    with pytest.raises(ExportedError, match=r"toy.onnx: is exported already$"):
        command.export(find_model(toys.file()), tmp_path / "x.onnx")


def test_an_exported_network_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    for name, reason in (("folder", "is a folder, not a file"), ("none", "no such file")):
        with pytest.raises(ExportedError, match=f"{name}.onnx: {reason}$"):
            describe_exported(tmp_path / f"{name}.onnx")


def test_files_that_are_no_exported_network(toys: Toys, tmp_path: Path) -> None:
    part = tmp_path / "part.onnx"
    write_bytes(part, toys.file().read_bytes()[:1000])
    with pytest.raises(ExportedError, match="part.onnx: no ONNX file, or only a part of one"):
        swahr.load(part)
    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(toys.file())
    del model.metadata_props[:]
    onnx.save(model, foreign)
    with pytest.raises(ExportedError, match="foreign.onnx: was not written by `swahr export`"):
        swahr.load(foreign)
    shutil.copy(toys.file(), foreign)
    assert len(swahr.load(foreign, device="cpu")(toys.images[0])) > 0  # it is read again


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("onnx", r"needs onnx: pip install 'swahr\[export\]'"),
        ("onnxruntime", r"needs onnxruntime: pip install 'swahr\[export\]'"),
        ("openvino", r"needs openvino: pip install 'swahr\[openvino\]'"),
    ],
)
def test_missing_packages_are_named(
    toys: Toys, package: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copy(toys.file(), tmp_path / "copy.onnx")
    monkeypatch.setitem(sys.modules, package, None)
    engine = package if package != "onnx" else ""
    with pytest.raises(ExportedError, match=f"copy.onnx: {line}$"):
        swahr.load(copy, engine=engine, device="cpu")


class Averaged(nn.Module):
    """In place of AveragedMaps, with a function of the images for the heatmaps."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"heatmaps": self.function(images)}


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (
            lambda images: images[:2] + images,
            r"this network cannot compute 3 images of 160 x 64 px in float16 on a CPU: The size of",
        ),
        (
            lambda images: images if images.sum() else -images,
            "torch.export cannot trace this network: Could not guard on data-dependent",
        ),
        (
            torch.special.bessel_j0,
            "torch.onnx cannot write this network: No ONNX function found for <OpOverload",
        ),
    ],
)
def test_networks_that_cannot_be_exported(
    function: Callable[[Tensor], Tensor], line: str, toys: Toys, tmp_path: Path
) -> None:
    """One line says whether running, tracing or writing failed, and why."""
    about = describe_exported(toys.file(half=True))
    with pytest.raises(ExportedError, match=f"^{line}") as error:
        write_onnx(Averaged(function), about, tmp_path / "x.onnx")  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_packages_that_writing_needs_are_named_before_the_network_runs(
    package: str, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = describe_exported(toys.file())
    monkeypatch.setitem(sys.modules, package, None)
    line = rf"^export needs onnx and onnxscript: pip install 'swahr\[export\]' \(.*{package} halted"
    with pytest.raises(ExportedError, match=line):
        write_onnx(None, about, tmp_path / "x.onnx")  # type: ignore[arg-type]


def test_a_gpu_needs_the_gpu_package(toys: Toys) -> None:
    cfg = load_config(toys.file())
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime works on GPUs")
    with pytest.raises(ExportedError, match="this onnxruntime works on CPUs only; choose the"):
        load_model(cfg, toys.file(), torch.device("cuda"))


class Session:
    """Of an ONNX Runtime that works on GPUs, where `loaded` names the providers it could load."""

    loaded: tuple[str, ...] = ()
    asked: Any = None

    def __init__(self, path: str, options: object, providers: object) -> None:
        Session.asked = providers

    def get_providers(self) -> tuple[str, ...]:
        return Session.loaded

    def get_outputs(self) -> list[Any]:
        return []


def test_a_session_is_on_the_gpu_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [gpu])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "loaded", (gpu, "CPUExecutionProvider"))
    open_onnxruntime(tmp_path / "x.onnx", torch.device("cuda:2"), "f32")
    assert Session.asked == [(gpu, {"device_id": 2})]
    monkeypatch.setattr(Session, "loaded", ("CPUExecutionProvider",))
    with pytest.raises(ExportedError, match="cannot use the GPU, as libraries of CUDA or cuDNN"):
        open_onnxruntime(tmp_path / "x.onnx", torch.device("cuda:2"), "f32")


def test_the_command_exports_and_says_how_far_it_agrees(
    toys: Toys,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "write_onnx", rewritten(toys))
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 128, np.uint8))
    out = tmp_path / "new" / "toy.onnx"
    flags = ["--cfg", str(toys.config), "--output", str(out), "--image", str(tmp_path / "grey.png")]
    command.main([str(toys.weights), *flags, "TEST.DETECTION_THRESHOLD", "99"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{out}: ") and "MB; maps differ from PyTorch's by " in printed
    assert printed.endswith(
        "0 people are the same; nobody was found: --image with people checks more\n"
    )
    assert load_config(out).TEST.DETECTION_THRESHOLD == 99
