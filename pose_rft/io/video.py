"""Videos: sequential decoding for the readers, encoding for the embedded sample.

Frames are counted from the first packet, never found by seeking: in many of the releases' files, seeking by number or
time lands on key frames or is off by one, and one lost frame would shift every label after it. A damaged packet raises
an error; the frames before it are valid.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import av.error
import cv2
import numpy as np
from av.video.reformatter import Interpolation

from pose_rft.errors import PoseRftError
from pose_rft.io import door, limits

# Colour conversion is bit-identical on every CPU.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
Codec = Literal["h264", "xvid"]
CODECS = ("h264", "hevc", "mpeg4", "msmpeg4v3", "mpeg2video", "mjpeg")
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
MOST_PIXELS = 50_000_000  # per frame


@dataclass(frozen=True)
class Facts:
    """rate: average frames per second; count: as declared by the container, or None; turns: quarter turns
    counter-clockwise that make a frame upright (phones store videos rotated)."""

    rate: float
    count: int | None
    turns: int


def facts(path: Path) -> Facts:
    """Reads a video's metadata, decoding only its first frame.

    Raises:
        As `frames`; PoseRftError: the video has no frame.
    """
    if door.check_file(path) == 0:
        raise PoseRftError(f"{path} is empty; download it again.")
    with _explained(path, lambda: "its start"), _opened(path) as container:
        stream = container.streams.video[0]
        first = next(container.decode(stream), None)
        if first is None:
            raise PoseRftError(f"{path} holds no frame; download it again.")
        rate = stream.average_rate or stream.guessed_rate
        return Facts(float(rate) if rate else 25.0, stream.frames or None, round(first.rotation / 90) % 4)


@contextmanager
def _explained(path: Path, where: Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        cause = " ".join(str(error).replace(str(path), "").split())[:120]
        raise PoseRftError(f"{path} cannot be decoded after {where()} ({cause}); download it again.") from None


def frames(
    path: Path, wanted: range | Collection[int] | None = None, every: int = 1, start: int = 0
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index, image) of the wanted frames, in the video's order.

    Without `wanted`: every frame from `start` on whose index is a multiple of `every`. With `wanted`, the other frames
    are decoded only if frames are predicted from them.

    Yields:
        index from 0, and (H, W, 3) uint8 BGR, OpenCV's channel order; wanted frames beyond the end are omitted.
    Raises:
        PoseRftError: no such file, empty, not a video, or damaged; frames yielded before the error are valid.
    """
    if door.check_file(path) == 0:
        raise PoseRftError(f"{path} is empty; download it again.")
    chosen = None if wanted is None else frozenset(wanted)
    last = None if chosen is None else max(chosen, default=-1)
    index = -1
    with _explained(path, lambda: f"frame {index}"):
        for index, frame in _decoded(path, chosen):
            if last is not None and index > last:
                return
            if frame.is_corrupt:
                raise PoseRftError(f"{path} is damaged at frame {index}; download it again.")
            if index in chosen if chosen is not None else index >= start and index % every == 0:
                yield index, frame.reformat(format="bgr24", interpolation=EXACT).to_ndarray()
            if index == last:
                return


def _decoded(path: Path, chosen: frozenset[int] | None) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (index, frame) of the chosen frames and of those that they depend on, in the video's order.

    Raises:
        PoseRftError: no video stream, an unknown codec, or the decoder does not return a chosen frame.
    """
    numbers = {} if chosen is None else _numbers(path)
    chosen = chosen or frozenset()
    after = 0  # the number after the last decoded frame's
    with _opened(path) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if numbers and packet.pts is not None:
                stream.codec_context.skip_frame = "DEFAULT" if numbers.get(packet.pts) in chosen else "NONREF"
            for frame in packet.decode():
                index = after if not numbers else -1 if frame.pts is None else numbers.get(frame.pts, -1)
                if index < after or not chosen.isdisjoint(range(after, index)):
                    raise PoseRftError(f"{path} is damaged at frame {after}; download it again.")
                after = index + 1
                yield index, frame
    if not chosen.isdisjoint(range(after, len(numbers))):
        raise PoseRftError(f"{path} is damaged at frame {after}; download it again.")


def _numbers(path: Path) -> dict[int, int]:
    """Maps packet timestamps to frame numbers; empty if some packet is not one frame with a unique timestamp."""
    stamps: list[int | None] = []
    most = path.stat().st_size
    with _opened(path) as container:
        first = None
        for packet in container.demux(video=0):
            first = first or next(iter(packet.decode()), None)
            if first is not None and first.interlaced_frame:  # its two fields may be separate packets
                return {}
            if packet.size and not packet.is_discard:
                stamps.append(packet.pts)
            if len(stamps) > most:
                raise PoseRftError(f"{path} declares more frames than it has bytes; download it again.")
    own = {stamp for stamp in stamps if stamp is not None}
    return {stamp: number for number, stamp in enumerate(sorted(own))} if len(own) == len(stamps) else {}


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Opens a video with a single-threaded decoder: conversion runs one process per core, and threads would compete.

    Only the containers and codecs that releases use are allowed. FFmpeg would otherwise follow playlists to other
    files, and decode any image format that a container can hold.

    Raises:
        PoseRftError: no video stream, a container or codec that no release uses, or frames of an absurd size.
    """
    with ExitStack() as opened:
        with limits.bounded(path):  # a container declares the length of its own tables
            container = opened.enter_context(av.open(str(path), format=_container(path)))
        if not container.streams.video:
            raise PoseRftError(f"{path} holds no video stream; download it again.")
        context = container.streams.video[0].codec_context
        if context is None or context.name not in CODECS:
            raise PoseRftError(f"{path} is encoded in a way that no release uses; expected one of {', '.join(CODECS)}.")
        if context.width * context.height > MOST_PIXELS:
            raise PoseRftError(f"{path} declares frames of {context.width}x{context.height} px; download it again.")
        context.thread_count = 1
        context.options = {"max_pixels": str(MOST_PIXELS)}  # bounds the size that each frame declares
        yield container


def _container(path: Path) -> str:
    """
    Raises:
        PoseRftError: the file is neither MP4 (or MOV) nor AVI.
    """
    with door.open_file(path) as file:
        start = file.read(12)
    if start[4:8] in MP4_BOXES:
        return "mp4"
    if start[:4] == b"RIFF" and start[8:] == b"AVI ":
        return "avi"
    raise PoseRftError(f"{path} is no MP4 and no AVI but starts with {start[:8]!r}; download it again.")


def encode(path: Path, pictures: Iterable[np.ndarray], fps: int, codec: Codec, quality: int = 3) -> int:
    """Writes a video, the same bytes for the same images: `h264` for .mp4 (H36M), `xvid` for .avi (3DHP).

    Args:
        pictures: (H, W, 3) uint8 RGB, all of the same size, H and W even (both codecs subsample the colour planes).
        quality: 1 (best) to 31, the quantiser of xvid; h264 uses crf = 14 + quality.
    Returns:
        the number of frames.
    Raises:
        ValueError: no image, an odd size, or images of different sizes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp-{os.urandom(8).hex()}{path.suffix}")
    count, size = 0, None
    try:
        with av.open(str(temporary), "w", options={"fflags": "+bitexact"}) as container:
            for picture in pictures:
                if size is None:
                    size = picture.shape[:2]
                    stream = _stream(container, codec, fps, size, quality)
                if picture.shape[:2] != size:
                    raise ValueError(f"picture {count} is {picture.shape[:2]}, the first was {size}")
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format="yuv420p", interpolation=EXACT)
                frame.pts = count
                container.mux(stream.encode(frame))
                count += 1
            if size is None:
                raise ValueError("a video needs at least one picture")
            container.mux(stream.encode(None))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _stream(
    container: av.container.OutputContainer, codec: Codec, fps: int, size: tuple[int, int], quality: int
) -> av.VideoStream:
    height, width = size
    if height % 2 or width % 2:
        raise ValueError(f"a video of {width}x{height} px cannot be encoded: both sides must be even")
    options = {"threads": "1", "flags": "+bitexact"}
    if codec == "h264":
        # x264's slower presets use lookahead, and about one in 200 of their videos had different bytes under load
        # (13 of 2,625 with `veryfast`, none of 2,626 with `ultrafast`, libx264 165 of PyAV 18).
        # x264 also chooses algorithms by CPU unless told not to.
        options |= {"crf": str(14 + quality), "preset": "ultrafast", "x264-params": "cpu-independent=1"}
    else:
        options |= {"qmin": str(quality), "qmax": str(quality), "dct": "int", "idct": "simple"}  # the same on every CPU
    stream = container.add_stream("libx264" if codec == "h264" else "mpeg4", rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    if codec == "xvid":
        stream.codec_context.codec_tag = "XVID"
    return stream


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """Encodes (H, W, 3) uint8 BGR as a JPEG; every video frame in the shards has passed through here once."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return data.tobytes()
