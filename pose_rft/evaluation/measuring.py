"""Turns one run's answers into errors, recall and distribution metrics, for test and validation sets alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from pose_rft.batches.feature_cache import ImageTokenSource
from pose_rft.batches.samples import Samples
from pose_rft.body.model_file import Gender
from pose_rft.body.smpl import BodyModel
from pose_rft.evaluation import distribution, posecodes, protocols
from pose_rft.evaluation.joint_readers import BODY_JOINTS, JointReader, eval_joints, joint_reader
from pose_rft.evaluation.protocols import EvaluateParams
from pose_rft.evaluation.questions import Found, Questions
from pose_rft.evaluation.sets import VALIDATION_TEXT, VQA_SET, AskedSets, is_speculative
from pose_rft.metrics.pose_error import mpjre
from pose_rft.policy.calibration import Asked
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.processor import PoseProcessor
from pose_rft.retrieval.model import TextPoseModel
from pose_rft.seeds import torch_generator


@dataclass(frozen=True, eq=False)
class Measured:
    """A policy's answers and everything needed to measure them.

    found: answers by set and grammar, from `questions.answers`. sets: the samples of each set.
    mean_joints: gives the constant answer of Table 1, (J, 3), for a joint reader. body: the neutral body, on the CPU;
    body_of: gives the body of a gender.
    """

    model: PoseLlava
    processor: PoseProcessor
    found: Found
    sets: Mapping[str, Samples]
    tokens: ImageTokenSource
    judges: Mapping[str, TextPoseModel]
    body: BodyModel
    body_of: Callable[[Gender], BodyModel]
    mean_joints: Callable[[JointReader], Tensor]
    params: EvaluateParams
    seed: int

    @property
    def fallback(self) -> Tensor:
        """(144,) the pose that stands in for answers without one."""
        return self.model.pose_head.mean_pose.float().cpu()

    def shown(self, name: str) -> Tensor:
        """(N, 24, 3, 3) mean poses of a set's answers, with the fallback where an answer has none."""
        prediction = self.found[name][0]
        return protocols.shown_poses(prediction, prediction.mean, self.fallback)

    def test(self, chosen: AskedSets, asked: Questions) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
        """All metrics of the test sets, and per-sample tables: text_pose, and image_pose and vqa if available."""
        errors, spreads, image_tables = self.pictures(chosen.test)
        recall, spreads["posescript"], text_table = self.sentences("posescript", chosen.text)
        tables = {"text_pose": text_table}
        if image_tables:
            tables["image_pose"] = pl.concat(image_tables)
        if VQA_SET in self.found:
            tables["vqa"] = self.answers("llava_instruct", VQA_SET)
        shown = {kind: self.shown(name) for kind, name in asked.captions.items()}
        metrics = {
            "pose_error": errors,
            "recall": recall,
            "heldout_reward": protocols.heldout_reward(tables),
            "distribution": spreads,
            "posecodes": {
                "policy": posecodes.agreements(shown, asked.stated, self.body),
                "mean_pose": posecodes.constant(self.fallback, asked.stated, self.body),
            },
            "reasoning": {name: self.reasoning(name) for name in chosen.reasoning},
            "samples": {name: len(table) for name, table in tables.items()},
        }
        return metrics, tables

    def validation(self, chosen: AskedSets) -> dict[str, Any]:
        """The same metrics of the validation sets, as far as they apply, without per-sample tables."""
        errors, spreads, image_tables = self.pictures(chosen.validation)
        metrics: dict[str, Any] = {"pose_error": errors, "distribution": spreads}
        tables = {"image_pose": pl.concat(image_tables)} if image_tables else {}
        if VALIDATION_TEXT in self.found:
            found = self.sentences("posescript", VALIDATION_TEXT)
            metrics["recall"], spreads["posescript"], tables["text_pose"] = found
        if tables:
            metrics["heldout_reward"] = protocols.heldout_reward(tables)
        return metrics

    def pictures(self, labelled: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any], list[pl.DataFrame]]:
        """Joint errors and distribution metrics of {label: set}, by label, and the per-sample tables."""
        errors, spreads, tables = {}, {}, []
        for label, name in labelled.items():
            refs = [example.image for example in self.found[name][0].examples if example.image is not None]
            reads = joint_reader(name)
            truth = protocols.true_joints(self.sets[name], [ref.row for ref in refs], self.body_of, reads)
            answered = (*self.found[name], truth, self.body, self.fallback, self.processor, reads)
            table = protocols.image_pose_table(label, *answered)
            tables.append(self._with_units(table, name))
            constants = (self.mean_joints(reads), self.fallback, self.body, reads)
            errors[label] = protocols.pose_errors(table, truth, *constants)
            if lifted := protocols.lifter_errors(self.model.pose_encoder, self.tokens, refs, truth, self.body, reads):
                errors[label]["encoder_lifter"] = lifted
            spreads[label] = self._distribution(name, truth.joints, "image", reads)
        return errors, spreads, tables

    def sentences(self, label: str, name: str) -> tuple[dict[str, Any], dict[str, Any], pl.DataFrame]:
        """Recall and distribution metrics of a set with captions, and its per-sample table."""
        prediction, values = self.found[name]
        table = protocols.text_pose_table(label, prediction, values, self.fallback, self.processor)
        true = protocols.true_text_poses(prediction)
        poses = {"policy": self.shown(name), "ground_truth": true}
        repeats = self.params.random_repeats
        recall = protocols.recall_table(table["caption"].to_list(), poses, self.judges, repeats, self.seed)
        spread = self._distribution(name, eval_joints(self.body, true), "text", eval_joints)
        drawing = torch_generator(self.seed, "evaluate", name, "features")
        spread |= distribution.drawn_features(prediction, self.judges["judge"], drawing)
        return recall, spread, self._with_units(table, name)

    def reasoning(self, name: str) -> dict[str, Any]:
        """ChatPose's metrics on one of its benchmarks: errors for the person in question, or recall for SPG.

        MPJPE and PA-MPJPE in mm, of the joints of `joint_reader`; MPJRE in degrees, of SMPL's body joints without the
        root and the hands. `format`: the share of answers with a pose.
        """
        prediction, _ = self.found[name]
        shown, judges = self.shown(name), self.judges
        found: dict[str, Any] = {"samples": len(shown), "format": float(prediction.has_pose.float().mean())}
        if is_speculative(name):
            poses = {"policy": shown, "ground_truth": protocols.true_text_poses(prediction)}
            captions = [example.caption or "" for example in prediction.examples]
            return found | {
                "recall": protocols.recall_table(captions, poses, judges, self.params.random_repeats, self.seed)
            }
        reads = joint_reader(name)
        rows = [example.image.row for example in prediction.examples if example.image is not None]
        truth = protocols.true_joints(self.sets[name], rows, self.body_of, reads)
        errors = protocols.joint_errors(reads(self.body, shown, None), truth.joints)
        errors["mpjre"] = mpjre(shown[:, 1:BODY_JOINTS], truth.rotations[:, 1:BODY_JOINTS])
        return found | {metric: float(values.mean()) for metric, values in errors.items()}

    def answers(self, label: str, name: str) -> pl.DataFrame:
        """The per-sample table of VQA questions."""
        return self._with_units(protocols.vqa_table(label, *self.found[name], self.processor), name)

    def _distribution(self, name: str, truth: Tensor, asked: Asked, reads: JointReader) -> dict[str, Any]:
        prediction = self.found[name][0]

        def noise() -> torch.Generator:
            return torch_generator(self.seed, "evaluate", name, "distribution")

        calibrated = self.model.calibrated(prediction.poses, asked)
        return distribution.measured(prediction, calibrated, truth, self.body, noise, reads)

    def _with_units(self, table: pl.DataFrame, name: str) -> pl.DataFrame:
        return protocols.with_units(table, protocols.units(self.sets[name]))
