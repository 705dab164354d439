"""Reads ready-made label files as data sets: npz of SPIN, HMR2.0, HumanData, BEDLAM, CameraHMR and SMPLer-X.

`datasets.label_files.files` lists them; each file is a split with its own image folder. A sample is one row; rows of
one image stay together. Most files have root-relative joints and bodies without translation. Both are placed in front
of SPIN's assumed camera (focal length 5000 px for a 224 px crop) by their 2D joints, or by the box if there are none.
Translations in a file are kept. Layouts: `rows.py`.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pose_rft.body.joints import SPIN24
from pose_rft.body.model_file import Gender
from pose_rft.datasets.common.base import Reader, Unit, check_split, require, sample_key
from pose_rft.datasets.common.labels import labelled, plausible
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, picture_path
from pose_rft.datasets.fits.crop_placement import in_crop_camera
from pose_rft.datasets.fits.sources import NOT_FINITE
from pose_rft.datasets.fits.still_fit import CROP_CAMERA_NOTE
from pose_rft.datasets.label_files.rows import LabelRows, read_label_rows
from pose_rft.errors import PoseRftError
from pose_rft.params import Fraction, Section
from pose_rft.record import KEY, Box, Camera, Defect, Image, Keypoints, Record, Smpl

MAKERS = {
    "spin": "SPIN",
    "hmr2": "HMR2.0",
    "humandata": "HumanData",
    "camera": "BEDLAM or CameraHMR",
    "smplx": "SMPLer-X",
}
BOX_NOTES = {
    "spin": "scale of the label file, /200",
    "hmr2": "scale of the label file",
    "humandata": "bbox_xywh, longer side",
    "camera": "scale of the label file, /200",
    "smplx": "bbox_xywh, longer side",
}


class LabelFile(Section):
    """One file: path below the root of `label_files`; images: its image folder below `data.root`.

    gender: gender of the body model, used if the file does not give one; 3DPW's files do.
    """

    path: str
    images: str
    gender: Literal["neutral", "male", "female"] = "neutral"


class LabelFilesParams(Section):
    """`datasets.label_files` in params.yaml. files: split → file."""

    root: str = "label_files"
    files: dict[str, LabelFile] = Field(default_factory=dict)
    max_defect_rate: Fraction = 0.01

    @property
    def splits(self) -> tuple[str, ...]:
        """One split for each file."""
        return tuple(self.files)


class LabelFiles(Reader):
    """Reader of label files; a unit is one image with all its rows."""

    Params = LabelFilesParams
    params: LabelFilesParams
    dataset = "label_files"
    licence = "that of the data set which the labels are of"
    where_to_get = "https://github.com/nkolot/SPIN, https://github.com/shubham-goel/4D-Humans (fetch_data.sh)"

    def units(self, split: str) -> list[Unit]:
        rows = self._rows(split)
        by_image: dict[str, list[int]] = defaultdict(list)
        for row, image in enumerate(rows.images):
            by_image[image].append(row)
        units = []
        for image, of_image in by_image.items():
            stem = image.rsplit(".", 1)[0]
            # Different names may become the same key after sanitising; the row makes it unique.
            key = sample_key(stem.replace("/", "_"), of_image[0])
            units.append(Unit(key, len(of_image), (image, tuple(of_image))))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        image, of_image = unit.payload
        rows, file = self._rows(split), self.params.files[split]
        folder = require(self.data_root / file.images, f"{self.dataset} (pictures)", "the data set that they are of")
        try:
            picture = load_picture(picture_path(folder, image))
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, str(row)) for row in of_image)
            return
        for row in of_image:
            yield self._row(unit, split, rows, row, picture, file)

    def inventory(self) -> list[Path]:
        files = set()
        for split, file in self.params.files.items():
            files.add(self.root / file.path)
            folder = self.data_root / file.images
            for image in set(self._rows(split).images):
                with suppress(UnreadablePicture):  # unsafe names become defects when read
                    if (path := picture_path(folder, image)).is_file():
                        files.add(path)
        return sorted(files)

    def _rows(self, split: str) -> LabelRows:
        check_split(split, self.params.files, self.dataset)
        if not KEY.fullmatch(split):
            raise PoseRftError(f"`datasets.label_files.files` names the split {split!r}; use letters, digits, _ and -.")
        path = require(self.root / self.params.files[split].path, self.dataset, self.where_to_get)
        status = path.stat()
        return _cached_rows(path, status.st_mtime_ns, status.st_size)

    def _row(
        self, unit: Unit, split: str, rows: LabelRows, row: int, picture: Image, file: LabelFile
    ) -> Record | Defect:
        maker = MAKERS[rows.layout]
        side = float(rows.side[row])
        if not (plausible(rows.center[row]).all() and plausible(rows.side[row]) and side > 1):
            return Defect(unit.key, str(row), "empty box", f"centre {rows.center[row]}, side {side}")
        box = Box(
            (round(float(rows.center[row, 0]), 3), round(float(rows.center[row, 1]), 3)),
            round(side, 3),
            BOX_NOTES[rows.layout],
        )
        if rows.broken is not None and rows.broken[row]:
            return Defect(unit.key, str(row), "broken fit", f"{file.path}, row {row}: {NOT_FINITE}")
        gender: Gender = file.gender if rows.genders is None else rows.genders[row]  # type: ignore[assignment]
        joints2d = None if rows.joints2d is None else labelled(rows.joints2d[row])
        joints3d = None if rows.joints3d is None else labelled(rows.joints3d[row])
        has_smpl = rows.pose is not None and rows.has_smpl is not None and bool(rows.has_smpl[row])
        if not has_smpl and joints2d is None and joints3d is None:
            return Defect(unit.key, str(row), "no label", f"row {row} has neither a body nor joints")
        provenance = [("labels", f"{maker} file {Path(file.path).name}, row {row}")]
        smpl: Smpl | None = None
        camera = None
        if has_smpl or joints3d is not None:
            transl = rows.transl[row] if rows.transl is not None and plausible(rows.transl[row]).all() else None
            pose, betas = (rows.pose[row], rows.betas[row]) if has_smpl else (None, None)  # type: ignore[index]
            placed = in_crop_camera(
                box.center, side, pose, betas, joints2d, joints3d, self.body_model, rows.layout, gender, transl
            )
            smpl, joints3d, camera = placed.smpl, placed.joints3d, placed.camera
            if camera is not None:
                note = CROP_CAMERA_NOTE
            elif rows.K is not None and is_camera(rows.K[row]):
                camera, note = Camera(rows.K[row]), "cam_int and translation of the file"
            else:
                note = "unknown; translation of the file"
            provenance.append(("camera", note))
        if smpl is not None and rows.smplx_joints is not None:
            smpl = replace(smpl, valid=rows.smplx_joints, body_model="smplx")
            provenance.append(("smpl", "body joints of SMPL-X; its hands and shape do not carry over, 0"))
        return Record(
            key=sample_key(split, unit.key, row),
            dataset=self.dataset,
            split=split,
            image=picture,
            subject=unit.key,
            sequence=str(Path(unit.payload[0]).parent),
            box=box,
            smpl=smpl,
            joints3d=None if joints3d is None else Keypoints(joints3d, SPIN24.name),
            joints2d=None if joints2d is None else Keypoints(joints2d, SPIN24.name),
            camera=camera,
            provenance=tuple(provenance),
        )


def is_camera(K: np.ndarray) -> bool:
    """Whether numbers (3, 3) are plausible camera intrinsics."""
    return bool(plausible(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and K[2, 2] == 1)


@lru_cache(maxsize=2)
def _cached_rows(path: Path, modified: int, size: int) -> LabelRows:
    return read_label_rows(path)


READER = LabelFiles
