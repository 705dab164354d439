"""The text-pose model: texts and poses in one space, where the cosine measures how well they match (`reward` is
PoseScript's; `judge` has other encoders and the same interface).

    model = load_retrieval(Path("models/retrieval_reward"))
    fit = model.embed_text(captions) @ model.embed_pose(rotations).T      # poses through body.frames.semantic_frame

A saved model is `config.json` + `model.safetensors`; the judge's vocabulary is in the config. The frozen sentence
encoder is referenced by name, not copied.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.model_folder import check_safetensors, check_sizes, one_sentence, read_config
from pose_rft.params import parse
from pose_rft.retrieval.judge import ResidualPoseEncoder, Vocabulary, WordTextEncoder
from pose_rft.retrieval.params import JudgeModelParams, RewardModelParams
from pose_rft.retrieval.pose_encoder import AxisAnglePoseEncoder
from pose_rft.retrieval.sentence_encoder import SentenceEncoder
from pose_rft.retrieval.text_encoder import FeatureTextEncoder

Kind = Literal["reward", "judge"]
WEIGHTS = "model.safetensors"
FIRST_SCALE = 10.0  # PoseScript `loss_weight`
TEXTS_AT_ONCE = 256


class TextPoseModel(nn.Module):
    """Encoders of texts and poses, and the learned scale of their scores.

    `prepare` turns texts into the inputs of `text` (frozen token features or word numbers), which may be cached.
    """

    kind: Kind

    def __init__(self, text: nn.Module, pose: nn.Module) -> None:
        super().__init__()
        self.text, self.pose = text, pose
        self.scale = nn.Parameter(torch.tensor(FIRST_SCALE))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.scale.device

    def prepare(self, texts: Sequence[str]) -> list[Tensor]:
        """One (T, …) array per text."""
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        """What `load_retrieval` needs besides the weights."""
        raise NotImplementedError

    def encode_prepared(self, prepared: Sequence[Tensor]) -> Tensor:
        """(N, D) of length 1, from the output of `prepare`; the caller's grad mode applies."""
        padded = nn.utils.rnn.pad_sequence(list(prepared), batch_first=True).to(self.device)
        lengths = torch.tensor([len(item) for item in prepared], device=self.device)
        return self.text(padded, torch.arange(padded.shape[1], device=self.device) < lengths[:, None])

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 of length 1; texts are bare captions, without a prompt around them."""
        prepared = (self.prepare(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE))
        return torch.cat([self.encode_prepared(part) for part in prepared])

    @torch.no_grad()
    def embed_pose(self, rotations: Tensor) -> Tensor:
        """(N, D) float32 of length 1, from (N, 24, 3, 3) local rotations in the AMASS frame without heading."""
        return self.encode_pose(rotations)

    def encode_pose(self, rotations: Tensor) -> Tensor:
        """Like `embed_pose`, but the caller's grad mode applies."""
        return self.pose(rotations.to(self.device, torch.float32))

    def save(self, folder: Path) -> None:
        """Writes the model to `folder` atomically."""
        with atomic.folder(folder) as unfinished:
            self.write(unfinished)

    def write(self, folder: Path) -> None:
        """Writes config and weights into an existing folder."""
        atomic.write_json(folder / "config.json", {"kind": self.kind, **self.describe()})
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS
        )


class RewardModel(TextPoseModel):
    """PoseScript's architecture on top of a frozen sentence encoder."""

    kind: Kind = "reward"

    def __init__(self, params: RewardModelParams, summary_token: bool = False) -> None:
        self.params, self.summary_token = params, summary_token
        self.sentences = SentenceEncoder(params.sentence.model, params.sentence.layers)
        super().__init__(
            FeatureTextEncoder(self.sentences.width, params.latent, params.text, summary_token),
            AxisAnglePoseEncoder(params.pose_neurons, params.pose_bottleneck, params.latent),
        )

    def prepare(self, texts: Sequence[str]) -> list[Tensor]:
        """The inputs of the text encoder."""
        return self.sentences.to(self.device).token_features(texts)

    def describe(self) -> dict[str, object]:
        """What a saved model needs besides its weights."""
        return {"params": self.params.model_dump(mode="json"), "summary_token": self.summary_token}


class JudgeModel(TextPoseModel):
    """Own vocabulary, GRU, residual pose network."""

    kind: Kind = "judge"

    def __init__(self, params: JudgeModelParams, vocabulary: Vocabulary, rest_joints: Tensor) -> None:
        super().__init__(
            WordTextEncoder(len(vocabulary), params.word_width, params.recurrent_width, params.latent, params.dropout),
            ResidualPoseEncoder(rest_joints, params.pose_width, params.latent, params.dropout),
        )
        self.params, self.vocabulary = params, vocabulary

    def prepare(self, texts: Sequence[str]) -> list[Tensor]:
        """The inputs of the text encoder."""
        return [self.vocabulary.numbers(text) for text in texts]

    def describe(self) -> dict[str, object]:
        """What a saved model needs besides its weights."""
        return {"params": self.params.model_dump(mode="json"), "vocabulary": list(self.vocabulary.words)}


def load_retrieval(folder: Path) -> TextPoseModel:
    """Loads a saved model, in eval mode and frozen.

    Raises:
        PoseRftError: the model is missing, a file is damaged, or weights do not fit (the message lists the keys).
    """
    path, file = Path(folder) / "config.json", Path(folder) / WEIGHTS
    for needed in (path, file):
        if not needed.is_file():
            raise PoseRftError(f"{needed} does not exist; `dvc repro` trains the model in {folder}.")
    config = read_config(path)
    check_sizes(config, str(folder))
    check_safetensors(file)
    with one_sentence(folder, "retrieval model"):
        weights = load_file(file)
        return _built(config, weights, path)


def _built(config: dict[str, Any], weights: dict[str, Tensor], path: Path) -> TextPoseModel:
    kind = config.get("kind")
    model: TextPoseModel
    if kind == "reward":
        model = RewardModel(parse(config["params"], RewardModelParams, str(path)), bool(config["summary_token"]))
    elif kind == "judge":
        params = parse(config["params"], JudgeModelParams, str(path))
        model = JudgeModel(params, Vocabulary(config["vocabulary"]), torch.zeros(24, 3))
    else:
        raise PoseRftError(f"{path} is a retrieval model of kind {kind!r}, expected `reward` or `judge`.")
    load_strictly(model, weights, str(path.parent))
    return frozen(model)


def load_strictly(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Loads weights that must match the model's keys and shapes exactly.

    Raises:
        PoseRftError: keys are missing or unexpected, or shapes differ; the message lists all of them.
    """
    expected = model.state_dict()
    problems = [f"missing {sorted(expected.keys() - weights.keys())}"] if expected.keys() - weights.keys() else []
    if extra := sorted(weights.keys() - expected.keys()):
        problems.append(f"unexpected {extra}")
    if different := [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & weights.keys())
        if weights[key].shape != expected[key].shape
    ]:
        problems.append(f"other shapes: {', '.join(different)}")
    if problems:
        raise PoseRftError(f"The weights in {where} do not fit the model: {'; '.join(problems)}.")
    model.load_state_dict(weights)


def frozen(model: TextPoseModel) -> TextPoseModel:
    """The model in evaluation mode, without gradients."""
    return model.eval().requires_grad_(False)
