"""SmolLM2-135M-Instruct (arXiv 2502.02737, Apache-2.0) as a policy's language model: a Llama with a real vocabulary.

The weights come from the file that `pose-rft fetch --smollm` downloads: a GGUF, mostly 4-bit, which transformers
dequantises to a float32 Llama with the package `gguf` (the extra `smollm`).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from pose_rft.errors import PoseRftError
from pose_rft.policy import pretrained
from pose_rft.policy.model import check_loaded


def load_tokenizer() -> PreTrainedTokenizerBase:
    """Loads the tokenizer from the file.

    Raises:
        PoseRftError: the file or the package `gguf` is missing.
    """
    path = _file()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def load_language(rows: int) -> LlamaForCausalLM:
    """Loads the language model with `rows` vocabulary rows; new rows start as the mean of the old ones.

    Raises:
        PoseRftError: the file, the package `gguf` or weights are missing.
    """
    path = _file()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),  # quantised weights cannot be trained or saved
        output_loading_info=True,
    )
    language, info = loaded
    check_loaded(info, str(path))
    known = language.config.vocab_size
    language.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        words = language.get_input_embeddings().weight  # tied to the output matrix
        words[known:] = words[:known].mean(0)
    plain = language.config.to_dict()
    plain.pop("quantization_config", None)
    language.config = LlamaConfig.from_dict(plain)
    return language


def _file() -> Path:
    if find_spec("gguf") is None:
        raise PoseRftError("base_model.source smollm2 needs the package gguf; run `pip install 'pose-rft[smollm]'`.")
    return pretrained.find(pretrained.SMOLLM2)
