"""Evaluation protocols of a policy: Table 1 (pose from an image), Table 2 (pose from text), held-out rewards.

Answers are greedy and the pose is the mean of the Gaussian; one drawn pose is also measured. A sample whose answer has
no pose still counts: its rewards are 0 and it is measured with the mean rotations that the pose head starts from, so
refusing to answer never pays.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import polars as pl
import torch
from pydantic import Field
from torch import Tensor

from pose_rft.batches.examples import ImageRef
from pose_rft.batches.feature_cache import ImageTokenSource
from pose_rft.batches.samples import Samples
from pose_rft.body.frames import semantic_frame
from pose_rft.body.model_file import Gender
from pose_rft.body.rotations import matrix_to_axis_angle, sixd_to_matrix
from pose_rft.body.smpl import BodyModel
from pose_rft.evaluation.joint_readers import POSES_AT_ONCE, JointReader, eval_joints
from pose_rft.inference.answers import Predictions
from pose_rft.metrics.pose_error import mpjpe, pa_mpjpe
from pose_rft.metrics.recall import DIRECTIONS, TABLE_2_KS, chance, pooled_recall, recall_at
from pose_rft.params import Count, Section
from pose_rft.policy.pose_encoder import PoseEncoder
from pose_rft.policy.processor import PoseProcessor
from pose_rft.retrieval.model import TextPoseModel

SetLabel = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
SetName = Annotated[str, Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$")]
RANDOM_POOLS = (32, 200)  # the paper states 32, but its numbers fit 200


class EvaluateParams(Section):
    """`evaluate`: a sample count of null means all samples (the paper's protocol)."""

    batch: Count  # prompts per batch
    max_new_tokens: Count
    cache_tokens: bool = True  # keep the frozen encoders' tokens in scratch; False: encode on demand
    image_sets: dict[SetLabel, SetName] = Field(min_length=1)  # label in tables and summary: data set/split
    validation_sets: dict[SetLabel, SetName]  # likewise, for choosing settings; reported separately
    text_set: SetName = (
        "posescript/test"  # captions with poses: for recall, posecodes and the distribution from sentences
    )
    reasoning_sets: tuple[SetName, ...] = ()  # ChatPose's benchmarks: chatpose/rpe_pose, …, chatpose/spg
    image_samples: Count | None = None  # of each image set, test or validation, evenly spaced
    text_samples: Count | None = None
    vqa_samples: Count | None = None
    # The mean-pose baseline averages the training poses of these data sets.
    mean_pose_sets: tuple[str, ...] = ("h36m", "mpi_inf_3dhp", "coco", "mpii")
    mean_pose_samples: Count  # of each of them, evenly spaced
    random_repeats: Count = 10  # draws of each random pool; paper: R = 10
    sentence_encoder: str = "all-MiniLM-L6-v2"  # of the text reward; paper: BAAI/bge-m3


class JointTruth(NamedTuple):
    """joints: (N, J, 3) metres, pelvis-aligned; rotations: (N, 24, 3, 3) of SMPL fits; fitted: (N,) bool, has a fit."""

    joints: Tensor
    rotations: Tensor
    fitted: Tensor


def is_measured(samples: Samples) -> bool:
    """Whether a test set is scored against its own measured joints rather than SMPL fits."""
    return bool(samples.measured.isfinite().any())


@torch.no_grad()
def true_joints(
    samples: Samples, rows: Sequence[int], body_of: Callable[[Gender], BodyModel], reads: JointReader = eval_joints
) -> JointTruth:
    """Ground truth of Table 1, following the protocols of SPIN and HMR2.0.

    Sets with the 14 joints measured (Human3.6M and others): those joints, relative to the data set's own pelvis; no fit
    is needed. 3DPW and EMDB, whose truth is SMPL: the joints of the fit on the body of the person's gender.

    Args:
        body_of: gives the body model of a gender. reads: see `joint_readers`.
    """
    chosen = list(rows)
    rotations, fitted = samples.rotations[chosen], samples.labelled[chosen].any(1)
    if is_measured(samples):
        return JointTruth(samples.measured[chosen], rotations, fitted)
    genders: list[Gender] = []
    for row in rows:
        fit = samples.shards.record(row).smpl
        assert fit is not None  # every row of a pose task has one
        genders.append(fit.gender)
    parts, places = [], []
    for gender in sorted({*genders}):
        mine = torch.tensor([g == gender for g in genders])
        parts.append(reads(body_of(gender), rotations[mine], samples.betas[chosen][mine]))
        places.append(mine.nonzero()[:, 0])
    return JointTruth(torch.cat(parts)[torch.cat(places).argsort()], rotations, fitted)


def units(samples: Samples) -> dict[str, str]:
    """{key: unit}: samples of one unit are not independent; uses the coarser of the release's subjects and sequences.

    That is the subject in Human3.6M, the sequence in 3DPW (two people of a sequence walk together), the recorded person
    in PoseScript, the image in dialogues. A name that all samples share is ignored.
    """
    names = [names for names in (samples.subjects, samples.sequences) if len({*names}) > 1]
    coarsest = min(names, key=lambda names: len({*names}), default=samples.keys)
    return dict(zip(samples.keys, coarsest, strict=True))


def mean_training_joints(
    sets: Sequence[Samples], body: BodyModel, most: int, reads: JointReader = eval_joints
) -> Tensor:
    """(J, 3): the mean evaluation joints over training poses, the best constant answer (in squared error)."""
    found = []
    for samples in sets:
        rows = samples.labelled.any(1).nonzero()[:, 0]
        rows = rows[:: max(1, -(-len(rows) // most))]
        found.append(reads(body, samples.rotations[rows], samples.betas[rows]))
    return torch.cat(found).mean(0)


def shown_poses(prediction: Predictions, poses: Tensor, fallback: Tensor) -> Tensor:
    """(N, 24, 3, 3) from raw 6D poses (N, 144), with `fallback` (144,) where the answer has no pose."""
    raw = torch.where(prediction.has_pose[:, None], poses, fallback)
    return sixd_to_matrix(raw.unflatten(-1, (24, 6)))


def joint_errors(joints: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """mpjpe and pa_mpjpe, each (N,) mm, of joints (N, J, 3) or a constant (J, 3)."""
    joints = joints.expand_as(truth)
    return {"mpjpe": mpjpe(joints, truth), "pa_mpjpe": pa_mpjpe(joints, truth)}


def image_pose_table(
    name: str,
    prediction: Predictions,
    rewards: Mapping[str, Tensor],
    truth: JointTruth,
    body: BodyModel,
    fallback: Tensor,
    processor: PoseProcessor,
    reads: JointReader = eval_joints,
) -> pl.DataFrame:
    """One row per sample of an image test set; errors in mm, poses (72) in radians, root in the camera frame.

    The joint reward and the true pose are null where there is no fit.
    """
    mean = shown_poses(prediction, prediction.mean, fallback)
    drawn = shown_poses(prediction, prediction.drawn, fallback)
    error, drawn_error = (joint_errors(reads(body, poses, None), truth.joints) for poses in (mean, drawn))
    table = _common(name, prediction, rewards, mean, truth.rotations, processor)
    return table.with_columns(
        pl.when(pl.Series(truth.fitted.tolist())).then(pl.col("true_pose")),
        _column("mpjpe", error["mpjpe"]),
        _column("pa_mpjpe", error["pa_mpjpe"]),
        _column("mpjpe_sampled", drawn_error["mpjpe"]),
        _column("joint_reward", rewards["joint"]),
        _column("joint_reward_sampled", rewards["joint.sampled"]),
    )


def pose_errors(
    table: pl.DataFrame,
    truth: JointTruth,
    mean_joints: Tensor,
    mean_rotations: Tensor,
    body: BodyModel,
    reads: JointReader = eval_joints,
) -> dict[str, dict[str, float]]:
    """Table 1 of one test set in mm: the policy's mean pose, one drawn pose, and two constant answers: the training
    set's mean joints and the pose (144,) of its mean rotations."""
    constant = reads(body, sixd_to_matrix(mean_rotations.view(1, 24, 6)), None)[0]
    baselines = {"mean_pose": mean_joints, "mean_rotations": constant}
    found = {
        name: {metric: float(value.mean()) for metric, value in joint_errors(joints, truth.joints).items()}
        for name, joints in baselines.items()
    }
    means = table.select("mpjpe", "pa_mpjpe", "mpjpe_sampled").mean().row(0, named=True)
    found["policy"] = {"mpjpe": means["mpjpe"], "pa_mpjpe": means["pa_mpjpe"]}
    found["policy_sampled"] = {"mpjpe": means["mpjpe_sampled"]}
    return found


@torch.no_grad()
def lifter_errors(
    encoder: PoseEncoder | None,
    tokens: ImageTokenSource,
    refs: Sequence[ImageRef],
    truth: JointTruth,
    body: BodyModel,
    reads: JointReader = eval_joints,
) -> dict[str, float] | None:
    """Table 1 of the encoder's own pose, without the language model, in mm; None if the encoder predicts none.

    It has a separate row, so that nobody mistakes the encoder's accuracy for the language model's.
    """
    if encoder is None or not encoder.reads_pose:
        return None
    seen = [tokens(refs[first : first + POSES_AT_ONCE]).pose for first in range(0, len(refs), POSES_AT_ONCE)]
    device = next(encoder.parameters()).device
    poses = torch.cat([encoder.pose(part.to(device)).cpu() for part in seen if part is not None])
    reached = reads(body, sixd_to_matrix(poses.unflatten(-1, (24, 6))), None)
    return {metric: float(value.mean()) for metric, value in joint_errors(reached, truth.joints).items()}


def text_pose_table(
    name: str, prediction: Predictions, rewards: Mapping[str, Tensor], fallback: Tensor, processor: PoseProcessor
) -> pl.DataFrame:
    """One row per caption; poses as in `image_pose_table`, facing a level camera."""
    mean = shown_poses(prediction, prediction.mean, fallback)
    return _common(name, prediction, rewards, mean, true_text_poses(prediction), processor).with_columns(
        pl.Series("caption", [example.caption for example in prediction.examples]),
        _column("semantic_reward", rewards["semantic"]),
        _column("semantic_reward_sampled", rewards["semantic.sampled"]),
    )


def vqa_table(
    name: str, prediction: Predictions, rewards: Mapping[str, Tensor], processor: PoseProcessor
) -> pl.DataFrame:
    """One row per held-out question."""
    return _answered(name, prediction, rewards, processor).with_columns(
        pl.Series("target", [example.answer for example in prediction.examples]),
        _column("text_reward", rewards["text"]),
    )


def true_text_poses(prediction: Predictions) -> Tensor:
    """(N, 24, 3, 3): the examples' true poses."""
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
    reward of the mean pose and of the drawn pose, format over all answers, text over VQA."""
    formats = pl.concat([table["format_reward"] for table in tables.values()])
    found: dict[str, Any] = {"format": {"mean": formats.mean()}}
    if "vqa" in tables:
        found["text"] = {"mean": tables["vqa"]["text_reward"].mean()}
    for reward, name in (("joint", "image_pose"), ("semantic", "text_pose")):
        table = tables.get(name)
        if table is None or table[f"{reward}_reward"].is_null().all():  # no set, or no fits to compare with
            continue
        drawn = table[f"{reward}_reward_sampled"].mean()
        found[reward] = {"mean": table[f"{reward}_reward"].mean(), "sampled": {"mean": drawn}}
    return found


def _chance(pool: int) -> dict[str, float]:
    return {str(k): chance(k, pool) for k in TABLE_2_KS}


def _answered(
    name: str, prediction: Predictions, rewards: Mapping[str, Tensor], processor: PoseProcessor
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
    prediction: Predictions,
    rewards: Mapping[str, Tensor],
    mean: Tensor,
    truth: Tensor,
    processor: PoseProcessor,
) -> pl.DataFrame:
    """Columns of both pose tables; sigma (24) is the mean standard deviation of each joint's six numbers."""
    return _answered(name, prediction, rewards, processor).with_columns(
        pl.Series("has_pose", prediction.has_pose.tolist()),
        _column("sigma", prediction.std.unflatten(-1, (24, 6)).mean(-1)),
        _column("pose", matrix_to_axis_angle(mean).flatten(1)),
        _column("true_pose", matrix_to_axis_angle(truth).flatten(1)),
    )


def with_units(table: pl.DataFrame, of_key: Mapping[str, str]) -> pl.DataFrame:
    """Adds the column `unit`; samples of one unit are not independent."""
    return table.with_columns(pl.Series("unit", [of_key[key] for key in table["key"]]))


def _column(name: str, values: Tensor) -> pl.Series:
    """One value or list per sample; a scalar NaN (not applicable) becomes null."""
    if values.ndim > 1:
        return pl.Series(name, values.tolist(), dtype=pl.List(pl.Float32))
    return pl.Series(name, values.tolist(), dtype=pl.Float32).fill_nan(None)
