"""Tiny policies with both kinds of encoder, saved; `tests/policy` has the parts."""

from pathlib import Path

import pytest
import torch

from pose_rft.policy.hub import create_base, create_policy, save_policy
from pose_rft.policy.params import BaseModelParams, PolicyParams
from tests.support.tiny_blazepose import tiny_blazepose
from tests.support.tiny_policies import BASE, IMAGE, POLICY, tiny_policy, word_tokenizer


@pytest.fixture(scope="session", params=["conv_vit", "blazepose"])
def policy(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    word_tokenizer().save_pretrained(folder / "words")
    base = create_base(BaseModelParams.model_validate(BASE), IMAGE, folder / "words")
    if request.param == "conv_vit":
        model, processor = tiny_policy(base)
    else:
        image = IMAGE.model_copy(update={"pose_size": 256})
        params = PolicyParams.model_validate(POLICY | {"pose_prior": "encoder"})
        model, processor = create_policy(base, tiny_blazepose(), params, image, "gaussian")
    save_policy(folder / "rft_hygrpo", model, processor)
    return folder / "rft_hygrpo"
