"""`python -m benchmarks.loader`: decoded, cropped 336-px samples per second, and how long a resume takes.

All variants use one process and one thread on the same samples of the same shards, and take turns in each round
(`--cpu-time` as in `benchmarks.convert`):

- `bare`: crops from bytes already in memory; nothing can be faster with this codec;
- `ours`: samples in the order of the mixture, read by offset, parsed into Records, cropped;
- `webdataset`: a plain pipeline in the order of the shards: decode, cut out the box, resize.

Resume: opening mixture and shards as in a new process, and reading the first sample at a position far into training.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import webdataset as wds

from benchmarks.convert import ours as convert_serially
from benchmarks.inputs import INPUTS, QUALITY, parser, workplace
from benchmarks.timing import best
from pose_rft.batches.crop_cache import crop_of, square_of
from pose_rft.policy.person_crops import crop
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.mixture import Mixture, Source
from pose_rft.shards.plan import ShardParams

SIZE = 336  # px, LLaVA-1.5's crop
SCALE = 1.2
SOURCES = ("h36m", "coco", "3dpw")
POSITIONS = (0, 1_000_003, 1_000_000_007)
COLUMNS = ("data set", "samples", "bare /s", "ours /s", "of bare", "webdataset /s", "× webdataset")
HEADER = f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 1)}|"


def plain_webdataset(folder: Path) -> int:
    """Reads shards as WebDataset's documentation shows: decodes everything in a sample, then crops and resizes."""
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    count = 0
    for sample in wds.WebDataset(urls, shardshuffle=False).decode("rgb8"):
        picture = sample["jpg"]
        box = sample["json"]["box"]
        height, width = picture.shape[:2]
        (x, y), side = (box["center"], box["side"] * SCALE) if box else ((width / 2, height / 2), max(width, height))
        left, top = max(int(x - side / 2), 0), max(int(y - side / 2), 0)
        part = picture[top : int(y + side / 2) + 1, left : int(x + side / 2) + 1]
        cv2.resize(part, (SIZE, SIZE))
        count += 1
    return count


def row(name: str, folder: Path, rounds: int, clock: Callable[[], float]) -> str:
    """Returns one line of the table for a folder of shards."""
    shards = ShardSet(folder)
    order = Mixture({name: Source(len(shards), 1.0)}, seed=0)
    records = [shards.record(order.draw(position).row) for position in range(len(shards))]
    pictures = [(record.image.data, square_of(record, SCALE)) for record in records if record.image]

    def bare() -> None:
        for data, square in pictures:
            crop(data, square, SIZE)

    def ours() -> None:
        for position in range(len(shards)):
            crop_of(shards.record(order.draw(position).row), SIZE, SCALE)

    ways = {"bare": bare, "ours": ours, "webdataset": lambda: plain_webdataset(folder)}
    rates = [len(pictures) / seconds for seconds in best(ways, rounds, clock).values()]
    share, times = rates[1] / rates[0], rates[1] / rates[2]
    cells = [
        name,
        str(len(pictures)),
        f"{rates[0]:.0f}",
        f"{rates[1]:.0f}",
        f"{share:.2f}{'' if share >= 0.9 else ' (!)'}",
    ]
    return f"| {' | '.join([*cells, f'{rates[2]:.0f}', f'{times:.2f}' + ('' if times > 1 else ' (!)')])} |"


def resume_seconds(folders: dict[str, Path], position: int) -> float:
    """Returns the seconds from nothing in memory to the sample at `position`."""
    began = time.perf_counter()
    shards = {name: ShardSet(folder) for name, folder in folders.items()}
    mixture = Mixture({name: Source(len(own), 1.0 + len(name)) for name, own in shards.items()}, seed=0)
    drawn = mixture.draw(position)
    crop_of(shards[drawn.name].record(drawn.row), SIZE, SCALE)
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    with workplace(parser("loader", __doc__).parse_args(arguments)) as place:
        folders = {}
        for what in (what for what in INPUTS if what.name in SOURCES):
            plan = ShardParams(samples_per_shard=100, executor="serial", workers=1, jpeg_quality=QUALITY)
            folder = Path(tempfile.mkdtemp(dir=place.scratch))
            convert_serially(place.release(what), what.split, plan, folder)
            folders[what.name] = folder / "shards"
        print(HEADER, flush=True)
        for name, folder in folders.items():
            print(row(name, folder, place.rounds, place.clock), flush=True)
        print("\n| resume at position | seconds |\n|---:|---:|")
        for position in POSITIONS:
            taken = np.median([resume_seconds(folders, position) for _ in range(3)])
            print(f"| {position} | {taken:.3f}{'' if taken < 1 else ' (!)'} |")


if __name__ == "__main__":
    main()
