"""The prediction for one person or sentence, and its JSON form."""

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
from pose_rft.export.motion import FARTHEST, numbers_of, rotations_of
from pose_rft.policy.blazepose import LANDMARKS
from pose_rft.predict.people import whole
from pose_rft.predict.place import Place, Points
from pose_rft.predict.regions import Region
from pose_rft.predict.store import readable
from pose_rft.report.notice import SAMPLE_NOTICE

LARGEST = 1e7  # px, and degrees; K reaches a million px for a wide picture with a long lens
MOST_SAMPLES = 1000  # per person; the most that `pose-rft predict` draws


@dataclass(frozen=True, eq=False)
class Seen:
    """A person in a photograph. region: the cropped square; score in [0, 1]: confidence that it is a person (None if
    unscored); points: 2D points on the body; `source`: given, annotation, detector or whole picture."""

    region: Region
    source: str
    score: float | None = None
    points: Points | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """rotations (24, 3, 3) relative to the parent, root in the camera frame; std (24, 6) of the raw 6D numbers;
    spread (24,): RMS angle between random draws and the mean, degrees; samples (n, 24, 3, 3); vertices (V, 3) and
    joints (24, 3): metres, camera frame, translated by `place` if set, else pelvis near the origin."""

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
        """Rebuilds a prediction from its `content`, to the six decimals that it keeps.

        Raises:
            LookupError, TypeError, ValueError, AttributeError, ArithmeticError: the line was not made by `content`.
        """
        pose, drawn = (rotations_of(line[name]) for name in ("rotation_matrices", "samples_rotation_matrices"))
        if len(pose) != 1 or len(drawn) > MOST_SAMPLES:
            raise ValueError(f"{len(pose)} poses and {len(drawn)} samples")
        said, camera = line["uncertainty"], line["camera"]
        place = _place_of(camera) if camera else None
        transl = torch.zeros(1, 3) if place is None else torch.from_numpy(place.transl).float()[None]
        rotations, samples = torch.from_numpy(pose).float(), torch.from_numpy(drawn).float()
        with torch.no_grad():
            joints, vertices = (of(rotations, transl=transl) for of in (body.joints, body.vertices))
        return cls(
            line["source"],
            line["question"],
            line["answer"],
            rotations[0],
            torch.from_numpy(numbers_of(said["std_6d"], (24, 6), FARTHEST)).float() if said else None,
            torch.from_numpy(_spread_of(said["spread_degrees"])).float() if said else None,
            samples,
            joints[0],
            vertices[0],
            _seen_of(line["person"]) if line["person"] else None,
            place,
            camera["focal_length_from"] if camera else None,
        )

    @property
    def box(self) -> NDArray[np.float64]:
        """x0, y0, x1, y1 px of a person in a photograph: a box around the landmarks, else the cropped square."""
        assert self.seen is not None
        points, region = self.seen.points, self.seen.region
        if points is not None and tuple(points.names) == LANDMARKS:
            return np.concatenate(whole(points.xy))
        return np.concatenate([np.array(region.center) - region.side / 2, np.array(region.center) + region.side / 2])

    def content(self, model_folder: Path, body: BodyModel) -> dict[str, Any]:
        """Returns the JSON form; its keys name units and frames."""
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
    x, y, side, turned = numbers_of([*crop["center_px"], crop["side_px"], crop["turned_degrees"]], (4,), LARGEST)
    if side <= 0:
        raise ValueError(f"a crop of {side} px")
    region, points = Region((x, y), side, float(np.radians(turned))), None
    if found is not None:
        values = numbers_of(list(found.values()), (-1, 3), LARGEST)
        points = Points(tuple(found), values[:, :2], values[:, 2])
    return Seen(region, person["from"], person["score"], points)


def _place_of(camera: dict[str, Any]) -> Place:
    K, transl = numbers_of(camera["K"], (3, 3), LARGEST), numbers_of(camera["transl_metres"], (3,), FARTHEST)
    if min(K[0, 0], K[1, 1]) <= 0 or K[2].tolist() != [0, 0, 1]:
        raise ValueError("a K that is no camera's")
    return Place(K, transl, camera["fitted_to"])


def _spread_of(by_joint: dict[str, Any]) -> NDArray[np.float64]:
    return numbers_of([by_joint[joint] for joint in SMPL24.joints], (24,), 180.0)


def numbers(values: Tensor | np.ndarray) -> Any:
    """Converts an array to nested lists of rounded numbers, for JSON."""
    return np.round(np.asarray(values, dtype=np.float64), 6).tolist()
