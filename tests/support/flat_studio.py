"""Miniature releases written by the sample's own writers, with flat pictures that show a number instead of a person.

No renderer and no stand-in is needed: bodies are the plain clouds of tests/conftest.py, and each picture is eight black
or white columns, the bits of the number of the person who was placed for it. So a test can tell from a picture's
pixels which pose it belongs to.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pose_rft.record import Record
from pose_rft.sample.people import Identity, Person, Seen, Shot, Studio, View


class FlatStudio(Studio):
    """Everything of a studio but outfits and pictures."""

    def __init__(self, body_models: Path) -> None:
        self.folder = body_models
        self._bodies = {}
        self.people: list[Person] = []

    def identity(self, rng: np.random.Generator, gender: Any = "neutral", dress: Any = None) -> Identity:
        return Identity(np.clip(rng.normal(0, 0.5, 10), -2, 2), gender, None)

    def place(self, identity: Identity, rotations: np.ndarray, at: tuple[float, float] = (0.0, 0.0)) -> Person:
        person = super().place(identity, rotations, at)
        self.people.append(person)
        return person

    def shoot(self, rng, people: Sequence[Person], view: View, backdrop=None, **_: Any) -> Shot:
        everywhere = np.ones((view.height, view.width), bool)
        cameras = [self._see(person, view) for person in people]
        seen = tuple(
            Seen(s.person, s.rotations, s.transl, s.vertices, s.joints, s.joints2d, everywhere) for s in cameras
        )
        number = next(i for i, person in enumerate(self.people) if person is people[0])
        return Shot(numbered(number, (view.height, view.width)), view, seen, backdrop)

    def of_picture(self, record: Record) -> Person:
        """The person whose number the record's picture shows."""
        return self.people[shown(record)]


def numbered(number: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3): the number's eight bits as columns."""
    columns = np.arange(size[1]) * 8 // size[1]
    row = ((number >> columns) & 1).astype(np.uint8) * 255
    return np.broadcast_to(row[None, :, None], (*size, 3)).copy()


def shown(record: Record) -> int:
    picture = cv2.imdecode(np.frombuffer(record.image.data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (record.image.height, record.image.width)
    bits = [part.mean() > 127 for part in np.array_split(picture, 8, axis=1)]
    return sum(1 << bit for bit, on in enumerate(bits) if on)
