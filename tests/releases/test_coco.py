import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from release_truth import read_all
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import COCO17
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.errors import PoseRftError
from pose_rft.record import Record
from pose_rft.releases.cameras import project
from pose_rft.releases.coco import Coco, CocoParams
from pose_rft.releases.eft import orthonormal, read_eft
from pose_rft.sample import write_coco
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import PictureSample, SampleParams

PARAMS = SampleParams.model_construct(coco=PictureSample(size=96, train=16, val=3), two_people=0.5)
REAL = Path(__file__).parents[2].parent / "shared" / "real" / "coco"


def reader(root: Path, **params) -> Coco:
    fits = tuple({"source": "eft", "path": f"eft/{name}"} for name in write_coco.EFT_FILES.values())
    return Coco(root, CocoParams(**{"fits": fits, "body_joints": 6, **params}), Path("unused"), 92)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, standin_folder: Path):
    root, studio = tmp_path_factory.mktemp("releases"), Studio(standin_folder)
    crowd, write_coco.CROWD = write_coco.CROWD, 0.5
    unlabelled, write_coco.UNLABELLED = write_coco.UNLABELLED, 0.4
    results = [write_coco.render(task, PARAMS, 0, studio, root) for task in write_coco.tasks(PARAMS, 0)]
    write_coco.finish(PARAMS, 0, results, root)
    write_coco.CROWD, write_coco.UNLABELLED = crowd, unlabelled
    return root, [picture for result in results for picture in result]


@pytest.fixture
def own(written, tmp_path: Path) -> Coco:
    """A release that the test may damage."""
    shutil.copytree(written[0] / "coco", tmp_path / "coco")
    return reader(tmp_path)


def annotations(root: Path) -> dict:
    return json.loads((root / "coco" / "annotations" / "person_keypoints_train2017.json").read_text())


def test_every_labelled_person_comes_back_and_no_crowd(written) -> None:
    records, defects = read_all(reader(written[0]), "train")
    rows = {str(row["id"]): row for row in annotations(written[0])["annotations"]}
    assert any(row["iscrowd"] for row in rows.values()) and not defects
    expected = {
        number
        for number, row in rows.items()
        if not row["iscrowd"] and (np.array(row["keypoints"])[2::3][5:] > 0).sum() >= 6
    }
    assert {record.subject for record in records} == expected
    for record in records:
        truth = np.array(rows[record.subject]["keypoints"], float).reshape(17, 3)
        labelled = truth[:, 2] > 0
        np.testing.assert_array_equal(record.joints2d.points[:, 2], labelled)
        np.testing.assert_allclose(record.joints2d.points[labelled, :2], truth[labelled, :2], atol=1e-4)
        x, y, w, h = rows[record.subject]["bbox"]
        assert record.box.center == pytest.approx((x + w / 2, y + h / 2))
        assert record.box.side == pytest.approx(1.2 * max(w, h), rel=1e-4)


def test_twelve_joints_is_the_stricter_rule(written) -> None:
    loose, strict = (read_all(reader(written[0], body_joints=n), "train")[0] for n in (6, 12))
    assert 0 < len(strict) < len(loose)
    assert all((record.joints2d.points[5:, 2] == 1).all() for record in strict)


def test_fits_project_onto_the_annotated_joints(written, standin_folder: Path) -> None:
    body = NumpyBody(standin_folder)
    limbs = [name for name in COCO17.joints if name.split("_")[-1] in ("knee", "elbow", "shoulder", "hip", "wrist")]
    errors = []
    for record in read_all(reader(written[0]), "train")[0]:
        smpl = record.smpl
        rotations = Rotation.from_rotvec(np.concatenate([smpl.global_orient[None], smpl.body_pose])).as_matrix()
        vertices, joints = body.vertices(rotations, smpl.betas, smpl.transl)
        found = project(body.keypoints(vertices, joints, COCO17), record.camera)[COCO17.indices(limbs)]
        points = record.joints2d.points[COCO17.indices(limbs)]
        distance = np.linalg.norm(found - points[:, :2], axis=1)[points[:, 2] > 0]
        errors.append(np.median(distance) / record.box.side)
    assert np.median(errors) < 0.03 and max(errors) < 0.12  # what is left is the weak perspective


def test_fits_are_joined_by_annotation_id_whatever_their_order(own: Coco) -> None:
    path = own.root / "eft" / write_coco.EFT_FILES["train"]
    content = json.loads(path.read_text())
    before = {r.key: r for r in read_all(own, "train")[0]}
    content["data"].reverse()
    content["data"].pop()
    path.write_text(json.dumps(content))
    after = {r.key: r for r in read_all(own, "train")[0]}
    assert before.keys() == after.keys()
    changed = [key for key in before if before[key] != after[key]]
    assert len(changed) == 1 and after[changed[0]].smpl is None and after[changed[0]].joints2d is not None


def test_image_bytes_pass_through(written) -> None:
    for record in read_all(reader(written[0]), "val")[0]:
        path = written[0] / "coco" / "val2017" / f"{record.sequence}.jpg"
        assert record.image.data == path.read_bytes()


def test_the_layout_of_2014_is_read(own: Coco) -> None:
    (own.root / "annotations" / "person_keypoints_train2017.json").rename(
        own.root / "annotations" / "person_keypoints_train2014.json"
    )
    (own.root / "train2017").rename(own.root / "train2014")
    assert read_all(reader(own.root.parent, year=2014), "train")[0]


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff broken", None, "half"])
def test_a_bad_picture_makes_one_defect_per_person(own: Coco, content) -> None:
    unit = max(own.units("train"), key=lambda unit: unit.expected)
    path = own.root / "train2017" / unit.payload[1]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    rows = list(own.read(unit, "train"))
    assert len(rows) == unit.expected and not any(isinstance(row, Record) for row in rows)
    assert all("image" in row.reason and path.name in row.detail for row in rows)


def test_a_file_that_is_not_coco_is_one_sentence(own: Coco) -> None:
    path = own.root / "annotations" / "person_keypoints_train2017.json"
    path.write_text('{"images": []}')
    with pytest.raises(PoseRftError, match=r"person_keypoints_train2017\.json is not a COCO keypoint file"):
        own.units("train")
    path.unlink()
    with pytest.raises(PoseRftError, match=r"cocodataset\.org"):
        own.units("train")


def test_rle_counts_every_pixel_of_the_crowd(written) -> None:
    for row in annotations(written[0])["annotations"]:
        if row["iscrowd"]:
            counts, (height, width) = row["segmentation"]["counts"], row["segmentation"]["size"]
            assert sum(counts) == height * width and sum(counts[1::2]) == row["area"]
            mask = np.repeat(np.arange(len(counts)) % 2, counts).reshape(width, height).T
            x, y, w, h = map(int, row["bbox"])
            assert mask[y : y + h, x : x + w].all()


def test_rounded_matrices_become_rotations() -> None:
    exact = Rotation.random(24, rng=np.random.default_rng(0)).as_matrix()
    found = orthonormal(np.round(exact, 2))
    np.testing.assert_allclose(found @ np.swapaxes(found, 1, 2), np.broadcast_to(np.eye(3), (24, 3, 3)), atol=1e-12)
    assert np.abs(found - exact).max() < 0.02 and (np.linalg.det(found) > 0).all()


def test_an_eft_row_without_a_rotation_is_named(own: Coco) -> None:
    path = own.root / "eft" / write_coco.EFT_FILES["train"]
    content = json.loads(path.read_text())
    content["data"][2]["parm_pose"] = np.ones((24, 3, 3)).tolist()
    path.write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match="row 2"):
        read_eft(path)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real/coco is not here")
def test_real_photographs_give_their_people() -> None:
    release = Coco(REAL.parent, CocoParams(root="coco", splits=("val",), body_joints=0), Path("unused"), 92)
    records, defects = read_all(release, "val")
    assert len(release.units("val")) == 4 and len(records) == 12 and not defects  # 14 persons, two without a joint
    for record in records:
        assert record.smpl is None and record.joints2d.points[:, 2].sum() > 0
        assert 0 <= record.box.center[0] <= record.image.width
