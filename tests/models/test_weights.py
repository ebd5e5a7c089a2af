from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swahr.models.backbones.hrnet import StageSettings
from swahr.models.network import Backbone, Head, ModelError, PoseNetwork, StageOutput
from swahr.models.published_names import describe_settings
from swahr.models.weights import (
    CheckpointError,
    load_pretrained,
    load_state,
    load_weights,
    published_state,
    read_state_dict,
    verify_checksums,
)
from tests.models.tiny_networks import STAGES, VARIANTS, bare_network, network

BROADER = (StageSettings(1, (1, 1), (6, 6)), *STAGES[1:])


def saved(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in published_state(model).items())


def test_initial_weights() -> None:
    model = bare_network()
    model.init_weights()
    state = published_state(model)
    assert 0.0009 < float(state["layer1.1.conv2.weight"].std()) < 0.0011
    assert 0.0007 < float(state["deconv_layers.0.0.0.weight"].std()) < 0.0013
    for name, tensor in state.items():
        if name.endswith("bias") or re.fullmatch(r"conv_scale_layers\.\d\.3\.weight", name):
            assert not tensor.any(), name
        elif name.endswith("weight") and tensor.dim() == 1:
            assert (tensor == 1).all(), name
        elif tensor.dim() == 4:
            assert tensor.any(), name


FORMS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "bare": lambda state: state,
    "nested": lambda state: {"state_dict": state},
    "wrapped": lambda state: {f"module.{name}": value for name, value in state.items()},
    "training": lambda state: {
        "epoch": 3,
        "model": "pose_higher_hrnet",
        "best_state_dict": {},
        "perf": 0.5,
        "state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.001}]},
    },
    "without counters": lambda state: {
        name: value for name, value in state.items() if "num_batches" not in name
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("archive", [True, False])
def test_published_forms(tmp_path: Path, form: str, archive: bool) -> None:
    state = published_state(network(seed=1))
    path = saved(
        tmp_path / "checkpoint.pth.tar", FORMS[form](state), _use_new_zipfile_serialization=archive
    )
    model = network(seed=2)
    load_weights(model, path)
    for name, tensor in published_state(model).items():
        assert torch.equal(tensor, state[name]) or "num_batches" in name
    path.unlink()  # nothing may be left that hangs on the file
    assert torch.isfinite(model(torch.zeros(1, 3, 32, 32))[0].heatmaps).all()


class Squares(Backbone):
    """Has a tensor with the name of one of HRNet's."""

    channels = 2
    stride = 2
    size_divisor = 2

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 2, stride=2)
        self.bn1 = nn.BatchNorm2d(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.bn1(self.conv1(images))


class Points(Head):
    upsampling = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, 1)

    def forward(self, features: Tensor) -> list[StageOutput]:
        return [StageOutput(None, self.conv1(features), None)]


def test_names_inside_and_in_files() -> None:
    """HRNet and HigherHRNet's head have the published names, other parts say where they belong."""
    model = network()
    inside = list(model.state_dict())
    assert inside[0] == "backbone.conv1.weight" and inside[-1].startswith("head.conv_scale_layers")
    assert list(published_state(model)) == [name.partition(".")[2] for name in inside]
    toy = PoseNetwork(Squares(), Points())
    assert list(published_state(toy)) == list(toy.state_dict())
    mixed = PoseNetwork(Squares(), network().head)
    assert {name.split(".")[0] for name in published_state(mixed)} == {
        *("backbone", "final_layers", "deconv_layers", "conv_scale_layers")
    }


def test_the_names_of_the_network_itself_load_too() -> None:
    source = network(seed=1)
    model = network(seed=2)
    load_state(model, source.state_dict())
    assert same(model, published_state(source))


def test_names_that_meet_in_a_file() -> None:
    model = network()
    model.head.bn1 = nn.BatchNorm2d(4)
    with pytest.raises(ModelError, match="^bn1.weight is the name of two tensors: rename"):
        published_state(model)


def test_files_of_other_networks_are_read_again(tmp_path: Path) -> None:
    source = PoseNetwork(Squares(), Points())
    model = PoseNetwork(Squares(), Points())
    load_weights(model, saved(tmp_path / "toy.pth", published_state(source)))
    assert same(model, published_state(source))
    with pytest.raises(CheckpointError, match=r"; they are of an HRNet \(MODEL\.BACKBONE hrnet\)$"):
        load_state(model, published_state(network()))
    with pytest.raises(CheckpointError, match=r"1 names are missing \(first head\.conv1\.bias\)$"):
        state = published_state(source)
        load_state(model, {name: state[name] for name in state if name != "head.conv1.bias"})


def test_pretrained_from_a_file_of_the_backbone_alone(tmp_path: Path) -> None:
    backbone = Squares()
    model = PoseNetwork(Squares(), Points())
    fresh = published_state(PoseNetwork(Squares(), Points()))
    load_state(model, fresh)
    path = saved(tmp_path / "squares.pth", backbone.state_dict() | {"fc.weight": torch.ones(1)})
    report = load_pretrained(model, path)
    alone = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    assert report == (len(alone), 0, 1, len(fresh)) and same(model, fresh | alone)
    load_state(model, fresh)
    assert load_pretrained(model, path, ["conv1"]).taken == 2


def test_two_tensors_that_mean_the_same(tmp_path: Path) -> None:
    state = published_state(network())
    state["backbone.conv1.weight"] = state["conv1.weight"] + 1
    path = saved(tmp_path / "twice.pth", state)
    twice = (
        r"twice\.pth: conv1\.weight and backbone\.conv1\.weight are both the network's "
        r"conv1\.weight; a file has each tensor once: remove one of them$"
    )
    for load in (load_weights, load_pretrained):
        with pytest.raises(CheckpointError, match=twice):
            load(network(), path)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def write_zeros(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)  # sparse: 16 GiB of zeros that take no room


def write_half(path: Path, archive: bool) -> None:
    saved(path, {"conv1.weight": torch.randn(1000)}, _use_new_zipfile_serialization=archive)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_compressed(path: Path) -> None:
    plain = saved(path.with_suffix(".plain"), {"conv1.weight": torch.zeros(1 << 16)})
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))


def write_another_byte(path: Path) -> None:
    data = saved(
        path.with_name("another.pth"), {"conv1.weight": torch.full((9,), 7.0)}
    ).read_bytes()
    place = data.index(torch.full((9,), 7.0).numpy().tobytes())
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


NO_CHECKPOINT = (
    "no PyTorch checkpoint, or only a part of one (was the download or the copy cut short?)"
)
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder, not a file"),
    "nothing": (lambda path: path.write_bytes(b""), NO_CHECKPOINT),
    "web page": (lambda path: path.write_text("<html>404</html>"), NO_CHECKPOINT),
    "half an archive": (lambda path: write_half(path, True), NO_CHECKPOINT),
    "half an old file": (lambda path: write_half(path, False), NO_CHECKPOINT),
    "another byte": (
        write_another_byte,
        "damaged: the bytes of another/data/0 do not have the checksum",
    ),
    "zeros": (write_zeros, NO_CHECKPOINT),
    "compressed": (write_compressed, NO_CHECKPOINT),
    "pickle": (
        lambda path: path.write_bytes(pickle.dumps({"conv1.weight": np.ones(3)}, 4)),
        NO_CHECKPOINT,
    ),
    "code": (
        lambda path: saved(path, {"conv1.weight": Payload()}),
        "could run code; only plain tensors are read",
    ),
    "old code": (
        lambda path: saved(path, [Payload()], _use_new_zipfile_serialization=False),
        "could run code",
    ),
    "whole module": (
        lambda path: saved(path, nn.ReLU()),
        "it holds Python objects (torch.nn.modules.activation.ReLU)",
    ),
    "tensor": (
        lambda path: saved(path, torch.ones(3)),
        "is a Tensor, not the weights of a network by name",
    ),
    "list": (lambda path: saved(path, [1]), "is a list, not the weights of a network by name"),
    "empty": (lambda path: saved(path, {"state_dict": {}}), "holds no weights at all"),
    "numbers": (
        lambda path: saved(path, {"epoch": 1}),
        "entry 'epoch' is of type int, not a tensor; files of weights "
        "hold names and tensors, or have them under 'state_dict'",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, message = BAD_FILES[kind]
    make(path := tmp_path / "bad.pth")
    with warnings.catch_warnings(), pytest.raises(CheckpointError) as error:
        warnings.simplefilter("error")
        read_state_dict(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("place", "value"), [(8, 1), (10, 97)])
def test_archives_that_only_others_can_check_are_left_to_them(
    tmp_path: Path, place: int, value: int
) -> None:
    """Bytes of an archive's list of files: one that is encrypted, and an unknown compression."""
    path = saved(tmp_path / "a.pth", {"conv1.weight": torch.ones(3)})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + place] = value
    path.write_bytes(data)
    verify_checksums(path)


def test_only_what_every_name_begins_with_is_a_wrapper(tmp_path: Path) -> None:
    state = {name: torch.ones(1) for name in ("module.a", "module._orig_mod.b", "c")}
    assert list(read_state_dict(saved(tmp_path / "a.pth", state))) == list(state)


UNUSUAL: dict[str, tuple[Callable[[], Tensor], str]] = {
    "float8": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "is of type float8_e4m3fn"),
    "complex": (lambda: torch.ones(2, dtype=torch.complex64), "is of type complex64"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8), "is of ty"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "has the layout sparse_coo"),
    "compressed": (lambda: torch.eye(2).to_sparse_csr(), "has the layout sparse_csr"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2)]), "has the layout nested"),
    "meta": (lambda: torch.ones(2, device="meta"), "has no values (it is on the meta device)"),
}


@pytest.mark.filterwarnings("ignore")  # of PyTorch, that these are experimental or deprecated
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_tensors(tmp_path: Path, kind: str) -> None:
    make, problem = UNUSUAL[kind]
    path = saved(tmp_path / "a.pth", {"bn1.num_batches_tracked": torch.tensor(3), "w": make()})
    with pytest.raises(CheckpointError) as error:
        load_pretrained(network(), path)
    line = str(error.value)
    assert line.startswith(f"{path}: tensor w {problem}") and "\n" not in line
    assert line.endswith(
        "; files of weights hold dense tensors of float16, bfloat16, float32, float64, and whole "
        "numbers: save it as one of these"
    )


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = network()
    state = published_state(model)
    state["stage2.0.branches.0.0.bn1.running_var"] = torch.full((4,), float("inf"))
    path = saved(tmp_path / "spoilt.pth", state)
    for load in (load_weights, load_pretrained):
        with pytest.raises(
            CheckpointError,
            match=r"spoilt\.pth: 1 tensors hold .* \(first stage2.0.branches.0.0.bn1",
        ):
            load(model, path)


MISMATCHES = [
    (
        "published",
        "plain",
        "18 names are unexpected (first conv_scale_layers.0.0.weight)"
        "; settings that would fit: MODEL.SCALE_HEADS True",
    ),
    (
        "plain",
        "published",
        "16 names are missing (first conv_scale_layers.0.0.weight)"
        "; settings that would fit: MODEL.SCALE_HEADS False",
    ),
    ("shared tags", "published", "; settings that would fit: MODEL.TAG_PER_JOINT False"),
    ("no tags", "published", "; settings that would fit: LOSS.WITH_AE_LOSS [False, False]"),
    (
        "bottom-up",
        "published",
        "; settings that would fit: LOSS.WITH_AE_LOSS [True], MODEL.EXTRA.DECONV.NUM_DECONVS 0",
    ),
]


@pytest.mark.parametrize(("weights", "wanted", "message"), MISMATCHES)
def test_mismatches_name_the_setting(weights: str, wanted: str, message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load_state(network(wanted), published_state(network(weights)), "a.pth")
    assert str(error.value).startswith("a.pth: does not fit the network: ") and "\n" not in str(
        error.value
    )
    assert str(error.value).endswith(message)


def test_other_joints() -> None:
    with pytest.raises(CheckpointError) as error:
        load_state(network(), published_state(network(num_joints=4, tag_channels=(4, 0))))
    assert str(error.value).endswith(
        "first final_layers.0.weight, [8, 4, 1, 1] in the file, [6, 4, 1, 1] in the "
        "network); settings that would fit: MODEL.NUM_JOINTS 4"
    )
    for heads in (
        {"scale_heads": False},
        {"scale_heads": False, "deconvs": (), "tag_channels": (4,)},
    ):
        settings = describe_settings(
            published_state(network(num_joints=4, **{"tag_channels": (4, 0)} | heads)), joints=[4]
        )
        assert settings["MODEL.NUM_JOINTS"] == 4 and settings["MODEL.TAG_PER_JOINT"] is True


def one_output(joints: int, tags: int) -> PoseNetwork:
    """Its tensors alone do not tell how many of its maps are tags."""
    return network("bottom-up", num_joints=joints, tag_channels=(tags,), scale_heads=False)


@pytest.mark.parametrize(("joints", "tags", "per_joint"), [(17, 1, False), (9, 9, True)])
def test_18_maps_are_those_of_the_networks_joints(joints: int, tags: int, per_joint: bool) -> None:
    other = one_output(joints, joints if tags == 1 else 1)
    with pytest.raises(CheckpointError, match=rf"fit: MODEL\.TAG_PER_JOINT {per_joint}$"):
        load_state(other, published_state(one_output(joints, tags)))


def test_joints_without_a_network_are_those_of_known_skeletons() -> None:
    for joints, tags in ((17, 1), (14, 1), (17, 17), (14, 14)):
        settings = describe_settings(published_state(one_output(joints, tags)))
        assert settings["MODEL.NUM_JOINTS"] == joints
        assert settings["MODEL.TAG_PER_JOINT"] == (tags == joints)
        assert settings["LOSS.WITH_AE_LOSS"] == [True]


def test_joints_that_stay_open() -> None:
    """8 maps: 4 joints, 7 with a shared tag, or 8."""
    state = published_state(one_output(4, 4))
    settings = describe_settings(state)
    assert settings["MODEL.SCALE_HEADS"] is False
    assert not {"MODEL.NUM_JOINTS", "MODEL.TAG_PER_JOINT", "LOSS.WITH_AE_LOSS"} & settings.keys()
    with pytest.raises(
        CheckpointError, match=r"\[8, 4, 1, 1\] in the file, \[6, 4, 1, 1\] in .*\)$"
    ):
        load_state(one_output(3, 3), state)


def test_an_odd_number_of_maps_is_not_halved() -> None:
    """35 maps are not those of 17 joints with a tag each."""
    settings = describe_settings(published_state(one_output(35, 0)))
    assert "MODEL.NUM_JOINTS" not in settings


def test_other_widths() -> None:
    state = published_state(network(stages=BROADER))
    before = published_state(network())
    model = network()
    with pytest.raises(
        CheckpointError,
        match=r"; these are W6 weights; settings that would fit: "
        r"MODEL\.EXTRA\.STAGE2\.NUM_CHANNELS \[6, 6\]$",
    ):
        load_state(model, state)
    assert same(model, before)


def test_another_network() -> None:
    with pytest.raises(CheckpointError) as error:
        load_state(network(), {"fc.weight": torch.ones(3, 3)})
    assert str(error.value).endswith(
        " names are missing (first conv1.weight), 1 names are unexpected (first fc.weight)"
        "; these are not the weights of an HRNet"
    )


def test_backbone_alone_does_not_fit() -> None:
    state = {
        name: value
        for name, value in published_state(network()).items()
        if name.startswith(("conv", "bn", "stage"))
    }
    state = {name: value for name, value in state.items() if not name.startswith("conv_scale")}
    with pytest.raises(
        CheckpointError,
        match="they are of a backbone without keypoint heads, which MODEL.PRETRAINED",
    ):
        load_state(network(), state)


def test_pretrained_imagenet(tmp_path: Path) -> None:
    """A classification network: extra modules, no heads."""
    source = {
        name: value
        for name, value in published_state(network(seed=1)).items()
        if name.split(".")[0] not in ("final_layers", "deconv_layers", "conv_scale_layers")
    }
    extra = {
        "incre_modules.0.0.conv1.weight": torch.ones(2, 2, 1, 1),
        "classifier.weight": torch.ones(10, 4),
    }
    model = network(seed=2)
    before = published_state(network(seed=2))
    report = load_pretrained(model, saved(tmp_path / "hrnet.pth", source | extra), ["*"])
    assert report == (len(source), 0, 2, len(before))
    assert same(model, before | source)
    assert str(report) == (
        f"took {len(source)} of the network's {len(before)} tensors; skipped 0 of another shape "
        "and 2 that the network lacks or PRETRAINED_LAYERS does not name"
    )


def test_pretrained_on_other_joints(tmp_path: Path) -> None:
    source = published_state(network(seed=1, num_joints=4, tag_channels=(4, 0)))
    model = network(seed=2)
    before = published_state(network(seed=2))
    report = load_pretrained(model, saved(tmp_path / "coco.pth", {"state_dict": source}))
    fits = {name: value for name, value in source.items() if value.shape == before[name].shape}
    assert (report.taken, report.reshaped, report.unasked) == (
        len(fits),
        len(source) - len(fits),
        0,
    )
    assert "deconv_layers.0.1.0.conv1.weight" in fits and "final_layers.0.weight" not in fits
    assert same(model, before | fits)


def test_pretrained_layers(tmp_path: Path) -> None:
    source = published_state(network(seed=1))
    before = published_state(network(seed=2))
    model = network(seed=2)
    path = saved(tmp_path / "coco.pth", published_state(network(seed=1)))
    load_pretrained(model, path, ["conv1", "stage2"])
    chosen = {
        name: value for name, value in source.items() if name.split(".")[0] in ("conv1", "stage2")
    }
    assert same(model, before | chosen)


def test_pretrained_errors(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", published_state(network(stages=BROADER)))
    another = (
        r"a\.pth: the backbone is another one: \d+ tensors are of another shape "
        r"\(first transition1\.0\.0\.weight"
    )
    width = (
        r"; these are W6 weights; settings that would fit: "
        r"MODEL\.EXTRA\.STAGE2\.NUM_CHANNELS \[6, 6\]$"
    )
    with pytest.raises(CheckpointError, match=f"{another}, .*{width}"):
        load_pretrained(network(), path)
    alone = published_state(network(stages=BROADER))
    of_head = ("final_layers", "deconv_layers", "conv_scale_layers")
    alone = {name: value for name, value in alone.items() if not name.startswith(of_head)}
    with pytest.raises(CheckpointError, match=width):
        load_pretrained(network(), saved(path, alone))
    none = (
        r"none of its 1 tensors \(first fc\.weight\) is one of the network's in "
        r"PRETRAINED_LAYERS \(fc, conv1\)$"
    )
    with pytest.raises(CheckpointError, match=none):
        load_pretrained(network(), saved(path, {"fc.weight": torch.ones(1)}), ["fc", "conv1"])


def test_layers_that_nobody_has(tmp_path: Path) -> None:
    state = published_state(network(seed=1)) | {"fc.weight": torch.ones(1)}
    without = {name: value for name, value in state.items() if not name.startswith("stage4")}
    path = saved(tmp_path / "a.pth", without)
    known = ["conv1", "stage4", "fc", ""]  # the network's, the file's, nobody's
    assert load_pretrained(network(), path, known).taken == 1
    unknown = (
        r"a\.pth: MODEL\.EXTRA\.PRETRAINED_LAYERS: neither this file nor the network has a layer "
        r"'stag2'; the file's are conv1, bn1, .*, stage3, .*, fc$"
    )
    with pytest.raises(CheckpointError, match=unknown):
        load_pretrained(network(), path, ["conv1", "stag2"])
    assert load_pretrained(network(), path, ["*", "stag2"]).taken == len(without) - 1


def test_layers_of_a_backbone_that_its_file_lacks(tmp_path: Path) -> None:
    """Files of a backbone alone have no prefix."""
    path = saved(tmp_path / "a.pth", {"conv1.bias": torch.ones(2)})
    model = PoseNetwork(Squares(), Points())
    assert load_pretrained(model, path, ["conv1", "bn1"]).taken == 1
    with pytest.raises(CheckpointError, match="has a layer 'bn'; the file's are conv1$"):
        load_pretrained(model, path, ["conv1", "bn"])


def test_a_small_part_of_the_backbone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = Squares().state_dict()  # 7 tensors
    path = tmp_path / "a.pth"
    for count, layers, warns in ((4, "*", False), (3, "*", True), (3, "conv1", False)):
        caplog.clear()
        saved(path, dict(list(backbone.items())[:count]))
        load_pretrained(PoseNetwork(Squares(), Points()), path, [layers])
        assert [line.startswith(f"{path}: has only 3 of 7 te") for line in caplog.messages] == [
            True
        ] * warns
    load_pretrained(network(), saved(path, published_state(network())), ["conv1", "stage2"])
    assert len(caplog.messages) == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_describe_themselves(variant: str) -> None:
    """A network fits its own settings, so none would be advised."""
    load_state(network(variant, seed=1), published_state(network(variant, seed=2)))
    settings = describe_settings(published_state(network(variant)))
    tags = VARIANTS[variant].get("tag_channels", (3, 0))
    if variant != "bottom-up":
        assert settings["MODEL.NUM_JOINTS"] == 3 and settings["LOSS.WITH_AE_LOSS"] == [
            bool(count) for count in tags
        ]
    assert settings["MODEL.SCALE_HEADS"] == (variant != "plain")
    assert settings["MODEL.EXTRA.STEM_BLOCKS"] == 4
    assert settings["MODEL.EXTRA.STAGE3.NUM_BLOCKS"] == [1, 2, 1]
    assert settings["MODEL.EXTRA.STAGE4.BLOCK"] == ("BOTTLENECK" if variant == "wide" else "BASIC")
    assert settings["MODEL.EXTRA.STAGE4.NUM_MODULES"] == (1 if variant == "wide" else 2)
    assert settings["MODEL.EXTRA.FINAL_CONV_KERNEL"] == (3 if variant == "wide" else 1)


def test_transposed_convolutions_describe_themselves() -> None:
    found = describe_settings(published_state(network("two steps")))
    deconv = {key.rpartition(".")[2]: found[key] for key in found if ".DECONV." in key}
    assert deconv == {
        "NUM_DECONVS": 2,
        "NUM_BASIC_BLOCKS": 1,
        "NUM_CHANNELS": [4, 5],
        "KERNEL_SIZE": [3, 2],
        "CAT_OUTPUT": [False, True],
    }


def test_a_file_without_a_stem_says_nothing_of_its_blocks() -> None:
    state = published_state(network())
    rest = {name: value for name, value in state.items() if not name.startswith("layer1")}
    assert describe_settings(state)["MODEL.EXTRA.STEM_BLOCKS"] == 4
    assert "MODEL.EXTRA.STEM_BLOCKS" not in describe_settings(rest)
