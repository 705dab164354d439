"""EFT fits: SMPL parameters for the people of COCO and MPII (facebookresearch/eft, docs/README_dataformat.md).

A fit has rotation matrices, betas and a weak-perspective camera in a square crop: with the crop mapped to [-1, 1],
a body point projects to `scale * (x, y) + shift`. Here that camera becomes a perspective one with SPIN's focal length
(5000 px on a 224 px crop), so the absolute depth is a convention and is recorded as such.
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.core.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.releases.still_fit import CROP, FOCAL, StillFit, crop_camera, picture_id

PX_PER_SCALE = 200.0  # `bbox_scale` is the side over 200
MOST_SKEW = 0.1  # |R^T R - I| above this is no rotation; below, the nearest rotation is taken
CAMERA_NOTE = "weak perspective of the EFT fit, as a focal length of 5000 px at a 224 px crop"


def read_eft(path: Path) -> list[StillFit]:
    """All fits of one EFT JSON file, in file order.

    Raises:
        PoseRftError: not an EFT file, or a row that holds no SMPL pose.
    """
    content = read_json(path, dict)
    if not isinstance(content.get("data"), list):
        raise PoseRftError(f"{path} has no list `data`; expected an EFT fit file such as COCO2014-All-ver01.json.")
    fits = []
    for number, row in enumerate(content["data"]):
        try:
            fits.append(_fit(row))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise PoseRftError(f"{path}, row {number}: {error!r} is not an EFT fit; download the file again.") from None
    return fits


def orthonormal(matrices: np.ndarray) -> np.ndarray:
    """The nearest rotations of (..., 3, 3): published matrices are rounded.

    Raises:
        ValueError: a matrix is far from any rotation.
    """
    skew = np.abs(np.swapaxes(matrices, -1, -2) @ matrices - np.eye(3)).max()
    if not skew < MOST_SKEW:
        raise ValueError(f"a pose matrix is not a rotation (|R^T R - I| = {skew:.2g})")
    u, _, vt = np.linalg.svd(matrices)
    sign = np.linalg.det(u @ vt)
    u[..., -1] *= sign[..., None]
    return u @ vt


def _fit(row: dict[str, Any]) -> StillFit:
    if row.get("smpltype", "smpl") != "smpl":
        raise ValueError(f"smpltype {row['smpltype']!r}")
    vectors = Rotation.from_matrix(orthonormal(np.asarray(row["parm_pose"], np.float64).reshape(24, 3, 3))).as_rotvec()
    scale, *shift = (float(value) for value in row["parm_cam"])
    side = float(row["bbox_scale"]) * PX_PER_SCALE
    x, y = (float(value) for value in row["bbox_center"])
    if scale <= 0 or side <= 0:
        raise ValueError("a scale that is not positive")
    number = row.get("annotId")
    return StillFit(
        image=picture_id(str(row["imageName"])),
        annotation=None if number is None else int(number),
        center=(x, y),
        side=side,
        pose=vectors,
        betas=np.asarray(row["parm_shape"], np.float64).ravel()[:10].reshape(10),
        transl=np.array([shift[0] / scale, shift[1] / scale, 2 * FOCAL / (CROP * scale)]),
        camera=crop_camera((x, y), side),
        source="eft",
        note=f"EFT fit of annotation {number}" if number is not None else "EFT, joined by picture and nearest centre",
        camera_note=CAMERA_NOTE,
    )
