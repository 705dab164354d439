"""Videos: sequential decoding for the readers, encoding for the sample.

Frames are counted, never sought: seeking by number or time lands on key frames or is off by one in many of the
releases' files, and one lost frame would shift every label after it. A damaged packet therefore ends the video with an
error; the frames before it are good, those after it have no trustworthy number.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

import av
import av.error
import cv2
import numpy as np

from pose_rft.core.errors import PoseRftError

Codec = Literal["h264", "xvid"]


def frames(path: Path, wanted: range | Collection[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(index, picture) of the wanted frames (all of them without `wanted`), in the video's order.

    The frames in between are decoded and counted but not converted, so that the index is right and the cost is small.

    Yields:
        index from 0, and (H, W, 3) uint8 BGR, as OpenCV encodes it; a wanted frame after the end is simply not there.
    Raises:
        PoseRftError: no such file, empty, not a video, or damaged; frames that were yielded before are good.
    """
    if not path.is_file():
        raise PoseRftError(f"{path} does not exist.")
    if path.stat().st_size == 0:
        raise PoseRftError(f"{path} is empty; download it again.")
    last = None if wanted is None else max(wanted, default=-1)
    chosen = wanted if wanted is None or isinstance(wanted, range) else frozenset(wanted)
    index = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PoseRftError(f"{path} holds no video stream; download it again.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise PoseRftError(f"{path} is encoded in a way that FFmpeg does not know; download it again.")
            # Conversion runs one process per core; threads of one decoder would only compete with them.
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if last is not None and index > last:
                    return
                if frame.is_corrupt:
                    raise PoseRftError(f"{path} is damaged at frame {index}; download it again.")
                if chosen is None or index in chosen:
                    yield index, frame.to_ndarray(format="bgr24")
                index += 1
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        cause = " ".join(str(error).replace(str(path), "").split())[:120]
        raise PoseRftError(f"{path} cannot be decoded after {index} frames ({cause}); download it again.") from None


def encode(path: Path, pictures: Iterable[np.ndarray], fps: int, codec: Codec, quality: int = 3) -> int:
    """Writes a video, the same bytes for the same pictures: `h264` for .mp4 (H36M), `xvid` for .avi (3DHP).

    Args:
        pictures: (H, W, 3) uint8 RGB, all of one size, H and W even (both codecs halve the colour planes).
        quality: 1 (best) to 31, the quantiser of xvid; h264 uses crf = 14 + quality.
    Returns:
        the number of frames.
    Raises:
        ValueError: no picture, an odd size, or pictures of different sizes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
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
        # x264's slower presets look ahead, and about one in 200 of their videos came out with other bytes under load
        # (13 of 2,625 with `veryfast`, none of 2,626 with `ultrafast`, libx264 165 of PyAV 18).
        options |= {"crf": str(14 + quality), "preset": "ultrafast"}
    else:
        options |= {"qmin": str(quality), "qmax": str(quality)}
    stream = container.add_stream("libx264" if codec == "h264" else "mpeg4", rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    if codec == "xvid":
        stream.codec_context.codec_tag = "XVID"
    return stream


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """(H, W, 3) uint8 BGR as a JPEG; how every frame of a video enters the shards, once."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as JPEG")
    return data.tobytes()
