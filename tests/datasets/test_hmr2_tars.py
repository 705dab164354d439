import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pose_rft.datasets.hmr2_tars.reader import Hmr2Tars, Hmr2TarsParams
from pose_rft.errors import PoseRftError
from pose_rft.sample import python2_pickle
from pose_rft.shards.convert import convert
from pose_rft.shards.manifest import Manifest
from pose_rft.shards.plan import ShardParams
from tests.support.flat_studio import shown
from tests.support.label_truth import SIDE, Truth, picture_bytes, split44, truth
from tests.support.release_truth import read_all


@pytest.fixture(scope="module")
def people(body_models: Path) -> list[Truth]:
    return [truth(body_models, seed) for seed in range(3)]


def label(person: Truth, **changes) -> dict:
    """One person as 4D-Humans stores it: numpy 1's pickles, the side over 200."""
    two, three = split44(person)
    content = {
        "keypoints_2d": two.astype(np.float32),
        "keypoints_3d": three.astype(np.float32),
        "center": person.center.astype(np.float32),
        "scale": np.float32(SIDE / 200),
        "body_pose": person.pose.ravel().astype(np.float32),
        "betas": person.betas.astype(np.float32),
        "has_body_pose": np.float32(1),
        "has_betas": np.float32(1),
        "extra_info": {"fitting_loss": np.float32(0.1)},
        "personid": 0,
    }
    return content | changes


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def reader(root: Path, body_models: Path, tars: list[list[tuple[str, bytes]]]) -> Hmr2Tars:
    folder = root / "hmr2_training_data/dataset_tars/aic-train"
    for i, members in enumerate(tars):
        write_tar(folder / f"{i:06d}.tar", members)
    return Hmr2Tars(root, Hmr2TarsParams(folders={"aic": "aic-train"}), body_models, 92)


def good(people: list[Truth]) -> list[list[tuple[str, bytes]]]:
    one = python2_pickle.dumps([label(people[0]), label(people[1])])
    two = pickle.dumps([label(people[2], has_body_pose=np.float32(0))])
    return [
        [
            ("aic-train/0f3a.jpg", picture_bytes(5)),
            ("aic-train/0f3a.data.pyd", one),
            ("aic-train/0f3a.detection.npz", b"not read"),
        ],
        [("aic-train/77.data.pyd", two), ("aic-train/77.jpeg", picture_bytes(6))],
    ]


def test_people_of_the_tars_come_back(tmp_path: Path, body_models: Path, people) -> None:
    release = reader(tmp_path, body_models, good(people))
    assert [(unit.key, unit.expected) for unit in release.units("aic")] == [("aic_000000", 2), ("aic_000001", 1)]
    records, defects = read_all(release, "aic")
    assert not defects and [shown(record) for record in records] == [5, 5, 6] and len(release.inventory()) == 2
    for record, person in zip(records, people, strict=True):
        np.testing.assert_allclose(record.joints2d.points, person.joints2d, atol=1e-3)
        assert record.box.side == pytest.approx(SIDE) and record.box.center == tuple(person.center)
        np.testing.assert_allclose(np.ptp(record.joints3d.points, axis=0), np.ptp(_labelled(person), axis=0), atol=1e-4)
    for record, person in zip(records[:2], people, strict=False):
        np.testing.assert_allclose(record.smpl.body_pose, person.pose[1:], atol=1e-5)
        np.testing.assert_allclose(record.smpl.transl[:2], person.transl[:2], atol=5e-3)
    assert records[2].smpl is None and records[2].camera is not None


def _labelled(person: Truth) -> np.ndarray:
    return person.joints3d


def test_the_tars_become_shards_by_the_same_converter(tmp_path: Path, body_models: Path, people) -> None:
    release = reader(tmp_path, body_models, good(people))
    shards = ShardParams(samples_per_shard=2, executor="serial", workers=1, jpeg_quality=92)
    convert(release, "aic", tmp_path / "out", shards, 0.0, "inventory", tmp_path / "scratch")
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.samples == 3 and len(manifest.shards) == 2


def test_pickles_that_would_run_code_run_nothing(tmp_path: Path, body_models: Path, people) -> None:
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    tars = good(people)
    tars[0][1] = ("aic-train/0f3a.data.pyd", pickle.dumps([Payload()]))
    records, defects = read_all(reader(tmp_path, body_models, tars), "aic")
    assert len(records) == 1 and [d.reason for d in defects] == ["malformed label"] and "system" in defects[0].detail
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"center": np.array([np.nan, 1])}, "malformed label"),
        ({"scale": 0.0}, "malformed label"),
        ({"body_pose": np.zeros(69)}, "malformed label"),
        ({"keypoints_2d": np.zeros((24, 3))}, "malformed label"),
        ({"has_body_pose": 0, "keypoints_2d": np.zeros((44, 3)), "keypoints_3d": np.zeros((44, 4))}, "no label"),
    ],
)
def test_a_wrong_label_costs_one_person(tmp_path: Path, body_models: Path, people, change, reason: str) -> None:
    labels = pickle.dumps([label(people[0], **change), label(people[1])])
    tars = [[("a.jpg", picture_bytes(1)), ("a.data.pyd", labels)]]
    records, defects = read_all(reader(tmp_path, body_models, tars), "aic")
    assert [d.reason for d in defects] == [reason] and len(records) == 1


def test_damaged_or_missing_pictures_are_defects_of_their_people(tmp_path: Path, body_models: Path, people) -> None:
    labels = pickle.dumps([label(people[0]), label(people[1])])
    tars = [[("a.jpg", b"\xff\xd8 cut"), ("a.data.pyd", labels), ("b.data.pyd", labels), ("c.jpg", picture_bytes(0))]]
    records, defects = read_all(reader(tmp_path, body_models, tars), "aic")
    assert not records and [d.reason for d in defects] == ["damaged image"] * 2 + ["missing image"] * 2


def test_names_that_leave_the_archive_and_cut_tars_are_refused(tmp_path: Path, body_models: Path, people) -> None:
    release = reader(tmp_path, body_models, [[("../../evil.jpg", b"x"), ("../../evil.data.pyd", b"x")]])
    with pytest.raises(PoseRftError, match=r"evil"):
        release.units("aic")
    release = reader(tmp_path, body_models, good(people))
    path = release.inventory()[0]
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(PoseRftError, match=r"000000\.tar"):
        release.units("aic")
    with pytest.raises(PoseRftError, match="no split 'h36m'"):
        release.units("h36m")
