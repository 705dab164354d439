"""`python -m benchmarks.convert`: images per second of conversion, compared with the machine's limit and with peers.

For each data set, in one run and on the same files:

- `limit`: one process that does nothing but read, decode and encode (videos) or read, decode and copy (pictures), with
  the codec libraries that conversion uses and no bookkeeping at all;
- `peers`: what the preprocessing scripts of SPIN and its descendants do: one process, OpenCV's capture or imread,
  imwrite, lists saved as one npz;
- `ours`: conversion to shards with one worker and with two.

Start-up (imports, spawning workers) is excluded for all; reading annotation files is included, but only `ours` does it.
The variants take turns, and each number is the best round. Inputs are made by `benchmarks.inputs`. On a machine that
also does other work, `--cpu-time` counts CPU time (the mean of two workers) instead of wall time; waiting for the disk
is then excluded for all.
"""

import contextlib
import hashlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import PIL.Image

from benchmarks.inputs import INPUTS, QUALITY, Input, Workplace, parser, workplace
from benchmarks.timing import best
from pose_rft.datasets.common.base import DatasetReader
from pose_rft.errors import PoseRftError
from pose_rft.shards.convert import convert
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.plan import PlannedShard, ShardParams, plan_shards
from pose_rft.shards.writer import write_shard

SHARDS = 8
LIMIT_TARGET = {True: 0.8, False: 0.9}  # videos, pictures: share of the machine's limit, with one worker
PEERS_TARGET = {True: 1.8, False: 3.0}  # times the peers' rate, with two workers
COLUMNS = (
    *("data set", "images", "samples", "kB each", "limit /s", "peers /s", "1 worker /s", "of the limit"),
    *("2 workers /s", "× peers", "MB"),
)
HEADER = f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|"


class Row(NamedTuple):
    """Images per second, bytes of the shards, and the peak memory of a worker in MB."""

    name: str
    is_video: bool
    images: int
    samples: int
    stored: int
    limit: float
    peers: float
    one: float
    two: float
    memory: float

    @property
    def text(self) -> str:
        share, times = self.one / self.limit, self.two / self.peers
        cells = [self.name, str(self.images), str(self.samples), f"{self.stored / self.samples / 1000:.0f}"]
        cells += [f"{rate:.0f}" for rate in (self.limit, self.peers, self.one)]
        cells += [f"{share:.2f}{_mark(share >= LIMIT_TARGET[self.is_video])}", f"{self.two:.0f}"]
        cells += [f"{times:.1f}{_mark(times >= PEERS_TARGET[self.is_video])}", f"{self.memory:.0f}"]
        return f"| {' | '.join(cells)} |"


def _mark(holds: bool) -> str:
    return "" if holds else " (!)"


class Work(NamedTuple):
    """The same pictures for all variants.

    files: pictures in the order of the shards, or videos; copies: how many samples show each picture; frames: those
    needed from each video, None for pictures.
    """

    files: list[Path]
    copies: list[int]
    frames: list[list[int]] | None
    images: int


def limit(work: Work, out: Path) -> None:
    """Reads, decodes, encodes or copies, and writes: the most that a single process can do."""
    with open(out / "limit.bin", "wb") as file:
        for path, copies in zip(work.files, work.copies, strict=True) if work.frames is None else ():
            data = path.read_bytes()
            with PIL.Image.open(io.BytesIO(data)) as picture:
                picture.load()
            for _ in range(copies):
                file.write(data)
        for path, wanted in zip(work.files, work.frames or (), strict=False):
            chosen, last = set(wanted), max(wanted)
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                for number, frame in zip(range(last + 1), container.decode(stream), strict=False):
                    if number in chosen:
                        pixels = frame.to_ndarray(format="bgr24")
                        file.write(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
        file.flush()
        os.fsync(file.fileno())


def peers(work: Work, out: Path) -> None:
    """Reads and writes with OpenCV in one process, collects rows in lists, saves one npz at the end."""
    names: list[str] = []
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    for number, path in enumerate(work.files):
        if work.frames is None:
            names.append(f"{number}{path.suffix}")
            cv2.imwrite(str(out / names[-1]), cv2.imread(str(path)), quality if path.suffix == ".jpg" else [])
            continue
        capture, chosen = cv2.VideoCapture(str(path)), set(work.frames[number])
        for index in range(max(chosen) + 1):
            _, picture = capture.read()
            if index in chosen:
                names.append(f"{number}_{index:06d}.jpg")
                cv2.imwrite(str(out / names[-1]), picture, quality)
    np.savez(out / "labels.npz", imgname=names, pose=np.zeros((len(names), 72)), part=np.zeros((len(names), 24, 3)))


def ours(release: DatasetReader, split: str, shards: ShardParams, out: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        convert(release, split, out / "shards", shards, 1.0, "benchmark", out / "scratch")


def one_shard(release: DatasetReader, split: str, shard: PlannedShard, out: Path) -> tuple[float, float]:
    """Does a worker's job; returns its peak memory in MB and the CPU seconds that it took."""
    began = time.process_time()
    items = ((unit.key, item) for unit in shard.units for item in release.read(unit, split))
    write_shard(out, out, shard.index, items)
    return peak_memory(), time.process_time() - began


def peak_memory() -> float:
    """Returns this process's peak memory in MB (VmHWM: getrusage would include the parent's memory at its start)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def begin_worker() -> None:
    cv2.setNumThreads(1)


def measure(what: Input, place: Workplace) -> Row:
    """
    Raises:
        PoseRftError: the limit would read other pictures than the conversion.
    """
    release, root, folder, clock = place.release(what), place.root(what), place.scratch, place.clock
    samples = sum(unit.expected for unit in release.units(what.split))
    serial = ShardParams(samples_per_shard=-(-samples // SHARDS), executor="serial", workers=1, jpeg_quality=QUALITY)
    ours(release, what.split, serial, folder)  # warms caches, and shows which pictures are used
    converted = ShardSet(folder / "shards")
    index, stored = converted.rows, converted.manifest.bytes
    shutil.rmtree(folder / "shards")
    files = sorted(root.glob(what.pictures))
    if not what.is_video:
        path_of = {hashlib.sha256(path.read_bytes()).hexdigest()[:32]: path for path in files}
        shown = index.group_by("image_digest", maintain_order=True).len()
        work = Work([path_of[d] for d in shown["image_digest"]], shown["len"].to_list(), None, len(shown))
    else:
        frames = index.group_by("unit", maintain_order=True).agg("frame")["frame"].to_list()
        if len(frames) != len(files):
            raise PoseRftError(f"{what.name}: {len(files)} videos are there, {len(frames)} were converted.")
        work = Work(files, [], frames, len(index))
    plan = plan_shards(release.units(what.split), serial.samples_per_shard)
    memory = 0.0
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), begin_worker) as pool:

        def two(out: Path) -> float | None:
            nonlocal memory
            jobs = [pool.submit(one_shard, release, what.split, shard, out) for shard in plan]
            peaks, computed = zip(*(job.result() for job in jobs), strict=True)
            memory = max(memory, *peaks)
            return sum(computed) / 2 if clock is time.process_time else None

        ways: dict[str, Callable[[Path], float | None]] = {
            "limit": lambda out: limit(work, out),
            "one": lambda out: ours(release, what.split, serial, out),
            "peers": lambda out: peers(work, out),
            "two": two,
        }
        fresh = {name: _in_a_fresh_folder(way, folder) for name, way in ways.items()}
        fresh["two"]()  # both workers import what they need
        seconds = best(fresh, place.rounds, clock)
    of_limit, one, theirs, both = (work.images / seconds[name] for name in ways)
    return Row(what.name, what.is_video, work.images, len(index), stored, of_limit, theirs, one, both, memory)


def _in_a_fresh_folder(way: Callable[[Path], float | None], folder: Path) -> Callable[[], float | None]:
    def run() -> float | None:
        out = Path(tempfile.mkdtemp(dir=folder))
        try:
            return way(out)
        finally:
            shutil.rmtree(out)

    return run


def main(arguments: list[str] | None = None) -> None:
    expected = parser("convert", __doc__)
    expected.add_argument("datasets", nargs="*", default=[what.name for what in INPUTS])
    options = expected.parse_args(arguments)
    with workplace(options) as place:
        print(HEADER, flush=True)
        for what in (what for what in INPUTS if what.name in options.datasets):
            print(measure(what, place).text, flush=True)
    print("(!) below its target: 0.8 (videos) or 0.9 of the limit, 1.8 (videos) or 3 times the peers.", file=sys.stderr)


if __name__ == "__main__":
    main()
