import pytest
import torch

from pose_rft.batches.examples import Example
from pose_rft.body.frames import camera_to_amass, remove_heading
from pose_rft.body.rotations import axis_angle_to_matrix, matrix_to_sixd
from pose_rft.errors import PoseRftError
from pose_rft.inference.rewards import RewardParams, joint_error, joint_reward
from pose_rft.inference.sampling import Completions
from tests.support.rft_fakes import fake_rewards
from tests.support.training_fakes import Chain, tiny_policy


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    return tiny_policy(tmp_path_factory.mktemp("policy"))[1]


def rotations(seed: int, n: int = 1) -> torch.Tensor:
    return axis_angle_to_matrix(torch.randn(n, 24, 3, generator=torch.Generator().manual_seed(seed)) * 0.4)


def raw(turns: torch.Tensor) -> torch.Tensor:
    """(N, 24, 3, 3) → (1, 1, N, 144): N poses of one answer."""
    return matrix_to_sixd(turns).flatten(1)[None, None]


def example(task: str, turns: torch.Tensor | None = None, **fields: object) -> Example:
    joints = None
    if turns is not None:
        joints = Chain().joints(turns)[0]
        fields = {"joints": joints - joints[:1], "pose6d": matrix_to_sixd(turns)[0]} | fields
    return Example(f"{task}_key", task, "What?", "A cat.", **fields)  # type: ignore[arg-type]


ONE = torch.ones(1, 1, dtype=torch.bool)


def test_the_joint_error_is_metres_and_does_not_see_where_the_person_stands():
    body, truth = Chain(), Chain().joints(rotations(0, 3))
    assert joint_error(body, rotations(0, 3), truth + 5.0).abs().max() < 1e-5
    lifted = truth.clone()
    lifted[:, 1:, 1] += 0.1
    assert joint_error(body, rotations(0, 3), lifted).tolist() == pytest.approx([0.1 * 23 / 24] * 3, rel=1e-4)


def test_joint_rewards_are_finite_at_zero_error_and_fall_with_it():
    error = torch.tensor([0.0, 0.02, 0.1, 1.0])
    for form in ("inverse", "exponential"):
        values = joint_reward(error, RewardParams(sentence_encoder="unused", joint_form=form))
        assert values.isfinite().all() and (values.diff() < 0).all()
    assert joint_reward(torch.tensor(0.1), RewardParams(sentence_encoder="unused")).item() == pytest.approx(1 / 0.101)


@pytest.mark.parametrize("task", ["image_pose", "image_text_pose"])
def test_the_true_pose_of_a_picture_gets_the_best_joint_reward_and_no_semantic_one(processor, task):
    truth = rotations(0)
    poses = raw(torch.cat([truth, rotations(1), rotations(2)]))
    found = fake_rewards(processor).poses([example(task, truth, caption="he sits")], poses, ONE)
    assert found.joint[0, 0].argmax() == 0 and found.semantic.isnan().all()
    assert torch.equal(found.value, found.joint)


def test_raw_numbers_are_judged_after_they_are_made_rotations(processor):
    truth = rotations(0)
    stretched = raw(truth) * 3.0  # the same rotations after Gram-Schmidt
    found = fake_rewards(processor).poses([example("image_pose", truth)], torch.cat([raw(truth), stretched], 2), ONE)
    assert found.joint[0, 0, 0].item() == pytest.approx(found.joint[0, 0, 1].item(), rel=1e-3)


def test_the_semantic_reward_does_not_see_the_heading_but_sees_the_lean(processor):
    rewards = fake_rewards(processor)
    pose, described = rotations(0), example("text_pose", rotations(0), caption="he sits")
    turned, leaning = pose.clone(), pose.clone()
    about_vertical = axis_angle_to_matrix(torch.tensor([0.0, 1.0, 0.0]))  # the camera's y axis points down
    about_depth = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.5]))
    turned[:, 0], leaning[:, 0] = about_vertical @ pose[:, 0], about_depth @ pose[:, 0]
    found = rewards.poses([described], raw(torch.cat([pose, turned, leaning])), ONE).semantic[0, 0]
    assert found[0].item() == pytest.approx(found[1].item(), abs=1e-4)
    assert abs(found[0] - found[2]) > 1e-3


def test_the_retrieval_model_gets_the_pose_in_its_own_frame(processor):
    rewards, seen = fake_rewards(processor), []
    embed = rewards.retrieval.encode_pose
    rewards.retrieval.encode_pose = lambda r: seen.append(r) or embed(r)
    pose = rotations(0)
    rewards.poses([example("text_pose", pose, caption="he sits")], raw(pose), ONE)
    torch.testing.assert_close(seen[0][:, 0], remove_heading(camera_to_amass(pose[:, 0])), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0][:, 1:], pose[:, 1:], atol=1e-5, rtol=0)


def said(processor, *answers: str) -> Completions:
    ids = [[[*processor.sentence_ids(text), processor.eos_token_id] for text in answers]]
    return Completions.from_lists(ids, processor.eos_token_id)


def test_the_format_reward_takes_exactly_the_template(processor):
    template = processor.ANSWER
    answers = said(processor, template, f"{template} {template}", template.replace("<POSE>", ""), f"Yes {template}")
    found = fake_rewards(processor).answers([example("image_pose", rotations(0))], answers)
    assert found.format.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert found.text.isnan().all() and torch.equal(found.total, found.format)


def test_an_answer_that_was_cut_off_has_the_wrong_format(processor):
    ids = list(processor.answer_ids)[:-1]
    found = fake_rewards(processor).answers(
        [example("image_pose", rotations(0))], Completions.from_lists([[ids]], processor.eos_token_id)
    )
    assert found.format.tolist() == [[0.0]]


def test_vqa_is_rewarded_for_a_clean_end_without_a_pose_and_for_likeness(processor):
    asked = Example("vqa_key", "vqa", "Is it?", "Yes .")
    found = fake_rewards(processor).answers([asked], said(processor, "Yes .", "No .", processor.ANSWER))
    assert found.format.tolist() == [[1.0, 1.0, 0.0]]
    assert found.text[0, 1] < 0.99 and found.total[0, 0] > found.total[0, 1]


def test_an_empty_answer_has_finite_rewards(processor):
    empty = Completions.from_lists([[[processor.eos_token_id]]], processor.eos_token_id)
    found = fake_rewards(processor).answers([Example("vqa_key", "vqa", "Is it?", "Yes .")], empty)
    assert found.format.tolist() == [[0.0]] and found.total.isfinite().all()


def test_a_weight_of_zero_removes_a_reward(processor):
    asked = Example("vqa_key", "vqa", "Is it?", "Yes .")
    answers = said(processor, "Yes .", processor.ANSWER)
    silent = fake_rewards(processor, format_weight=0.0, text_weight=0.0).answers([asked], answers)
    assert (silent.total == 0).all()
    weights = fake_rewards(processor, joint_weight=0.0, semantic_weight=2.0)
    tasks = [example("image_pose", rotations(0)), example("text_pose", rotations(0)), asked]
    assert weights.weights(tasks).tolist() == [0.0, 2.0, 0.0]


def test_captions_are_embedded_once(processor):
    rewards = fake_rewards(processor)
    rewards.remember(["he sits", "he stands", "he sits"])
    rewards.poses([example("text_pose", rotations(0), caption="he sits")], raw(rotations(1)), ONE)
    assert sorted(rewards.retrieval.read) == ["he sits", "he stands"]


def test_a_pose_whose_reward_is_not_finite_is_named_unless_nobody_showed_it(processor):
    broken = torch.full((1, 1, 1, 144), float("nan"))
    pictured = [example("image_pose", rotations(0))]
    with pytest.raises(PoseRftError, match="not finite for samples image_pose_key"):
        fake_rewards(processor).poses(pictured, broken, ONE)
    fake_rewards(processor).poses(pictured, broken, ~ONE)


def test_rewards_carry_no_gradient(processor):
    poses = raw(rotations(1)).requires_grad_()
    found = fake_rewards(processor).poses([example("image_pose", rotations(0))], poses, ONE)
    assert not found.value.requires_grad
