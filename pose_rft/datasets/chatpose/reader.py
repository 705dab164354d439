"""ChatPose's two reasoning benchmarks: find the person who is described (RPE), and imagine a pose (SPG).

**RPE**, reasoning-based pose estimation: an image of several people and a question that describes one of them by
behaviour, outfit, pose or shape. Read from RPE-Refined, which refers to 3DPW's images and stores each answer as SMPL
in the camera frame. The model sees the whole image, so a sample has no box.

**SPG**, speculative pose generation: a question from which a pose must be inferred. The format of ChatPose's own files
is not known, so this project defines one: `spg.json` has questions for poses of PoseScript's test split; the poses and
the human captions (used to measure recall) come from that release. Layouts: docs/formats.md, ChatPose.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pose_rft.body.joints import SMPL24
from pose_rft.datasets.common.base import (
    Reader,
    Unit,
    check_split,
    existing_files,
    require,
    sample_key,
    with_confidence,
)
from pose_rft.datasets.common.labels import GENDERS, plausible
from pose_rft.datasets.common.pictures import UnreadablePicture, load_picture, picture_path
from pose_rft.datasets.posescript.reader import PoseScript, PoseScriptParams
from pose_rft.errors import PoseRftError
from pose_rft.io.json_files import read_json
from pose_rft.params import Fraction, Section
from pose_rft.record import Caption, Defect, Keypoints, Record, Smpl, Turn

Split = Literal["rpe_behavior", "rpe_outfits", "rpe_pose", "rpe_shape", "spg"]
ASPECTS: tuple[Split, ...] = ("rpe_behavior", "rpe_outfits", "rpe_pose", "rpe_shape")
SPG_FILE = "spg.json"
SPG_POSES = "test"  # the PoseScript split that the questions refer to
IMAGE_MARKER, PICTURES_OF = "<image>", "3DPW/"


def question_file(split: str) -> str:
    """Returns the question file of an aspect, below the data set's folder."""
    return f"RPE-refined/refine_vqa_{split.removeprefix('rpe_')}_withGT.json"


class ChatPoseParams(Section):
    """`datasets.chatpose` in params.yaml; pictures: 3DPW's folder; posescript, amass: where SPG's poses are."""

    root: str = "chatpose"
    pictures: str = "3dpw"
    posescript: str = "posescript"
    amass: str = "amass"
    splits: tuple[Split, ...] = ASPECTS
    max_defect_rate: Fraction = 0.01


class ChatPose(Reader):
    """Reader of both benchmarks; a unit is a file of questions about pictures, or an AMASS file with its questions."""

    Params = ChatPoseParams
    params: ChatPoseParams
    dataset = "chatpose"
    licence = "questions: as ChatPose's and RPE-Refined's repositories state; pictures and poses: 3DPW's and AMASS's"
    where_to_get = "https://github.com/jjunsss/RPE-Refined (RPE); for SPG write spg.json as docs/formats.md says"

    @property
    def pictures(self) -> Path:
        """3DPW's folder."""
        return self.data_root / self.params.pictures

    def units(self, split: str) -> list[Unit]:
        check_split(split, (*ASPECTS, "spg"), self.dataset)
        if split == "spg":
            return self._speculative_units()
        path = require(self.root / question_file(split), self.dataset, self.where_to_get)
        require(self.pictures / "imageFiles", f"{self.dataset} (its pictures, of 3DPW)", self.where_to_get)
        return [Unit(sample_key("chatpose", split), len(read_json(path, list)), ())]

    def read(self, unit: Unit, split: str) -> Iterator[Record | Defect]:
        if split == "spg":
            yield from self._speculative(unit)
            return
        for number, row in enumerate(read_json(self.root / question_file(split), list)):
            try:
                yield self._about_a_person(row, sample_key("chatpose", split, number), split)
            except UnreadablePicture as problem:
                yield problem.defect(unit.key, str(number))
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, PoseRftError) as error:
                yield Defect(unit.key, str(number), "malformed question", " ".join(str(error).split())[:200])

    def inventory(self) -> list[Path]:
        files = existing_files(self.root, ["RPE-refined/*.json", SPG_FILE])
        if any(split in ASPECTS for split in self.params.splits):
            files += existing_files(self.pictures, ["imageFiles/*/*.jpg"])
        return sorted(files + (self._poses().inventory() if "spg" in self.params.splits else []))

    def _about_a_person(self, row: Mapping[str, Any], key: str, split: str) -> Record:
        """Returns the record of an RPE-Refined row; raises KeyError or similar if the row is malformed."""
        name = str(row["real_image"]).removeprefix(PICTURES_OF)
        picture = load_picture(picture_path(self.pictures, name))
        question = str(row["conversations"][0]["value"]).replace(IMAGE_MARKER, "").strip()
        truth = row["ground_truth"]
        numbers = [np.asarray(truth["smpl_param"][name], np.float64).ravel() for name in ("pose", "shape", "trans")]
        joints = with_confidence(np.asarray(truth["fitted_joint_cam"], np.float64).reshape(24, 3))
        if not question or not all(plausible(array).all() for array in (*numbers, joints)):
            raise ValueError("no question, or a number that is not finite")
        pose, betas, transl = numbers
        smpl = Smpl(
            global_orient=pose.reshape(24, 3)[0],
            body_pose=pose.reshape(24, 3)[1:],
            betas=betas,
            transl=transl,
            valid=np.ones(24, bool),
            gender=GENDERS[str(truth["smpl_param"]["gender"]).lower()],
            body_model="smpl",
            frame="camera",
            source="3dpw",
        )
        return Record(
            key=key,
            dataset=self.dataset,
            split=split,
            image=picture,
            sequence=Path(name).parent.name,
            smpl=smpl,
            joints3d=Keypoints(joints, SMPL24.name),
            captions=(Caption(question, "human"),),
            dialogue=(Turn("human", question),),
            provenance=(("image", name), ("smpl", "smpl_param, camera frame"), ("joints3d", "fitted_joint_cam")),
        )

    def _poses(self) -> PoseScript:
        params = PoseScriptParams(root=self.params.posescript, amass=self.params.amass, kinds=("human",))
        return PoseScript(self.data_root, params, self.body_model, self.jpeg_quality)

    def _questions(self) -> dict[int, list[str]]:
        """Reads the questions, by id of the pose that each asks for.

        Raises:
            PoseRftError: not a list of {pose, question}.
        """
        path = require(self.root / SPG_FILE, self.dataset, self.where_to_get)
        questions: dict[int, list[str]] = {}
        for number, row in enumerate(read_json(path, list)):
            match row:
                case {"pose": int(pose), "question": str(question)} if question.strip():
                    questions.setdefault(pose, []).append(question.strip())
                case _:
                    raise PoseRftError(
                        f"{path}: row {number} is {row!r:.60}, expected the number of a pose of PoseScript and a "
                        'question, {"pose": 12, "question": "..."}.'
                    )
        return questions

    def _speculative_units(self) -> list[Unit]:
        questions = self._questions()
        units = []
        for unit in self._poses().units(SPG_POSES):
            name, rows = unit.payload
            if mine := tuple(row for row in rows if row[0] in questions):
                asked = {row[0]: tuple(questions.pop(row[0])) for row in mine}
                units.append(Unit(unit.key, sum(map(len, asked.values())), (name, mine, asked)))
        if questions:
            raise PoseRftError(
                f"{self.root / SPG_FILE} asks for pose {min(questions)}, which PoseScript's {SPG_POSES} split does not "
                "have with a human caption; take it out."
            )
        return units

    def _speculative(self, unit: Unit) -> Iterator[Record | Defect]:
        name, rows, asked = unit.payload
        for row in self._poses().read(Unit(unit.key, len(rows), (name, rows)), SPG_POSES):
            questions = asked[int(row.row if isinstance(row, Defect) else row.key.rpartition("_")[2])]
            for number, question in enumerate(questions):
                if isinstance(row, Defect):
                    yield row
                else:
                    turn = (Turn("human", question),)
                    key = sample_key("chatpose", "spg", row.key.rpartition("_")[2], number)
                    yield replace(row, key=key, dataset=self.dataset, split="spg", dialogue=turn)


READER = ChatPose
