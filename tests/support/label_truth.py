"""One true body in a picture, and label files of it in the layouts that peers publish."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.body.joints import SPIN24
from pose_rft.datasets.fits.still_fit import crop_camera
from pose_rft.datasets.label_files.rows import FROM_HUMAN_DATA
from tests.support.flat_studio import numbered
from tests.support.release_truth import numpy_body

SIDE = 120.0


@dataclass(frozen=True, eq=False)
class Truth:
    """pose (24, 3), betas (10,), joints2d (24, 3) px and joints3d (24, 4) metres from the pelvis, in SPIN's order."""

    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray
    center: np.ndarray
    joints2d: np.ndarray
    joints3d: np.ndarray


def truth(body_models: Path, seed: int, center: tuple[float, float] = (80.0, 70.0)) -> Truth:
    """A random body of about SIDE px before SPIN's camera of the crop."""
    rng = np.random.default_rng(seed)
    body = numpy_body(body_models, "neutral")
    pose, betas = rng.normal(0, 0.25, (24, 3)), rng.normal(0, 0.5, 10)
    camera = crop_camera(center, SIDE)
    transl = np.array([rng.normal(0, 0.03), rng.normal(0, 0.03), 2.4 * 5000 / 224 / 1.2])
    vertices, joints = body.vertices(Rotation.from_rotvec(pose).as_matrix(), betas, transl)
    points = np.stack([_spin_joint(body, vertices, joints, name) for name in SPIN24.joints])
    plane = points[:, :2] / points[:, 2:]
    pixels = plane * camera.K[0, 0] + camera.K[:2, 2]
    ones = np.ones((24, 1))
    local = np.concatenate([points - joints[0], ones], axis=1)
    return Truth(pose, betas, transl, np.array(center), np.concatenate([pixels, ones], axis=1), local)


def _spin_joint(body, vertices: np.ndarray, joints: np.ndarray, name: str) -> np.ndarray:
    for kind in ("smpl24", "h36m17", "coco17", "mpii16"):
        from pose_rft.body.joints import joint_set

        if name in joint_set(kind):
            return body.keypoints(vertices, joints, kind)[joint_set(kind).index(name)]
    return body.keypoints(vertices, joints, "h36m17")[8]


def write_pictures(folder: Path, names: list[str], first: int = 0, size: tuple[int, int] = (140, 160)) -> None:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(first + i, size))


def picture_bytes(number: int, size: tuple[int, int] = (140, 160)) -> bytes:
    return cv2.imencode(".jpg", numbered(number, size))[1].tobytes()


def spin_arrays(people: list[Truth], names: list[str], **changes: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "imgname": np.array(names),
        "center": np.stack([p.center for p in people]),
        "scale": np.full(len(people), SIDE / 200),
        "pose": np.stack([p.pose.ravel() for p in people]),
        "shape": np.stack([p.betas for p in people]),
        "has_smpl": np.ones(len(people), np.uint8),
        "part": np.stack([p.joints2d for p in people]),
        "S": np.stack([p.joints3d for p in people]),
        "gender": np.array(["m", "f"] * len(people))[: len(people)],
        **changes,
    }


def hmr2_arrays(people: list[Truth], names: list[str], **changes: np.ndarray) -> dict[str, np.ndarray]:
    """As HMR2.0's evaluation files: sides in px in two columns, 25 + 19 joints, an array of objects."""
    extra_info = np.empty(len(people), object)
    extra_info[:] = [{"fitting_loss": np.float32(1.0)} for _ in people]
    joints44 = [split44(p) for p in people]
    return {
        "imgname": np.array(names),
        "center": np.stack([p.center for p in people]),
        "scale": np.full((len(people), 2), SIDE) * [0.8, 1.0],
        "body_pose": np.stack([p.pose.ravel() for p in people]).astype(np.float32),
        "has_body_pose": np.ones(len(people)),
        "betas": np.stack([p.betas for p in people]).astype(np.float32),
        "has_betas": np.ones(len(people)),
        "body_keypoints_2d": np.stack([two[:25] for two, _ in joints44]),
        "extra_keypoints_2d": np.stack([two[25:] for two, _ in joints44]),
        "body_keypoints_3d": np.stack([three[:25] for _, three in joints44]),
        "extra_keypoints_3d": np.stack([three[25:] for _, three in joints44]),
        "personid": np.arange(len(people)),
        "extra_info": extra_info,
        **changes,
    }


def split44(person: Truth) -> tuple[np.ndarray, np.ndarray]:
    """(44, 3) and (44, 4): the face and the right wrist only in OpenPose's part, all else only in the other 19."""
    found = []
    for points in (person.joints2d, person.joints3d):
        both = np.zeros((44, points.shape[1]))
        both[25:] = points[:19]
        both[[0, 16, 15, 18, 17]] = points[19:24]
        both[4] = points[6]
        both[25 + 6] = 0
        found.append(both)
    return found[0], found[1]


def human_data_arrays(people: list[Truth], names: list[str], transl: bool) -> dict[str, np.ndarray]:
    """As MMHuman3D's HumanData: the dictionary of bodies is an object, empty columns of keypoints are left out."""
    mask = np.zeros(190, np.uint8)
    mask[list(FROM_HUMAN_DATA)] = 1
    two, three = np.zeros((len(people), 190, 3)), np.zeros((len(people), 190, 4))
    two[:, list(FROM_HUMAN_DATA)] = np.stack([p.joints2d for p in people])
    three[:, list(FROM_HUMAN_DATA)] = np.stack([p.joints3d for p in people])
    boxes = [[*(p.center - (SIDE / 2, SIDE / 3)), SIDE, SIDE / 1.5, 1.0] for p in people]
    smpl = {
        "body_pose": np.stack([p.pose[1:] for p in people]),
        "global_orient": np.stack([p.pose[0] for p in people]),
        "betas": np.stack([p.betas for p in people]),
    }
    return {
        "image_path": np.array(names),
        "bbox_xywh": np.array(boxes),
        "smpl": np.array(smpl | ({"transl": np.stack([p.transl for p in people])} if transl else {}), object),
        "meta": np.array({"gender": ["m"] * len(people)}, object),
        "config": np.array("human_data"),
        "keypoints2d": two[:, mask > 0],
        "keypoints2d_mask": mask,
        "keypoints3d": three[:, mask > 0],
        "keypoints3d_mask": mask,
        "__keypoints_compressed__": np.array(True),
        "__key_strict__": np.array(True),
    }


def camera_arrays(people: list[Truth], names: list[str], **changes: np.ndarray) -> dict[str, np.ndarray]:
    """As CameraHMR's training files: a part of the translation is the camera's; keypoints are HMR2.0's 44."""
    count = len(people)
    extrinsic = np.tile(np.eye(4), (count, 1, 1))
    extrinsic[:, :3, 3] = [0.1, -0.2, 0.3]
    return {
        "imgname": np.array(names),
        "center": np.stack([p.center for p in people]),
        "scale": np.full(count, SIDE / 200),
        "pose_cam": np.stack([p.pose.ravel() for p in people]),
        "shape": np.stack([p.betas for p in people]),
        "trans_cam": np.stack([p.transl for p in people]) - [0.1, -0.2, 0.3],
        "cam_int": np.stack([crop_camera(tuple(p.center), SIDE).K for p in people]),
        "cam_ext": extrinsic,
        "gtkps": np.stack([split44(p)[0] for p in people]),
        **changes,
    }


def smplx_arrays(people: list[Truth], names: list[str], **changes: np.ndarray) -> dict[str, np.ndarray]:
    """As SMPLer-X's HumanData: the body is a dictionary of SMPL-X's parameters."""
    arrays = human_data_arrays(people, names, transl=False)
    body = {
        "global_orient": np.stack([p.pose[0] for p in people]),
        "body_pose": np.stack([p.pose[1:22] for p in people]),
        "betas": np.stack([p.betas for p in people]),
        "transl": np.zeros((len(people), 3)),
    }
    kept = {name: arrays[name] for name in ("image_path", "bbox_xywh", "meta", "__keypoints_compressed__")}
    kept |= {"keypoints2d_smplx": arrays["keypoints2d"], "keypoints2d_smplx_mask": arrays["keypoints2d_mask"]}
    return kept | {"smplx": np.array(body, object), **changes}
