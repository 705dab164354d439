import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pose_rft.datasets.llava_instruct.reader import LlavaInstruct, LlavaInstructParams, coco_id, dialogue, is_heldout
from pose_rft.datasets.registry import facts
from pose_rft.errors import PoseRftError
from tests.support.beside import beside
from tests.support.release_truth import read_all

IDS = [f"{i:012d}" for i in range(1, 41)]


def turns(question: str = "<image>\nWhat is it?", answer: str = "A person.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty pictures in three of COCO's trees; the first one has three dialogues, the records are shuffled."""
    rows = [{"id": i, "image": f"{i}.jpg", "conversations": turns(answer=f"Picture {i}.")} for i in IDS]
    rows += [
        {"id": IDS[0], "image": f"{IDS[0]}.jpg", "conversations": turns("Where?\n<image>", f"Here {n}.")}
        for n in (1, 2)
    ]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    (tmp_path / "llava_instruct").mkdir()
    (tmp_path / "llava_instruct" / "llava_instruct_150k.json").write_text(json.dumps(rows))
    picture = cv2.imencode(".jpg", np.full((8, 10, 3), 99, np.uint8))[1].tobytes()
    for n, number in enumerate(IDS):
        name = (f"train2017/{number}", f"train2014/COCO_train2014_{number}", f"val2014/COCO_val2014_{number}")[n % 3]
        path = tmp_path / "coco" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    return tmp_path


def reader(root: Path, percent: float = 20) -> LlavaInstruct:
    return LlavaInstruct(root, LlavaInstructParams(heldout_percent=percent), Path("unused"), 92)


def test_repeated_ids_keep_all_their_dialogues(root: Path) -> None:
    records = [record for split in ("train", "heldout") for record in read_all(reader(root), split)[0]]
    assert len(records) == 42
    keys = {record.key for record in records if record.sequence == IDS[0]}
    assert keys == {f"llava_{IDS[0]}_{n}" for n in range(3)}


def test_no_image_is_in_both_splits_and_the_split_is_of_the_image_alone(root: Path) -> None:
    release = reader(root)
    train, heldout = ({unit.payload[0] for unit in release.units(split)} for split in ("train", "heldout"))
    assert train.isdisjoint(heldout) and train | heldout == set(IDS) and heldout
    assert heldout == {i for i in IDS if is_heldout(i, 20)}


def test_the_share_held_out_is_what_params_say() -> None:
    names = [f"{i:012d}" for i in range(20_000)]
    share = 100 * np.mean([is_heldout(name, 5) for name in names])
    assert 4.5 < share < 5.5
    assert all(is_heldout(name, 10) for name in names if is_heldout(name, 5))  # a larger share keeps the smaller


@pytest.mark.parametrize(
    "name", ["{}.jpg", "coco/train2017/{}.jpg", "COCO_train2014_{}.jpg", "val2014/COCO_val2014_{}.jpg"]
)
def test_an_image_is_one_under_all_its_names(root: Path, name: str) -> None:
    """Else a picture could be in training under one name and held out under another."""
    before = {r.key: r for split in ("train", "heldout") for r in read_all(reader(root), split)[0]}
    path = root / "llava_instruct" / "llava_instruct_150k.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["image"] = name.format(row["id"])
    path.write_text(json.dumps(rows))
    assert {r.key: r for split in ("train", "heldout") for r in read_all(reader(root), split)[0]} == before


@pytest.mark.parametrize("name", ["gqa/images/2354786.jpg", "../000000000001.jpg/x", "000000000001.png", "", "1.jpg"])
def test_what_is_no_picture_of_coco_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no picture of COCO"):
        coco_id(name)
    (root / "llava_instruct" / "llava_instruct_150k.json").write_text(
        json.dumps([{"id": "1", "image": name, "conversations": turns()}])
    )
    with pytest.raises(PoseRftError, match="record 0"):
        reader(root).units("train")


def test_a_picture_in_both_years_trees_is_taken_from_2017(root: Path) -> None:
    """train2017 holds 35,000 pictures of val2014: the tree that LLaVA names comes first, and the flag says which."""
    (old,) = (root / "coco").glob(f"val2014/*{IDS[2]}.jpg")
    (root / "coco" / "train2017" / f"{IDS[2]}.jpg").write_bytes(old.read_bytes())
    records = [r for split in ("train", "heldout") for r in read_all(reader(root), split)[0] if r.sequence == IDS[2]]
    assert [record.flags for record in records] == [("coco_train2017",)]


@pytest.mark.parametrize("value", [None, 5, ["a"], {"text": "a"}])
def test_turns_that_are_no_text_are_defects(root: Path, value) -> None:
    path = root / "llava_instruct" / "llava_instruct_150k.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["conversations"][1]["value"] = value
    path.write_text(json.dumps(rows))
    records, defects = read_all(reader(root), "train")
    assert not records and {defect.reason for defect in defects} == {"malformed dialogue"}


def test_the_image_marker_is_gone_from_the_text(root: Path) -> None:
    for record in read_all(reader(root), "train")[0]:
        assert [turn.speaker for turn in record.dialogue] == ["human", "assistant"]
        assert not any("<image>" in turn.text or turn.text != turn.text.strip() for turn in record.dialogue)


def test_pictures_are_found_in_all_trees_and_flagged(root: Path) -> None:
    records = read_all(reader(root), "train")[0]
    assert {flag for record in records for flag in record.flags} == {"coco_train2017", "coco_train2014", "coco_val2014"}


def test_a_missing_picture_and_a_broken_dialogue_are_defects(root: Path) -> None:
    path = root / "llava_instruct" / "llava_instruct_150k.json"
    rows = json.loads(path.read_text())
    broken = next(row for row in rows if row["id"] == IDS[5])
    broken["conversations"] = broken["conversations"][:1]
    path.write_text(json.dumps(rows))
    next((root / "coco").glob(f"*/*{IDS[6]}.jpg")).unlink()
    defects = [d for split in ("train", "heldout") for d in read_all(reader(root), split)[1]]
    assert sorted(defect.reason for defect in defects) == ["malformed dialogue", "missing image"]


@pytest.mark.parametrize(
    "conversation",
    [
        [],
        turns()[:1],
        turns()[::-1],
        [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "Yes."}],
        [{"from": "system", "value": "a"}, {"from": "gpt", "value": "b"}],
    ],
)
def test_what_is_no_dialogue_is_refused(conversation) -> None:
    with pytest.raises((ValueError, KeyError)):
        dialogue(conversation)


CASES = beside("cases/labels")
MIXED = [  # true field names of llava_v1_5_mix665k.json
    {"id": IDS[0], "image": f"coco/train2017/{IDS[0]}.jpg", "conversations": turns()},
    {"id": "a1b2c3", "image": "gqa/images/2354786.jpg", "conversations": turns()},
    {"id": "x", "image": "ocr_vqa/images/0001.jpg", "conversations": turns()},
    {"id": "y", "image": "ocr_vqa/images/0002.jpg", "conversations": turns()},
    {"id": "g7h8", "model": "", "conversations": turns("Name three colours.", "Red, green, blue.")},
    {"id": "z", "image": 7, "conversations": turns()},
    "no record",
    {"id": IDS[0], "image": f"{IDS[0]}.jpg", "conversations": turns("Where is it?\n<image>", "There.")},
]


def test_records_about_other_pictures_or_none_are_counted_and_stop_nothing(root: Path) -> None:  # C3
    path = root / "llava_instruct" / "llava_v1_5_mix665k.json"
    path.write_text(json.dumps(MIXED))
    params = LlavaInstructParams(file=path.name, heldout_percent=20)
    release = LlavaInstruct(root, params, Path("unused"), 92)
    read = {split: read_all(release, split) for split in ("train", "heldout")}
    records = [record for split in read for record in read[split][0]]
    assert [record.key for record in records] == [f"llava_{IDS[0]}_{n}" for n in range(2)]
    assert not read["heldout"][1]
    defects = {(defect.row, defect.reason): defect.detail for defect in read["train"][1]}
    assert set(defects) == {
        ("gqa", "picture of another source"),
        ("ocr-vqa", "picture of another source"),
        ("text only", "no picture"),
        ("5", "malformed record"),
        ("6", "malformed record"),
    }
    assert defects["ocr-vqa", "picture of another source"] == f"{path.name}: 2 records, the first is record 2"
    assert sum(unit.expected for unit in release.units("train")) == 5 + len(read["train"][0])
    assert [p.name for p in release.inventory() if p.suffix == ".json"] == [path.name]


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the project")
def test_the_case_of_a_mixed_file_gives_its_two_dialogues(root: Path) -> None:  # C3
    case = CASES / "llava_v1_5_mix665k_like.json"
    (root / "llava_instruct" / case.name).write_bytes(case.read_bytes())
    release = LlavaInstruct(root, LlavaInstructParams(file=case.name), Path("unused"), 92)
    units = [unit for split in ("train", "heldout") for unit in release.units(split)]
    assert {unit.payload[0] for unit in units} == {"000000000790", "000000030752", None}


def test_published_counts_are_those_of_the_150k_file() -> None:
    assert facts("llava_instruct").counts(LlavaInstructParams())
    assert not facts("llava_instruct").counts(LlavaInstructParams(file="llava_v1_5_mix665k.json"))


def test_bad_files_are_one_sentence(root: Path) -> None:
    path = root / "llava_instruct" / "llava_instruct_150k.json"
    path.write_text("[{}]")
    with pytest.raises(PoseRftError, match="record 0"):
        reader(root).units("train")
    path.write_text("{")
    with pytest.raises(PoseRftError, match="not JSON"):
        reader(root).units("train")
    path.unlink()
    with pytest.raises(PoseRftError, match="huggingface"):
        reader(root).units("train")
