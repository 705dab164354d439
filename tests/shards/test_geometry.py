from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.body.cameras import H36M_MODEL, project
from pose_rft.body.joints import H36M32, MPI28, SMPL24
from pose_rft.record import Box, Camera, Image, Keypoints, Record, Smpl
from pose_rft.validation.reprojection import BEHIND_CAMERA, is_as_declared, measure
from pose_rft.validation.run import geometry_checks
from tests.support.fake_release import fake_record

LENS = np.array([-0.2071, 0.2478, -0.0031, -0.0014, -0.0010])  # Human3.6M's 54138969
K3DHP = np.array([[1497.7, 0, 1024.7], [0, 1497.7, 1051.4], [0, 0, 1.0]])
K = np.array([[1145.05, 0, 512.54], [0, 1143.78, 515.45], [0, 0, 1.0]])


@pytest.fixture(params=["h36m", "mpi_inf_3dhp"])
def dataset(request) -> str:
    return request.param


def standing(kind) -> np.ndarray:
    """A person who faces the camera 5 m away: camera x is to the person's right. (J, 3) metres."""
    height = {"knee": 0.45, "ankle": 0.9, "toe": 0.95, "foot": 0.95, "shoulder": -0.5, "elbow": -0.2, "wrist": 0.05}
    points = np.zeros((len(kind), 3))
    for i, joint in enumerate(kind.joints):
        part = joint.removeprefix("left_").removeprefix("right_").split("_")[0]
        side = 1 if joint.startswith("left_") else -1 if joint.startswith("right_") else 0
        points[i] = [0.2 * side, height.get(part, -0.6 if part in ("neck", "head", "nose") else 0.0), 5.0]
        if part in ("toe", "foot"):
            points[i, 2] -= 0.15  # towards the camera
    return points


class Model:
    """Stands in for a body model: the standing person, turned by the root and moved."""

    def joints(self, rotations, betas, transl):
        upright = Rotation.from_euler("x", 180, degrees=True).as_matrix()
        rest = (standing(SMPL24) - [0, 0, 5.0]) @ upright.T * [1, 1, 1]
        return rest @ rotations[:, 0].swapaxes(1, 2) + transl[:, None]


def person(kind=H36M32, name="p") -> Record:
    points = standing(kind)
    camera = Camera(K, np.eye(3), np.zeros(3), LENS, H36M_MODEL)
    one = np.ones((len(kind), 1))
    return Record(
        key=name,
        dataset="h36m",
        split="train",
        box=Box((512.0, 512.0), 500.0, "test"),
        smpl=Smpl(
            Rotation.from_euler("x", 180, degrees=True).as_rotvec(),
            np.zeros((23, 3)),
            np.zeros(10),
            np.array([0, 0, 5.0]),
            np.ones(24, bool),
            "neutral",
            "smpl",
            "camera",
            "test",
        ),
        joints3d=Keypoints(np.concatenate([points, one], 1), kind.name),
        joints2d=Keypoints(np.concatenate([project(points, camera), one], 1), kind.name),
        camera=camera,
    )


def row(record: Record) -> dict:
    return measure([record], lambda gender: Model()).row(0, named=True)


def verdicts(records: list[Record], dataset: str = "h36m") -> dict[str, str]:
    table = measure(records, lambda gender: Model())
    return {check.name.split(" (")[0]: check.verdict for check in geometry_checks(dataset, "train", table)}


def mirrored(record: Record, group: str) -> Record:
    """Left and right exchanged in one group of joints, as a converter with a wrong table does."""
    keypoints = getattr(record, group)
    return replace(record, **{group: replace(keypoints, points=keypoints.points[list(H36M32.flip)])})


def test_a_right_person_passes_every_check():
    found = row(person())
    assert found["reprojection"] < 1e-3 and found["smpl_reprojection"] < 1e-3 and found["camera_error"] < 1e-12
    assert found["side_by_feet"] and found["side_by_smpl_3d"] and found["side_by_smpl_2d"]
    assert set(verdicts([person()] * 20).values()) == {"ok"}


def test_a_forgotten_lens_model_is_found():
    without = replace(person(), camera=Camera(K, np.eye(3), np.zeros(3)))
    assert 0.1 < row(without)["reprojection"] < 3
    assert verdicts([without])["reprojection"] == "failed"


def test_a_hundredth_of_a_pixel_is_the_limit_for_h36m():
    record = person()
    moved = record.joints2d.points + np.array([0.02, 0, 0])
    assert verdicts([replace(record, joints2d=Keypoints(moved, "h36m32"))])["reprojection"] == "failed"
    assert verdicts([replace(record, joints2d=Keypoints(moved, "h36m32"))], "mpi_inf_3dhp")["reprojection"] == "ok"


def test_joints_behind_the_camera_do_not_hide():
    record = person()
    behind = replace(record, joints3d=Keypoints(record.joints3d.points * [1, 1, -1, 1], "h36m32"))
    assert row(behind)["reprojection"] == BEHIND_CAMERA


@pytest.mark.parametrize(
    ("groups", "failing"),
    [
        (("joints3d",), {"reprojection", "reprojection_rest", "side_by_feet", "side_by_smpl_3d"}),
        (("joints2d",), {"reprojection", "reprojection_rest", "side_by_smpl_2d"}),
        (("joints2d", "joints3d"), {"side_by_feet", "side_by_smpl_3d", "side_by_smpl_2d"}),
    ],
)
def test_exchanged_sides_are_found(groups, failing):
    record = person()
    for group in groups:
        record = mirrored(record, group)
    found = verdicts([record] * 20)
    assert {name for name, verdict in found.items() if verdict == "failed"} - {"smpl_reprojection"} == failing


def test_a_body_that_is_not_turned_into_the_camera_frame_is_found():
    record = person()
    world = replace(record.smpl, global_orient=np.array([0.3, 0, 0]), transl=np.array([1.0, 0.0, 5.0]))
    assert verdicts([replace(record, smpl=world)] * 20)["smpl_reprojection"] == "failed"


@pytest.mark.parametrize("group", ["camera", "joints"])
def test_a_number_that_is_not_finite_is_found(group):
    record = person()
    if group == "camera":
        record = replace(record, camera=Camera(K, np.full((3, 3), np.nan), np.zeros(3), LENS, H36M_MODEL))
        assert verdicts([record, person()])["camera_error"] == "failed"
    else:
        record = replace(record, camera=replace(record.camera, K=np.full((3, 3), np.inf)))
    assert verdicts([record, person()])["not finite"] == "failed"


def test_a_body_that_is_not_where_its_own_joints_are_is_found():
    """3DPW's 3D labels are joints of its bodies: another gender, or translation without the pelvis, shows there."""
    record = person(SMPL24)
    record = replace(record, joints3d=Keypoints(record.joints3d.points, "smpl24"))
    assert row(record)["smpl_joints_mm"] < 300  # the stand-in puts toes elsewhere
    moved = replace(record, smpl=replace(record.smpl, transl=record.smpl.transl + np.array([0, 0, 1.0])))
    assert row(moved)["smpl_joints_mm"] > 700
    assert verdicts([moved], "3dpw")["smpl_joints_mm"] == "failed"
    assert row(person())["smpl_joints_mm"] is None


@pytest.mark.parametrize("R", [np.diag([1.0, 1.0, -1.0]), np.eye(3) * 1.001])
def test_a_camera_that_is_no_rotation_is_found(R):
    record = replace(person(), camera=Camera(K, R, np.zeros(3), LENS, H36M_MODEL))
    assert verdicts([record])["camera_error"] == "failed"


def test_a_picture_of_another_size_or_format_than_declared_is_found():
    image = fake_record("fake", "train", "u00", 0).image
    assert is_as_declared(image)
    assert not is_as_declared(replace(image, width=9))
    assert not is_as_declared(replace(image, extension="jpg"))
    assert not is_as_declared(Image(b"", "png", 8, 6))


def test_what_a_record_lacks_is_not_measured():
    bare = replace(person(), smpl=None, joints3d=None, camera=None)
    assert {name for name, value in row(bare).items() if value is not None} == {"key", "video", "finite"}
    text = replace(person(), camera=None, joints2d=None, joints3d=None, smpl=replace(person().smpl, frame="amass"))
    assert {name for name, value in row(text).items() if value is not None} == {
        "key",
        "video",
        "finite",
        "largest_beta",
    }


MOVED = {"h36m": (H36M32, K, LENS, H36M_MODEL), "mpi_inf_3dhp": (MPI28, K3DHP, None, None)}


def video(dataset: str, frames: int = 20, depth: float = 3.8) -> list[Record]:
    """A person who walks past: joints move by centimetres from frame to frame, the wrists most."""
    kind, intrinsics, lens, model = MOVED[dataset]
    camera = Camera(intrinsics, np.eye(3), np.zeros(3), lens, model)
    one, records = np.ones((len(kind), 1)), []
    for frame in range(frames):
        points = standing(kind) + np.array([0.01 * frame, 0.0, depth - 5.0])
        swing = 0.15 * np.sin(0.4 * frame)
        for joint in ("left_wrist", "right_wrist", "left_elbow", "right_elbow"):
            points[kind.index(joint)] += [0.0, 0.0 if "left" in joint else -swing / 3, swing * ("wrist" in joint)]
        pixels = project(points, camera)
        records.append(
            replace(
                person(kind, f"p{frame}"),
                smpl=None,
                sequence="walk",
                frame=frame,
                camera=camera,
                joints3d=Keypoints(np.concatenate([points, one], 1), kind.name),
                joints2d=Keypoints(np.concatenate([pixels, one], 1), kind.name),
            )
        )
    return records


def interpolated(record: Record, millimetres: float) -> Record:
    """Hips and spine of MPI-INF-3DHP lie elsewhere in 2D than in 3D."""
    points, depth = record.joints2d.points.copy(), record.joints3d.points[:, 2]
    for joint in ("left_hip", "right_hip", "spine"):
        place = MPI28.index(joint)
        points[place, 0] += millimetres / 1000 * K3DHP[0, 0] / depth[place]
    return replace(record, joints2d=Keypoints(points, "mpi28"))


@pytest.mark.parametrize("depth", [2.2, 3.8])
def test_joints_that_3dhp_interpolates_do_not_fail_a_genuine_video(depth: float) -> None:  # C13
    records = [interpolated(record, 8.0) for record in video("mpi_inf_3dhp", depth=depth)]
    measured = measure(records, lambda gender: Model())
    assert measured["reprojection"].max() < 0.01  # arms and legs
    worst = max(np.abs(r.joints2d.points[:, :2] - project(r.joints3d.points[:, :3], r.camera)).max() for r in records)
    assert worst > 3.0  # px, as frame 2301 of TS4 has and more
    assert set(verdicts(records, "mpi_inf_3dhp").values()) == {"ok"}


def test_an_odd_frame_does_not_fail_a_video() -> None:  # C13
    records = video("mpi_inf_3dhp")
    records[3] = replace(records[3], joints2d=Keypoints(records[3].joints2d.points + np.array([9.0, 0, 0]), "mpi28"))
    assert set(verdicts(records, "mpi_inf_3dhp").values()) == {"ok"}


def test_labels_of_the_next_frame_fail(dataset: str) -> None:
    records = video(dataset)
    shifted = [replace(a, joints2d=b.joints2d) for a, b in pairwise(records)]
    assert set(verdicts(records, dataset).values()) == {"ok"}
    assert verdicts(shifted, dataset)["reprojection"] == "failed"


def test_one_video_with_a_wrong_camera_fails_among_many(dataset: str) -> None:
    records = [replace(record, camera_id=str(i)) for i in range(9) for record in video(dataset)]
    for number, record in enumerate(records):
        if record.camera_id == "4":
            moved = replace(record.camera, K=record.camera.K + np.array([[5.0, 0, 3.0], [0, 5.0, 0], [0, 0, 0]]))
            records[number] = replace(record, camera=moved)
    found = measure(records, lambda gender: Model())
    (check,) = (c for c in geometry_checks(dataset, "train", found) if c.name.startswith("reprojection ("))
    assert check.verdict == "failed" and "walk/4" in check.remark


def test_labels_of_the_other_side_fail(dataset: str) -> None:
    kind = MOVED[dataset][0]
    records = [replace(r, joints2d=Keypoints(r.joints2d.points[list(kind.flip)], kind.name)) for r in video(dataset)]
    found = verdicts(records, dataset)
    assert found["reprojection"] == found["reprojection_rest"] == "failed"


@pytest.mark.parametrize("millimetres", [20.0, 35.0])
def test_bodies_that_were_fitted_well_pass(millimetres: float) -> None:  # C13: NeuralAnnot, MoSh
    rng = np.random.default_rng(0)
    records = []
    for number in range(20):
        offset = rng.normal(size=3)
        record = person(name=f"p{number}")
        transl = record.smpl.transl + offset / np.linalg.norm(offset) * millimetres / 1000
        records.append(replace(record, smpl=replace(record.smpl, transl=transl)))
    assert set(verdicts(records).values()) == {"ok"}
