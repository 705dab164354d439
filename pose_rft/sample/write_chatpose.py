"""Miniatures of ChatPose's reasoning benchmarks: which person is meant (RPE), and which pose fits a situation (SPG).

Written only if `sample.chatpose` is set. RPE: images of two people in a sequence of their own below 3DPW's folder, and
the four question files of RPE-Refined with all fields that are read. SPG: `spg.json`, questions about what somebody is
doing, for poses of the miniature PoseScript. A situation depends only on the posture, so a question fits its pose but
does not determine the limbs. Source: jjunsss/RPE-Refined:README.md; SPG's file is ours (docs/formats.md).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pose_rft.body.frames import remove_heading
from pose_rft.captions.predicates import Posture
from pose_rft.io.atomic import canonical_json, write_text
from pose_rft.render.steps import rounded
from pose_rft.sample import write_posescript, write_pw3d
from pose_rft.sample.human_captions import human_captions
from pose_rft.sample.key_poses import sample_pose
from pose_rft.sample.people import Gender, Person, Seen, Shot, Studio, encode
from pose_rft.sample.plan import SampleParams, Task
from pose_rft.sample.pose_attributes import Observation
from pose_rft.sample.scene import OutfitDescription, background
from pose_rft.seeds import numpy_rng

RELEASE = "chatpose"
ASPECTS = ("behavior", "outfits", "pose", "shape")
SPG_FILE = "spg.json"
SEQUENCE = "downtown_reasoning_00"  # folder of the images, below 3DPW's imageFiles
PICTURES_PER_TASK = 10
AT = ((-0.65, 0.0), (0.65, 0.2))
SITUATIONS: Mapping[Posture, tuple[str, ...]] = {
    "standing": ("waits for a bus", "greets a friend in the street", "listens to a guide"),
    "bending": ("has dropped the keys", "looks for something under a table"),
    "lunging": ("is about to fence", "stretches before a run"),
    "squatting": ("talks to a small child", "looks at a beetle on the path"),
    "kneeling": ("weeds a flower bed", "fixes the chain of a bicycle"),
    "sitting": ("reads on a park bench", "attends a lecture"),
    "lying": ("sleeps in the grass", "sunbathes at a lake"),
    "on all fours": ("plays horse with the children", "scrubs a floor"),
}
ASKED_OF_ONE = "{who}, can you give the SMPL pose of this person?"
ASKED_OF_NOBODY = "Somebody {what}. Which SMPL pose might this person have?"


def tasks(params: SampleParams, seed: int) -> list[Task]:
    if params.chatpose is None:
        return []
    pictures = params.chatpose.pictures
    chunks = [range(i, min(i + PICTURES_PER_TASK, pictures)) for i in range(0, pictures, PICTURES_PER_TASK)]
    found = [Task(RELEASE, i, ("rpe", tuple(chunk)), len(chunk)) for i, chunk in enumerate(chunks)]
    asked = tuple(range(min(params.chatpose.questions, params.posescript.test)))
    return [*found, Task(RELEASE, len(found), ("spg", asked), max(1, len(asked) // 4))]


def render(task: Task, params: SampleParams, seed: int, studio: Studio, root: Path) -> dict[str, list[Any]]:
    """Returns the rows by the file to which they belong."""
    kind, numbers = task.payload
    if kind == "spg":
        return {SPG_FILE: [_speculative(index, seed, studio) for index in numbers]}
    rows = [_picture(index, params, seed, studio, root) for index in numbers]
    return {question_file(aspect): [row[aspect] for row in rows] for aspect in ASPECTS}


def finish(params: SampleParams, seed: int, results: Sequence[dict[str, list[Any]]], root: Path) -> None:
    for name in (*map(question_file, ASPECTS), SPG_FILE):
        if rows := [row for result in results for row in result.get(name, [])]:
            write_text(root / RELEASE / name, canonical_json(rows))


def question_file(aspect: str) -> str:
    """Returns the path of the question file of an aspect."""
    return f"RPE-refined/refine_vqa_{aspect}_withGT.json"


def _speculative(index: int, seed: int, studio: Studio) -> dict[str, Any]:
    """Returns a question for the index-th pose of PoseScript, sampled exactly as in `write_posescript`."""
    pose = sample_pose(numpy_rng(seed, "sample", write_posescript.RELEASE, "pose", index))
    seen = Observation(as_amass(pose), studio.body().rest_joints())
    rng = numpy_rng(seed, "sample", RELEASE, "spg", index)
    situations = SITUATIONS[seen.posture]
    what = situations[int(rng.integers(len(situations)))]
    return {"pose": write_posescript.pose_id(index), "question": ASKED_OF_NOBODY.format(what=what)}


def _picture(index: int, params: SampleParams, seed: int, studio: Studio, root: Path) -> dict[str, dict[str, Any]]:
    """Writes an image of two people; returns one row per aspect about one of them."""
    assert params.chatpose is not None
    rng = numpy_rng(seed, "sample", RELEASE, "rpe", index)
    genders: tuple[Gender, Gender] = ("female", "male") if rng.uniform() < 0.5 else ("male", "female")
    size = write_pw3d.picture_size(params.chatpose.size, landscape=True)
    people = [studio.place(studio.identity(rng, g), sample_pose(rng), at) for g, at in zip(genders, AT, strict=True)]
    view = write_pw3d.handheld_view(rng, people, size)
    shot = studio.shoot(rng, people, view, background(rng, (size[1], size[0])))
    name = f"imageFiles/{SEQUENCE}/image_{index:05d}.jpg"
    path = root / write_pw3d.RELEASE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(shot.image))
    meant = int(rng.integers(len(people)))
    told = descriptions(people[meant], studio, rng)
    return {aspect: _row(index, name, told[aspect], shot, meant) for aspect in ASPECTS}


def descriptions(person: Person, studio: Studio, rng: np.random.Generator) -> dict[str, str]:
    """Describes a person in each aspect, as the beginning of a sentence."""
    who = "The man" if person.identity.gender == "male" else "The woman"
    pose = as_amass(person.rotations)
    rest = studio.body(person.identity.gender).rest_joints(person.identity.betas)
    situations = SITUATIONS[Observation(pose, rest).posture]
    tall = "taller" if person.identity.betas[0] > 0 else "shorter"
    return {
        "behavior": f"{who} {situations[int(rng.integers(len(situations)))]}",
        "outfits": f"{who} wears {_clothes(person.identity.outfit.description)}",
        "pose": human_captions(pose, rest, rng)[0].rstrip("."),
        "shape": f"{who} is of {tall} build than most",
    }


def _clothes(outfit: OutfitDescription) -> str:
    pattern = "striped " if outfit.pattern == "striped" else ""
    return f"a {pattern}{outfit.top} top, {outfit.bottom} {outfit.legs} and {outfit.shoes} shoes"


def as_amass(rotations: np.ndarray) -> np.ndarray:
    """Converts rotations (24, 3, 3) from the sample's world to the AMASS frame, without heading."""
    turned = rotations.copy()
    turned[0] = remove_heading(torch.from_numpy(write_posescript.TO_AMASS @ rotations[0])).numpy()
    return turned


def _row(index: int, name: str, told: str, shot: Shot, meant: int) -> dict[str, Any]:
    """Returns a row of RPE-Refined."""
    seen: Seen = shot.seen[meant]
    identity = seen.person.identity
    low, high = seen.joints2d.min(0), seen.joints2d.max(0)
    pose = rounded(Rotation.from_matrix(seen.rotations).as_rotvec().ravel(), 8)
    joints = rounded(seen.joints, 8).tolist()
    return {
        "id": f"{index:06d}",
        "image": f"{index:06d}.png",
        "real_image": f"3DPW/{name}",
        "conversations": [
            {"from": "human", "value": f"<image>\n{ASKED_OF_ONE.format(who=told)}"},
            {"from": "gpt", "value": "Sure, it is <POSE>."},
        ],
        "ground_truth": {
            "id": index,
            "image_id": index,
            "person_id": meant,
            "joint_cam": joints,
            "fitted_joint_cam": joints,
            "joint_img": rounded(seen.joints2d, 6).tolist(),
            "smpl_param": {
                "shape": identity.betas.tolist(),
                "pose": pose.tolist(),
                "trans": rounded(seen.transl, 8).tolist(),
                "gender": identity.gender,
            },
            "bbox": rounded(np.concatenate([low, high - low]), 4).tolist(),
        },
    }
