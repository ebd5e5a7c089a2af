"""Videos read and written with PyAV and without it: times, rotation, sound, live sources."""

from __future__ import annotations

import logging
import struct
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swahr.engine import video
from swahr.engine.image_sources import InferenceError, is_video
from swahr.engine.video import Frame, Video, VideoWriter
from swahr.files import WriteError

TIMES = (0.0, 0.1, 0.25, 0.3, 0.7)  # of the frames, seconds
SIZE = (64, 48)


@pytest.fixture
def av() -> Any:
    return pytest.importorskip("av", reason="needs the extra video")


@pytest.fixture
def no_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


def image(value: int) -> np.ndarray:
    """A frame that is brighter in its left half."""
    frame = np.full((SIZE[1], SIZE[0], 3), value, np.uint8)
    frame[:, : SIZE[0] // 2] += 40
    return frame


def write_clip(av: Any, path: Path, start: float = 0) -> Path:
    """A video of variable frame rate whose frame i is of the grey 40 i, with a second of sound.

    start: seconds, the time of the first frame in the file.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=8000)
        sound.layout = "mono"
        for index, time in enumerate(TIMES):
            frame = av.VideoFrame.from_ndarray(image(40 * index), format="rgb24")
            frame.pts = round(1000 * (time + start))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        noise = np.random.default_rng(0).normal(size=(1, 8000)).astype(np.float32)
        samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        samples.sample_rate = 8000
        samples.pts = round(8000 * start)
        samples.time_base = Fraction(1, 8000)
        container.mux(sound.encode(samples))
        for each in (stream, sound):
            container.mux(each.encode(None))
    return path


@pytest.fixture
def clip(tmp_path: Path, av: Any) -> Path:
    return write_clip(av, tmp_path / "clip.mp4")


def turned(path: Path) -> Path:
    """A copy of a video that says: show me turned by 90 degrees clockwise, as telephones write."""
    data = path.read_bytes()
    matrix = data.index(b"tkhd") + 44
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    copy = path.with_name("turned.mp4")
    copy.write_bytes(data[:matrix] + clockwise + data[matrix + 36 :])
    return copy


def check_frames(frames: list[Frame]) -> None:
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([frame.time for frame in frames], TIMES, atol=1e-4)
    for index, frame in enumerate(frames):
        assert frame.image.shape == (SIZE[1], SIZE[0], 3)
        assert abs(int(frame.image[20, 50, 0]) - 40 * index) < 8


def test_frames_come_with_their_times(clip: Path) -> None:
    source = Video(clip)
    assert (source.name, source.length, source.live) == ("clip.mp4", 5, False)
    check_frames(list(source))


def test_frames_come_with_their_times_without_pyav(clip: Path, no_av: None) -> None:
    check_frames(list(Video(clip)))


def test_groups_are_kept_until_they_are_forgotten(clip: Path) -> None:
    source = Video(clip)
    groups = source.groups(2)
    assert next(groups) == [0, 1] and next(groups) == [2, 3]
    assert source.time(2) == pytest.approx(0.25) and source.read(3).shape == (48, 64, 3)
    assert next(groups) == [4] and next(groups, None) is None
    source.forget(3)
    with pytest.raises(KeyError):
        source.read(3)


def test_frames_of_two_sizes_share_no_group(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Video(clip)
    shapes = [(4, 4, 3), (4, 4, 3), (8, 4, 3), (8, 4, 3)]
    frames = [Frame(number, 0.0, np.zeros(shape)) for number, shape in enumerate(shapes)]
    monkeypatch.setattr(Video, "__iter__", lambda self: iter(frames))
    assert list(source.groups(3)) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("with_av", [True, False])
def test_rotation_is_honoured(clip: Path, with_av: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = turned(clip)
    if not with_av:
        monkeypatch.setitem(sys.modules, "av", None)
    first = next(iter(Video(path))).image
    assert first.shape == (64, 48, 3)
    assert first[:20].mean() > first[-20:].mean() + 20  # the left half is on top now


def test_what_cannot_be_decoded_is_left_out_and_counted(
    clip: Path, av: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip.with_suffix(".mkv")
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for index, packet in enumerate(source.demux(stream)):
            if packet.dts is not None:
                if index == 2:
                    packet = damaged(av, packet)
                packet.stream = copy
                target.mux(packet)
    times = [frame.time for frame in Video(path)]
    assert len(times) < 5 and [*times[:2], times[-1]] == pytest.approx([0, 0.1, 0.7], abs=1e-3)
    assert " damaged parts are left out" in caplog.text


def damaged(av: Any, packet: Any) -> Any:
    """A packet at the same time whose content is none."""
    other = av.Packet(b"\xff" * 40)
    other.pts = packet.pts
    other.dts = packet.dts
    other.time_base = packet.time_base
    return other


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.mp4", r"none.mp4: cannot be opened as a video \(there is no such file\)"),
        ("text.mp4", "text.mp4: cannot be opened as a video"),
        ("987", "camera 987: cannot be opened as a video$"),
        ("http://localhost:1/x.mp4", r"http://localhost:1/x.mp4: cannot be opened as a video \("),
    ],
)
def test_what_is_no_video_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str, av: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.mp4").write_text("no video")
    with pytest.raises(InferenceError, match=message):
        Video(source)


def test_sound_alone_is_no_video(tmp_path: Path, av: Any) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
    with pytest.raises(InferenceError, match="sound.wav: cannot be opened as a video"):
        Video(path)


@pytest.fixture
def server(clip: Path) -> Iterator[str]:
    """The address of the folder of the clip."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    serve = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(clip.parent)))
    threading.Thread(target=serve.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serve.server_port}"
    serve.shutdown()
    serve.server_close()


def test_an_address_is_a_source(server: str) -> None:
    source = Video(f"{server}/clip.mp4")
    assert (source.name, source.is_file, source.live) == ("clip.mp4", False, False)
    check_frames(list(source))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{server}/none.mp4", "Server returned 404 Not Found"),
        ("foo://x/y.mp4", "Protocol not found"),
        ("http://[::1/x.mp4", "Invalid IPv6 URL"),
    ],
)
def test_an_address_that_is_refused_is_one_line(server: str, source: str, reason: str) -> None:
    source = source.format(server=server)
    with pytest.raises(InferenceError) as refused:
        Video(source)
    assert str(refused.value) == f"{source}: cannot be opened as a video ({reason})"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("clip.mp4", "clip.mp4"),
        ("deep/CLIP.MOV", "CLIP.MOV"),
        ("rtsp://user@camera.lan/stream", "stream"),
        ("rtsp://camera.lan:554/", "camera.lan"),
        ("0", "camera0"),
    ],
)
def test_sources_that_are_videos_have_a_name(source: str, name: str) -> None:
    assert is_video(source)
    assert video._name(source) == name


def test_images_and_files_with_numbers_for_names_are_no_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("7").touch()
    assert not any(map(is_video, ("a.jpg", "folder", "7", "-", "*.png")))


def test_a_live_source_drops_all_but_the_newest_frame() -> None:
    taken = threading.Event()
    read = threading.Event()

    def frames() -> Iterator[Frame]:
        yield Frame(0, 0.0, image(0))
        taken.wait(5)
        for number in (1, 2, 3):
            yield Frame(number, number / 10, image(0))
        read.set()

    newest = video._newest(frames())  # type: ignore[arg-type]
    assert next(newest).number == 0
    taken.set()
    assert read.wait(5)
    assert [frame.number for frame in newest] == [3]


def test_an_error_of_a_live_source_reaches_its_reader() -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0, 0.0, image(0))
        raise InferenceError("lost")

    with pytest.raises(InferenceError, match="lost"):
        list(video._newest(frames()))  # type: ignore[arg-type]


def written(path: Path, source: Video) -> list[Frame]:
    """The frames of a copy of a video that VideoWriter made."""
    with VideoWriter(path, source) as writer:
        for frame in source:
            writer.write(frame.image, frame.time)
    return list(Video(path))


def codecs(av: Any, path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {stream.type: stream.codec_context.name for stream in container.streams}


def test_times_and_sound_are_kept(clip: Path, av: Any) -> None:
    copy = clip.with_name("copy.mp4")
    check_frames(written(copy, Video(clip)))
    assert codecs(av, copy) == {"video": "h264", "audio": "aac"}
    with av.open(str(clip)) as before, av.open(str(copy)) as after:
        sounds = [
            [(bytes(packet), packet.pts) for packet in file.demux(file.streams.audio[0])]
            for file in (before, after)
        ]
    assert sounds[0] == sounds[1] and len(sounds[0]) > 5


def test_a_file_whose_times_do_not_start_at_0(tmp_path: Path, av: Any) -> None:
    clip = write_clip(av, tmp_path / "late.mkv", start=10)
    copy = tmp_path / "copy.mp4"
    frames = written(copy, Video(clip))
    assert np.diff([frame.time for frame in frames]) == pytest.approx(np.diff(TIMES), abs=2e-3)
    assert frames[0].time < 0.3 and next(iter(Video(clip))).time < 0.3
    with av.open(str(copy)) as container:
        sound = next(container.demux(container.streams.audio[0]))
        assert abs(float(sound.pts * sound.time_base)) < 0.3


def test_an_error_ends_the_sound_with_the_frames(clip: Path, av: Any) -> None:
    copy = clip.with_name("copy.mp4")
    source = Video(clip)
    with pytest.raises(ZeroDivisionError), VideoWriter(copy, source) as writer:
        writer.write(next(iter(source)).image, 0.0)
        raise ZeroDivisionError
    assert len(list(Video(copy))) == 1
    with av.open(str(copy)) as container:
        assert len(list(container.demux(container.streams.audio[0]))) < 4


@pytest.mark.parametrize("read_all", [False, True])
def test_a_video_that_ends_early_has_no_more_sound(clip: Path, av: Any, read_all: bool) -> None:
    copy = clip.with_name("copy.mp4")
    source = Video(clip)
    frames = iter(source)
    first = next(frames)
    if read_all:  # frames that were read ahead are not written either
        list(frames)
    with VideoWriter(copy, source) as writer:
        writer.write(first.image, first.time)
    with av.open(str(copy)) as container:
        assert len(list(container.demux(container.streams.audio[0]))) < 4


def test_mpeg4_where_there_is_no_h264(
    clip: Path, av: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video, "ENCODERS", ("no_such_encoder", "mpeg4"))
    copy = clip.with_name("copy.mp4")
    with caplog.at_level(logging.INFO, "swahr"):
        check_frames(written(copy, Video(clip)))
    assert codecs(av, copy)["video"] == "mpeg4"
    assert "no H.264 encoder: the video is MPEG-4, which few browsers play" in caplog.text


def test_sound_that_does_not_fit_is_named(
    clip: Path, av: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(video, "SOUND_CODECS", frozenset())
    copy = clip.with_name("copy.mp4")
    check_frames(written(copy, Video(clip)))
    assert codecs(av, copy) == {"video": "h264"}
    assert "clip.mp4: .mp4 does not take its sound (aac), which is left out" in caplog.text


def test_without_pyav_one_line_says_what_is_lost(
    clip: Path, no_av: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "swahr"):
        assert len(written(clip.with_name("copy.mp4"), Video(clip))) == 5
    assert "a constant frame rate and no sound (pip install 'swahr[video]')" in caplog.text


def test_odd_and_changing_sizes_and_equal_times_can_be_written(clip: Path) -> None:
    copy = clip.with_name("copy.mp4")
    source = Video(clip)
    with VideoWriter(copy, source) as writer:
        for shape in ((33, 51, 3), (33, 51, 3), (60, 80, 3)):
            writer.write(np.zeros(shape, np.uint8), 0.5)
    frames = list(Video(copy))
    assert [frame.image.shape for frame in frames] == [(34, 52, 3)] * 3
    assert frames[0].time < frames[1].time < frames[2].time


@pytest.mark.parametrize("with_av", [True, False])
def test_a_place_that_cannot_be_written_to(
    clip: Path, with_av: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_av:
        monkeypatch.setitem(sys.modules, "av", None)
    source = Video(clip)
    with (
        pytest.raises(WriteError, match="copy.mp4: the video cannot be written"),
        VideoWriter(clip.parent / "none" / "copy.mp4", source) as writer,
    ):
        writer.write(image(0), 0.0)
