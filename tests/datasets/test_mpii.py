import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from pose_rft.body.cameras import project
from pose_rft.body.joints import MPII16
from pose_rft.datasets.mpii.labels import Person, read_h5_labels, read_json_labels, read_mat_labels
from pose_rft.datasets.mpii.reader import Mpii, MpiiParams
from pose_rft.errors import PoseRftError
from pose_rft.sample import write_mpii
from pose_rft.sample.matlab_files import struct_array, write_v5
from pose_rft.sample.plan import PictureSample, SampleParams
from tests.support.beside import beside
from tests.support.flat_studio import FlatStudio
from tests.support.release_truth import body_angle, read_all

PARAMS = SampleParams.model_construct(mpii=PictureSample(size=64, train=12, val=0), two_people=0.5, varied=0.0)


def reader(root: Path, body_models: Path, **params) -> Mpii:
    return Mpii(root, MpiiParams(**{"fits": [{"source": "eft", "path": write_mpii.FITS}], **params}), body_models, 92)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path):
    root, studio = tmp_path_factory.mktemp("releases"), FlatStudio(body_models)
    results = [write_mpii.render(task, PARAMS, 0, studio, root) for task in write_mpii.tasks(PARAMS, 0)]
    write_mpii.finish(PARAMS, 0, results, root)
    return root, studio, [picture for result in results for picture in result]


@pytest.fixture
def own(miniature, body_models, tmp_path: Path) -> Mpii:
    """A release that the test may damage."""
    shutil.copytree(miniature[0] / "mpii", tmp_path / "mpii")
    return reader(tmp_path, body_models)


def test_joints_come_back_from_matlabs_pixels(miniature, body_models: Path) -> None:
    records, defects = read_all(reader(miniature[0], body_models), "train")
    truth = {
        (picture.name[:-4], str(i)): person
        for picture in miniature[2]
        if picture.is_train
        for i, person in enumerate(picture.people)
    }
    assert not defects and len(records) == len(truth) > 12
    for record in records:
        person = truth[record.sequence, record.subject.split("-")[1]]
        labelled = person.joints[:, 2] >= 0
        np.testing.assert_array_equal(record.joints2d.points[:, 2], labelled)
        np.testing.assert_allclose(record.joints2d.points[labelled, :2], person.joints[labelled, :2], atol=1e-4)
        assert (record.joints2d.points[~labelled] == 0).all()


def test_bodies_equal_the_people_who_were_placed(miniature, body_models: Path) -> None:
    records, _ = read_all(reader(miniature[0], body_models), "train")
    studio = miniature[1]
    fitted = [record for record in records if record.smpl is not None]
    assert len(fitted) > 0.7 * len(records)
    for record in fitted:
        nearest = min(studio.people, key=lambda person: body_angle(record, person))
        assert body_angle(record, nearest) < 1e-3 and record.smpl.source == "eft"
        # The weak camera puts the body where the labels are: closer than a tenth of the box.
        body = studio.body("neutral")
        rotations = np.concatenate([_matrix(record.smpl.global_orient)[None], nearest.rotations[1:]])
        points = body.keypoints(*body.vertices(rotations, record.smpl.betas, record.smpl.transl), MPII16)
        labelled = record.joints2d.points[:, 2] > 0
        apart = np.linalg.norm(project(points, record.camera) - record.joints2d.points[:, :2], axis=1)[labelled]
        assert np.median(apart) < 0.1 * record.box.side


def _matrix(vector: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def test_test_pictures_and_people_without_joints_are_left_out(miniature, body_models: Path) -> None:
    units = reader(miniature[0], body_models).units("train")
    withheld = {picture.name[:-4] for picture in miniature[2] if not picture.is_train}
    assert len(withheld) == 3 and not withheld & {unit.key for unit in units}


def variants(path: Path, rows: list[np.ndarray]) -> None:
    """An annotation file with one training picture per row of people."""
    pictures = [{"image": struct_array([{"name": f"{i:09d}.jpg"}]), "annorect": row} for i, row in enumerate(rows)]
    release = {"annolist": struct_array(pictures), "img_train": np.ones((1, len(rows)))}
    write_v5(path, {"RELEASE": struct_array([release])})


def test_every_missing_field_is_borne(tmp_path: Path) -> None:
    empty = np.zeros((0, 0))
    objpos = struct_array([{"x": 11.0, "y": 21.0}])

    def points(**more) -> np.ndarray:
        return struct_array([{"point": struct_array([{"x": 5.0, "y": 7.0, "id": 9.0, **more}])}])

    rows = [
        empty,  # nobody
        struct_array([{"scale": 1.0, "objpos": objpos}]),  # no annopoints at all
        struct_array([{"scale": 1.0, "objpos": objpos, "annopoints": empty}]),
        struct_array([{"scale": 1.0, "objpos": objpos, "annopoints": struct_array([{"point": empty}])}]),
        struct_array([{"annopoints": points()}]),  # neither scale nor objpos
        struct_array([{"scale": empty, "objpos": empty, "annopoints": points(is_visible="1")}]),
        struct_array([{"scale": 0.5, "objpos": objpos, "annopoints": points(is_visible=empty)}]),
        struct_array([{"scale": 0.5, "objpos": objpos, "annopoints": points(is_visible=np.uint8(0))}]),
    ]
    variants(tmp_path / "m.mat", rows)
    found = read_mat_labels(tmp_path / "m.mat")
    assert list(found) == [f"{i:09d}.jpg" for i in (4, 5, 6, 7)]
    for name, (person,) in found.items():
        assert person.joints[9].tolist() == [4.0, 6.0, 1.0] and person.joints[:, 2].sum() == 1
        if name < "000000006":
            assert person.box.convention == "joints2d x1.2"
        else:
            # objpos minus one pixel, 15 px per scale below; 1.25 times 200 px per scale
            assert person.box.center == (10.0, 27.5) and person.box.side == 125.0


def test_fits_go_to_the_nearest_person_and_never_twice(miniature, body_models: Path) -> None:
    from pose_rft.datasets.fits.eft import read_eft
    from pose_rft.datasets.fits.still_fits import nearest_pairs

    (fit, *_) = read_eft(miniature[0] / "mpii" / write_mpii.FITS)
    x, y = fit.center

    def person(index: int, dx: float) -> tuple[float, float]:
        return (x + dx, y)

    left, right = person(0, -0.2 * fit.side), person(1, 0.1 * fit.side)
    assert nearest_pairs([left, right], [fit]) == {1: 0}
    assert nearest_pairs([left], [fit]) == {0: 0}
    assert nearest_pairs([person(0, fit.side)], [fit]) == {}
    assert nearest_pairs([left, right], [fit, fit]) == {1: 0, 0: 1}


def test_row_order_of_the_fits_does_not_matter(own: Mpii) -> None:
    before, _ = read_all(own, "train")
    path = own.root / write_mpii.FITS
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "data": content["data"][::-1]}))
    assert read_all(own, "train")[0] == before


def test_a_bad_picture_is_a_defect_of_each_person_in_it(own: Mpii) -> None:
    unit = max(own.units("train"), key=lambda unit: unit.expected)
    (own.root / "images" / unit.payload[0]).write_bytes(b"\xff\xd8\xff\xe0 cut off")
    _, defects = read_all(own, "train")
    assert len(defects) == unit.expected == 2 and {d.reason for d in defects} == {"damaged image"}


def test_the_annotation_file_is_found_in_any_folder(own: Mpii) -> None:
    before = [unit.key for unit in own.units("train")]
    (own.root / write_mpii.FOLDER).rename(own.root / "annotations")
    assert [unit.key for unit in own.units("train")] == before
    shutil.rmtree(own.root / "annotations")
    with pytest.raises(PoseRftError, match=r"mpii_human_pose_v1_u12_1\.mat does not exist"):
        own.units("train")


def test_a_foreign_mat_file_is_named(own: Mpii) -> None:
    (path,) = own.root.glob("**/*.mat")
    write_v5(path, {"other": np.zeros((2, 2))})
    with pytest.raises(PoseRftError, match="no RELEASE"):
        own.units("train")


def write_h5(path: Path, people: list[tuple[str, Person]], codes: bool = False) -> None:
    """As pose-hg-train: whole pixels from 1, 0 where no label is, the box of its crop; names as bytes or codes."""
    path.parent.mkdir(exist_ok=True)
    names = np.array([name for name, _ in people], "S13")
    parts = np.array([np.where(p.joints[:, 2:] > 0, np.floor(p.joints[:, :2] + 1), 0) for _, p in people])
    with h5py.File(path, "w") as file:
        file["imgname"] = np.array([list(name.ljust(16, b"\0")) for name in names], float) if codes else names
        file["center"] = np.array([np.add(person.box.center, 1) for _, person in people])
        file["scale"] = np.array([person.box.side / 200 for _, person in people])
        file["part"], file["visible"] = parts, np.ones((len(people), 16))
        file["person"] = file["index"] = np.zeros(len(people))


def write_json(path: Path, people: list[tuple[str, Person]]) -> None:
    """As HRNet: the numbers of the MAT file, -1 where there is no label."""
    path.parent.mkdir(exist_ok=True)
    rows = []
    for name, person in people:
        scale, (x, y) = person.box.side / 250, person.box.center
        joints = np.where(person.joints[:, 2:] > 0, person.joints[:, :2] + 1, -1)
        rows.append(
            {
                "joints_vis": person.joints[:, 2].astype(int).tolist(),
                "joints": joints.tolist(),
                "image": name,
                "scale": scale,
                "center": [x + 1, y + 1 - 15 * scale],
            }
        )
    path.write_text(json.dumps(rows))


def people_of(release: Mpii) -> list[tuple[str, Person]]:
    (path,) = release.root.glob("**/*.mat")
    return [(name, person) for name, people in read_mat_labels(path).items() for person in people]


@pytest.mark.parametrize("labels", ["annot/{split}.h5", "annot/{split}.json"])
def test_label_files_of_others_give_the_same_people_in_two_splits(own: Mpii, labels: str) -> None:
    before = {(r.sequence, r.subject): r for r in read_all(own, "train")[0]}
    people = people_of(own)
    half = next(i for i in range(len(people) // 2, len(people)) if people[i][0] != people[i - 1][0])
    writer = write_h5 if labels.endswith("h5") else write_json
    for split, part in (("train", people[:half]), ("valid", people[half:])):
        writer(own.root / labels.format(split=split), part)
    release = Mpii(own.root.parent, MpiiParams(labels=labels, splits=("train", "val")), Path("unused"), 92)
    records = {split: read_all(release, split)[0] for split in ("train", "val")}
    assert [len(records["train"]), len(records["val"])] == [half, len(people) - half]
    for record in [*records["train"], *records["val"]]:
        other = before[record.sequence, record.subject]
        np.testing.assert_array_equal(record.joints2d.points[:, 2], other.joints2d.points[:, 2])
        # pose-hg-train cut coordinates to whole pixels
        np.testing.assert_allclose(record.joints2d.points, other.joints2d.points, atol=1.0 if "h5" in labels else 1e-3)
        assert record.image == other.image and labels in dict(record.provenance)["joints2d"]
        if "scale" in other.box.convention:
            assert record.box.center == pytest.approx(other.box.center, abs=2e-3)
            assert record.box.side == pytest.approx(other.box.side, abs=2e-3)
    assert {path.suffix for path in release.inventory()} == {".jpg", Path(labels).suffix}


def write_pytorch_pose(path: Path, split: str, people: list[tuple[str, Person]]) -> None:
    """As pytorch-pose: the numbers of the MAT file as floats, training and validation in one file."""
    rows = json.loads(path.read_text()) if path.exists() else []
    for number, (image, person) in enumerate(people):
        joints = np.where(person.joints[:, 2:] > 0, person.joints[:, :2] + 1, 0)
        scale = person.box.side / 1.25 / 200
        rows.append(
            {
                "dataset": "MPI",
                "isValidation": float(split == "valid"),
                "img_paths": image,
                "img_width": 112.0,
                "img_height": 112.0,
                "objpos": [person.box.center[0] + 1, person.box.center[1] + 1 - 15 * scale],
                "joint_self": np.hstack([joints, joints[:, :1] > 0]).tolist(),
                "scale_provided": scale,
                "joint_others": [[0.0, 0.0, 0.0]] * 16,
                "annolist_index": 1.0,
                "people_index": float(number + 1),
                "numOtherPeople": 1.0,
            }
        )
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows))


def test_one_file_of_pytorch_pose_gives_both_splits(own: Mpii) -> None:  # F
    everybody = [(image, person) for image, people in own._people("train").items() for person in people]
    half = len(everybody) // 2
    path = own.root / "annot/mpii_annotations.json"
    write_pytorch_pose(path, "train", everybody[:half])
    write_pytorch_pose(path, "valid", everybody[half:])
    release = Mpii(own.root.parent, MpiiParams(labels="annot/mpii_annotations.json"), Path("unused"), 92)
    for split, people in (("train", everybody[:half]), ("val", everybody[half:])):
        read = [(image, person) for image, found in release._people(split).items() for person in found]
        assert len(read) == len(people)
        for image, person in people:
            boxes = [np.hypot(*np.subtract(p.box.center, person.box.center)) for name, p in read if name == image]
            same = [p for name, p in read if name == image][int(np.argmin(boxes))]
            np.testing.assert_allclose(same.joints, person.joints, atol=1e-3)
            assert same.box.side == pytest.approx(person.box.side, abs=0.01)
    assert path in release.inventory()


CASE = beside("cases/labels/mpii_pytorch_pose_valid.json")


@pytest.mark.skipif(not CASE.exists(), reason="the cases are not beside the project")
def test_the_case_of_pytorch_pose_is_read() -> None:  # F
    assert read_json_labels(CASE) == {}
    ((name, (person,)),) = read_json_labels(CASE, "val").items()
    assert name == "005808361.jpg" and person.joints[:, 2].all()
    np.testing.assert_allclose(person.joints[0], [803, 710, 1])
    assert person.box.side == pytest.approx(4.718 * 200 * 1.25)


def test_names_as_rows_of_character_codes_are_read(own: Mpii, tmp_path: Path) -> None:
    people = people_of(own)
    write_h5(tmp_path / "text.h5", people)
    write_h5(tmp_path / "codes.h5", people, codes=True)
    assert list(read_h5_labels(tmp_path / "codes.h5")) == list(read_h5_labels(tmp_path / "text.h5"))


def test_both_derived_files_mean_the_same_square(tmp_path: Path) -> None:
    """One person of the published valid files: scale 4.718488 and y 340 in the JSON, 5.898110 and 410.777 in the h5."""
    joints = np.zeros((16, 3))
    joints[0] = 10, 20, 1
    row = {"image": "a.jpg", "scale": 4.718488, "center": [594.0, 340.0], "joints": (joints[:, :2] + 1).tolist()}
    (tmp_path / "valid.json").write_text(json.dumps([row]))
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        file["imgname"], file["center"] = np.array(["a.jpg"], "S13"), np.array([[594.0, 410.777]])
        file["scale"], file["part"] = np.array([5.898110]), joints[None, :, :2] + 1
    (one,), (other,) = (
        read_json_labels(tmp_path / "valid.json")["a.jpg"],
        read_h5_labels(tmp_path / "valid.h5")["a.jpg"],
    )
    assert one.box.center == pytest.approx(other.box.center, abs=1e-3)
    assert one.box.side == pytest.approx(other.box.side, abs=1e-3)


def test_missing_joints_of_an_h5_are_zero_or_negative(tmp_path: Path) -> None:
    part = np.full((2, 16, 2), 50.0)
    part[0, 3], part[0, 4], part[0, 5], part[1] = (0, 0), (-30, 7), (7, -1), 0
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["imgname"], file["center"], file["scale"] = np.array([b"a.jpg"] * 2), np.ones((2, 2)), np.ones(2)
        file["part"] = part
    (person,) = read_h5_labels(tmp_path / "train.h5")["a.jpg"]
    assert np.flatnonzero(person.joints[:, 2] == 0).tolist() == [3, 4, 5] and person.index == 0


@pytest.mark.parametrize(
    ("labels", "content", "match"),
    [
        ("train.h5", b"\x89HDF broken", "no h5 file of pose-hg-train"),
        ("train.json", b"{}", "holds a dict"),
        ("train.json", b'[{"image": "a.jpg", "center": [1, 2], "scale": 1}]', "row 0: expected image, center"),
        ("train.json", b'[{"image": "a.jpg", "center": [1], "scale": 1, "joints": []}]', "row 0: expected image"),
        ("train.txt", b"", "ending in .h5 or .json"),
        ("missing.h5", None, "does not exist"),
    ],
)
def test_what_is_no_label_file_is_one_sentence(own: Mpii, labels: str, content: bytes | None, match: str) -> None:
    if content is not None:
        (own.root / labels).write_bytes(content)
    with pytest.raises(PoseRftError, match=match):
        Mpii(own.root.parent, MpiiParams(labels=labels), Path("unused"), 92).units("train")


def test_an_h5_without_its_columns_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["imgname"] = np.array([b"a.jpg"])
    with pytest.raises(PoseRftError, match="no h5 file of pose-hg-train"):
        read_h5_labels(tmp_path / "train.h5")
    with h5py.File(tmp_path / "train.h5", "a") as file:
        file["center"], file["scale"], file["part"] = np.ones((1, 2)), np.ones(1), np.ones((1, 14, 2))
    with pytest.raises(PoseRftError, match=r"expected numbers of \(1, 16, 2\)"):
        read_h5_labels(tmp_path / "train.h5")


def test_the_release_itself_has_no_validation_split(own: Mpii) -> None:
    with pytest.raises(PoseRftError, match="no split 'val'"):
        own.units("val")


def test_a_name_that_leads_elsewhere_is_a_defect(own: Mpii, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(next((own.root / "images").glob("*.jpg")).read_bytes())
    people = people_of(own)[:2]
    write_json(
        own.root / "annot" / "train.json",
        [("../../secret.jpg", people[0][1]), (str(tmp_path / "secret.jpg"), people[1][1])],
    )
    release = Mpii(own.root.parent, MpiiParams(labels="annot/{split}.json"), Path("unused"), 92)
    units = release.units("train")
    assert {row.reason for unit in units for row in release.read(unit, "train")} == {"unsafe name"}


@pytest.mark.parametrize(("center", "scale"), [((np.nan, 5), 1), ((5, 5), np.nan), ((5, 5), np.inf), ((5, 5), 0)])
def test_a_box_that_is_no_number_is_made_from_the_joints(tmp_path: Path, center, scale) -> None:
    part = np.tile(np.arange(1.0, 17)[:, None], (1, 2))
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["imgname"], file["center"], file["scale"] = (
            np.array([b"a.jpg"]),
            np.array([center], float),
            np.array([scale], float),
        )
        file["part"] = part[None]
    row = {"image": "a.jpg", "center": list(center), "scale": scale, "joints": part.tolist()}
    (tmp_path / "train.json").write_text(json.dumps([row]))
    for found in (read_h5_labels(tmp_path / "train.h5"), read_json_labels(tmp_path / "train.json")):
        (person,) = found["a.jpg"]
        assert person.box.convention == "joints2d x1.2" and person.box.center == (7.5, 7.5)


def test_an_h5_with_text_for_numbers_is_one_sentence(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "train.h5", "w") as file:
        file["imgname"], file["center"] = np.array([b"a.jpg"]), np.ones((1, 2))
        file["scale"], file["part"] = np.array([b"tall"]), np.ones((1, 16, 2))
    with pytest.raises(PoseRftError, match=r"expected numbers of \(1, 16, 2\)"):
        read_h5_labels(tmp_path / "train.h5")


def test_pictures_of_any_ending_and_folder_are_watched(own: Mpii) -> None:  # A5
    people = people_of(own)
    folder = own.root / "images"
    first, second = sorted({name for name, _ in people})[:2]
    names = {first: "a/deep.JPG", second: "b.png"}
    (folder / "a").mkdir()
    for old, new in names.items():
        (folder / old).rename(folder / new)
    write_json(own.root / "train.json", [(names.get(name, name), person) for name, person in people])
    release = reader(own.root.parent, own.body_model, labels="{split}.json", fits=())
    assert not [defect for defect in read_all(release, "train")[1] if defect.reason == "missing image"]
    assert {folder / name for name in names.values()} <= set(release.inventory())


def test_the_annotation_file_is_found_through_links_and_watched(own: Mpii, tmp_path: Path) -> None:  # C1
    (file,) = own.root.rglob("*.mat")
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    before = len(read_all(own, "train")[0])
    file.rename(kept / file.name)
    (own.root / "linked").symlink_to(kept)
    assert len(read_all(own, "train")[0]) == before
    assert own.root / "linked" / file.name in own.inventory()


def test_a_fit_that_is_not_finite_is_a_defect_of_its_person(own: Mpii) -> None:  # C2
    before, _ = read_all(own, "train")
    content = json.loads((own.root / write_mpii.FITS).read_text())
    content["data"][0]["parm_shape"][0] = float("nan")
    (own.root / write_mpii.FITS).write_text(json.dumps(content))
    records, (defect,) = read_all(own, "train")
    assert len(records) == len(before) - 1
    assert defect.reason == "broken fit" and f"{write_mpii.FITS}, row 0: " in defect.detail
