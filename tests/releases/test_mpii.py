import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flat_studio import FlatStudio
from release_truth import body_angle, read_all

from pose_rft.body.joints import MPII16
from pose_rft.errors import PoseRftError
from pose_rft.releases.cameras import project
from pose_rft.releases.mpii import Mpii, MpiiParams, Person, read_train_people
from pose_rft.sample import write_mpii
from pose_rft.sample.matlab_files import struct_array, write_v5
from pose_rft.sample.plan import PictureSample, SampleParams

PARAMS = SampleParams.model_construct(mpii=PictureSample(size=64, train=12, val=0), two_people=0.5)


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
    found = dict(read_train_people(tmp_path / "m.mat"))
    assert list(found) == [f"{i:09d}.jpg" for i in (4, 5, 6, 7)]
    for name, (person,) in found.items():
        assert person.joints[9].tolist() == [4.0, 6.0, 1.0] and person.joints[:, 2].sum() == 1
        if name < "000000006":
            assert person.box.convention == "joints2d x1.2"
        else:
            # objpos minus one pixel, 15 px per scale below; 1.25 times 200 px per scale
            assert person.box.center == (10.0, 27.5) and person.box.side == 125.0


def test_fits_go_to_the_nearest_person_and_never_twice(miniature, body_models: Path) -> None:
    from pose_rft.releases.eft import read_eft
    from pose_rft.releases.still_fits import nearest_pairs

    (fit, *_) = read_eft(miniature[0] / "mpii" / write_mpii.FITS)
    joints = np.zeros((16, 3))
    x, y = fit.center

    def person(index: int, dx: float) -> tuple[float, float]:
        return Person(index, joints, (x + dx, y - 15.0), 200.0).box.center

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
