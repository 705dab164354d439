"""MPII: images, labels in one of three formats (`labels.py`), SMPL from published fits (`still_fits.py`).

A person of a training image is a sample if it has joints (the release withholds those of its test images). The release
has one training set; label files of other projects split it into training and validation. Fits name MPII's image file
but not the person, so a fit is assigned to the person whose centre is nearest to the centre of the fitted crop.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pose_rft.body.joints import MPII16
from pose_rft.datasets.common.base import Reader, Unit, check_split, require, sample_key
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, picture_path
from pose_rft.datasets.fits.sources import FitSource, fit_files
from pose_rft.datasets.fits.still_fits import Anchor, StillFits
from pose_rft.datasets.mpii.labels import Pictures, read_h5_labels, read_json_labels, read_mat_labels
from pose_rft.errors import PoseRftError
from pose_rft.io.find import files_below, find
from pose_rft.params import Fraction, Section
from pose_rft.record import Defect, Keypoints, Record

ANNOTATIONS = "mpii_human_pose_v1_u12_1.mat"
NAMES = {"train": "train", "val": "valid"}  # values of `{split}` in `labels`


class MpiiParams(Section):
    """`datasets.mpii` in params.yaml.

    fits: files below the root; the first that has a person is used. labels: None for the release's own file, or the
    file of pose-hg-train (`annot/{split}.h5`), HRNet and MMPose (`annot/{split}.json`), or pytorch-pose
    (`mpii_annotations.json`); `{split}` is train or valid.
    """

    root: str = "mpii"
    splits: tuple[Literal["train", "val"], ...] = ("train",)
    labels: str | None = None
    fits: tuple[FitSource, ...] = ()
    max_defect_rate: Fraction = 0.01


class Mpii(Reader):
    """Reader of MPII; a unit is one image with all its people."""

    Params = MpiiParams
    params: MpiiParams
    dataset = "mpii"
    licence = "MPII Human Pose: simplified BSD for annotations, pictures for research; EFT fits CC BY-NC 4.0"
    where_to_get = "http://human-pose.mpi-inf.mpg.de (fits: https://github.com/facebookresearch/eft)"

    def units(self, split: str) -> list[Unit]:
        check_split(split, NAMES if self.params.labels else ("train",), self.dataset)
        require(self.root, self.dataset, self.where_to_get)
        fits = StillFits(self.params.fits, self.root, self.body_model)
        units = []
        for image, people in self._people(split).items():
            joined = fits.of_picture(image, [Anchor(None, person.box.center) for person in people])
            payload = (image, tuple(zip(people, joined, strict=True)))
            units.append(Unit(sample_key(Path(image).stem), len(people), payload))
        return sorted(units, key=lambda unit: unit.key)

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        image, people = unit.payload
        try:
            picture = load_picture(picture_path(self.root / "images", image))
        except UnreadablePicture as problem:
            yield from (problem.defect(unit.key, str(person.index)) for person, _ in people)
            return
        for person, fit in people:
            if fit is not None and fit.problem is not None:
                yield Defect(unit.key, str(person.index), "broken fit", fit.problem)
                continue
            provenance = [("joints2d", f"{self._form}, minus 1 px; confidence 1 = labelled, visible or not")]
            smpl = camera = None
            if fit is not None:
                box = person.box
                smpl, camera = fit.placed(person.joints, MPII16.name, box.center, box.side, self.body_model)
                provenance += [("smpl", fit.note), ("camera", fit.camera_note)]
            yield Record(
                key=sample_key("mpii", unit.key, str(person.index)),
                dataset=self.dataset,
                split=split,
                image=picture,
                subject=f"{unit.key}-{person.index}",
                sequence=unit.key,
                box=person.box,
                smpl=smpl,
                camera=camera,
                joints2d=Keypoints(person.joints, MPII16.name),
                provenance=tuple(provenance),
            )

    def inventory(self) -> list[Path]:
        named = [self.root / self._labels(split) for split in self.params.splits] if self.params.labels else []
        labels = [path for path in named or find(self.root, f"**/{ANNOTATIONS}") if path.is_file()]
        pictures = map(Path, files_below(self.root / "images"))  # whatever their names
        return sorted({*labels, *pictures, *fit_files(self.params.fits, self.root)})

    @property
    def _form(self) -> str:
        """The source of the labels, for the provenance of samples."""
        return f"{self.params.labels}" if self.params.labels else "annopoints"

    def _labels(self, split: str) -> str:
        assert self.params.labels is not None
        return self.params.labels.replace("{split}", NAMES[split])

    def _people(self, split: str) -> Pictures:
        """
        Raises:
            PoseRftError: the labels are missing, damaged or in an unknown format.
        """
        if self.params.labels is None:  # the archive may be unpacked to any folder
            found = find(self.root, f"**/{ANNOTATIONS}")
            return read_mat_labels(
                found[0] if found else require(self.root / ANNOTATIONS, self.dataset, self.where_to_get)
            )
        path = self.root / self._labels(split)
        readers: dict[str, Callable[[Path], Pictures]] = {
            ".h5": read_h5_labels,
            ".json": partial(read_json_labels, split=split),
        }
        if path.suffix not in readers:
            raise PoseRftError(
                f"`datasets.mpii.labels` is {self.params.labels!r}, expected a name ending in .h5 or .json."
            )
        return readers[path.suffix](path)


READER = Mpii
