import polars as pl

from pose_rft.validation.leakage import between_sets, between_splits


def rows(keys: str, subject: str | None = None, first_picture: int = 0, sequence: str = "s") -> pl.DataFrame:
    count = len(keys)
    return pl.DataFrame(
        {
            "key": list(keys),
            "image_digest": [f"digest{first_picture + i}" for i in range(count)],
            "subject": [subject] * count,
            "sequence": [f"{sequence}{first_picture + i:012d}" for i in range(count)],
        },
        schema=dict.fromkeys(("key", "image_digest", "subject", "sequence"), pl.String),
    )


def verdicts(checks) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


def test_splits_that_share_nothing_pass():
    apart = {"train": rows("ab", "S1"), "p2": rows("cd", "S9", 5)}
    assert set(verdicts(between_splits("h36m", apart)).values()) == {"ok"}


def test_a_leaked_subject_fails_where_the_protocol_splits_by_subject_and_is_noted_elsewhere():
    leaked = {"train": rows("ab", "S9"), "p2": rows("cd", "S9", 5)}
    assert verdicts(between_splits("h36m", leaked))["shared subjects"] == "failed"
    assert verdicts(between_splits("bedlam", leaked))["shared subjects"] == "note"


def test_a_leaked_picture_or_key_fails_in_every_data_set():
    leaked = {"train": rows("ab", "S1"), "val": rows("bc", "S2", 1)}
    found = verdicts(between_splits("coco", leaked))
    assert found["shared keys"] == "failed" and found["shared pictures"] == "failed"


def test_training_pictures_that_another_data_set_tests_with_fail_only_if_strict():
    sets = {"bedlam": {"train": rows("ab")}, "3dpw": {"test": rows("c", first_picture=1)}}
    (check,) = between_sets(sets, strict=True)
    assert check.verdict == "failed" and check.value == 1 and "digest1" in check.remark
    assert check.split == "3dpw/test+bedlam/train"
    (check,) = between_sets(sets, strict=False)
    assert check.verdict == "note"


def test_two_training_sets_may_share_pictures():
    assert not list(between_sets({"a": {"train": rows("a")}, "b": {"train": rows("b")}}, strict=True))


def test_cocos_validation_pictures_inside_llavas_training_set_are_counted_under_either_name():
    """train2017 holds pictures that COCO 2014 validates with, under another name and perhaps with other bytes."""
    coco = rows("ab").with_columns(pl.lit(None, pl.String).alias("image_digest"))
    sets = {"coco": {"val": coco}, "llava_instruct": {"train": rows("c", first_picture=1, sequence="COCO_val2014_")}}
    (check,) = between_sets(sets, strict=True)
    assert (check.value, check.verdict) == (1, "note") and "val2014" in check.remark
    apart = {"coco": {"val": coco}, "llava_instruct": {"train": rows("c", first_picture=7)}}
    (check,) = between_sets(apart, strict=True)
    assert (check.value, check.verdict) == (0, "ok")
