import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pose_rft.datasets.chatpose.facts import FACTS
from pose_rft.datasets.chatpose.reader import ASPECTS, ChatPose, ChatPoseParams, question_file
from pose_rft.datasets.posescript.reader import PoseScript, PoseScriptParams
from pose_rft.errors import PoseRftError
from pose_rft.sample import write_chatpose, write_posescript
from pose_rft.sample.plan import ChatPoseSample, PoseScriptSample, SampleParams
from pose_rft.sample.scene import OutfitDescription
from tests.support.flat_studio import FlatStudio
from tests.support.release_truth import body_angle, joint_error, read_all

POSES = PoseScriptSample(train=2, train_human=1, val=2, test=12)
PARAMS = SampleParams.model_construct(chatpose=ChatPoseSample(size=64, pictures=3, questions=8), posescript=POSES)
OUTFIT = SimpleNamespace(description=OutfitDescription("red", "striped", "short", "blue", "shorts", "white", "bald"))


class DressedStudio(FlatStudio):
    """People of whose clothes can be told."""

    def identity(self, *arguments, **options):
        return replace(super().identity(*arguments, **options), outfit=OUTFIT)


def reader(root: Path, body_models: Path, *splits: str) -> ChatPose:
    return ChatPose(root, ChatPoseParams(splits=splits or ASPECTS), body_models, 92)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory, body_models: Path) -> tuple[Path, FlatStudio]:
    root, studio = tmp_path_factory.mktemp("releases"), DressedStudio(body_models)
    for writer in (write_posescript, write_chatpose):
        results = [writer.render(task, PARAMS, 0, studio, root) for task in writer.tasks(PARAMS, 0)]
        writer.finish(PARAMS, 0, results, root)
    return root, studio


@pytest.fixture
def own(miniature, body_models, tmp_path: Path) -> ChatPose:
    """A release that the test may damage."""
    shutil.copytree(miniature[0], tmp_path / "releases")
    return reader(tmp_path / "releases", body_models, *ASPECTS, "spg")


def edit(release: ChatPose, name: str, change) -> None:
    path = release.root / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_nothing_is_rendered_unless_the_sample_asks_for_it() -> None:
    assert write_chatpose.tasks(SampleParams.model_construct(), 0) == []


@pytest.mark.parametrize("split", ASPECTS)
def test_the_answer_to_a_question_is_the_person_who_was_meant(miniature, body_models: Path, split: str) -> None:
    records, defects = read_all(reader(miniature[0], body_models), split)
    rows = json.loads((miniature[0] / "chatpose" / question_file(split)).read_text())
    assert not defects and len(records) == len(rows) == 3
    for record, row in zip(records, rows, strict=True):
        first = miniature[1].people.index(miniature[1].of_picture(record))
        person = miniature[1].people[first + row["ground_truth"]["person_id"]]
        assert body_angle(record, person) < 1e-4 and joint_error(record, body_models) < 0.1
        assert record.smpl.gender == person.identity.gender and record.smpl.frame == "camera"
        assert record.box is None, "the whole picture is shown: a box would give the answer away"
        question = record.dialogue[0].text
        assert question.endswith("can you give the SMPL pose of this person?") and "<image>" not in question
        assert record.captions[0].text == question and record.captions[0].kind == "human"


def test_a_question_without_a_picture_has_the_pose_and_the_caption_of_posescript(miniature, body_models: Path) -> None:
    records, defects = read_all(reader(miniature[0], body_models, "spg"), "spg")
    questions = {row["pose"]: row["question"] for row in json.loads((miniature[0] / "chatpose/spg.json").read_text())}
    poses = {r.key: r for r in read_all(PoseScript(miniature[0], PoseScriptParams(), body_models, 92), "test")[0]}
    assert not defects and len(records) == len(questions) == 8
    for record in records:
        _, _, number, _ = record.key.split("_")
        same = poses[f"posescript_{number}"]
        assert record.dialogue[0].text == questions[int(number)] and record.image is None
        np.testing.assert_array_equal(record.smpl.body_pose, same.smpl.body_pose)
        assert record.captions == tuple(caption for caption in same.captions if caption.kind == "human")


def test_two_questions_for_one_pose_are_two_samples(own: ChatPose) -> None:
    before, _ = read_all(own, "spg")
    edit(own, "spg.json", lambda rows: rows.append(rows[0] | {"question": "And if it rained?"}))
    after, _ = read_all(own, "spg")
    assert len(after) == len(before) + 1 and len({record.key for record in after}) == len(after)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"pose": "12", "question": "?"}, "expected the number of a pose"),
        ({"pose": 12, "question": " "}, "expected the number of a pose"),
        (["x"], "expected the number of a pose"),
        ({"pose": 99_999_999, "question": "What?"}, "asks for pose 99999999"),
    ],
)
def test_a_question_for_no_pose_is_one_sentence(own: ChatPose, row, words: str) -> None:
    edit(own, "spg.json", lambda rows: rows.append(row))
    with pytest.raises(PoseRftError, match=words):
        own.units("spg")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda row: row.update(real_image="3DPW/imageFiles/x/none.jpg"), "missing image"),
        (lambda row: row.update(real_image="../../etc/passwd"), "unsafe name"),
        (lambda row: row.update(conversations=[]), "malformed question"),
        (lambda row: row.pop("ground_truth"), "malformed question"),
        (lambda row: row["ground_truth"]["smpl_param"].update(pose=[0.0] * 3), "malformed question"),
        (lambda row: row["ground_truth"]["smpl_param"].update(trans=[1e300] * 3), "malformed question"),
        (lambda row: row["ground_truth"]["smpl_param"].update(gender="x"), "malformed question"),
        (lambda row: row["ground_truth"].update(fitted_joint_cam=[[float("nan")] * 3] * 24), "malformed question"),
    ],
)
def test_a_damaged_row_is_a_defect_of_its_own(own: ChatPose, change, reason: str) -> None:
    edit(own, question_file("rpe_pose"), lambda rows: change(rows[1]))
    records, defects = read_all(own, "rpe_pose")
    assert [(defect.row, defect.reason) for defect in defects] == [("1", reason)] and len(records) == 2


def test_what_is_needed_follows_the_splits(own: ChatPose) -> None:
    def needed(*splits: str) -> list[int]:
        return [need.fewest(ChatPoseParams(splits=splits)) for need in FACTS.needs]

    assert needed(*ASPECTS) == [4, 1, 0] and needed("spg") == [0, 0, 1] and needed("rpe_pose", "spg") == [1, 1, 1]
    files = {path.relative_to(own.data_root).parts[0] for path in own.inventory()}
    assert files == {"chatpose", "3dpw", "posescript", "amass"}
    only = reader(own.data_root, own.body_model, "rpe_pose").inventory()
    assert {path.relative_to(own.data_root).parts[0] for path in only} == {"chatpose", "3dpw"}


def test_the_true_rotation_of_the_root_is_in_the_camera(miniature, body_models: Path) -> None:
    record = read_all(reader(miniature[0], body_models), "rpe_pose")[0][0]
    up = -Rotation.from_rotvec(record.smpl.global_orient).as_matrix()[1, 1]
    hips, head = record.joints3d.points[0, 1], record.joints3d.points[15, 1]
    assert (up > 0) == (head < hips) or abs(up) < 0.5, "y points down in a camera's frame"
