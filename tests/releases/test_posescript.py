import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from release_truth import read_all
from scipy.spatial.transform import Rotation

from pose_rft.errors import PoseRftError
from pose_rft.releases.posescript import ALIASES, PoseScript, PoseScriptParams, find_amass
from pose_rft.sample import write_posescript
from pose_rft.sample.plan import PoseScriptSample, SampleParams

PARAMS = SampleParams.model_construct(
    posescript=PoseScriptSample(train=55, train_human=20, val=12, test=14, automatic_captions=3)
)


class NoPictures:
    """What the writer needs of a studio."""

    def __init__(self, rest: np.ndarray) -> None:
        self.rest = rest

    def body(self):
        return self

    def rest_joints(self) -> np.ndarray:
        return self.rest


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path):
    from pose_rft.body.lbs_numpy import NumpyBody

    root, studio = tmp_path_factory.mktemp("releases"), NoPictures(NumpyBody(tiny_folder).rest_joints())
    results = [write_posescript.render(task, PARAMS, 0, studio, root) for task in write_posescript.tasks(PARAMS, 0)]
    write_posescript.finish(PARAMS, 0, results, root)
    return root, {pose.number: pose for result in results for pose in result}


@pytest.fixture
def own(written, tmp_path: Path) -> Path:
    shutil.copytree(written[0], tmp_path / "releases")
    return tmp_path / "releases"


def reader(root: Path, **params) -> PoseScript:
    return PoseScript(root, PoseScriptParams(**params), Path("unused"), 92)


def number(record) -> int:
    return int(record.key.removeprefix("posescript_"))


def test_captions_and_splits_come_back(written) -> None:
    root, truth = written
    for split, count in (("train", 55), ("val", 12), ("test", 14)):
        records, defects = read_all(reader(root), split)
        assert len(records) == count and not defects
        for record in records:
            pose = truth[number(record)]
            assert pose.split == split
            texts = {kind: [c.text for c in record.captions if c.kind == kind] for kind in ("human", "automatic")}
            assert texts["automatic"] == list(pose.automatic)
            assert texts["human"] == ([pose.human] if pose.human else [])


def test_a_split_holds_the_poses_that_have_a_caption_of_the_kind(written) -> None:
    root, truth = written
    records, _ = read_all(reader(root, kinds=("human",)), "train")
    assert len(records) == 20
    assert all(truth[number(record)].human and len(record.captions) == 1 for record in records)


def test_heading_is_removed_and_the_raw_root_is_kept(written) -> None:
    for record in read_all(reader(written[0]), "test")[0]:
        root = Rotation.from_rotvec(record.smpl.global_orient).as_matrix()
        assert abs(np.arctan2(root[1, 0], root[0, 0])) < 1e-4  # z angle of the ZYX Euler angles
        raw = Rotation.from_rotvec([float(x) for x in dict(record.provenance)["raw_global_orient"].split()])
        turn = Rotation.from_matrix(root) * raw.inv()
        np.testing.assert_allclose(turn.as_rotvec()[:2], 0, atol=1e-5)  # they differ by a turn about z


def test_hands_are_not_labelled_and_the_frame_is_amass(written) -> None:
    record = read_all(reader(written[0]), "val")[0][0]
    assert record.smpl.valid.tolist() == [True] * 22 + [False] * 2
    assert record.smpl.frame == "amass" and record.image is None


def test_the_first_version_reads_alike(own: Path) -> None:
    before = {r.key: r for s in ("train", "test") for r in read_all(reader(own), s)[0]}
    release = own / "posescript" / "posescript_release"
    automatic = json.loads(next(release.glob("posescript_auto_*.json")).read_text())
    for i, letter in enumerate("ABC"):
        (release / f"automatic_{letter}.json").write_text(json.dumps({k: v[i] for k, v in automatic.items()}))
    for pattern, name in (
        ("posescript_human_*.json", "human6293.json"),
        ("ids_2_*.json", "ids_2_dataset_sequence_and_frame_index.json"),
        *((f"{split}_ids_*.json", f"{split}_ids.json") for split in ("train", "val", "test")),
    ):
        next(release.glob(pattern)).rename(release / name)
    next(release.glob("posescript_auto_*.json")).unlink()
    after = {r.key: r for s in ("train", "test") for r in read_all(reader(own), s)[0]}
    assert after == before


def test_captions_may_be_strings_or_lists(own: Path) -> None:
    path = next((own / "posescript" / "posescript_release").glob("posescript_human_*.json"))
    content = json.loads(path.read_text())
    assert {type(value) for value in content.values()} == {str, list}
    before = read_all(reader(own), "test")[0]
    path.write_text(
        json.dumps({key: [value] if isinstance(value, str) else value[0] for key, value in content.items()})
    )
    assert read_all(reader(own), "test")[0] == before


@pytest.mark.parametrize(("old", "new"), ALIASES)
def test_subset_folders_are_found_under_both_names(tmp_path: Path, old: str, new: str) -> None:
    for stored, folder in ((old, new), (new, old), (old, old)):
        root = tmp_path / f"{stored} in {folder}"
        (root / folder / "s1").mkdir(parents=True)
        (root / folder / "s1" / "a_poses.npz").touch()
        assert find_amass(root, f"{stored}/s1/a_poses.npz") == root / folder / "s1" / "a_poses.npz"


def test_a_stored_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret_poses.npz").touch()
    (tmp_path / "amass").mkdir()
    assert find_amass(tmp_path / "amass", "../secret_poses.npz") is None


def test_the_miniature_needs_the_aliases(written) -> None:
    names = {pose.place.split("/")[0] for pose in written[1].values()}
    folders = {path.name for path in (written[0] / "amass").iterdir()}
    assert names - folders and folders - names


def test_missing_damaged_and_short_files_are_defects(own: Path) -> None:
    release = reader(own)
    missing, damaged, short = release.units("train")[:3]
    find_amass(own / "amass", missing.payload[0]).unlink()
    find_amass(own / "amass", damaged.payload[0]).write_bytes(b"PK broken")
    path = find_amass(own / "amass", short.payload[0])
    content = dict(np.load(path))
    np.savez(path, **content | {"poses": content["poses"][:1]})
    reasons = {row.reason for unit in (missing, damaged) for row in release.read(unit, "train")}
    assert reasons == {"missing AMASS file", "damaged AMASS file"}
    rows = list(release.read(short, "train"))
    assert len(rows) == short.expected
    beyond = sum(frame > 0 for _, frame, _ in short.payload[1])
    assert sum(getattr(row, "reason", "") == "frame out of range" for row in rows) == beyond


def test_smplx_files_are_told_from_smplh(own: Path) -> None:
    release = reader(own)
    unit = release.units("train")[0]
    path = find_amass(own / "amass", unit.payload[0])
    np.savez(path, poses=np.zeros((40, 165)))
    assert all("SMPL+H" in row.detail for row in release.read(unit, "train"))


def test_a_missing_file_of_the_release_is_one_sentence(own: Path) -> None:
    next((own / "posescript" / "posescript_release").glob("train_ids_*.json")).unlink()
    with pytest.raises(PoseRftError, match=r"no train_ids\*\.json"):
        reader(own).units("train")
