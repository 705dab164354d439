import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.datasets.posescript.reader import ALIASES, PoseScript, PoseScriptParams, find_amass
from pose_rft.errors import PoseRftError
from pose_rft.sample import write_posescript
from pose_rft.sample.plan import PoseScriptSample, SampleParams
from tests.support.release_truth import read_all

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


def as_smplx(amass: Path) -> None:
    """The tree as AMASS's SMPL-X release has it: newer folders, `_` for spaces, `_stageii`, 55 joints, other names."""
    newer = dict(ALIASES)
    for path in sorted(amass.glob("*/*/*_poses.npz")):
        content = dict(np.load(path))
        poses = content.pop("poses")
        new = amass / newer.get(path.parts[-3], path.parts[-3]) / path.parts[-2].replace(" ", "_")
        new.mkdir(parents=True, exist_ok=True)
        np.savez(
            new / path.name.replace(" ", "_").replace("_poses", "_stageii"),
            poses=np.concatenate([poses[:, :66], np.zeros((len(poses), 9)), poses[:, 66:]], axis=1),
            mocap_frame_rate=content.pop("mocap_framerate"),
            gender=np.array(b"neutral"),
            surface_model_type=np.array("smplx"),
            **{name: content[name] for name in ("trans", "betas")},
        )
        path.unlink()


def test_the_smplx_release_gives_the_same_bodies_flagged(own: Path) -> None:
    def spaced(folder: Path) -> None:  # as ACCAD's names are
        for path in sorted(folder.glob("ACCAD/*/*_poses.npz")):
            path.rename(path.with_name(path.name.replace("_", " ", 1)))
        path = next((own / "posescript" / "posescript_release").glob("ids_2_*.json"))
        places = json.loads(path.read_text())
        for place in places.values():
            if place[1].startswith("ACCAD"):
                folder_of, _, name = place[1].rpartition("/")
                place[1] = f"{folder_of}/{name.replace('_', ' ', 1)}"
        path.write_text(json.dumps(places))

    spaced(own / "amass")
    before = {r.key: r for r in read_all(reader(own), "train")[0]}
    as_smplx(own / "amass")
    assert not list(own.glob("amass/*/*/*_poses.npz")) and reader(own).inventory()[-1].name.endswith("_stageii.npz")
    records, defects = read_all(reader(own), "train")
    assert {r.key for r in records} == set(before) and not defects
    for record in records:
        other = before[record.key]
        assert record.smpl.body_model == "smplx" and "amass_smplx" in record.flags
        assert other.smpl.body_model == "smplh" and "amass_smplx" not in other.flags
        np.testing.assert_array_equal(record.smpl.body_pose, other.smpl.body_pose)
        np.testing.assert_array_equal(record.smpl.global_orient, other.smpl.global_orient)


def test_of_both_releases_the_one_that_posescript_was_made_on_is_taken(own: Path) -> None:
    path = next((own / "amass").glob("CMU/*/*_poses.npz"))
    np.savez(path.with_name(path.name.replace("_poses", "_stageii")), poses=np.zeros((40, 165)))
    assert find_amass(own / "amass", "/".join(path.parts[-3:])) == path


@pytest.mark.parametrize("poses", [np.zeros((40, 72)), np.zeros(156), np.zeros((40, 156), int), np.zeros((4, 52, 3))])
def test_poses_of_no_release_are_defects(own: Path, poses: np.ndarray) -> None:
    release = reader(own)
    unit = release.units("train")[0]
    np.savez(find_amass(own / "amass", unit.payload[0]), poses=poses)
    assert all("SMPL+H G" in row.detail for row in release.read(unit, "train"))


def test_rates_genders_and_shape_files_do_not_matter(own: Path) -> None:
    before = read_all(reader(own), "val")[0]
    for i, path in enumerate(sorted((own / "amass").glob("*/*/*_poses.npz"))):
        content = dict(np.load(path))
        np.savez(
            path, **content | {"gender": np.array((b"male", "neutral")[i % 2]), "mocap_framerate": np.array(250.0)}
        )
    assert any((own / "amass").rglob("shape.npz"))
    assert read_all(reader(own), "val")[0] == before


def test_missing_subsets_are_counted_pose_by_pose(own: Path) -> None:
    total = sum(unit.expected for unit in reader(own).units("train"))
    shutil.rmtree(own / "amass" / "KIT")
    records, defects = read_all(reader(own), "train")
    assert len(records) + len(defects) == total and {d.reason for d in defects} == {"missing AMASS file"}
    assert {d.detail.split("/")[0] for d in defects} == {"KIT"}


def test_files_of_both_versions_are_not_mixed(own: Path) -> None:
    """Pose 5 of the first version is another pose than pose 5 of the second."""
    before = read_all(reader(own), "test")[0]
    release = own / "posescript" / "posescript_release"
    for name in ("human6293.json", "automatic_A.json", "test_ids.json"):
        (release / name).write_text("[]" if "ids" in name else "{}")
    assert read_all(reader(own), "test")[0] == before
    next(release.glob("posescript_auto_*.json")).unlink()
    with pytest.raises(PoseRftError, match=r"no posescript_auto_\*\.json"):
        reader(own).units("test")


@pytest.mark.parametrize(
    ("pattern", "content", "match"),
    [
        ("posescript_human_*.json", {"5": 7}, "no list of captions"),
        ("posescript_human_*.json", {"five": ["a"]}, "no list of captions"),
        ("posescript_auto_*.json", {"5": [["a"]]}, "is no text"),
        ("train_ids_*.json", ["a"], "no pose id"),
        ("train_ids_*.json", [None], "no pose id"),
        ("ids_2_*.json", {}, "expected .AMASS, file, frame."),
        ("ids_2_*.json", "short", "expected .AMASS, file, frame."),
    ],
)
def test_what_is_not_posescript_is_one_sentence(own: Path, pattern: str, content, match: str) -> None:
    path = next((own / "posescript" / "posescript_release").glob(pattern))
    if content == "short":
        content = {number: place[:2] for number, place in json.loads(path.read_text()).items()}
    path.write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match=match):
        reader(own).units("train")


def test_a_missing_file_of_the_release_is_one_sentence(own: Path) -> None:
    next((own / "posescript" / "posescript_release").glob("train_ids_*.json")).unlink()
    with pytest.raises(PoseRftError, match=r"no train_ids_\*\.json"):
        reader(own).units("train")
