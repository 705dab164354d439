"""EFT fits: SMPL parameters for the people of COCO and MPII (facebookresearch/eft, docs/README_dataformat.md).

A fit has rotation matrices, betas and a weak-perspective camera in a square crop: with the crop mapped to [-1, 1],
a body point projects to `scale * (x, y) + shift`. Here that camera is converted to a perspective one with SPIN's focal
length (5000 px on a 224 px crop), so the absolute depth is a convention and is recorded as such.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from pose_rft.datasets.common.labels import plausible
from pose_rft.datasets.fits.sources import NOT_FINITE
from pose_rft.datasets.fits.still_fit import CROP, FOCAL, StillFit, crop_camera, picture_id
from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.io.parsing import DAMAGE

PX_PER_SCALE = 200.0  # `bbox_scale` is the side over 200
MOST_SKEW = 0.1  # a matrix with |R^T R - I| above this is rejected; below, the nearest rotation is used
CAMERA_NOTE = "weak perspective of the EFT fit, as a focal length of 5000 px at a 224 px crop"


def read_eft(path: Path) -> list[StillFit]:
    """Reads all fits of an EFT JSON file, in file order.

    Raises:
        PoseRftError: not an EFT file, a row that does not say whose fit it is, or no valid fit at all.
    """
    content = read_json(path, dict)
    if not isinstance(content.get("data"), list):
        raise PoseRftError(f"{path} has no list `data`; expected an EFT fit file such as COCO2014-All-ver01.json.")
    fits = []
    for number, row in enumerate(content["data"]):
        try:
            fit = _fit(row)
        except DAMAGE as error:
            raise PoseRftError(
                f"{path}, row {number}: {error!r:.120} is not an EFT fit; download the file again."
            ) from None
        fits.append(replace(fit, problem=f"{path.name}, row {number}: {fit.problem}") if fit.problem else fit)
    if fits and all(fit.problem is not None for fit in fits):
        raise PoseRftError(f"{fits[0].problem}; so {path} is not an EFT fit file, nor are its other rows better.")
    return fits


def orthonormal(matrices: np.ndarray) -> np.ndarray:
    """Returns the nearest rotations of (..., 3, 3), because published matrices are rounded.

    Raises:
        ValueError: a matrix is far from any rotation.
    """
    skew = np.abs(np.swapaxes(matrices, -1, -2) @ matrices - np.eye(3)).max()
    if not skew < MOST_SKEW:  # also true for NaN
        raise ValueError(f"a pose matrix is not a rotation (|R^T R - I| = {skew:.2g})")
    u, _, vt = np.linalg.svd(matrices)
    sign = np.linalg.det(u @ vt)
    u[..., -1] *= sign[..., None]
    return u @ vt


def _fit(row: dict[str, Any]) -> StillFit:
    """Returns the fit of a row; `problem` says what is wrong if the body or its placement is invalid.

    Raises:
        KeyError, ValueError, …: the row has no image name, or an annotation id that is no number.
    """
    number = row.get("annotId")
    annotation = None if number is None else int(number)
    image = picture_id(str(row["imageName"]))
    note = f"EFT fit of annotation {number}" if number is not None else "EFT, joined by picture and nearest centre"
    empty = StillFit(
        image, annotation, None, None, np.zeros((24, 3)), np.zeros(10), None, None, "eft", note, CAMERA_NOTE
    )
    try:
        x, y, side = (*map(float, row["bbox_center"]), float(row["bbox_scale"]) * PX_PER_SCALE)
        if not plausible(np.array([x, y, side])).all() or side <= 0:
            raise ValueError(f"box centre ({x:g}, {y:g}) and side {side:g}")
        empty = replace(empty, center=(x, y), side=side)
        if row.get("smpltype", "smpl") != "smpl":
            raise ValueError(f"smpltype {row['smpltype']!r:.40}")
        pose = Rotation.from_matrix(orthonormal(np.asarray(row["parm_pose"], np.float64).reshape(24, 3, 3))).as_rotvec()
        betas = np.asarray(row["parm_shape"], np.float64).ravel()[:10].reshape(10)
        scale, dx, dy = (float(value) for value in row["parm_cam"])
        if not scale > 0:
            raise ValueError("a scale that is not positive")
        transl = np.array([dx / scale, dy / scale, 2 * FOCAL / (CROP * scale)])
        if not (plausible(betas).all() and plausible(transl).all()):
            raise ValueError(NOT_FINITE)
    except DAMAGE as error:
        return replace(empty, problem=f"{type(error).__name__}, {' '.join(str(error).split())[:120]}")
    return replace(empty, pose=pose, betas=betas, transl=transl, camera=crop_camera((x, y), side))
