import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ImageColor
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import project
from pose_rft.body.joints import COCO17
from pose_rft.body.lbs_numpy import NumpyBody
from pose_rft.datasets.coco.reader import POSETRACK18, Coco, CocoParams, read_persons
from pose_rft.datasets.fits.eft import orthonormal, read_eft
from pose_rft.datasets.registry import DataParams
from pose_rft.errors import PoseRftError
from pose_rft.policy.person_crops import Square, crop
from pose_rft.record import Record
from pose_rft.sample import write_coco
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import PictureSample, SampleParams
from pose_rft.shards.convert import convert_release
from pose_rft.shards.loader import ShardSet
from pose_rft.shards.plan import ShardParams
from pose_rft.shards.show import LEFT, MIDDLE, RIGHT, draw
from pose_rft.shards.verify import verify
from tests.support.beside import beside
from tests.support.release_truth import read_all

CASES = beside("cases/labels")

PARAMS = SampleParams.model_construct(coco=PictureSample(size=96, train=16, val=3), two_people=0.5, varied=0.0)
REAL = beside("real/coco")


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
    """Its files are called COCO_train2014_%012d.jpg."""
    before, _ = read_all(own, "train")
    content = annotations(own.root.parent)
    (own.root / "train2017").rename(own.root / "train2014")
    for image in content["images"]:
        name = f"COCO_train2014_{image['file_name']}"
        (own.root / "train2014" / image["file_name"]).rename(own.root / "train2014" / name)
        image["file_name"] = name
    (own.root / "annotations" / "person_keypoints_train2014.json").write_text(json.dumps(content))
    (own.root / "annotations" / "person_keypoints_train2017.json").unlink()
    assert read_all(reader(own.root.parent, year=2014), "train") == (before, [])
    with pytest.raises(PoseRftError, match=r"person_keypoints_train2017\.json does not exist"):
        own.units("train")


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
    fits = read_eft(path)
    assert [fit.problem is None for fit in fits].count(False) == 1
    assert re.search(r"row 2: ValueError, a pose matrix is not a rotation", fits[2].problem)


def test_a_crowd_is_left_out_even_if_it_has_keypoints(own: Coco) -> None:
    path = own.root / "annotations" / "person_keypoints_train2017.json"
    content = annotations(own.root.parent)
    kept = {unit.key: unit.expected for unit in own.units("train")}
    person = next(row for row in content["annotations"] if f"{row['image_id']:012d}" in kept and not row["iscrowd"])
    crowd = {**person, "iscrowd": 1, "id": 900_100_000_001, "segmentation": {"counts": [0, 4], "size": [2, 2]}}
    content["annotations"].append(crowd)
    path.write_text(json.dumps(content))
    assert {unit.key: unit.expected for unit in own.units("train")} == kept


def stripes(mode: str, **options) -> bytes:
    """A JPEG of 96 x 64 px: left half red (dark where there is no colour), right half white."""
    pixels = np.full((64, 96, 3), 255, np.uint8)
    pixels[:, :48] = (200, 20, 20)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def turned() -> bytes:
    """Stored upright, with an EXIF tag that asks viewers to turn it: annotations count stored pixels."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return stripes("RGB", exif=exif)


@pytest.mark.parametrize(
    ("data", "left"),
    [(stripes("L"), (74, 74, 74)), (stripes("CMYK"), (200, 20, 20)), (turned(), (200, 20, 20))],
    ids=["grayscale", "cmyk", "exif"],
)
def test_unusual_jpegs_pass_through_and_are_cropped_where_the_annotations_are(own: Coco, data: bytes, left) -> None:
    unit = own.units("train")[0]
    content = annotations(own.root.parent)
    image = next(image for image in content["images"] if image["id"] == unit.payload[0])
    image["width"], image["height"] = 96, 64
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    (own.root / "train2017" / image["file_name"]).write_bytes(data)
    for record in own.read(own.units("train")[0], "train"):
        assert record.image.data == data and (record.image.width, record.image.height) == (96, 64)
        pixels = crop(record.image.data, Square.around(None, (96, 64), 1.0), 96)
        np.testing.assert_allclose(pixels[48, 24], left, atol=12)
        np.testing.assert_allclose(pixels[48, 72], (255, 255, 255), atol=12)


def test_a_picture_of_another_size_than_declared_is_a_defect(own: Coco) -> None:
    unit = own.units("train")[0]
    assert unit.payload[2] != (96, 64)
    (own.root / "train2017" / unit.payload[1]).write_bytes(stripes("RGB"))
    assert {row.reason for row in own.read(unit, "train")} == {"image size"}


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "a/../../secret.jpg", ""])
def test_a_name_that_leads_elsewhere_is_a_defect(own: Coco, name: str) -> None:
    (own.root / "secret.jpg").write_bytes(stripes("RGB"))
    content = annotations(own.root.parent)
    for image in content["images"]:
        image["file_name"] = name
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    assert {row.reason for unit in own.units("train") for row in own.read(unit, "train")} == {"unsafe name"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"keypoints": None},
        {"keypoints": [1.0] * 50},
        {"keypoints": ["a"] * 51},
        {"bbox": [1, 2, 3]},
        {"bbox": None},
        {"id": "x"},
        {"image_id": None},
    ],
)
def test_an_annotation_that_is_none_is_named(own: Coco, wrong: dict) -> None:
    content = annotations(own.root.parent)
    content["annotations"][2] |= wrong
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match=r"not a COCO keypoint file \(annotation 2"):
        own.units("train")


def test_the_file_of_instances_is_no_keypoint_file(own: Coco) -> None:
    """instances_train2017.json has the same form without keypoints."""
    content = annotations(own.root.parent)
    for row in content["annotations"]:
        del row["keypoints"], row["num_keypoints"]
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    with pytest.raises(PoseRftError, match="keypoints"):
        own.units("train")


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the releases' licences keep real files out of a clone")


@needs_real
def test_the_real_subset_converts_and_verifies(tmp_path: Path) -> None:
    data = DataParams(source="releases", root=REAL.parent, body_model=tmp_path / "none")
    options = ShardParams(samples_per_shard=5, executor="serial", workers=1, jpeg_quality=92)
    datasets = {"coco": {"splits": ["train"], "body_joints": 0}}  # a split need not be listed to be converted
    summary = convert_release("coco", "val", tmp_path / "val", data, datasets, options)
    assert summary.metrics["samples"] == 12 and summary.metrics["defects"] == 0
    assert not verify(tmp_path / "val").problems
    shard_set = ShardSet(tmp_path / "val")
    stored = {path.read_bytes() for path in (REAL / "val2017").glob("*.jpg")}
    for row in range(12):
        record = shard_set.record(row)
        assert record.image.data in stored
        drawn = draw(record)
        scale = drawn.width / record.image.width
        assert drawn.height > record.image.height * scale  # text below
        x, y = record.joints2d.points[record.joints2d.points[:, 2] > 0][-1, :2] * scale
        assert drawn.getpixel((round(x), round(y))) in {ImageColor.getrgb(colour) for colour in (LEFT, RIGHT, MIDDLE)}


@needs_real
def test_real_photographs_give_their_people() -> None:
    release = Coco(REAL.parent, CocoParams(root="coco", splits=("val",), body_joints=0), Path("unused"), 92)
    records, defects = read_all(release, "val")
    assert len(release.units("val")) == 4 and len(records) == 12 and not defects  # 14 persons, two without a joint
    for record in records:
        assert record.smpl is None and record.joints2d.points[:, 2].sum() > 0
        assert 0 <= record.box.center[0] <= record.image.width


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"bbox": [-90.0, 2.0, 20.0, 20.0]}, "box outside the picture"),  # A7
        ({"bbox": [2.0, 900.0, 20.0, 20.0]}, "box outside the picture"),
        ({"bbox": [float("nan"), 2.0, 20.0, 20.0]}, "box outside the picture"),
        ({"bbox": [2.0, 2.0, float("nan"), 20.0]}, "empty box"),
        ({"keypoints": [float("nan")] * 51}, "broken keypoints"),
    ],
)
def test_a_person_whose_numbers_cannot_be_is_a_defect(own: Coco, wrong: dict, reason: str) -> None:
    content = annotations(own.root.parent)
    before, _ = read_all(own, "train")
    row = next(row for row in content["annotations"] if str(row["id"]) == before[0].subject)
    row |= wrong
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    records, (defect,) = read_all(own, "train")
    assert len(records) == len(before) - 1
    assert (defect.row, defect.reason) == (before[0].subject, reason)


def test_the_pictures_that_are_read_are_watched_whatever_they_are_called(own: Coco) -> None:  # A5
    content = annotations(own.root.parent)
    folder = own.root / "train2017"
    for picture, new in zip(content["images"], ("deep/er/a.JPG", "b.jpeg", "c.JPG"), strict=False):
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / picture["file_name"]).rename(folder / new)
        picture["file_name"] = new
    (folder / "._b.jpeg").write_bytes(b"macOS")  # C8
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    assert read_all(own, "train")[0] and not read_all(own, "train")[1]
    watched = {str(path.relative_to(folder)) for path in own.inventory() if folder in path.parents}
    assert {"deep/er/a.JPG", "b.jpeg", "c.JPG"} <= watched and "._b.jpeg" not in watched


def test_a_missing_picture_is_told_with_its_folder(own: Coco) -> None:  # C11
    next((own.root / "train2017").glob("*.jpg")).unlink()
    _, defects = read_all(own, "train")
    assert defects and all(f"{own.root}/train2017/" in defect.detail for defect in defects)


H36M_NAMES = [
    *("root (pelvis)", "left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot", "spine"),
    *("thorax", "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow"),
    "right_wrist",
]


def test_joints_of_another_set_are_told_apart_by_their_names(own: Coco) -> None:  # A10
    path = own.root / "annotations" / "person_keypoints_train2017.json"
    content = annotations(own.root.parent)
    before = {row.id: row.points for row in read_persons(path)[1]}
    theirs = POSETRACK18.split()
    for row in content["annotations"]:
        points = dict(zip(COCO17.joints, np.reshape(row["keypoints"], (17, 3)).tolist(), strict=True))
        row["keypoints"] = [number for joint in theirs for number in points.get(joint, [7.0, 7.0, 2.0])]
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "person", "keypoints": theirs}]}))
    eyes = COCO17.indices(["left_eye", "right_eye"])
    for row in read_persons(path)[1]:
        assert (row.points[eyes] == 0).all()
        others = np.delete(np.arange(17), eyes)
        np.testing.assert_array_equal(row.points[others], before[row.id][others])
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "person", "keypoints": H36M_NAMES}]}))
    with pytest.raises(PoseRftError, match=r"train2017\.json has people of 17 joints \(root .*those of Human3\.6M"):
        own.units("train")


@pytest.mark.parametrize(
    ("name", "sentence"), [("h36m_coco.json", "those of Human3.6M"), ("test_posetrack18_val.json", None)]
)
@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the project")
def test_published_files_of_other_sets_are_refused_or_read(name: str, sentence: str | None) -> None:  # A10
    if sentence is None:
        assert len(read_persons(CASES / name)[1]) > 0
        return
    with pytest.raises(PoseRftError, match=sentence):
        read_persons(CASES / name)


@pytest.mark.parametrize(  # C15
    ("joints", "kind"), [(14, "CrowdPose or AI Challenger"), (26, "Halpe"), (136, "Halpe"), (133, "COCO-WholeBody")]
)
def test_files_with_another_number_of_joints_are_refused_by_their_name(own: Coco, joints: int, kind: str) -> None:
    content = annotations(own.root.parent)
    for row in content["annotations"]:
        row["keypoints"] = [1.0] * (3 * joints)
    path = own.root / "annotations" / "person_keypoints_train2017.json"
    for categories in ([], [{"id": 1, "keypoints": [f"joint{i}" for i in range(joints)]}]):
        path.write_text(json.dumps(content | {"categories": categories}))
        with pytest.raises(PoseRftError, match=f"people of {joints} joints.*, those of {kind}"):
            own.units("train")


def test_a_file_name_that_is_no_unicode_is_a_defect_and_the_conversion_goes_on(own: Coco) -> None:  # B3
    content = annotations(own.root.parent)
    before, _ = read_all(own, "train")
    content["images"][0]["file_name"] = "\ud83d.jpg"
    (own.root / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    records, defects = read_all(own, "train")
    assert defects and len(records) + len(defects) == len(before)
    assert {defect.reason for defect in defects} == {"unsafe name"} and all(d.detail.isascii() for d in defects)
    own.inventory()
