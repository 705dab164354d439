"""What owners and users of the releases counted: a complete conversion finds the same, or it is known why not.

A count holds only for the parameters that it was counted with (`when`). `fewer` rows that an explanation covers are an
upper bound: what is missing beyond defects and explanations is unexplained. Sources: Human3.6M from its metadata.xml
and una-dinosauria's baseline; MPI-INF-3DHP from margipose's sequence list, SPIN and akanazawa/hmr#45; COCO and EFT from
their READMEs; MPII from HRNet's lists; 3DPW from SPIN and VIBE; PoseScript and LLaVA from their release notes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

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


def published(dataset: str, params: Any) -> list[Published]:
    """The counts of a data set that hold for a reader's parameters."""
    return [count for count in PUBLISHED.get(dataset, ()) if count.when(params)]


def _unique(rows: pl.DataFrame, *columns: str) -> int:
    # 3DPW's subject is a person of a sequence; elsewhere a sequence's name repeats for each subject.
    recorded = rows["subject"].fill_null("").str.replace(r"-\d+$", "").rename("recorded")
    return rows.with_columns(recorded).select(columns).n_unique()


def _every(step: int) -> Callable[[Any], bool]:
    return lambda params: params.every == step


def _all_subjects(params: Any) -> bool:
    return params.subjects is None


def _all_subjects_every(step: int) -> Callable[[Any], bool]:
    return lambda params: _all_subjects(params) and params.every == step


def _of_150k(params: Any) -> bool:
    return len(params.splits) == 2 and params.file == "llava_instruct_150k.json"


MISSING_VIDEO = "S11 Directions of camera 54138969 is not in the release"
OWN_TENTH = Explanation(
    "which tenth is kept depends on where counting starts: SPIN's own second run gave 96,719", fewer=500, more=500
)

PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "h36m": (
        Published("train", "samples", 1_559_752, when=_all_subjects_every(1)),
        Published("train", "samples", 312_188, when=_all_subjects_every(5)),
        Published("train", "videos", 600, when=_all_subjects),
        Published("p1", "samples", 548_819, when=_all_subjects_every(1)),
        Published("p1", "samples", 109_867, when=_all_subjects_every(5)),
        Published("p1", "samples", 8_724, (Explanation(MISSING_VIDEO, fewer=29),), _all_subjects_every(64)),
        Published("p1", "videos", 239, when=_all_subjects),
        Published("p2", "samples", 27_558, when=_all_subjects_every(5)),
        Published("p2", "samples", 2_181, when=_all_subjects_every(64)),
        Published("p2", "videos", 60, when=_all_subjects),
    ),
    "mpi_inf_3dhp": (
        Published(
            "train",
            "samples",
            1_052_736,
            (Explanation("frames with a joint outside the picture are left out, as SPIN does", fewer=100_000),),
            _every(1),
        ),
        Published("train", "samples", 96_507, (OWN_TENTH,), _every(10)),
        Published("train", "sequences", 16),
        Published("train", "videos", 128),
        Published(
            "test",
            "samples",
            2_929,
            (Explanation("SPIN keeps 2,875 whose joints all lie inside the picture", fewer=54),),
        ),
        Published("test", "sequences", 6),
    ),
    "coco": (
        Published("train", "samples", 28_344, when=lambda params: params.year == 2014 and params.body_joints == 12),
    ),
    "mpii": (
        Published(
            "train",
            "samples",
            29_116,
            (Explanation("people without any joint are left out", fewer=300),),
            lambda params: params.labels is None,
        ),
        Published("train", "samples", 22_246, when=lambda params: params.labels is not None),
        Published("val", "samples", 2_958, when=lambda params: params.labels is not None),
    ),
    "posescript": (
        Published(
            ALL,
            "samples",
            100_000,
            (Explanation("v1 of the release has 20,000 poses", fewer=80_000),),
            lambda params: "automatic" in params.kinds and len(params.splits) == 3,
        ),
        Published(
            ALL,
            "with_human_caption",
            6_293,
            (Explanation("v1 of the release has 3,891 to 4,900 human captions", fewer=2_402),),
            lambda params: "human" in params.kinds and len(params.splits) == 3,
        ),
    ),
    "bedlam": (
        Published(
            "train",
            "folders",
            26,
            (Explanation("scenes in which nobody is large and free enough to be described", fewer=4, more=6),),
        ),
    ),
    "3dpw": (
        Published("train", "sequences", 24),
        Published("validation", "sequences", 12),
        Published("test", "sequences", 24),
        Published(
            "test",
            "samples",
            35_515,
            (Explanation("TCMR and VIBE count 34,561: tracks that they cut", fewer=954),),
        ),
    ),
    "llava_instruct": (
        Published(ALL, "samples", 157_712, when=_of_150k),
        Published(ALL, "images", 81_479, when=_of_150k),
    ),
    "label_files": (  # the evaluation files of HMR2.0, by the names that peers give them
        Published("h36m_val_p2", "samples", 27_558),
        Published("3dpw_test", "samples", 35_515),
    ),
}
