"""Videos, cameras and streams: their frames with times, and drawn frames as a video.

PyAV (the extra `video`) keeps timestamps and sound, and writes H.264. Without it OpenCV reads and
writes, at a constant frame rate and without sound. Cameras are read by OpenCV.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import cv2
import numpy as np

from swahr.data.images import Image
from swahr.engine.image_sources import InferenceError
from swahr.files import WriteError

logger = logging.getLogger("swahr")

DEFAULT_FPS = 25.0
OPEN_SECONDS = 20  # after which an address that does not answer is given up
MICROSECONDS = 1_000_000  # PyAV's unit of a file's start and length
ENCODERS = ("libx264", "h264_videotoolbox", "libopenh264", "mpeg4")  # in order of preference
# Ticks a second of written timestamps. That of video is common for H.264; MPEG-4 has 16 bits.
TICKS = 90_000
MPEG4_TICKS = 60_000
SOUND_CODECS = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})  # .mp4 takes these
INSTALL = "pip install 'swahr[video]'"


class Frame(NamedTuple):
    """A frame of a video. number: its index, from 0. time: seconds from the start. image: (H, W, 3)
    uint8 RGB.
    """

    number: int
    time: float
    image: Image


class Video:
    """The frames of a video file, an address (rtsp://, http://, ...) or a camera (its number).

    Iterate over it for frames one by one, or over `groups`, whose frames can be read by their
    indices until they are forgotten. Frames are upright. fps: frames a second, nominal. length:
    number of frames as the file claims, 0 if it is unknown. live: frames that come while the caller
    is busy are dropped, all but the newest. end: the time of the last frame in seconds, None until
    the frames have run out. name: for files of results. Raises InferenceError if the source cannot
    be opened.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self.name = _name(self.source)
        av = import_av()
        is_camera = self.source.isdecimal() and not Path(self.source).exists()
        reader: _Reader
        if av is None or is_camera:
            reader = _OpenCvReader(self.source, is_camera)
        else:
            reader = _AvReader(self.source, av)
        self.is_file = "://" not in self.source and not is_camera
        self.live = not self.is_file and not reader.length
        self.fps = reader.fps
        self.length = reader.length
        self.end: float | None = None
        self._reader = reader
        self._frames: dict[int, Frame] = {}

    def __iter__(self) -> Iterator[Frame]:
        frames = self._reader.frames()
        time = None
        with closing(_newest(frames) if self.live else frames) as each:
            for frame in each:
                time = frame.time
                yield frame
        self.end = time

    def groups(self, size: int) -> Iterator[list[int]]:
        """The indices of up to `size` frames of one shape at a time, which are then kept."""
        group: list[int] = []
        shape = None
        for frame in self:
            if group and (len(group) == size or frame.image.shape != shape):
                yield group
                group = []
            shape = frame.image.shape
            self._frames[frame.number] = frame
            group.append(frame.number)
            if self.live:  # a frame that waits for others comes late
                yield group
                group = []
        if group:
            yield group

    def read(self, index: int) -> Image:
        return self._frames[index].image

    def time(self, index: int) -> float:
        """Seconds from the start."""
        return self._frames[index].time

    def forget(self, index: int) -> None:
        """Free the memory of a frame."""
        del self._frames[index]


def import_av() -> ModuleType | None:
    """PyAV, or None where it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


class _Reader(Protocol):
    fps: float
    length: int

    def frames(self) -> Generator[Frame]: ...


class _AvReader:
    """Reads with PyAV."""

    def __init__(self, source: str, av: ModuleType) -> None:
        options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        seconds = OPEN_SECONDS if "://" in source else None
        try:
            self._container = av.open(source, options=options, timeout=seconds)
            self._stream = self._container.streams.video[0]
        except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
            raise _cannot_open(source, getattr(error, "strerror", "")) from None
        self._stream.thread_type = "AUTO"
        self._error = av.error.FFmpegError
        self._source = source
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate or DEFAULT_FPS)
        self.length = self._stream.frames or self._guess_length()
        self.damaged = 0

    def _guess_length(self) -> int:
        duration = self._container.duration
        return round(duration / MICROSECONDS * self.fps) if duration else 0

    def frames(self) -> Generator[Frame]:
        start = self._container.start_time
        first = None if start is None else start / MICROSECONDS
        time = 0.0
        for index, frame in enumerate(self._decode()):
            if frame.time is None:
                time = index / self.fps
            else:
                first = frame.time if first is None else first
                time = max(time, frame.time - first)
            yield Frame(index, time, _upright(frame))
        if self.damaged:
            logger.warning("%s: %d damaged parts are left out", self._source, self.damaged)

    def _decode(self) -> Iterator[Any]:
        """The frames; what cannot be decoded is counted."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except self._error:  # the file ends too early, or the stream was lost
                self.damaged += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except self._error:
                self.damaged += 1
                continue
            yield from frames


class _OpenCvReader:
    """Reads with OpenCV."""

    def __init__(self, source: str, is_camera: bool) -> None:
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)  # its own lines say less than the error below
        try:
            self._capture = cv2.VideoCapture(int(source) if is_camera else source)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise _cannot_open(f"camera {source}" if is_camera else source)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or DEFAULT_FPS
        self.length = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)

    def frames(self) -> Generator[Frame]:
        time = 0.0
        index = 0
        while True:
            read, image = self._capture.read()
            if not read:
                return
            milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)  # of the frame just read
            measured = milliseconds > 0 and math.isfinite(milliseconds)
            time = max(time, milliseconds / 1000 if measured else index / self.fps)
            yield Frame(index, time, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
            index += 1


def _cannot_open(source: str, reason: str = "") -> InferenceError:
    if "://" not in source and not source.startswith("camera ") and not Path(source).exists():
        reason = "there is no such file"
    detail = f" ({reason})" if reason else ""
    return InferenceError(f"{source}: cannot be opened as a video{detail}")


def _name(source: str) -> str:
    """clip.mp4 of a path or an address that ends so; else camera0, or the host of an address."""
    if "://" in source:
        try:
            parts = urlsplit(source)
        except ValueError as error:
            raise _cannot_open(source, str(error)) from None
        return Path(parts.path).name or parts.hostname or "stream"
    if source.isdecimal() and not Path(source).exists():
        return f"camera{source}"
    return Path(source).name


def _upright(frame: Any) -> Image:
    """The frame (H, W, 3) RGB, turned as players show it."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _newest(frames: Generator[Frame]) -> Generator[Frame]:
    """The frames of a live source as they come: a thread reads, and keeps only the newest one."""
    changed = threading.Condition()
    waiting: list[Frame] = []
    ended = threading.Event()
    errors: list[Exception] = []

    def read() -> None:
        try:
            for frame in frames:
                with changed:
                    waiting[:] = [frame]
                    changed.notify()
                if ended.is_set():
                    return
        except Exception as error:
            errors.append(error)
        finally:
            with changed:
                ended.set()
                changed.notify()

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting or ended.is_set())
                if not waiting:
                    break
                frame = waiting.pop()
            yield frame
        for error in errors:
            raise error
    finally:
        ended.set()


class VideoWriter:
    """A video file (.mp4). It is opened by its first frame, which gives the size, and closed at the
    end of the `with` block, so that it can be played after an error too.

    source: the video that the frames are of; its sound is copied up to the last frame that is
    written, and to its end once the last frame of the source is. Sides that are odd get one more
    pixel, because H.264 stores colours for two by two.
    """

    def __init__(self, path: Path, source: Video) -> None:
        self.path = path
        self.source = source
        self.frames = 0
        self._time = 0.0
        self._file: _VideoFile | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, image: Image, time: float) -> None:
        """Append a frame (H, W, 3) uint8 RGB that is shown at `time` in seconds; later ones are
        resized to the size of the first. Raises WriteError if the file cannot be written, as the
        end of the `with` block does, and InferenceError without an encoder.
        """
        even = cv2.copyMakeBorder(
            image, 0, image.shape[0] % 2, 0, image.shape[1] % 2, cv2.BORDER_REPLICATE
        )
        if self._file is None:
            self._file = _open_file(self.path, self.source, (even.shape[1], even.shape[0]))
        if (even.shape[1], even.shape[0]) != self._file.size:
            even = cv2.resize(even, self._file.size)
        self._file.write(even, time)  # type: ignore[arg-type]
        self.frames += 1
        self._time = time

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close(complete=error is None and self._wrote_all())

    def _wrote_all(self) -> bool:
        """Whether the frames of the source ran out, and the last one was written."""
        return self.source.end is not None and self._time >= self.source.end


class _VideoFile(Protocol):
    size: tuple[int, int]

    def write(self, image: Image, time: float) -> None: ...

    def close(self, complete: bool) -> None: ...


def _open_file(path: Path, source: Video, size: tuple[int, int]) -> _VideoFile:
    av = import_av()
    if av is not None:
        return _AvFile(path, source, size, av)
    logger.info(
        "PyAV is not installed: the video has a constant frame rate and no sound (%s)", INSTALL
    )
    return _OpenCvFile(path, source.fps, size)


class _OpenCvFile:
    """Writes with OpenCV, at a constant frame rate."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self.size = size
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), code, fps, size)
        if not self._writer.isOpened():
            raise _cannot_write(path, "OpenCV lacks the codec, or the folder cannot be written to")

    def write(self, image: Image, time: float) -> None:
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self, complete: bool) -> None:
        self._writer.release()


class _AvFile:
    """Writes with PyAV: every frame at its time, and the sound of the source."""

    def __init__(self, path: Path, source: Video, size: tuple[int, int], av: ModuleType) -> None:
        self.size = size
        self.path = path
        self._av = av
        self._error = av.error.FFmpegError
        encoder = _find_encoder(av)
        self._ticks = MPEG4_TICKS if encoder == "mpeg4" else TICKS
        self._duration = round(self._ticks / source.fps)
        self._last = -1  # tick of the last frame
        with self._writing():
            self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream(
            encoder, rate=Fraction(source.fps).limit_denominator(1001)
        )
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, self._ticks)
        if encoder == "libx264":
            self._stream.options = {"preset": "veryfast", "crf": "20", "bf": "0"}
        else:
            self._stream.bit_rate = size[0] * size[1] * 8
        self._sound = None
        if source.is_file:
            self._sound = _open_sound(source, self._container, self._mux, av)

    def write(self, image: Image, time: float) -> None:
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        tick = max(round(time * self._ticks), self._last + 1)
        frame.pts = tick
        frame.time_base = Fraction(1, self._ticks)
        frame.duration = self._duration
        self._last = tick
        self._encode(frame)
        if self._sound is not None:
            self._sound.copy_until(time)

    def close(self, complete: bool) -> None:
        try:
            self._encode(None)
            if self._sound is not None and complete:
                self._sound.copy_until(math.inf)
        except BaseException:
            with suppress(self._error):  # the first error says more
                self._container.close()
            raise
        with self._writing():  # what is still in memory, and the index of the frames
            self._container.close()

    def _encode(self, frame: Any) -> None:
        """Write a frame, or, where it is None, those that the encoder still has."""
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    def _mux(self, packet: Any) -> None:
        with self._writing():
            self._container.mux(packet)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of PyAV in the block become a WriteError that names the file."""
        try:
            yield
        except self._error as error:
            raise _cannot_write(self.path, error.strerror) from None


def _cannot_write(path: Path, reason: str) -> WriteError:
    return WriteError(f"{path}: the video cannot be written ({reason})")


def _find_encoder(av: ModuleType) -> str:
    for name in ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except ValueError:
            continue
        if name == "mpeg4":
            logger.info(
                "this PyAV has no H.264 encoder: the video is MPEG-4, which few browsers play"
            )
        return name
    raise InferenceError(f"this PyAV has none of the encoders {', '.join(ENCODERS)}")


class _Sound:
    """Copies the packets of the first sound track of a video, in step with the frames.

    write: takes a packet for the file `output`.
    """

    def __init__(
        self, container: Any, stream: Any, output: Any, write: Callable[[Any], None]
    ) -> None:
        self._write = write
        self._target = output.add_stream_from_template(stream)
        self._start = (container.start_time or 0) / MICROSECONDS
        self._packets = container.demux(stream)
        self._next: Any = None

    def copy_until(self, time: float) -> None:
        """Copy what is heard up to a time in seconds."""
        while True:
            packet = self._next or next(self._packets, None)
            self._next = packet
            if packet is None or packet.pts is None:
                return
            if float(packet.pts * packet.time_base) - self._start > time:
                return
            shift = round(self._start / packet.time_base)
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = self._target
            self._write(packet)
            self._next = None


def _open_sound(
    source: Video, output: Any, write: Callable[[Any], None], av: ModuleType
) -> _Sound | None:
    """The sound of a video file; None where it has none, or one that .mp4 does not take."""
    container = av.open(source.source)
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    codec = stream.codec_context.name
    if codec not in SOUND_CODECS:
        logger.warning(
            "%s: .mp4 does not take its sound (%s), which is left out", source.name, codec
        )
        return None
    return _Sound(container, stream, output, write)
