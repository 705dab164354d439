"""A page whose predictor is made up: two people in each photograph, known rotations, the body of `tiny_folder`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.body.smpl import load_body_model
from pose_rft.demo.results import Studio
from pose_rft.errors import PoseRftError
from pose_rft.export.motion import Rig
from pose_rft.predict.photographs import Photograph, encode_png
from pose_rft.predict.place import Place
from pose_rft.predict.prediction import Prediction, Seen
from pose_rft.predict.regions import Region
from pose_rft.render.bodies import BodyPainter

EMPTY = (64, 64)
"""A photograph of this size shows nobody."""


class MadeUp:
    """Answers like a `Predictor`."""

    def __init__(self, body_folder: Path) -> None:
        self.body, self.folder = load_body_model(body_folder), Path("models/made_up")
        self.model = self.processor = None

    def photograph(self, photograph: Photograph, boxes: Any = (), samples: int = 0) -> list[Prediction]:
        if photograph.size == EMPTY and not boxes:
            raise PoseRftError(f"{photograph.path} shows no person that is found; name one with --box.")
        width, height = photograph.size
        centres = [box.center for box in boxes] or [(width / 4, height / 2), (3 * width / 4, height / 2)]
        place = Place(photograph.K, np.array([0, 0, 4.0]), "box")
        return [
            self._one(str(photograph.path), samples, Seen(Region(centre, height / 2), "given", 0.9), place)
            for centre in centres
        ]

    def text(self, sentence: str, samples: int = 0) -> Prediction:
        return self._one(sentence, samples)

    def _one(self, source: str, samples: int, seen: Seen | None = None, place: Place | None = None) -> Prediction:
        generator = torch.Generator().manual_seed(len(source))
        turns = 0.3 * torch.randn(1 + samples, 24, 3, generator=generator)
        turns[:, 0] = torch.tensor([torch.pi, 0, 0])  # upright in the camera's frame
        poses = axis_angle_to_matrix(turns)
        joints, vertices = self.body.joints(poses[:1])[0], self.body.vertices(poses[:1])[0]
        if place is not None:
            moved = torch.from_numpy(place.transl).float()
            joints, vertices = joints + moved, vertices + moved
        spread = torch.linspace(1, 20, 24)
        std = torch.full((24, 6), 0.1)
        answer = "The SMPL pose of this person is <POSE>."
        return Prediction(source, "?", answer, poses[0], std, spread, poses[1:], joints, vertices, seen, place)


@pytest.fixture(scope="session")
def studio(tiny_folder) -> Studio:
    studio = Studio.__new__(Studio)
    studio.predictor = MadeUp(tiny_folder)  # type: ignore[assignment]
    studio.painter = BodyPainter(studio.predictor.body)
    studio.rig = Rig.of(studio.predictor.body)
    return studio


@pytest.fixture(autouse=True)
def said(monkeypatch) -> None:
    monkeypatch.setattr("pose_rft.demo.results.about_picture", lambda *_: "the person is standing.")


def png(width: int = 160, height: int = 120) -> bytes:
    y, x = np.mgrid[:height, :width]
    return encode_png(np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8))


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "people.png"
    path.write_bytes(png())
    return path
