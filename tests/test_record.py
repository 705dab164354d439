import io
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_rft.errors import PoseRftError
from pose_rft.record import Box, Camera, Caption, Defect, Image, Keypoints, Record, Smpl, Turn


def full(seed: int = 0) -> Record:
    rng = np.random.default_rng(seed)
    return Record(
        key="a_000001",
        dataset="h36m",
        split="train",
        image=Image(b"\xff\xd8not decoded here", "jpg", 8, 6),
        subject="S1",
        sequence="Directions 1",
        camera_id="54138969",
        frame=5,
        box=Box((1.5, 2.0), 3.25, "joints2d x1.2"),
        smpl=Smpl(
            *(rng.normal(size=shape) for shape in ((3,), (23, 3), (10,), (3,))),
            valid=rng.random(24) < 0.9,
            gender="female",
            body_model="smpl",
            frame="camera",
            source="test",
        ),
        joints3d=Keypoints(rng.normal(size=(17, 4)), "h36m17"),
        joints2d=Keypoints(rng.normal(size=(32, 3)), "h36m32"),
        camera=Camera(np.eye(3), np.eye(3), np.zeros(3), rng.normal(size=5), "h36m"),
        captions=(Caption("Jemand steht – „gerade“.", "human"), Caption("b", "automatic")),
        dialogue=(Turn("human", "Where?"), Turn("assistant", "Here.")),
        flags=("drifted",),
        provenance=(("smpl", "x"), ("camera", "y")),
    )


@pytest.mark.parametrize(
    "record", [full(), Record("k", "llava", "train"), Record("k", "coco", "val", camera=Camera(np.eye(3)))]
)
def test_a_record_comes_back_from_its_members_unchanged(record):
    again = Record.from_members(record.to_members())
    assert again == record
    assert vars(again.camera).keys() == vars(record.camera).keys() if record.camera else again.camera is None
    if record.smpl is not None:
        np.testing.assert_array_equal(again.smpl.body_pose, record.smpl.body_pose)
        again.smpl.body_pose[0] = 0  # arrays belong to the reader


def test_the_same_record_has_the_same_bytes():
    assert full().to_members() == full().to_members()
    assert list(full().to_members()) == ["jpg", "json", "npz"]


def test_members_are_files_that_numpy_reads():
    with np.load(io.BytesIO(full().to_members()["npz"]), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["smpl.betas"], full().smpl.betas)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["json", "npz"]), st.integers(0, 10_000), st.integers(0, 255), st.booleans())
def test_damaged_members_are_one_sentence_or_a_record(name, place, value, cut):
    members = full().to_members()
    content = bytearray(members[name])
    place %= len(content)
    content[place] = value
    members[name] = bytes(content[:place] if cut else content)
    with suppress(PoseRftError):
        assert isinstance(Record.from_members(members), Record)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999"])
def test_a_number_that_is_not_finite_is_refused_when_read_or_when_written(number):  # S21
    members = full().to_members()
    spoiled = members["json"].replace(b'"frame":5', b'"frame":' + number)
    assert spoiled != members["json"]
    with pytest.raises(PoseRftError, match=r"damaged|not finite"):
        Record.from_members({**members, "json": spoiled}).to_members()


def test_arrays_of_objects_are_refused():
    members = full().to_members()
    objects = io.BytesIO()
    np.lib.format.write_array(objects, np.array([{}], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("smpl.betas.npy", objects.getvalue())
    with pytest.raises(PoseRftError, match="damaged"):
        Record.from_members({**members, "npz": archive.getvalue()})


@pytest.mark.parametrize("key", ["a.b", "a b", "a/b", "", "ä"])
def test_keys_that_webdataset_would_cut_are_refused(key):
    with pytest.raises(PoseRftError, match="may hold only letters"):
        Record(key, "d", "s")


@pytest.mark.parametrize(
    "change",
    [
        {"captions": (Caption("a \ud83d b", "human"),)},
        {"dialogue": (Turn("human", "\ud83d"), Turn("assistant", "b"))},
        {"sequence": "\ud83d"},
        {"provenance": (("labels", "file \ud83d"),)},
    ],
)
def test_text_that_cannot_be_stored_is_a_problem_and_no_foreign_error(change):  # B3
    record = replace(full(), **change)
    assert full().problem is None
    assert record.problem[0] == "broken text" and record.problem[1].isascii()
    with pytest.raises(PoseRftError, match="not Unicode"):
        record.to_members()


@pytest.mark.parametrize(
    ("center", "side", "meets"),
    [
        ((4.0, 3.0), 2.0, True),
        ((-0.9, 3.0), 2.0, True),
        ((-1.1, 3.0), 2.0, False),
        ((4.0, 7.1), 2.0, False),
        ((9.5, -0.5), 2.0, False),
        ((float("nan"), 3.0), 2.0, False),
    ],
)
def test_a_box_that_shows_nothing_of_the_picture_is_a_problem(center, side, meets):  # A7; the picture is 8 x 6
    problem = replace(full(), box=Box(center, side, "test")).problem
    assert (problem is None) == meets and (meets or problem[0] == "box outside the picture")


def test_what_a_defect_quotes_breaks_no_line_no_terminal_and_no_file():  # B3, S11
    defect = Defect("unit", "row", "reason", "caf\u00e9 \ud83d\nerror: busy\x1b[2J")
    assert defect.detail == "caf\u00e9 \\ud83d\\nerror: busy\\x1b[2J"
    defect.detail.encode()


@pytest.mark.parametrize("arrays", [(np.eye(2),), (np.eye(3), np.eye(4)), (np.eye(3), None, np.zeros(2))])
def test_a_camera_of_another_shape_is_none(arrays):
    with pytest.raises(PoseRftError, match=r"A camera's [KRt] has shape"):
        Camera(*arrays)


@pytest.mark.parametrize(
    "camera, detail",
    [
        (Camera(np.full((3, 3), np.nan)), "not finite"),
        (Camera(np.eye(3), np.eye(3), np.array([0, np.inf, 0])), "not finite"),
        (Camera(np.zeros((3, 3))), "focal length"),
        (Camera(np.diag([-1.0, 1, 1])), "focal length"),
    ],
)
def test_a_camera_that_cannot_be_is_a_defect_and_in_a_shard_damage(camera, detail):
    record = replace(full(), camera=camera)
    assert record.problem is not None and record.problem[0] == "broken camera" and detail in record.problem[1]
    with pytest.raises(PoseRftError, match=f"are damaged .a camera with a .*{detail}"):
        Record.from_members(record.to_members())


@pytest.mark.parametrize("side", [0.5, -1.0, 1e300, float("inf"), float("nan")])
def test_a_box_of_absurd_size_is_a_defect(side):
    record = replace(full(), box=Box((1.5, 2.0), side, "x"))
    assert record.problem is not None and record.problem[0] == "box of absurd size"
