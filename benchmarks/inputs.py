"""Benchmark releases at the sizes of the real ones: files of the sample's own writers, but with textures as pictures.

No person is rendered. What determines the time of a conversion is realistic: the sizes, the codecs, the level of detail
(a JPEG of 640x480 takes over 100 kB, as in COCO: train2017 is 18 GB), and the annotations. Videos contain motion and
sensor noise.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import cv2
import numpy as np

from pose_rft.datasets.common.base import DatasetReader
from pose_rft.datasets.registry import DataParams, open_release
from pose_rft.sample import write_3dhp, write_bedlam, write_coco, write_h36m, write_llava, write_mpii, write_pw3d
from pose_rft.sample.people import Person, Shot, Studio, View
from pose_rft.sample.plan import LlavaSample, PictureSample, Pw3dSample, SampleParams, VideoSample
from pose_rft.sample.scene import background
from pose_rft.sample.standin import build_standin

TEXTURE = 4096  # px
SMOOTH, CRISP = 0.75, 0.1  # exponents of amplitude falloff: of video frames, of downscaled photographs
NOISE = 3.0  # grey levels of sensor noise in videos
QUALITY = 92  # JPEG quality


class TexturedStudio(Studio):
    """Places bodies and computes what is visible, but each picture is a window of one large texture."""

    def __init__(self, body_models: Path, fall: float) -> None:
        self.folder = body_models
        self.texture = texture(TEXTURE, fall)

    def shoot(
        self, rng: np.random.Generator, people: Sequence[Person], view: View, backdrop: Any = None, *_: Any, **__: Any
    ) -> Shot:
        everywhere = np.ones((view.height, view.width), bool)
        seen = tuple(replace(self._see(person, view), mask=everywhere) for person in people)
        behind = backdrop or background(rng, (view.height, view.width))
        return Shot(window(self.texture, rng, view.size), view, seen, behind)


def texture(size: int, fall: float) -> np.ndarray:
    """(size, size, 3) uint8: noise at all scales; its amplitude falls as the frequency to the power of -`fall`."""
    rng = np.random.default_rng(0)
    total = np.zeros((size, size, 3), np.float32)
    for octave in range(2, 12):
        grains = rng.standard_normal((2**octave, 2**octave, 3)).astype(np.float32)
        total += cv2.resize(grains, (size, size), interpolation=cv2.INTER_CUBIC) * 2.0 ** (-fall * octave)
    total = (total - total.mean()) / total.std()
    return np.clip(128 + 50 * total, 0, 255).astype(np.uint8)


def window(source: np.ndarray, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Returns a random (height, width, 3) window of the texture."""
    x, y = (int(rng.integers(0, source.shape[0] - side)) for side in size)
    return source[y : y + size[1], x : x + size[0]].copy()


@dataclass(frozen=True)
class Input:
    """One data set to convert: `read` = params of its reader, `pictures` = glob below `root` of files it decodes."""

    name: str
    split: str
    read: dict[str, Any]
    pictures: str
    is_video: bool = False


INPUTS = (
    Input(
        "h36m",
        "p2",
        {"fits": [{"source": "neuralannot", "path": write_h36m.FITS.replace("{}", "{subject}")}]},
        "h36m/S*/Videos/*.mp4",
        True,
    ),
    Input(
        "mpi_inf_3dhp",
        "train",
        {"fits": [{"source": "neuralannot", "path": write_3dhp.FITS}]},
        "mpi_inf_3dhp/S*/Seq*/imageSequence/*.avi",
        True,
    ),
    Input("coco", "train", {"body_joints": 1}, "coco/train2017/*.jpg"),
    Input("mpii", "train", {}, "mpii/**/*.jpg"),
    Input("bedlam", "train", {"smallest_box": 40.0, "captions": 0}, "bedlam/training_images/*/png/*/*.png"),
    Input("3dpw", "test", {}, "3dpw/imageFiles/*/*.jpg"),
    Input("llava_instruct", "train", {}, "coco/train2017/*.jpg"),
)


def make(root: Path, body_models: Path, scale: float, names: Sequence[str]) -> None:
    """Writes the releases `names` below `root`; scale 1 takes about half a minute each."""

    def count(number: int) -> int:
        return max(1, round(number * scale))

    params = SampleParams.model_construct(
        h36m=VideoSample(size=1000, train_sequences=1, test_sequences=2, frames=1, test_frames=count(120)),
        mpi_inf_3dhp=VideoSample(size=2048, train_sequences=1, test_sequences=0, frames=count(15), test_frames=1),
        coco=PictureSample(size=640, train=count(1200), val=1),
        mpii=PictureSample(size=720, train=count(200), val=0),
        bedlam=PictureSample(size=720, train=count(96), val=0),
        pw3d=Pw3dSample(size=1080, sequences=2, frames=count(40)),
        llava_instruct=LlavaSample(dialogues=count(1500)),
        two_people=0.3,
    )
    writers: dict[str, Any] = {
        "h36m": write_h36m,
        "mpi_inf_3dhp": write_3dhp,
        "coco": write_coco,
        "mpii": write_mpii,
        "bedlam": write_bedlam,
        "3dpw": write_pw3d,
    }
    wanted = {"coco" if name == "llava_instruct" else name for name in names}
    for name in sorted(wanted):
        studio = TexturedStudio(body_models, CRISP if name in ("coco", "mpii") else SMOOTH)
        tasks = [task for task in writers[name].tasks(params, 0) if _kept(name, task.payload)]
        results = [writers[name].render(task, params, 0, studio, root) for task in tasks]
        writers[name].finish(params, 0, results, root)
        if name == "coco" and "llava_instruct" in names:
            write_llava.write(params, 0, [picture for result in results for picture in result], root)
            (root / "llava_instruct/coco").symlink_to(root.resolve() / "coco")
        if name in ("h36m", "mpi_inf_3dhp"):
            film(root / name, studio.texture)


def _kept(name: str, payload: tuple[Any, ...]) -> bool:
    """Keeps fewer subjects than the releases have, and no BEDLAM close-ups: those are rotated, so not copied as is."""
    if name == "h36m":
        return payload[0] in (9, 11)
    if name == "mpi_inf_3dhp":
        return payload[0] <= 1
    return name != "bedlam" or not payload[0].closeup


def film(folder: Path, source: np.ndarray) -> None:
    """Replaces every video below `folder` by one of equal size and length: fixed camera, noise, and a moving body."""
    made: dict[tuple[int, int, int], bytes] = {}
    for path in sorted((*folder.rglob("*.mp4"), *folder.rglob("*.avi"))):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            form = (stream.width, stream.height, sum(1 for _ in container.decode(stream)))
        if form not in made:
            _shoot(path, source, *form, "libx264" if path.suffix == ".mp4" else "mpeg4")
            made[form] = path.read_bytes()
        path.write_bytes(made[form])


def _shoot(
    path: Path, source: np.ndarray, width: int, height: int, frames: int, codec: Literal["libx264", "mpeg4"]
) -> None:
    rng = np.random.default_rng(1)
    grain = (rng.standard_normal((height + 64, width + 64, 3)) * NOISE).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23"} if codec == "libx264" else {"qmin": "3", "qmax": "8"}
        stream: Any = container.add_stream(codec, rate=50, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        room, body = source[:height, :width], source[-height // 2 :, -width // 4 :]
        for number in range(frames):
            picture = room.astype(np.int16)
            x, y = (int(side * (0.35 + 0.2 * turn)) for side, turn in _walk(width, height, number))
            picture[y : y + len(body), x : x + body.shape[1]] = body
            dx, dy = rng.integers(0, 64, 2)
            picture += grain[dy : dy + height, dx : dx + width]
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _walk(width: int, height: int, number: int) -> tuple[tuple[int, float], tuple[int, float]]:
    """Returns (side, relative shift of the body) for x and y at a frame of 50 fps: to and fro once in two seconds."""
    return (width, float(np.sin(number / 15))), (height, 0.2 * float(np.cos(number / 11)))


class Workplace(NamedTuple):
    """A benchmark's folders and settings: `kept` holds the inputs, `scratch` is deleted at its end."""

    kept: Path
    scratch: Path
    body_models: Path
    scale: float
    rounds: int
    clock: Callable[[], float]

    def root(self, what: Input) -> Path:
        """Returns the folder of the release, creating the release if it does not exist."""
        root = self.kept / f"releases-{what.name}-{self.scale:g}"
        if not root.is_dir():
            make(root, self.body_models, self.scale, [what.name])
        return root

    def release(self, what: Input) -> DatasetReader:
        data = DataParams(source="releases", root=self.root(what), body_model=self.body_models)
        return open_release(what.name, data, {what.name: what.read}, QUALITY)


def parser(name: str, about: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that all data benchmarks share."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about.splitlines()[0])
    made.add_argument("--scale", type=float, default=1.0, help="how much input is made; 0.2 for a quick look")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--cpu-time", action="store_true", help="count CPU seconds: other work runs beside this")
    made.add_argument("--body-models", type=Path, default=Path("data/sample/body_models"))
    made.add_argument("--folder", type=Path, help="where to work and keep the input (default: a temporary folder)")
    return made


@contextlib.contextmanager
def workplace(options: argparse.Namespace) -> Iterator[Workplace]:
    """Limits OpenCV to one thread and provides folders and body models: the sample's, or new stand-ins."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=options.folder) as scratch:
        kept, body_models = options.folder or Path(scratch), options.body_models
        if not (body_models / "smpl").is_dir():
            body_models = kept / "body_models"
            if not body_models.is_dir():
                build_standin(body_models)
        clock = time.process_time if options.cpu_time else time.perf_counter
        yield Workplace(kept, Path(scratch), body_models, options.scale, options.rounds, clock)
