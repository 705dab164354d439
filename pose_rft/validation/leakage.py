"""Leakage checks: keys, images and people shared by training and test data, within and between data sets.

Images are compared by the sha256 of their bytes; between two data sets of COCO's images by COCO's number, because these
occur under two names each: train2017, which LLaVA-Instruct uses, is train2014 plus 35,000 images of val2014.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations

import polars as pl

from pose_rft.datasets.registry import facts
from pose_rft.validation.checks import Check, Verdict

TRAINING = ("train",)
OF_COCO = "COCO's train2017 holds pictures of val2014 and LLaVA-Instruct takes its own from train2017"
BETWEEN = "between"  # in place of a data set's name, for checks between data sets


def between_splits(name: str, splits: Mapping[str, pl.DataFrame]) -> Iterator[Check]:
    """Checks that splits share no keys or images, and no subjects unless the protocol allows it.

    splits: index rows of each split.
    """
    for first, second in combinations(sorted(splits), 2):
        for column, what in (("key", "keys"), ("image_digest", "pictures"), ("subject", "subjects")):
            if column == "image_digest" and not len(splits[first][column].drop_nulls()):
                continue
            both = shared(splits[first][column], splits[second][column])
            strict = column != "subject" or facts(name).subjects_apart
            verdict: Verdict = "ok" if not both else "failed" if strict else "note"
            yield Check(name, f"{first}+{second}", f"shared {what}", len(both), "0", verdict, _instance(both))


def between_sets(sets: Mapping[str, Mapping[str, pl.DataFrame]], strict: bool) -> Iterator[Check]:
    """Checks for images in the training split of one data set and a test split of another.

    Known overlaps (COCO's images in LLaVA-Instruct) are notes; others fail if `strict`.
    """
    named = [(name, split, rows) for name, splits in sorted(sets.items()) for split, rows in sorted(splits.items())]
    for (first, a, rows_a), (second, b, rows_b) in combinations(named, 2):
        if first == second or (a in TRAINING) == (b in TRAINING):
            continue
        known = facts(first).coco_pictures and facts(second).coco_pictures
        both = shared(*((_numbers if known else _digests)(rows) for rows in (rows_a, rows_b)))
        if not both and not known:
            continue  # a line for each pair of data sets would hide the informative ones
        verdict: Verdict = "ok" if not both else "note" if known or not strict else "failed"
        remark = f"{_instance(both)}; {OF_COCO}" if both and known else _instance(both)
        yield Check(BETWEEN, f"{first}/{a}+{second}/{b}", "shared pictures", len(both), "0", verdict, remark)


def shared(first: pl.Series, second: pl.Series) -> list[str]:
    """Returns the values that occur in both, sorted."""
    return sorted(set(first.drop_nulls().unique()) & set(second.drop_nulls().unique()))


def _digests(rows: pl.DataFrame) -> pl.Series:
    return rows["image_digest"]


def _numbers(rows: pl.DataFrame) -> pl.Series:
    """Returns COCO's 12-digit number of each image, from names such as COCO_val2014_000000000042."""
    return rows["sequence"].str.slice(-12)


def _instance(both: list[str]) -> str:
    return f"for instance {both[0]}" if both else ""
