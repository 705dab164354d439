from pathlib import Path

import pytest
import torch

from pose_rft.policy.hub import Base, create_base
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.params import BaseModelParams
from pose_rft.policy.processor import PoseProcessor
from tests.support.tiny_policies import BASE, IMAGE, tiny_policy, word_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def base(tokenizer_folder: Path) -> Base:
    return create_base(BaseModelParams.model_validate(BASE), IMAGE, tokenizer_folder)


@pytest.fixture
def policy(base: Base) -> tuple[PoseLlava, PoseProcessor]:
    return tiny_policy(base)
