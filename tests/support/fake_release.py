"""A release without files: enough to plan, convert, break and read shards. Importable by worker processes."""

import io
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image as PILImage

from pose_rft.datasets.common.base import Unit
from pose_rft.errors import PoseRftError
from pose_rft.record import Box, Camera, Caption, Defect, Image, Keypoints, Record, Smpl
from pose_rft.seeds import numpy_rng


def fake_record(dataset: str, split: str, unit: str, number: int) -> Record:
    """A person on an 8×6 picture; everything derives from the key."""
    rng = numpy_rng(0, dataset, split, unit, number)
    encoded = io.BytesIO()
    PILImage.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(encoded, "PNG")
    points = np.concatenate([rng.normal(size=(17, 3)) * 0.3 + [0, 0, 4], np.ones((17, 1))], axis=1)
    K = np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]])
    projected = points[:, :3] @ K.T
    return Record(
        key=f"{unit}_{number:06d}",
        dataset=dataset,
        split=split,
        image=Image(encoded.getvalue(), "png", 8, 6),
        subject=f"{split}-S{number % 3}",
        sequence=unit,
        frame=number,
        box=Box((4.0, 3.0), 5.0 + number % 4, "joints2d x1.2"),
        smpl=Smpl(
            *(rng.normal(size=shape) for shape in ((3,), (23, 3), (10,), (3,))),
            valid=np.ones(24, dtype=bool),
            gender="neutral",
            body_model="smpl",
            frame="camera",
            source="fake",
        ),
        joints3d=Keypoints(points, "h36m17"),
        joints2d=Keypoints(np.concatenate([projected[:, :2] / projected[:, 2:], np.ones((17, 1))], axis=1), "h36m17"),
        camera=Camera(K, np.eye(3), np.zeros(3)),
        captions=(Caption("Somebody stands.", "human" if number % 2 else "automatic"),),
    )


@dataclass(frozen=True)
class FakeRelease:
    """`units_of` units of `samples` samples; `bad` unit → what goes wrong in it: defects, error, crash, unreadable."""

    dataset: str = "fake"
    units_of: int = 6
    samples: int = 10
    delay: float = 0.0
    bad: dict[str, str] = field(default_factory=dict)
    same_keys: bool = False
    licence: str = "none"
    where_to_get: str = "nowhere"
    params: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(splits=("train",), max_defect_rate=0.0))
    journal: Path | None = None  # one line per unit that was begun
    files: tuple[Path, ...] = ()  # the release's inventory
    padding: int = 0  # bytes after each picture

    def units(self, split: str) -> list[Unit]:
        return [Unit(f"u{number:02d}", self.samples, (number,)) for number in range(self.units_of)]

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(f"{unit.key}\n")
        for number in range(self.samples):
            if self.delay:
                time.sleep(self.delay)
            kind = self.bad.get(unit.key)
            if kind == "defects" and number % 2:
                yield Defect(unit.key, str(number), "unreadable image", "not a JPEG")
                continue
            if kind == "error":
                raise PoseRftError(f"Unit {unit.key} of the fake release is wrong; fix it.")
            if kind == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "unreadable":
                raise PermissionError(13, "Permission denied", "/release/file")
            record = fake_record(self.dataset, split, "same" if self.same_keys else unit.key, number)
            if self.padding and record.image is not None:
                record = replace(record, image=replace(record.image, data=record.image.data + bytes(self.padding)))
            yield record

    def inventory(self) -> list[Path]:
        return list(self.files)
