"""The four rewards (paper eq. 7-10): what the policy's words and poses are worth.

| reward | for | value |
|---|---|---|
| joint | pose from an image, with or without text | 1 / MPJPE of 24 joints, aligned at the pelvis, 1/metre |
| semantic | pose from text | cosine of caption and pose in a retrieval model, [-1, 1] |
| format | every answer | 1 if it is exactly the template with its one pose (VQA: a clean end and no pose), else 0 |
| text | VQA | cosine of the sentence embeddings of the answer and the true answer |

The semantic reward reads the bare caption, never the question around it, and the pose without its heading: a caption
does not say which way the person looks. Joints come from the kinematic chain of the neutral body in its mean shape,
for prediction and truth alike, since the policy predicts no shape. A sample with picture and caption takes the joint
reward.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.body.frames import semantic_frame
from pose_rft.body.rotations import sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.inference.sampling import Answers
from pose_rft.inference.types import AnswerRewards, PoseRewards
from pose_rft.metrics.pose_error import MILLIMETRES, mpjpe
from pose_rft.params import NonNegative, Positive, Section
from pose_rft.policy.processor import PoseProcessor
from pose_rft.retrieval.model import TextPoseModel
from pose_rft.retrieval.sentence_encoder import SentenceEncoder

JOINT_TASKS = ("image_pose", "image_text_pose")
SEMANTIC_TASKS = ("text_pose",)
CAPTIONS_AT_ONCE = 256


class RewardParams(Section):
    """The four rewards (paper eq. 7-10). A weight of 0 removes a reward (the paper's ablations).

    Format and text rewards are added, weighted, before the group's z-score, which then removes their common scale. Of
    joint and semantic each sample has one, so their weights multiply the advantage; as rewards a weight would cancel.
    """

    joint_weight: NonNegative = 1.0
    semantic_weight: NonNegative = 1.0
    format_weight: NonNegative = 1.0
    text_weight: NonNegative = 1.0
    # Eq. 7 is 1 / MPJPE; the floor keeps it finite. `exponential`, exp(-MPJPE / scale), favours the best pose less.
    joint_form: Literal["inverse", "exponential"] = "inverse"
    joint_floor: Positive = 0.001  # metres, added to MPJPE
    joint_scale: Positive = 0.1  # metres, of the exponential form
    sentence_encoder: str  # of the text reward; paper: BAAI/bge-m3


def joint_error(body: BodyModel, rotations: Tensor, target: Tensor) -> Tensor:
    """MPJPE in metres, (N,), of rotations (N, 24, 3, 3) against joints (N, 24, 3), both taken from the pelvis."""
    joints = body.joints(rotations)
    return mpjpe(joints - joints[:, :1], target - target[:, :1]) / MILLIMETRES


def joint_reward(error: Tensor, params: RewardParams) -> Tensor:
    """Eq. 7 of an MPJPE in metres, any shape."""
    if params.joint_form == "exponential":
        return (-error / params.joint_scale).exp()
    return 1 / (error + params.joint_floor)


class Rewards:
    """The models that judge, frozen, and what they make of a group."""

    def __init__(
        self,
        body: BodyModel,
        retrieval: TextPoseModel,
        sentences: SentenceEncoder,
        processor: PoseProcessor,
        params: RewardParams,
    ) -> None:
        self.body, self.retrieval, self.sentences = body, retrieval, sentences
        self.processor, self.params = processor, params
        self._captions: dict[str, Tensor] = {}

    @torch.no_grad()
    def remember(self, captions: Iterable[str]) -> None:
        """Embeds captions once and for all, in an order of their own, so that a resumed run has the same numbers."""
        texts = sorted({*captions} - self._captions.keys())
        for first in range(0, len(texts), CAPTIONS_AT_ONCE):
            chunk = texts[first : first + CAPTIONS_AT_ONCE]
            self._captions |= zip(chunk, self.retrieval.embed_text(chunk).float(), strict=True)

    @torch.no_grad()
    def answers(self, examples: Sequence[Example], answers: Answers) -> AnswerRewards:
        """Format and text rewards of B x G answers, on the CPU.

        Raises:
            PoseRftError: a reward is not finite.
        """
        answers = Answers(answers.ids.cpu(), answers.lengths.cpu(), answers.finished.cpu())
        shape = answers.lengths.shape
        format_reward, text = torch.zeros(shape), torch.full(shape, float("nan"))
        spoken: list[tuple[int, int, str]] = []
        for i, example in enumerate(examples):
            for j in range(shape[1]):
                ids = answers.answer(i, j)
                if example.task == "vqa":
                    format_reward[i, j] = float(self.processor.answer_is_clean_text(ids))
                    spoken.append((i, j, self.processor.decode(ids)))
                else:
                    format_reward[i, j] = float(self.processor.answer_is_pose(ids))
        if spoken:
            alike = self._similarity([text for *_, text in spoken], [examples[i].answer for i, *_ in spoken])
            for (i, j, _), value in zip(spoken, alike.tolist(), strict=True):
                text[i, j] = value
        total = self.params.format_weight * format_reward + self.params.text_weight * text.nan_to_num(0.0)
        _require_finite(total, torch.ones(shape, dtype=torch.bool), examples)
        return AnswerRewards(format_reward, text, total)

    @torch.no_grad()
    def poses(self, examples: Sequence[Example], poses: Tensor, valid: Tensor) -> PoseRewards:
        """Joint and semantic rewards.

        Args:
            poses: (B, G, K, 144) raw 6D numbers, root in the camera frame. valid: (B, G) bool.
        Raises:
            PoseRftError: the reward of a valid pose is not finite.
        """
        asked_on, poses, valid = poses.device, poses.to(self.retrieval.device), valid.to(self.retrieval.device)
        joint = torch.full(poses.shape[:3], float("nan"), device=poses.device)
        semantic = joint.clone()
        rotations = sixd_to_matrix(poses.float().unflatten(-1, (24, 6)))
        per_group = rotations.shape[1] * rotations.shape[2]
        pictured = [
            i for i, example in enumerate(examples) if example.task in JOINT_TASKS and example.joints is not None
        ]
        if pictured:
            targets = torch.stack([_joints(examples[i]) for i in pictured]).to(poses)
            error = joint_error(self.body, rotations[pictured].flatten(0, 2), targets.repeat_interleave(per_group, 0))
            joint[pictured] = joint_reward(error, self.params).view(joint[pictured].shape)
        described = [i for i, example in enumerate(examples) if example.task in SEMANTIC_TASKS]
        if described:
            captions = self._embedded([str(examples[i].caption) for i in described]).to(poses)
            shown = self.retrieval.embed_pose(semantic_frame(rotations[described], "camera").flatten(0, 2)).to(poses)
            alike = (shown.unflatten(0, (len(described), per_group)) * captions[:, None]).sum(-1)
            semantic[described] = alike.view(semantic[described].shape)
        rewards = PoseRewards(joint, semantic)
        _require_finite(rewards.value, valid[..., None].expand_as(joint), examples)
        return PoseRewards(joint.to(asked_on), semantic.to(asked_on))

    def weights(self, examples: Sequence[Example]) -> Tensor:
        """(B,) what multiplies the pose advantage of each sample."""
        by_task = dict.fromkeys(JOINT_TASKS, self.params.joint_weight)
        by_task |= dict.fromkeys(SEMANTIC_TASKS, self.params.semantic_weight)
        return torch.tensor([by_task.get(example.task, 0.0) for example in examples])

    def _embedded(self, captions: Sequence[str]) -> Tensor:
        self.remember(captions)
        return torch.stack([self._captions[caption] for caption in captions])

    def _similarity(self, spoken: Sequence[str], truth: Sequence[str]) -> Tensor:
        texts = sorted({*spoken, *truth})
        place = {text: i for i, text in enumerate(texts)}
        embedded = torch.as_tensor(self.sentences.encode(texts)).float()
        return (embedded[[place[text] for text in spoken]] * embedded[[place[text] for text in truth]]).sum(-1)


def _joints(example: Example) -> Tensor:
    assert example.joints is not None  # those without are not asked for
    return example.joints


def _require_finite(values: Tensor, where: Tensor, examples: Sequence[Example]) -> None:
    bad = (where & ~values.isfinite()).flatten(1).any(1)
    if bad.any():
        keys = ", ".join(example.key for example, is_bad in zip(examples, bad.tolist(), strict=True) if is_bad)
        raise PoseRftError(f"The reward is not finite for samples {keys}; look at these samples.")
