import polars as pl
import pytest

from pose_rft.datasets.coco.reader import CocoParams
from pose_rft.datasets.common.facts import Explanation, Published
from pose_rft.datasets.h36m.reader import H36mParams
from pose_rft.datasets.names import RELEASES
from pose_rft.datasets.registry import facts


def test_every_release_has_published_counts_for_some_parameters():
    assert all(facts(name).published for name in (*RELEASES, "label_files"))


def test_a_count_holds_only_for_the_parameters_that_it_was_counted_with():
    counts = {(count.split, count.what): count.count for count in facts("h36m").counts(H36mParams(every=5))}
    assert counts["train", "samples"] == 312_188 and counts["p1", "samples"] == 109_867
    assert counts["p2", "samples"] == 27_558
    assert ("train", "samples") not in {(c.split, c.what) for c in facts("h36m").counts(H36mParams(every=7))}
    assert facts("coco").counts(CocoParams(year=2014, body_joints=12))[0].count == 28_344
    assert not facts("coco").counts(CocoParams(year=2017, body_joints=6))
    assert not facts("somebodys_own").counts(None)


@pytest.mark.parametrize(
    ("found", "defects", "unexplained", "words"),
    [
        (100, 0, 0, ""),
        (97, 3, 0, "3 are defects"),
        (92, 3, 0, "3 are defects; 5 fewer: known loss"),
        (80, 3, 12, "3 are defects; 5 fewer: known loss"),
        (102, 0, 0, "2 more: known loss"),
        (105, 0, -3, "2 more: known loss"),
    ],
)
def test_differences_are_explained_by_defects_then_by_known_reasons(found, defects, unexplained, words):
    count = Published("train", "samples", 100, (Explanation("known loss", fewer=5, more=2),))
    assert count.compare(found, defects) == (unexplained, words)


def test_each_kind_of_count_is_found_in_an_index():
    rows = pl.DataFrame(
        {
            "subject": ["S1", "S1", "S1", "S5"],
            "sequence": ["Walking", "Walking", "Eating", "Walking"],
            "camera_id": ["1", "2", "1", "1"],
            "has_smpl": [True, False, True, True],
            "captions_human": [0, 1, 2, 0],
        }
    )
    found = {what: Published("all", what, 0).found(rows) for what in ("samples", "sequences", "videos", "with_smpl")}
    assert found == {"samples": 4, "sequences": 3, "videos": 4, "with_smpl": 3}
    assert Published("all", "with_human_caption", 0).found(rows) == 2
    assert Published("all", "images", 0).found(rows) == 2
    two = pl.DataFrame({"subject": ["walk-0", "walk-1"], "sequence": ["walk", "walk"]})
    assert Published("test", "sequences", 0).found(two) == 1  # 3DPW: two people of one sequence
    bedlam = pl.DataFrame({"sequence": ["f1-a_seq-000000", "f1-a_seq-000001", "f2_seq-000000"]})
    assert Published("train", "folders", 0).found(bedlam) == 2
