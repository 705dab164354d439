"""Job results: predictions with everything that the page shows, made by the same library calls as in `predict`."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pose_rft.body.frames import semantic_frame
from pose_rft.captions.describe import describe_pose
from pose_rft.errors import PoseRftError
from pose_rft.export.motion import Kind, Motion, Rig
from pose_rft.predict.ask import about_picture
from pose_rft.predict.boxes import parse_box
from pose_rft.predict.exports import content
from pose_rft.predict.overlays import Scene
from pose_rft.predict.photographs import Photograph, encode_png, read_photograph
from pose_rft.predict.prediction import Prediction
from pose_rft.predict.predictor import Predictor
from pose_rft.render.bodies import BodyPainter
from pose_rft.report.notice import SAMPLE_NOTICE
from pose_rft.seeds import numpy_rng

TO_VIEWER = np.array([1.0, -1.0, -1.0])
"""From the camera's axes (y down, z forward) to a viewer's (y up, z towards the viewer)."""


@dataclass(frozen=True, eq=False)
class Person:
    """bodies (1 + n, V, 3) and joints (1 + n, 24, 3) of the mean pose and the n samples: metres, viewer axes, pelvis
    near the origin."""

    prediction: Prediction
    caption: str
    bodies: NDArray[np.float32]
    joints: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Result:
    """overlay: PNG of the photograph with everyone's body over it. answer: to a question about a picture."""

    name: str
    people: Sequence[Person] = ()
    photograph: Photograph | None = None
    overlay: bytes | None = None
    answer: str | None = None


class Studio:
    """One predictor, and the painter and rig of its body; used by one thread at a time."""

    def __init__(self, model: Path, body: Path) -> None:
        self.predictor = Predictor(model, body)
        self.painter = BodyPainter(self.predictor.body)
        self.rig = Rig.of(self.predictor.body)

    @property
    def notice(self) -> str | None:
        """The notice that a model with a stand-in body needs."""
        return SAMPLE_NOTICE if self.predictor.body.is_standin else None

    def photograph(self, data: bytes, name: str, samples: int, box: str | None) -> Result:
        """Predicts everyone in the bytes of a picture file, or the person in the box.

        Raises:
            PoseRftError: as in `pose-rft predict`, but worded for the page.
        """
        boxes = [parse_box(box)] if box else []
        with tempfile.TemporaryDirectory(prefix="pose-rft-") as folder:  # readable by this account only
            path = Path(folder) / "upload"
            path.write_bytes(data)
            try:
                photograph = replace(read_photograph(path), path=Path(name))
            except PoseRftError as error:
                raise PoseRftError(str(error).replace(str(path), name)) from None
        try:
            found = self.predictor.photograph(photograph, boxes, samples)
        except PoseRftError as error:
            raise PoseRftError(str(error).replace("name one with --box", "draw a box around one")) from None
        overlay = encode_png(Scene(photograph).overlay(found, self.painter))
        return Result(name, [self._person(one) for one in found], photograph, overlay)

    def sentence(self, text: str, samples: int) -> Result:
        """Predicts the pose that a sentence describes."""
        return Result(text, [self._person(self.predictor.text(text, samples))])

    def question(self, result: Result, person: int, question: str) -> Result:
        """Returns the policy's answer to a question about one person in a photograph."""
        seen = result.people[person].prediction.seen
        assert result.photograph is not None and seen is not None
        model, processor = self.predictor.model, self.predictor.processor
        answer = about_picture(model, processor, result.photograph.pixels, seen.region, question)
        return Result(question, answer=answer)

    def _person(self, prediction: Prediction) -> Person:
        body = self.predictor.body
        poses = torch.cat([prediction.rotations[None], prediction.samples])
        with torch.no_grad():
            bodies, joints = body.vertices(poses).numpy() * TO_VIEWER, body.joints(poses).numpy() * TO_VIEWER
        upright = semantic_frame(prediction.rotations, "camera")
        (caption,) = describe_pose(upright, body.rest_joints()[0], numpy_rng(0, "demo", prediction.source))
        return Person(prediction, caption, bodies.astype(np.float32), joints.astype(np.float32))

    def json(self, person: Person) -> dict[str, Any]:
        """Returns the JSON form that `predict` writes."""
        return person.prediction.content(self.predictor.folder, self.predictor.body)

    def file(self, person: Person, kind: Kind) -> bytes:
        """Returns the mean pose, at its place in the picture, as `pose-rft export` writes it."""
        one = person.prediction
        transl = np.zeros(3) if one.place is None else one.place.transl
        motion = Motion(one.rotations[None].double().numpy(), transl[None], np.zeros(1), "pose")
        return content(kind, motion, self.rig, "pose")
