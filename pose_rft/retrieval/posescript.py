"""Released PoseScript retrieval checkpoints (`ret_distilbert_dataPSA2ftPSH2/…/checkpoint_best.pth`) as reward models.

The file is `{epoch, model, optimizer, scheduler, args: argparse.Namespace, best_score}` (downloaded by the user,
licence CC BY-NC-SA 4.0). It is read with torch's restricted unpickler, which also allows the Namespace class.
Weight names, theirs → ours:

    loss_weight (1,)                                    scale ()
    pose_encoder.encoder.N                              pose.layers.N-1     (their layer 0 only flattens)
    text_encoder.projection.1                           text.projection
    text_encoder.transformer_encoder.layers.N           text.transformer.layers.N
    text_encoder.augm_tokens.0                          text.summary        (topping `augtokens` only)
    text_encoder.augm_token_final_FC_layers.0           text.summary_out    (topping `augtokens` only)
    text_encoder.pretrained_text_encoder                the sentence encoder's own weights (frozen DistilBERT)
    text_encoder.positional_encoding.pe                 dropped: a table of sinusoids, computed here

Hands: the released model was trained on AMASS's hand poses; here they are neutral, as the policy does not predict them.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pose_rft.errors import PoseRftError
from pose_rft.io.checkpoints import read_checkpoint
from pose_rft.io.model_folder import one_sentence
from pose_rft.retrieval.model import RewardModel, TextPoseModel, frozen, load_strictly
from pose_rft.retrieval.params import RewardModelParams, SentenceParams, TransformerParams

HEADS = 4  # not in the weights: PoseScript's transformer has 4 heads and dropout 0.1
DROPOUT = 0.1
_FROZEN = "text_encoder.pretrained_text_encoder."
_PLAIN = {
    "text_encoder.projection.1.": "text.projection.",
    "text_encoder.transformer_encoder.": "text.transformer.",
    "text_encoder.augm_token_final_FC_layers.0.": "text.summary_out.",
    "text_encoder.augm_tokens.0": "text.summary",
}


def load_posescript(path: Path, params: RewardModelParams) -> TextPoseModel:
    """Loads a released checkpoint as a frozen reward model.

    Args:
        params: only `sentence.model` is used: the frozen encoder that the checkpoint was trained on, a folder or the
            hub id `distilbert-base-uncased`; it must equal the copy in the checkpoint. Sizes come from the weights.
    Raises:
        PoseRftError: not such a checkpoint, another type of encoder, or weights that do not fit (lists the keys).
    """
    weights, options = _read(path)
    with one_sentence(path, "PoseScript checkpoint"):
        return _model(weights, options, path, params)


def _model(weights: dict[str, Tensor], options: Any, path: Path, params: RewardModelParams) -> TextPoseModel:
    name = getattr(options, "text_encoder_name", "distilbertUncased")
    if "distilbert" not in str(name):
        raise PoseRftError(f"{path} has the text encoder {name!r}; models over distilbertUncased can be read.")
    frozen_weights = {key.removeprefix(_FROZEN): value for key, value in weights.items() if key.startswith(_FROZEN)}
    ours = _renamed({key: value for key, value in weights.items() if not key.startswith(_FROZEN)}, path)
    model = RewardModel(_sizes(ours, path, params.sentence.model), summary_token="text.summary" in ours)
    load_strictly(model, ours, str(path))
    encoder = {key: value.clone() for key, value in model.sentences.tokens.state_dict().items()}
    load_strictly(model.sentences.tokens, frozen_weights, f"{path} ({_FROZEN}*)")
    if not all(torch.allclose(encoder[key].float(), value.float(), atol=1e-5) for key, value in frozen_weights.items()):
        raise PoseRftError(f"{path} was trained over another encoder than {params.sentence.model}; name its encoder.")
    return frozen(model)


def _read(path: Path) -> tuple[dict[str, Tensor], Any]:
    content = read_checkpoint(path, "a PoseScript checkpoint", [argparse.Namespace])
    if not isinstance(content.get("model"), dict):
        raise PoseRftError(f"{path} is no PoseScript checkpoint: expected a dictionary with `model` and `args`.")
    return content["model"], content.get("args")


def _renamed(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key == "loss_weight":
            ours["scale"] = value.reshape(())
        elif key.startswith("pose_encoder.encoder."):
            number, rest = key.removeprefix("pose_encoder.encoder.").split(".", 1)
            ours[f"pose.layers.{int(number) - 1}.{rest}"] = value
        elif key != "text_encoder.positional_encoding.pe":
            prefix = next((prefix for prefix in _PLAIN if key.startswith(prefix)), None)
            ours[key if prefix is None else _PLAIN[prefix] + key.removeprefix(prefix)] = value
    return ours


def _sizes(weights: dict[str, Tensor], path: Path, sentence_model: str) -> RewardModelParams:
    """The model's sizes, read from the weights; training settings are 1-step placeholders, as it is not trained."""
    try:
        layers = {int(key.split(".")[3]) for key in weights if key.startswith("text.transformer.layers.")}
        untrained = {"steps": 1, "batch": 1, "learning_rate": 1.0}
        return RewardModelParams.model_validate(
            {
                "released": str(path),
                "sentence": SentenceParams(model=sentence_model),
                "latent": weights["text.projection.weight"].shape[0],
                "text": TransformerParams(
                    layers=len(layers),
                    heads=HEADS,
                    feedforward=weights["text.transformer.layers.0.linear1.weight"].shape[0],
                    dropout=DROPOUT,
                ),
                "pose_neurons": weights["pose.layers.1.weight"].shape[0],
                "pose_bottleneck": weights["pose.layers.7.weight"].shape[0],
                "pretrain": untrained,
                "finetune": untrained,
            }
        )
    except KeyError as error:
        raise PoseRftError(f"{path} is no PoseScript retrieval model: {error.args[0]} is missing.") from None
