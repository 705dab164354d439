"""Fits of photographs: EFT, NeuralAnnot, SPIN and HMR2.0 files, given to the people of COCO and MPII.

A fit that names COCO's annotation goes to that annotation. One that names only its picture goes to the person whose box
centre is nearest to the centre of the fitted crop. NeuralAnnot's MPII file counts the annotations of Hand4Whole's
`train.json`, so that file says picture and box. Source: dataset notes sections 3 and 4.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.core.errors import PoseRftError
from pose_rft.core.record import Camera
from pose_rft.io.json_files import read_json
from pose_rft.releases.cameras import intrinsics
from pose_rft.releases.eft import read_eft
from pose_rft.releases.fits import FitSource
from pose_rft.releases.named_fits import read_named_fits
from pose_rft.releases.still_fit import StillFit, picture_id

FARTHEST = 0.25  # of the fitted crop's side: a centre farther off belongs to somebody else


@dataclass(frozen=True)
class Anchor:
    """By what a person of a picture is known: COCO's annotation id, if there is one, and the centre of the box, px."""

    annotation: int | None
    center: tuple[float, float]


@dataclass(eq=False)
class _File:
    by_annotation: dict[int, StillFit] = field(default_factory=dict)
    by_image: dict[str, list[StillFit]] = field(default_factory=lambda: defaultdict(list))


class StillFits:
    """The fits of all files of `fits`.

    Raises:
        PoseRftError: a file is missing, damaged or of another kind.
    """

    def __init__(self, sources: Sequence[FitSource], root: Path) -> None:
        self._files = []
        for source in sources:
            file = _File()
            for fit in _read(source, root):
                if fit.annotation is not None:
                    file.by_annotation.setdefault(fit.annotation, fit)
                if fit.image is not None:
                    file.by_image[fit.image].append(fit)
            self._files.append(file)

    def of_picture(self, image: str, people: Sequence[Anchor]) -> tuple[StillFit | None, ...]:
        """The fit of each person of a picture, from the first file that has one."""
        found: list[StillFit | None] = [None] * len(people)
        for file in self._files:
            fits = file.by_image.get(picture_id(image), [])
            if any(person.annotation is not None for person in people):
                # A fit that names an annotation belongs to no other, however near.
                fits = [fit for fit in fits if fit.annotation is None]
            nearest = nearest_pairs([person.center for person in people], fits)
            for i, person in enumerate(people):
                if found[i] is None and person.annotation is not None:
                    found[i] = file.by_annotation.get(person.annotation)
                if found[i] is None and i in nearest:
                    found[i] = fits[nearest[i]]
        return tuple(found)


def nearest_pairs(centers: Sequence[tuple[float, float]], fits: Sequence[StillFit]) -> dict[int, int]:
    """Person → fit: each fit goes to the person with the nearest box centre (px), each person gets at most one.

    The nearest pair goes first; a fit whose centre is farther than a quarter of its side from everybody is not used.
    """
    distance = {
        (p, f): float(np.hypot(*np.subtract(center, fit.center))) / fit.side
        for p, center in enumerate(centers)
        for f, fit in enumerate(fits)
        if fit.center is not None and fit.side
    }
    chosen: dict[int, int] = {}
    for p, f in sorted(distance, key=lambda pair: (distance[pair], pair)):
        if distance[p, f] <= FARTHEST and p not in chosen and f not in chosen.values():
            chosen[p] = f
    return chosen


def _read(source: FitSource, root: Path) -> list[StillFit]:
    path, index = source.file(root), source.index_file(root)
    if source.source == "eft":
        return read_eft(path)
    if source.source == "neuralannot":
        return read_neuralannot_pictures(path, index)
    if source.source == "mosh":
        raise PoseRftError("`fits`: MoSh has no fits of photographs; use eft, neuralannot, spin or hmr2.")
    rows = read_named_fits(path, index)
    name = {"spin": "SPIN", "hmr2": "HMR2.0 labels"}[source.source]
    return [
        StillFit(
            image=picture_id(rows.images[i]),
            annotation=None,
            center=(float(rows.center[i, 0]), float(rows.center[i, 1])),
            side=float(rows.side[i]),
            pose=rows.pose[i],
            betas=rows.betas[i],
            transl=None,
            camera=None,
            source=source.source,
            note=f"{name}, joined by picture and nearest centre",
        )
        for i in np.flatnonzero(rows.valid).tolist()
    ]


def read_neuralannot_pictures(path: Path, index: Path | None = None) -> list[StillFit]:
    """NeuralAnnot's file of COCO or MPII: annotation id → smpl_param and cam_param, camera frame, metres.

    Args:
        index: COCO-style file whose annotations the ids are; without it they are those of COCO itself.
    Raises:
        PoseRftError: a file is damaged or of another kind.
    """
    content = read_json(path, dict)
    boxes = _boxes(index) if index is not None else None
    fits = []
    try:
        for key, entry in content.items():
            number = int(key)
            if boxes is not None and number not in boxes:
                continue
            image, center, side = (None, None, None) if boxes is None else boxes[number]
            fits.append(_neuralannot(entry, number if boxes is None else None, image, center, side))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise PoseRftError(
            f"{path} is not a NeuralAnnot SMPL file of pictures ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); download it again."
        ) from None
    return fits


def _neuralannot(
    entry: Mapping[str, Any],
    annotation: int | None,
    image: str | None,
    center: tuple[float, float] | None,
    side: float | None,
) -> StillFit:
    smpl, camera = entry["smpl_param"], entry["cam_param"]
    numbers = {
        name: np.asarray(smpl[name], np.float64).ravel()[:size].reshape(size)
        for name, size in (("pose", 72), ("shape", 10), ("trans", 3))
    }
    if not all(np.isfinite(value).all() for value in numbers.values()):
        raise ValueError("a number that is not finite")
    (fx, fy), (cx, cy) = (np.asarray(camera[name], np.float64).ravel() for name in ("focal", "princpt"))
    joined = f"of annotation {annotation}" if annotation is not None else "joined by picture and nearest centre"
    return StillFit(
        image=image,
        annotation=annotation,
        center=center,
        side=side,
        pose=numbers["pose"].reshape(24, 3),
        betas=numbers["shape"],
        transl=numbers["trans"],
        camera=Camera(intrinsics(fx, fy, cx, cy)),
        source="neuralannot",
        note=f"NeuralAnnot, {joined}",
        camera_note="NeuralAnnot's virtual camera of the person",
    )


def _boxes(path: Path) -> dict[int, tuple[str, tuple[float, float], float]]:
    """Picture, centre and side (px) of every annotation of a COCO-style file."""
    content = read_json(path, dict)
    try:
        names = {image["id"]: picture_id(image["file_name"]) for image in content["images"]}
        found = {}
        for row in content["annotations"]:
            x, y, w, h = (float(value) for value in row["bbox"])
            found[int(row["id"])] = (names[row["image_id"]], (x + w / 2, y + h / 2), max(w, h))
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise PoseRftError(f"{path} is not a COCO-style annotation file ({error!r}); download it again.") from None
