"""What is predicted of one person or sentence, and its JSON form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pose_rft.body.joints import SMPL24
from pose_rft.body.rotations import matrix_to_axis_angle
from pose_rft.body.smpl import BodyModel
from pose_rft.policy.blazepose import LANDMARKS
from pose_rft.predict.people import whole
from pose_rft.predict.place import Place, Points
from pose_rft.predict.regions import Region
from pose_rft.report.notice import SAMPLE_NOTICE


@dataclass(frozen=True, eq=False)
class Seen:
    """A person in a photograph: region: the square that was looked at; score in [0, 1]: is it a person (None where
    nothing says so); points: what was seen of the body; `source`: given, annotation, detector or whole picture."""

    region: Region
    source: str
    score: float | None = None
    points: Points | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """rotations (24, 3, 3) relative to the parent, root in the camera frame; std (24, 6) of the raw 6D numbers;
    spread (24,): root mean square angle of draws about the mean, degrees; samples (n, 24, 3, 3); vertices (V, 3) and
    joints (24, 3): metres, camera frame, pelvis near the origin unless `place` says where."""

    source: str
    question: str
    answer: str
    rotations: Tensor
    std: Tensor | None
    spread: Tensor | None
    samples: Tensor
    joints: Tensor
    vertices: Tensor
    seen: Seen | None = None
    place: Place | None = None
    focal_source: str | None = None

    @classmethod
    def of_line(cls, line: dict[str, Any], body: BodyModel) -> "Prediction":
        """The prediction that `content` was made of, to the six digits that it keeps.

        Raises:
            LookupError, TypeError, ValueError: the line is none of `content`.
        """
        rotations = torch.tensor(line["rotation_matrices"])
        samples = torch.tensor(line["samples_rotation_matrices"]).reshape(-1, 24, 3, 3)
        said, camera = line["uncertainty"], line["camera"]
        transl = torch.tensor(camera["transl_metres"] if camera else [0.0] * 3)[None]
        with torch.no_grad():
            joints, vertices = (of(rotations[None], transl=transl) for of in (body.joints, body.vertices))
        return cls(
            line["source"],
            line["question"],
            line["answer"],
            rotations,
            said and torch.tensor(said["std_6d"]),
            said and torch.tensor([said["spread_degrees"][joint] for joint in SMPL24.joints]),
            samples,
            joints[0],
            vertices[0],
            line["person"] and _seen_of(line["person"]),
            camera and Place(np.array(camera["K"]), np.array(camera["transl_metres"]), camera["fitted_to"]),
            camera and camera["focal_length_from"],
        )

    @property
    def box(self) -> NDArray[np.float64]:
        """x0, y0, x1, y1 px of a person in a photograph: around the landmarks, else the square that was looked at."""
        assert self.seen is not None
        points, region = self.seen.points, self.seen.region
        if points is not None and tuple(points.names) == LANDMARKS:
            return np.concatenate(whole(points.xy))
        return np.concatenate([np.array(region.center) - region.side / 2, np.array(region.center) + region.side / 2])

    def content(self, model_folder: Path, body: BodyModel) -> dict[str, Any]:
        """The JSON form; units and frames are in its keys."""
        return {
            "source": self.source,
            "model": readable(str(model_folder)),
            "notice": SAMPLE_NOTICE if body.is_standin else None,
            "body_model": body.name,
            "question": self.question,
            "answer": self.answer,
            "joint_names": list(SMPL24.joints),
            "rotation_matrices": numbers(self.rotations),
            "axis_angle_radians": numbers(matrix_to_axis_angle(self.rotations)),
            "betas": [0.0] * 10,
            "betas_note": "shape is not predicted; betas are 0",
            "joints_metres_camera": numbers(self.joints),
            "uncertainty": self._uncertainty(),
            "samples_rotation_matrices": numbers(self.samples),
            "person": self._person(),
            "camera": self._camera(),
        }

    def _uncertainty(self) -> dict[str, Any] | None:
        if self.std is None or self.spread is None:
            return None
        spread = dict(zip(SMPL24.joints, numbers(self.spread), strict=True))
        return {"spread_degrees": spread, "std_6d": numbers(self.std)}

    def _person(self) -> dict[str, Any] | None:
        if self.seen is None:
            return None
        region, points = self.seen.region, self.seen.points
        square = {
            "center_px": numbers(np.array(region.center)),
            "side_px": round(region.side, 3),
            "turned_degrees": round(float(np.degrees(region.angle)), 3),
        }
        found = points and {
            name: numbers(np.append(xy, seen))
            for name, xy, seen in zip(points.names, points.xy, points.confidence, strict=True)
        }
        return {
            "from": self.seen.source,
            "score": self.seen.score,
            "box_px": numbers(self.box),
            "crop": square,
            "points_px_and_confidence": found,
        }

    def _camera(self) -> dict[str, Any] | None:
        if self.place is None:
            return None
        return {
            "K": numbers(self.place.K),
            "focal_length_from": self.focal_source,
            "transl_metres": numbers(self.place.transl),
            "fitted_to": self.place.fitted_to,
        }


def _seen_of(person: dict[str, Any]) -> Seen:
    crop, found = person["crop"], person["points_px_and_confidence"]
    region = Region(tuple(crop["center_px"]), crop["side_px"], float(np.radians(crop["turned_degrees"])))
    points = None
    if found is not None:
        values = np.array(list(found.values()))
        points = Points(tuple(found), values[:, :2], values[:, 2])
    return Seen(region, person["from"], person["score"], points)


def numbers(values: Tensor | np.ndarray) -> Any:
    """An array as nested lists of rounded numbers, for JSON."""
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()


def readable(text: str) -> str:
    """Text that can be written: bytes of a file name that are no UTF-8 become question marks in a diamond."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
