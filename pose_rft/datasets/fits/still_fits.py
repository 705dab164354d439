"""Assigns fits of photographs (EFT, NeuralAnnot, SPIN and HMR2.0 files) to the people of COCO and MPII.

A fit with a COCO annotation id is assigned to that annotation. A fit with only an image name is assigned to the person
whose box centre is nearest to the centre of the fitted crop. NeuralAnnot's MPII file uses the annotation ids of
Hand4Whole's `train.json`, so that file gives image and box. Source: docs/formats.md, SMPL fits.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.cameras import intrinsics
from pose_rft.datasets.common.labels import plausible
from pose_rft.datasets.fits.eft import read_eft
from pose_rft.datasets.fits.named_fits import read_named_fits
from pose_rft.datasets.fits.sources import NOT_FINITE, FitSource
from pose_rft.datasets.fits.still_fit import StillFit, picture_id
from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.io.parsing import DAMAGE
from pose_rft.record import Camera

FARTHEST = 0.25  # of the fitted crop's side; a centre farther away belongs to another person


@dataclass(frozen=True)
class Anchor:
    """Identifies a person in an image: COCO's annotation id, if there is one, and the box centre, px."""

    annotation: int | None
    center: tuple[float, float]


@dataclass(eq=False)
class _File:
    by_annotation: dict[int, StillFit] = field(default_factory=dict)
    by_image: dict[str, list[StillFit]] = field(default_factory=lambda: defaultdict(list))


class StillFits:
    """The fits of all files listed in `fits`.

    Args:
        root: the data set's folder, which contains the files; body_model: `data.body_model`.
    Raises:
        PoseRftError: a file is missing, damaged or in the wrong format.
    """

    def __init__(self, sources: Sequence[FitSource], root: Path, body_model: Path) -> None:
        self._files = []
        for source in sources:
            file = _File()
            for fit in _read(source, root, body_model):
                if fit.annotation is not None:
                    file.by_annotation.setdefault(fit.annotation, fit)
                if fit.image is not None:
                    file.by_image[fit.image].append(fit)
            self._files.append(file)

    def of_picture(self, image: str, people: Sequence[Anchor]) -> tuple[StillFit | None, ...]:
        """Returns the fit of each person of an image, from the first file that has one."""
        found: list[StillFit | None] = [None] * len(people)
        for file in self._files:
            fits = file.by_image.get(picture_id(image), [])
            if any(person.annotation is not None for person in people):
                # A fit with an annotation id is never assigned to another person, however near.
                fits = [fit for fit in fits if fit.annotation is None]
            nearest = nearest_pairs([person.center for person in people], fits)
            # A broken fit without a centre could belong to anyone in this image.
            anybodys = next((fit for fit in fits if fit.problem is not None and fit.center is None), None)
            for i, person in enumerate(people):
                if found[i] is None and person.annotation is not None:
                    found[i] = file.by_annotation.get(person.annotation)
                if found[i] is None and i in nearest:
                    found[i] = fits[nearest[i]]
                if found[i] is None:
                    found[i] = anybodys
        return tuple(found)


def nearest_pairs(centers: Sequence[tuple[float, float]], fits: Sequence[StillFit]) -> dict[int, int]:
    """Returns person → fit: pairs people and fits by the distance of their centres (px), at most one fit per person.

    The nearest pair is matched first; a fit whose centre is more than a quarter of its side from everyone is not used.
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


def _read(source: FitSource, root: Path, body_model: Path) -> list[StillFit]:
    path, index = source.file(root), source.index_file(root)
    if source.source == "eft":
        return read_eft(path)
    if source.source == "neuralannot":
        return read_neuralannot_pictures(path, index)
    if source.source == "mosh":
        raise PoseRftError("`fits`: MoSh has no fits of photographs; use eft, neuralannot, spin or hmr2.")
    rows = read_named_fits(path, body_model, index)
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
            problem=f"{path.name}, row {i}: {NOT_FINITE}" if rows.broken[i] else None,
        )
        for i in np.flatnonzero(rows.valid | rows.broken).tolist()
    ]


def read_neuralannot_pictures(path: Path, index: Path | None = None) -> list[StillFit]:
    """Reads NeuralAnnot's file of COCO or MPII: annotation id → smpl_param and cam_param, camera frame, metres.

    Args:
        index: COCO-style file that defines the annotation ids; without it they are COCO's own ids.
    Raises:
        PoseRftError: a file is damaged or in the wrong format.
    """
    content = read_json(path, dict)
    boxes = _boxes(index) if index is not None else None
    fits = []
    for key, entry in content.items():
        if not re.fullmatch(r"[0-9]{1,18}", key):
            raise PoseRftError(
                f"{path} is not a NeuralAnnot SMPL file of pictures (it has {key!r:.40}, no annotation id)."
            )
        number = int(key)
        if boxes is not None and number not in boxes:
            continue
        image, center, side = (None, None, None) if boxes is None else boxes[number]
        fit = _neuralannot(entry, number if boxes is None else None, image, center, side)
        problem = f"{path.name}, annotation {number}: {fit.problem}" if fit.problem is not None else None
        fits.append(replace(fit, problem=problem))
    if fits and all(fit.problem is not None for fit in fits):
        raise PoseRftError(f"{path} is not a NeuralAnnot SMPL file of pictures ({fits[0].problem}).")
    return fits


def _neuralannot(
    entry: Any,
    annotation: int | None,
    image: str | None,
    center: tuple[float, float] | None,
    side: float | None,
) -> StillFit:
    """Returns the fit of an entry; if it is malformed or not finite, `problem` says so."""
    joined = f"of annotation {annotation}" if annotation is not None else "joined by picture and nearest centre"
    pose, betas, transl, camera, problem = np.zeros((24, 3)), np.zeros(10), None, None, None
    try:
        smpl, virtual = entry["smpl_param"], entry["cam_param"]
        pose = np.asarray(smpl["pose"], np.float64).reshape(24, 3)
        betas = np.asarray(smpl["shape"], np.float64).ravel()[:10].reshape(10)
        transl = np.asarray(smpl["trans"], np.float64).reshape(3)
        (fx, fy), (cx, cy) = (np.asarray(virtual[name], np.float64).ravel() for name in ("focal", "princpt"))
        camera = Camera(intrinsics(fx, fy, cx, cy))
        if not all(plausible(numbers).all() for numbers in (pose, betas, transl, camera.K)):
            problem = NOT_FINITE
    except DAMAGE as error:
        problem = f"{type(error).__name__}, {' '.join(str(error).split())[:120]}"
    return StillFit(
        image=image,
        annotation=annotation,
        center=center,
        side=side,
        pose=pose,
        betas=betas,
        transl=transl,
        camera=camera,
        source="neuralannot",
        note=f"NeuralAnnot, {joined}",
        camera_note="NeuralAnnot's virtual camera of the person",
        problem=problem,
    )


def _boxes(path: Path) -> dict[int, tuple[str, tuple[float, float], float]]:
    """Reads image, centre and side (px) of every annotation of a COCO-style file."""
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
