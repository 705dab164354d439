"""A fit of one person in a photograph, from any file format, and its camera.

A fit has either a translation and a camera (EFT, NeuralAnnot) or only a pose (SPIN's and HMR2.0's label files). In the
second case the person's 2D joints place the body under the camera that SPIN assumes: a focal length of 5000 px for a
crop of 224 px. The absolute depth is therefore a convention, and is recorded as such.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pose_rft.body.camera_fit import fit_box
from pose_rft.datasets.fits.sources import camera_smpl, place_on_joints2d, posed_joints
from pose_rft.record import Camera, Smpl

CROP = 224.0  # px, the crop that SPIN and EFT feed to their network
FOCAL = 5000.0  # px at that crop (SPIN constants)
CROP_CAMERA_NOTE = "assumed: a focal length of 5000 px at a 224 px crop (SPIN), the body placed on the 2D joints"
COCO_PREFIX = re.compile(r"^COCO_(train|val|test)\d{4}_")  # names of 2014; those of 2017 have only the digits


@dataclass(frozen=True, eq=False)
class StillFit:
    """A fit of one person.

    image: `picture_id` of the image, or None if `annotation` (COCO's id) suffices; center and side (px): the crop that
    was fitted; pose (24, 3) axis-angle, root in the camera frame; betas (10,); transl (3,) metres and camera (K only)
    project the body into the original image, or both are None; note, camera_note: for the provenance.
    problem: None, or why the fit is invalid (file, person, what is wrong); its person becomes a defect.
    """

    image: str | None
    annotation: int | None
    center: tuple[float, float] | None
    side: float | None
    pose: np.ndarray
    betas: np.ndarray
    transl: np.ndarray | None
    camera: Camera | None
    source: str
    note: str
    camera_note: str = CROP_CAMERA_NOTE
    problem: str | None = None

    def placed(
        self, points: np.ndarray, joint_set: str, center: tuple[float, float], side: float, body_model: Path
    ) -> tuple[Smpl, Camera]:
        """Returns the body and its camera; points (J, 3) px + confidence, center and side (px) are the person's.

        Raises:
            PoseRftError: the fit has no translation, and the body model needed to place it is missing.
        """
        if self.transl is not None and self.camera is not None:
            return camera_smpl(self.pose, self.betas, self.transl, self.source), self.camera
        camera = crop_camera(center, side)
        joints = posed_joints(self.pose[None], self.betas[None], body_model)[0]
        transl = place_on_joints2d(joints, points, joint_set, camera.K)
        if transl is None:
            transl = fit_box(joints, np.array(center), side, camera.K)
        return camera_smpl(self.pose, self.betas, transl, self.source), camera


def crop_camera(center: tuple[float, float], side: float) -> Camera:
    """Returns SPIN's camera for a square crop (px); its optical axis goes through the crop's centre."""
    focal = FOCAL * side / CROP
    return Camera(K=np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]]))


def picture_id(name: str) -> str:
    """Returns an image's name without folder, extension and `COCO_train2014_`, the same in every copy of a data set."""
    return COCO_PREFIX.sub("", Path(name).stem)
