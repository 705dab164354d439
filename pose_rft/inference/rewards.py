"""The four rewards (paper eq. 7-10) of the policy's answers and poses.

| reward | for | value |
|---|---|---|
| joint | pose from an image, with or without text | 1 / MPJPE of 24 joints, aligned at the pelvis, 1/metre |
| semantic | pose from text | cosine of caption and pose in a retrieval model, [-1, 1] |
| format | every answer | 1 if it is exactly the template with its one pose (VQA: a clean end and no pose), else 0 |
| text | VQA | cosine of the sentence embeddings of the answer and the true answer |

`energy` (for joints, and for poses from text) is not in the paper: a draw's share of its group's energy score, in
metres, or in the retrieval model's space with the true pose's embedding as the truth (`energy.py`).

The semantic reward uses the bare caption, never the question around it, and the pose without its heading: a caption
does not say which way the person faces. Joints come from the kinematic chain of the neutral body in its mean shape,
for prediction and truth alike, since the policy predicts no shape. A sample with image and caption gets the joint
reward.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pose_rft.batches.examples import Example
from pose_rft.body.frames import semantic_frame
from pose_rft.body.rotations import sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.errors import PoseRftError
from pose_rft.inference.energy import energy_shares
from pose_rft.inference.sampling import Completions
from pose_rft.inference.types import AnswerRewards, PoseRewards
from pose_rft.metrics.pose_error import MILLIMETRES, mpjpe
from pose_rft.params import NonNegative, Positive, Section
from pose_rft.policy.processor import PoseProcessor
from pose_rft.retrieval.ensemble import Ensemble
from pose_rft.retrieval.model import TextPoseModel
from pose_rft.retrieval.sentence_encoder import SentenceEncoder

JOINT_TASKS = ("image_pose", "image_text_pose")
SEMANTIC_TASKS = ("text_pose",)
CAPTIONS_AT_ONCE = 256


class RewardParams(Section):
    """The four rewards (paper eq. 7-10). A weight of 0 removes a reward (the paper's ablations).

    The weighted sum of format and text rewards enters the group's z-score, which removes its scale. A sample has either
    a joint or a semantic reward, so these weights multiply the advantage; a weight on the reward itself would cancel.
    """

    joint_weight: NonNegative = 1.0
    semantic_weight: NonNegative = 1.0
    format_weight: NonNegative = 1.0
    text_weight: NonNegative = 1.0
    # Eq. 7 is 1 / MPJPE; the floor keeps it finite. `exponential`, exp(-MPJPE / scale), favours the best pose less.
    # `energy` is a draw's share of its group's energy score, highest for the true distribution (`energy.py`).
    joint_form: Literal["inverse", "exponential", "energy"] = "inverse"
    joint_floor: Positive = 0.001  # metres, added to MPJPE
    joint_scale: Positive = 0.1  # metres, of the exponential form
    semantic_form: Literal["cosine", "energy"] = "cosine"  # eq. 8; `energy` compares with the true pose's embedding
    sentence_encoder: str = "all-MiniLM-L6-v2"  # of the text reward; paper: BAAI/bge-m3


def pelvis_joints(body: BodyModel, rotations: Tensor) -> Tensor:
    """(..., 24, 3, 3) → (..., 24, 3) metres, relative to the pelvis."""
    joints = body.joints(rotations)
    return joints - joints[..., :1, :]


def joint_error(body: BodyModel, rotations: Tensor, target: Tensor) -> Tensor:
    """MPJPE in metres, (N,), of rotations (N, 24, 3, 3) against joints (N, 24, 3), both relative to the pelvis."""
    return mpjpe(pelvis_joints(body, rotations), target - target[:, :1]) / MILLIMETRES


def joint_reward(error: Tensor, params: RewardParams) -> Tensor:
    """Eq. 7 for MPJPEs in metres, any shape."""
    if params.joint_form == "exponential":
        return (-error / params.joint_scale).exp()
    return 1 / (error + params.joint_floor)


class Rewards:
    """The frozen reward models, and the rewards that they give to a group."""

    def __init__(
        self,
        body: BodyModel,
        retrieval: TextPoseModel | Ensemble,
        sentences: SentenceEncoder,
        processor: PoseProcessor,
        params: RewardParams,
    ) -> None:
        self.body, self.retrieval, self.sentences = body, retrieval, sentences
        self.processor, self.params = processor, params
        self._captions: dict[str, Tensor] = {}

    @torch.no_grad()
    def remember(self, captions: Iterable[str]) -> None:
        """Embeds captions once and keeps the result; the sorted order gives a resumed run the same numbers."""
        texts = sorted({*captions} - self._captions.keys())
        for first in range(0, len(texts), CAPTIONS_AT_ONCE):
            chunk = texts[first : first + CAPTIONS_AT_ONCE]
            self._captions |= zip(chunk, self.retrieval.embed_text(chunk).float(), strict=True)

    @torch.no_grad()
    def answers(self, examples: Sequence[Example], answers: Completions) -> AnswerRewards:
        """Format and text rewards of B x G answers, on the CPU.

        Raises:
            PoseRftError: a reward is not finite.
        """
        answers = Completions(answers.ids.cpu(), answers.lengths.cpu(), answers.finished.cpu())
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
        rewards = self._poses(examples, poses, valid, centred=True)
        _require_finite(rewards.value, valid[..., None].expand_as(rewards.joint), examples)
        return rewards

    def alone(self) -> "Rewards":
        """The same models with rewards that need no group, for held-out metrics: a share of an energy score needs a
        group, and curves of all reward forms then have one unit."""
        forms = {"joint_form": self.params.joint_form, "semantic_form": self.params.semantic_form}
        single = {"joint_form": "inverse", "semantic_form": "cosine"}
        update = {name: single[name] if form == "energy" else form for name, form in forms.items()}
        params = self.params.model_copy(update=update)
        other = Rewards(self.body, self.retrieval, self.sentences, self.processor, params)
        other._captions = self._captions
        return other

    def graded(self, examples: Sequence[Example], poses: Tensor, valid: Tensor) -> Tensor:
        """`poses(...).value`, (B, G, K), differentiable with respect to the poses."""
        return self._poses(examples, poses, valid, centred=False).value

    def _poses(self, examples: Sequence[Example], poses: Tensor, valid: Tensor, centred: bool) -> PoseRewards:
        asked_on, poses, valid = poses.device, poses.to(self.retrieval.device), valid.to(self.retrieval.device)
        nothing = torch.full(poses.shape[:3], float("nan"), device=poses.device)
        rotations = sixd_to_matrix(poses.float().unflatten(-1, (24, 6)))

        def judged(rows: list[int], judge: Callable[..., Tensor]) -> Tensor:
            """(B, G, K), NaN outside `rows`."""
            if not rows:
                return nothing
            draws, counts = rotations[rows].flatten(1, 2), valid[rows][..., None].expand(-1, -1, poses.shape[2])
            values = judge([examples[row] for row in rows], draws, counts.flatten(1), centred)
            return nothing.index_copy(0, torch.tensor(rows, device=poses.device), values.view(-1, *poses.shape[1:3]))

        pictured = [i for i, e in enumerate(examples) if e.task in JOINT_TASKS and e.joints is not None]
        described = [i for i, e in enumerate(examples) if e.task in SEMANTIC_TASKS]
        rewards = PoseRewards(judged(pictured, self._joint), judged(described, self._semantic))
        return PoseRewards(*(values.to(asked_on) for values in rewards))

    def _joint(self, examples: Sequence[Example], rotations: Tensor, valid: Tensor, centred: bool) -> Tensor:
        """Joint rewards (B, N) of rotations (B, N, 24, 3, 3)."""
        targets = torch.stack([_joints(example) for example in examples]).to(rotations)
        if self.params.joint_form == "energy":
            joints = pelvis_joints(self.body, rotations)
            return energy_shares(joints, targets - targets[:, :1], valid, centred)
        each = targets.repeat_interleave(rotations.shape[1], 0)
        return joint_reward(joint_error(self.body, rotations.flatten(0, 1), each), self.params).view(valid.shape)

    def _semantic(self, examples: Sequence[Example], rotations: Tensor, valid: Tensor, centred: bool) -> Tensor:
        """Semantic rewards (B, N) of rotations (B, N, 24, 3, 3)."""

        def embedded(poses: Tensor) -> Tensor:
            return self.retrieval.encode_pose(semantic_frame(poses, "camera")).to(rotations)

        shown = embedded(rotations.flatten(0, 1)).unflatten(0, valid.shape)
        if self.params.semantic_form == "energy":
            truth = torch.stack([_pose(example) for example in examples]).to(rotations)
            return energy_shares(shown[:, :, None], embedded(sixd_to_matrix(truth))[:, None], valid, centred)
        captions = self._embedded([str(example.caption) for example in examples]).to(rotations)
        return (shown * captions[:, None]).sum(-1)

    def weights(self, examples: Sequence[Example]) -> Tensor:
        """The weight of each sample's pose advantage, (B,)."""
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
    assert example.joints is not None  # the caller leaves out examples without joints
    return example.joints


def _pose(example: Example) -> Tensor:
    assert example.pose6d is not None  # every caption of `text_pose` has its pose
    return example.pose6d


def _require_finite(values: Tensor, where: Tensor, examples: Sequence[Example]) -> None:
    bad = (where & ~values.isfinite()).flatten(1).any(1)
    if bad.any():
        keys = ", ".join(example.key for example, is_bad in zip(examples, bad.tolist(), strict=True) if is_bad)
        raise PoseRftError(f"The reward is not finite for samples {keys}; look at these samples.")
