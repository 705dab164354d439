"""What a data set is known to be, apart from how it is read: `FACTS` of its package's module `facts`.

`pose-rft doctor data` looks for what a complete copy holds and tells the cost, `validate` compares counts, leakage and
reprojection. Cost comes from the rates that `python -m benchmarks.convert` measured (docs/performance.md; PoseScript's
from the conversion of the sample).

A published count holds only for the parameters that it was counted with (`when`). `fewer` rows that an explanation
covers are an upper bound: what is missing beyond defects and explanations is unexplained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl

PICTURES_LOOKED_AT = 200
RECORD_BYTES = 5_000  # labels and camera of a sample, and the headers of the tar

ALL = "all"  # in place of a split: over all splits together
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
    """Why a complete release may give up to `fewer` (or `more`) than was published."""

    why: str
    fewer: int = 0
    more: int = 0


@dataclass(frozen=True)
class Published:
    """`count` of `what` in a split (or `all`), for parameters of which `when` is true."""

    split: str
    what: What
    count: int
    explained: tuple[Explanation, ...] = ()
    when: Callable[[Any], bool] = lambda params: True

    def found(self, rows: pl.DataFrame) -> int:
        """The same count over rows of an index."""
        return FROM[self.what](rows)

    def compare(self, found: int, defects: int) -> tuple[int, str]:
        """(how many are unexplained, what explains the others); more than was published counts too."""
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
    """Files below a data set's folder (or `other` folder of the root): at least `fewest` must match the patterns.

    Several patterns are layouts that the reader takes alike. None holds `**`, which passes by linked folders.
    """

    patterns: str | Patterns | Callable[[Any], Patterns]  # or by the reader's parameters
    what: str
    fewest: int | Callable[[Any], int] = 1
    other: str | None = None  # key of the data set's parameters that names another folder

    def layouts(self, params: Any) -> Patterns:
        """The layouts of which one must be there."""
        patterns = self.patterns(params) if callable(self.patterns) else self.patterns
        return (patterns,) if isinstance(patterns, str) else patterns


@dataclass(frozen=True)
class Cost:
    """Of one sample: samples per second of one worker, and bytes in the shards beside its picture.

    pictures: pattern of the pictures that are copied, below the data set's folder or `other` (see `Need`).
    """

    rate: float
    sample_bytes: int
    pictures: str | None = None
    other: str | None = None

    def bytes_of_sample(self, folder: Path) -> int:
        """With the mean size of the first pictures that are there."""
        found = islice(folder.glob(self.pictures), PICTURES_LOOKED_AT) if self.pictures and folder.is_dir() else ()
        sizes = [path.stat().st_size for path in found]
        return self.sample_bytes + (sum(sizes) // len(sizes) if sizes else 0)


@dataclass(frozen=True)
class Facts:
    """needs: files of a complete copy; cost: of converting it; published: what its owners and users counted.

    subjects_apart: its protocol splits by subject (others split by scene, picture or pose). coco_pictures: its
    photographs are COCO's and carry COCO's numbers. reprojection: how far 3D joints may project from the 2D joints:
    arms and legs in px, all other joints in mm at their depth; None where the two are labelled apart.
    gendered_bodies: its truth is of the male and the female body.
    """

    needs: tuple[Need, ...] = ()
    cost: Cost | None = None
    published: tuple[Published, ...] = ()
    subjects_apart: bool = False
    coco_pictures: bool = False
    reprojection: tuple[float, float] | None = None
    gendered_bodies: bool = False

    def counts(self, params: Any) -> list[Published]:
        """The published counts that hold for a reader's parameters."""
        return [count for count in self.published if count.when(params)]


def by_split(**counts: int) -> Callable[[Any], int]:
    """The sum over the splits that the parameters ask for."""
    return lambda params: sum(count for split, count in counts.items() if split in params.splits)


def _unique(rows: pl.DataFrame, *columns: str) -> int:
    # 3DPW's subject is a person of a sequence; elsewhere a sequence's name repeats for each subject.
    recorded = rows["subject"].fill_null("").str.replace(r"-\d+$", "").rename("recorded")
    return rows.with_columns(recorded).select(columns).n_unique()
