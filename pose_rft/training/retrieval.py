"""Trains a retrieval model on automatic, then on human captions; keeps the weights of the best validation recall.

As in PoseScript, each step uses a batch of poses, each with one random caption, some pairs mirrored. A step is a
function of its number, and checkpoints are complete files, so a killed run resumes and ends with the same weights.
Automatic captions are mirrored once and for all (one coin flip per caption), human ones anew at each step: otherwise
the frozen encoder would have to encode every automatic caption twice.
"""

import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pose_rft.body.rotations import axis_angle_to_matrix, mirror_rotations
from pose_rft.captions.mirror import can_mirror, mirror_caption
from pose_rft.errors import PoseRftError
from pose_rft.metrics.recall import DIRECTIONS, TABLE_2_KS, chance, recall_at
from pose_rft.retrieval.judge import Vocabulary
from pose_rft.retrieval.loss import symmetric_bbc, validation_recall
from pose_rft.retrieval.model import JudgeModel, Kind, RewardModel, TextPoseModel, frozen
from pose_rft.retrieval.pairs import Pairs, PreparedTexts
from pose_rft.retrieval.params import RetrievalParams, Schedule
from pose_rft.seeds import derive, numpy_rng
from pose_rft.training import loop
from pose_rft.training.loop import StepStats

Phase = Literal["pretrain", "finetune"]
WEIGHTS = "retrieval.pt"
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Trained:
    """The model with its best weights, the log (one row per step), and the step and validation recall of the best."""

    model: TextPoseModel
    log: tuple[Mapping[str, Any], ...]
    best_step: int
    best_recall: float


def train(
    kind: Kind,
    params: RetrievalParams,
    train_pairs: Pairs,
    val_pairs: Pairs,
    rest_joints: Tensor,
    scratch: Path,
    seed: int,
) -> Trained:
    """Trains `kind` from scratch, or resumes from the checkpoint of an earlier run.

    Args:
        rest_joints: (24, 3) of the neutral body, metres; the judge reads joint positions.
        scratch: keyed by everything that the training depends on; holds the text features and the checkpoint.
        seed: `seed.train`.
    Raises:
        PoseRftError: automatic or human captions are missing, or a loss is not finite.
    """
    batches: dict[Phase, _Batches] = {
        "pretrain": _Batches(kind, "pretrain", train_pairs, params, seed),
        "finetune": _Batches(kind, "finetune", train_pairs.with_human(), params, seed),
    }
    validation = val_pairs.with_human()
    if not len(validation):
        raise PoseRftError("The validation split has no human caption; the best weights cannot be chosen.")
    torch.manual_seed(derive(seed, "retrieval", kind, "weights"))
    own_texts = [text for own in batches.values() for text in own.texts()]
    model = new_model(kind, params, own_texts, rest_joints)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    shown = [caption_of(texts, i) for i, texts in enumerate(validation.human)]
    texts = PreparedTexts.build([*own_texts, *shown], model.prepare, scratch / "texts", f"{kind} captions")
    learner = _Learner(kind, params, model, batches, texts, validation, shown, seed)
    label = f"retrieval {kind}"
    with _one_thread() if kind == "judge" else nullcontext():
        log = loop.run(learner, learner.step, learner.steps, scratch, params.save_every, label, seed)
    model.load_state_dict(learner.best)
    return Trained(frozen(model), tuple(log.to_dicts()), learner.best_step, learner.best_recall)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread: a GRU's steps are too small to split, and threads waiting on a busy CPU slow it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def new_model(kind: Kind, params: RetrievalParams, texts: Sequence[str], rest_joints: Tensor) -> TextPoseModel:
    """An untrained model; its weights are drawn from torch's global generator."""
    if kind == "reward":
        return RewardModel(params.reward)
    return JudgeModel(params.judge, Vocabulary.of(texts), rest_joints)


def caption_of(texts: Sequence[str], row: int) -> str:
    """The caption of a pose used in validation and test: fixed, but not always the first (PoseScript)."""
    return texts[row % len(texts)]


def ground_truth_recall(model: TextPoseModel, pairs: Pairs) -> dict[str, Any]:
    """Recall of true poses and their human captions, both ways, over the whole split: the upper bound of Table 2."""
    pairs = pairs.with_human()
    captions = [caption_of(texts, i) for i, texts in enumerate(pairs.human)]
    scores = model.embed_text(captions) @ model.embed_pose(pairs.rotations).T
    recall: dict[str, Any] = {
        way: {str(k): value for k, value in recall_at(scores, TABLE_2_KS, way).items()} for way in DIRECTIONS
    }
    return {"pairs": len(pairs), **recall, "chance": {str(k): chance(k, len(pairs)) for k in TABLE_2_KS}}


@contextmanager
def checkpoint_in_words(path: Path) -> Iterator[None]:
    """Turns any error from a damaged checkpoint into a one-sentence message.

    Raises:
        PoseRftError: the block failed to read `path` or to load its content.
    """
    foreign = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError, ArithmeticError)
    try:
        yield
    except (*foreign, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PoseRftError(f"{path} is no checkpoint of this model ({reason}); delete it to start again.") from error


class _Batches:
    """Selects the poses, captions and mirroring of each step of a phase."""

    def __init__(self, kind: Kind, phase: Phase, pairs: Pairs, params: RetrievalParams, seed: int) -> None:
        self.kind, self.phase, self.seed, self.mirror = kind, phase, seed, params.mirror
        own = params.reward if kind == "reward" else params.judge
        self.schedule: Schedule = own.pretrain if phase == "pretrain" else own.finetune
        captions = [own[: params.pretrain_captions] for own in pairs.automatic] if phase == "pretrain" else pairs.human
        rows = [i for i, texts in enumerate(captions) if texts]
        if not rows:
            name = "automatic" if phase == "pretrain" else "human"
            raise PoseRftError(
                f"The training split has no {name} caption; retrieval trains on automatic, then human ones."
            )
        self.pairs, self.captions = pairs.subset(rows), [captions[i] for i in rows]
        self.size = min(self.schedule.batch, len(rows))

    def texts(self) -> list[str]:
        """Every text that any step can use."""
        if self.phase == "pretrain":
            return [self._fixed(i, j)[0] for i, own in enumerate(self.captions) for j in range(len(own))]
        return [text for own in self.captions for caption in own for text in (caption, mirror_caption(caption))]

    def draw(self, step: int) -> tuple[list[int], list[str], Tensor]:
        """Rows of a step, their texts, and which of them are mirrored."""
        per_epoch = len(self.pairs) // self.size
        epoch, place = divmod(step, per_epoch)
        order = numpy_rng(self.seed, "retrieval", self.kind, self.phase, "epoch", epoch).permutation(len(self.pairs))
        rows = order[place * self.size : (place + 1) * self.size].tolist()
        rng = numpy_rng(self.seed, "retrieval", self.kind, self.phase, "step", step)
        chosen = [int(rng.integers(len(self.captions[i]))) for i in rows]
        coins = rng.random(len(rows)) < self.mirror
        if self.phase == "pretrain":
            pairs = [self._fixed(i, j) for i, j in zip(rows, chosen, strict=True)]
        else:
            pairs = [_mirrored(self.captions[i][j], coin) for i, j, coin in zip(rows, chosen, coins, strict=True)]
        return rows, [text for text, _ in pairs], torch.tensor([mirrored for _, mirrored in pairs])

    def _fixed(self, row: int, caption: int) -> tuple[str, bool]:
        coin = (
            numpy_rng(self.seed, "retrieval", self.kind, "mirror", self.pairs.keys[row], caption).random() < self.mirror
        )
        return _mirrored(self.captions[row][caption], coin)


def _mirrored(caption: str, wanted: bool) -> tuple[str, bool]:
    mirrored = bool(wanted) and can_mirror(caption)
    return (mirror_caption(caption) if mirrored else caption), mirrored


class _Learner:
    """Model, optimiser, and best weights so far, as the shared loop steps, saves and loads them."""

    rank = 0

    def __init__(
        self,
        kind: Kind,
        params: RetrievalParams,
        model: TextPoseModel,
        batches: Mapping[Phase, _Batches],
        texts: PreparedTexts,
        validation: Pairs,
        shown: Sequence[str],
        seed: int,
    ) -> None:
        self.kind, self.params, self.module, self.batches, self.texts = kind, params, model, batches, texts
        self.validation, self.shown, self.seed = validation, shown, seed
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
        self.pretrain_steps = batches["pretrain"].schedule.steps
        self.steps = self.pretrain_steps + batches["finetune"].schedule.steps
        self.best_step, self.best_recall = 0, -math.inf
        self.best: dict[str, Tensor] = {}

    def phase(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step's number within it."""
        return ("pretrain", step) if step < self.pretrain_steps else ("finetune", step - self.pretrain_steps)

    def lr(self, step: int) -> float:
        phase, step = self.phase(step)
        schedule = self.batches[phase].schedule
        return schedule.learning_rate * (1 + math.cos(math.pi * step / schedule.steps)) / 2

    def step(self, number: int) -> StepStats:
        phase, step = self.phase(number)
        batches = self.batches[phase]
        torch.manual_seed(derive(self.seed, "retrieval", self.kind, phase, "noise", step))  # dropout and poses
        rows, texts, mirrored = batches.draw(step)
        poses = batches.pairs.rotations[rows]
        poses = torch.where(mirrored[:, None, None, None], mirror_rotations(poses), poses)
        if self.params.pose_noise:
            turns = torch.randn(*poses.shape[:2], 3) * math.radians(self.params.pose_noise)
            poses = poses @ axis_angle_to_matrix(turns)
        loss = self._update(number, texts, poses, [batches.pairs.keys[i] for i in rows[:8]])
        values = {"scale": self.module.scale.item()}
        done = number + 1
        if done % self.params.validate_every == 0 or done == self.steps:
            values["val_recall"] = self._validate(done)
        return StepStats(loss, len(rows), values)

    def _update(self, number: int, texts: Sequence[str], poses: Tensor, keys: Sequence[str]) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(number)
        self.module.train()
        prepared = self.module.encode_prepared([self.texts[text] for text in texts])
        loss = symmetric_bbc(prepared, self.module.pose(poses.to(self.module.device)), self.module.scale)
        if not torch.isfinite(loss):
            raise PoseRftError(
                f"The {self.kind} model's loss is {loss.item()} at step {number} (samples {', '.join(keys)}, …)."
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _validate(self, done: int) -> float:
        self.module.eval()
        texts = self.module.encode_prepared([self.texts[text] for text in self.shown])
        recall = validation_recall(texts, self.module.embed_pose(self.validation.rotations))
        if recall > self.best_recall:
            self.best_step, self.best_recall = done, recall
            self.best = {name: value.detach().cpu().clone() for name, value in self.module.state_dict().items()}
        return recall

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        weights = {"model": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "best": self.best}
        torch.save(weights | {"best_step": self.best_step, "best_recall": self.best_recall} | state, folder / WEIGHTS)

    def load(self, folder: Path) -> dict[str, Any]:
        """
        Raises:
            PoseRftError: the folder holds no checkpoint of this model.
        """
        with checkpoint_in_words(folder / WEIGHTS):
            state = torch.load(folder / WEIGHTS, weights_only=True, map_location="cpu")
            self.module.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best = dict(state["best"])
            self.best_step, self.best_recall = int(state["best_step"]), float(state["best_recall"])
            return {"step": int(state["step"])}
