"""Known facts about a data set, apart from how to read it: `FACTS` in the module `facts` of its package.

`pose-rft doctor data` checks whether a copy is complete and estimates the conversion cost; `validate` checks counts,
leakage and reprojection. The rates behind the cost were measured by `python -m benchmarks.convert`
(docs/performance.md; PoseScript's during the conversion of the sample).

A published count holds only for the parameters that it was counted with (`when`). `fewer` of an explanation is an
upper bound: anything missing beyond defects and explanations is unexplained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl

PICTURES_LOOKED_AT = 200
RECORD_BYTES = 5_000  # labels and camera of a sample, and its tar headers

ALL = "all"  # in place of a split: the sum over all splits
What = Literal["samples", "sequences", "videos", "with_smpl", "with_human_caption", "images", "folders"]
FROM: Mapping[What, Callable[[pl.DataFrame], int]] = {
    "samples": len,
    "sequences": lambda rows: _unique(rows, "recorded", "sequence"),
    "videos": lambda rows: _unique(rows, "recorded", "sequence", "camera_id"),
    "with_smpl": lambda rows: int(rows["has_smpl"].sum()),
    "with_human_caption": lambda rows: int((rows["captions_human"] > 0).sum()),
    "images": lambda rows: rows["sequence"].n_unique(),
    "folders": lambda rows: rows["sequence"].str.replace(r"_[^_]*$", "").n_unique(),
}


@dataclass(frozen=True)
class Explanation:
    """Why a complete release may fall short of a published count by up to `fewer`, or exceed it by up to `more`."""

    why: str
    fewer: int = 0
    more: int = 0


@dataclass(frozen=True)
class Published:
    """The published `count` of `what` in a split (or `all`), if `when` is true of the reader's parameters."""

    split: str
    what: What
    count: int
    explained: tuple[Explanation, ...] = ()
    when: Callable[[Any], bool] = lambda params: True

    def found(self, rows: pl.DataFrame) -> int:
        """Returns the same count for the rows of an index."""
        return FROM[self.what](rows)

    def compare(self, found: int, defects: int) -> tuple[int, str]:
        """Returns (unexplained difference, explanation of the rest); a negative difference is a surplus."""
        missing, reasons = self.count - found, []
        if missing > 0:
            if defects:
                reasons.append(f"{min(defects, missing)} are defects")
            missing = max(missing - defects, 0)
        for explanation in self.explained:
            known = min(missing, explanation.fewer) if missing > 0 else max(missing, -explanation.more)
            if known:
                reasons.append(f"{abs(known)} {'fewer' if known > 0 else 'more'}: {explanation.why}")
                missing -= known
        return missing, "; ".join(reasons)


Patterns = tuple[str, ...]


@dataclass(frozen=True)
class Need:
    """Files that must exist below the data set's folder (or folder `other`): at least `fewest` match the patterns.

    Multiple patterns are alternative layouts that the reader accepts. None uses `**`, which skips symlinked folders.
    """

    patterns: str | Patterns | Callable[[Any], Patterns]  # or a function of the reader's parameters
    what: str
    fewest: int | Callable[[Any], int] = 1
    other: str | None = None  # the data set's parameter that names another folder below the root

    def layouts(self, params: Any) -> Patterns:
        """Returns the patterns of the alternative layouts."""
        patterns = self.patterns(params) if callable(self.patterns) else self.patterns
        return (patterns,) if isinstance(patterns, str) else patterns


@dataclass(frozen=True)
class Cost:
    """Conversion cost: samples per second of one worker (`rate`), and shard bytes per sample without its image.

    pictures: glob pattern of the images that are copied, below the data set's folder or `other` (see `Need`).
    """

    rate: float
    sample_bytes: int
    pictures: str | None = None
    other: str | None = None

    def bytes_of_sample(self, folder: Path) -> int:
        """Shard bytes per sample, including the mean size of the first images found."""
        found = islice(folder.glob(self.pictures), PICTURES_LOOKED_AT) if self.pictures and folder.is_dir() else ()
        sizes = [path.stat().st_size for path in found]
        return self.sample_bytes + (sum(sizes) // len(sizes) if sizes else 0)


@dataclass(frozen=True)
class Facts:
    """needs: files of a complete copy; cost: of converting it; published: counts by its authors and users.

    subjects_apart: the protocol splits by subject (others split by scene, image or pose). coco_pictures: the images
    are COCO's and keep COCO's ids. reprojection: the largest distance between projected 3D joints and 2D joints: limbs
    in px, all other joints in mm at their depth; None if 2D and 3D joints are labelled independently.
    gendered_bodies: the ground truth uses the male and the female body model.
    """

    needs: tuple[Need, ...] = ()
    cost: Cost | None = None
    published: tuple[Published, ...] = ()
    subjects_apart: bool = False
    coco_pictures: bool = False
    reprojection: tuple[float, float] | None = None
    gendered_bodies: bool = False

    def counts(self, params: Any) -> list[Published]:
        """Returns the published counts that apply to a reader's parameters."""
        return [count for count in self.published if count.when(params)]


def by_split(**counts: int) -> Callable[[Any], int]:
    """Returns a function that sums the counts of the splits that the parameters select."""
    return lambda params: sum(count for split, count in counts.items() if split in params.splits)


def _unique(rows: pl.DataFrame, *columns: str) -> int:
    # In 3DPW a subject is one person of a sequence; in other data sets subjects share sequence names.
    recorded = rows["subject"].fill_null("").str.replace(r"-\d+$", "").rename("recorded")
    return rows.with_columns(recorded).select(columns).n_unique()
