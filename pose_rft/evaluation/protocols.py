"""How a policy is measured: Table 1 (pose from an image), Table 2 (pose from text), held-out rewards.

Answers are greedy and the pose is the mean of the Gaussian; one drawn pose is measured beside it. A sample whose answer
shows no pose is not left out: its rewards are 0 and it is measured with the mean rotations that the pose head starts
from, so refusing to answer never pays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from pose_rft.body.frames import semantic_frame
from pose_rft.body.model_file import Gender
from pose_rft.body.rotations import matrix_to_axis_angle, sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.core.params import Count, Section
from pose_rft.hygrpo.inference import Prediction
from pose_rft.metrics.pose_error import mpjpe, pa_mpjpe
from pose_rft.metrics.recall import DIRECTIONS, TABLE_2_KS, chance, pooled_recall, recall_at
from pose_rft.policy.processor import PoseProcessor
from pose_rft.retrieval.model import TextPoseModel
from pose_rft.training.samples import Samples

RANDOM_POOLS = (32, 200)  # 32 as the paper states, 200 as its numbers fit
POSES_AT_ONCE = 256


class EvaluateParams(Section):
    """`evaluate`: sample counts of null mean all (the paper's protocol)."""

    batch: Count  # prompts at once
    max_new_tokens: Count
    cache_tokens: bool  # keep the frozen encoders' tokens in scratch, else encode as they are needed
    image_samples: Count | None = None  # of each image test set, evenly spread
    text_samples: Count | None = None
    vqa_samples: Count | None = None
    mean_pose_sets: tuple[str, ...]  # data sets whose training poses make the mean-pose baseline
    mean_pose_samples: Count  # of each of them, evenly spread
    random_repeats: Count  # draws of each random pool; paper: R = 10
    sentence_encoder: str  # of the text reward; paper: BAAI/bge-m3


class JointTruth(NamedTuple):
    """joints: (N, 14, 3) metres, pelvis-aligned, of each person's own shape and gender; rotations: (N, 24, 3, 3)."""

    joints: Tensor
    rotations: Tensor


@torch.no_grad()
def true_joints(samples: Samples, rows: Sequence[int], body_of: Callable[[Gender], BodyModel]) -> JointTruth:
    """Ground truth of Table 1: the release's SMPL fit on the body of the person's gender (3DPW's fits are gendered).

    Args:
        body_of: gives the body model of a gender.
    """
    genders: list[Gender] = []
    for row in rows:
        fit = samples.shards.record(row).smpl
        assert fit is not None  # every row of a pose task has one
        genders.append(fit.gender)
    rotations, betas = samples.rotations[list(rows)], samples.betas[list(rows)]
    joints = torch.zeros(len(rows), 14, 3)
    for gender in sorted({*genders}):
        mine = torch.tensor([g == gender for g in genders])
        joints[mine] = eval_joints(body_of(gender), rotations[mine], betas[mine])
    return JointTruth(joints, rotations)


@torch.no_grad()
def eval_joints(body: BodyModel, rotations: Tensor, betas: Tensor | None = None) -> Tensor:
    """`BodyModel.eval_joints` in chunks: (N, 24, 3, 3) → (N, 14, 3)."""
    pieces = range(0, len(rotations), POSES_AT_ONCE)
    part = [slice(first, first + POSES_AT_ONCE) for first in pieces]
    return torch.cat([body.eval_joints(rotations[p], None if betas is None else betas[p]) for p in part])


def mean_training_joints(sets: Sequence[Samples], body: BodyModel, most: int) -> Tensor:
    """(14, 3): the mean of the evaluation joints over training poses, the best constant answer (in squared error)."""
    found = []
    for samples in sets:
        rows = samples.labelled.any(1).nonzero()[:, 0]
        rows = rows[:: max(1, -(-len(rows) // most))]
        found.append(eval_joints(body, samples.rotations[rows], samples.betas[rows]))
    return torch.cat(found).mean(0)


def shown_poses(prediction: Prediction, poses: Tensor, fallback: Tensor) -> Tensor:
    """(N, 24, 3, 3) of raw 6D poses (N, 144), with `fallback` (144,) where the answer shows none."""
    raw = torch.where(prediction.has_pose[:, None], poses, fallback)
    return sixd_to_matrix(raw.unflatten(-1, (24, 6)))


def joint_errors(joints: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """mpjpe and pa_mpjpe, each (N,) mm, of (N, 14, 3) or a constant (14, 3)."""
    joints = joints.expand_as(truth)
    return {"mpjpe": mpjpe(joints, truth), "pa_mpjpe": pa_mpjpe(joints, truth)}


def image_pose_table(
    name: str,
    prediction: Prediction,
    rewards: Mapping[str, Tensor],
    truth: JointTruth,
    body: BodyModel,
    fallback: Tensor,
    processor: PoseProcessor,
) -> pl.DataFrame:
    """One row per sample of an image test set; errors in mm, poses (72) in radians, root in the camera frame."""
    mean = shown_poses(prediction, prediction.mean, fallback)
    drawn = shown_poses(prediction, prediction.drawn, fallback)
    error, drawn_error = (joint_errors(eval_joints(body, poses), truth.joints) for poses in (mean, drawn))
    return _common(name, prediction, rewards, mean, truth.rotations, processor).with_columns(
        _column("mpjpe", error["mpjpe"]),
        _column("pa_mpjpe", error["pa_mpjpe"]),
        _column("mpjpe_sampled", drawn_error["mpjpe"]),
        _column("joint_reward", rewards["joint"]),
        _column("joint_reward_sampled", rewards["joint.sampled"]),
    )


def pose_errors(
    table: pl.DataFrame, truth: JointTruth, mean_joints: Tensor, mean_rotations: Tensor, body: BodyModel
) -> dict[str, dict[str, float]]:
    """Table 1 of one test set in mm: the policy, one drawn pose of it, and two constant answers: the mean joints of the
    training set and the pose (144,) of its mean rotations."""
    constant = eval_joints(body, sixd_to_matrix(mean_rotations.view(1, 24, 6)))[0]
    baselines = {"mean_pose": mean_joints, "mean_rotations": constant}
    found = {
        name: {metric: float(value.mean()) for metric, value in joint_errors(joints, truth.joints).items()}
        for name, joints in baselines.items()
    }
    means = table.select("mpjpe", "pa_mpjpe", "mpjpe_sampled").mean().row(0, named=True)
    found["policy"] = {"mpjpe": means["mpjpe"], "pa_mpjpe": means["pa_mpjpe"]}
    found["policy_sampled"] = {"mpjpe": means["mpjpe_sampled"]}
    return found


def text_pose_table(
    name: str, prediction: Prediction, rewards: Mapping[str, Tensor], fallback: Tensor, processor: PoseProcessor
) -> pl.DataFrame:
    """One row per caption; poses as in `image_pose_table`, facing a level camera."""
    mean = shown_poses(prediction, prediction.mean, fallback)
    return _common(name, prediction, rewards, mean, true_text_poses(prediction), processor).with_columns(
        pl.Series("caption", [example.caption for example in prediction.examples]),
        _column("semantic_reward", rewards["semantic"]),
        _column("semantic_reward_sampled", rewards["semantic.sampled"]),
    )


def vqa_table(
    name: str, prediction: Prediction, rewards: Mapping[str, Tensor], processor: PoseProcessor
) -> pl.DataFrame:
    """One row per held-out question."""
    return _answered(name, prediction, rewards, processor).with_columns(
        pl.Series("target", [example.answer for example in prediction.examples]),
        _column("text_reward", rewards["text"]),
    )


def true_text_poses(prediction: Prediction) -> Tensor:
    """(N, 24, 3, 3) of the examples' own poses."""
    poses = torch.stack([example.pose6d for example in prediction.examples if example.pose6d is not None])
    return sixd_to_matrix(poses)


@torch.no_grad()
def recall_table(
    captions: Sequence[str],
    poses: Mapping[str, Tensor],
    judges: Mapping[str, TextPoseModel],
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Table 2: {judge: {pool: {chance | name: {direction: {K: percent}}}}}.

    Args:
        captions: N bare captions. poses: {name: (N, 24, 3, 3)}, camera frame, pose i belongs to caption i.
    The pool is `full` or random (`random_32`, `random_200`), where hits are averaged over the repetitions.
    """
    found: dict[str, Any] = {}
    pools = {"full": len(captions)} | {f"random_{size}": min(size, len(captions)) for size in RANDOM_POOLS}
    for judge, model in judges.items():
        texts = model.embed_text(list(captions))
        found[judge] = {pool: {"chance": dict.fromkeys(DIRECTIONS, _chance(size))} for pool, size in pools.items()}
        for name, rotations in poses.items():
            similarity = (texts @ model.embed_pose(semantic_frame(rotations, "camera")).T).cpu()
            for pool, size in pools.items():
                if pool == "full":
                    recall = {d: recall_at(similarity, TABLE_2_KS, d) for d in DIRECTIONS}
                else:
                    draws = {"pool": size, "repeats": repeats, "seed": seed}
                    recall = {d: pooled_recall(similarity, TABLE_2_KS, d, **draws) for d in DIRECTIONS}
                found[judge][pool][name] = {d: {str(k): hits for k, hits in by_k.items()} for d, by_k in recall.items()}
    return found


def heldout_reward(tables: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Means over the held-out tables `image_pose`, `text_pose`, `vqa`, any of which may be missing: joint and semantic
    reward of the mean pose, with the drawn pose's beside it, format over all answers, text over VQA."""
    formats = pl.concat([table["format_reward"] for table in tables.values()])
    found: dict[str, Any] = {"format": {"mean": formats.mean()}}
    if "vqa" in tables:
        found["text"] = {"mean": tables["vqa"]["text_reward"].mean()}
    for reward, name in (("joint", "image_pose"), ("semantic", "text_pose")):
        if name not in tables:
            continue
        table = tables[name]
        drawn = table[f"{reward}_reward_sampled"].mean()
        found[reward] = {"mean": table[f"{reward}_reward"].mean(), "sampled": {"mean": drawn}}
    return found


def _chance(pool: int) -> dict[str, float]:
    return {str(k): chance(k, pool) for k in TABLE_2_KS}


def _answered(
    name: str, prediction: Prediction, rewards: Mapping[str, Tensor], processor: PoseProcessor
) -> pl.DataFrame:
    examples = prediction.examples
    return pl.DataFrame(
        {
            "dataset": [name] * len(examples),
            "key": [example.key for example in examples],
            "question": [example.question for example in examples],
            "answer": [processor.decode(prediction.answers.answer(i, 0)) for i in range(len(examples))],
        }
    ).with_columns(_column("format_reward", rewards["format"]))


def _common(
    name: str,
    prediction: Prediction,
    rewards: Mapping[str, Tensor],
    mean: Tensor,
    truth: Tensor,
    processor: PoseProcessor,
) -> pl.DataFrame:
    """What both pose tables hold; sigma (24) is the mean deviation of each joint's six numbers."""
    return _answered(name, prediction, rewards, processor).with_columns(
        pl.Series("has_pose", prediction.has_pose.tolist()),
        _column("sigma", prediction.std.unflatten(-1, (24, 6)).mean(-1)),
        _column("pose", matrix_to_axis_angle(mean).flatten(1)),
        _column("true_pose", matrix_to_axis_angle(truth).flatten(1)),
    )


def _column(name: str, values: Tensor) -> pl.Series:
    kind = pl.List(pl.Float32) if values.ndim > 1 else pl.Float32
    return pl.Series(name, values.tolist(), dtype=kind)
