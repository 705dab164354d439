"""Reading DeepSpeed's checkpoint files without the full unpickler."""

import io
from pickle import UnpicklingError

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum

from pose_rft.training.checkpoint_files import tensors_only


class Attribute:
    """Pickled as Python 3.11.0 to 3.11.3 pickle the member of an enum."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple:
        return getattr, (self.owner, self.name)


def read(content: object) -> object:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    with tensors_only():
        return torch.load(file)


def test_a_zero_stage_is_read_whatever_python_wrote_it():
    assert read({"stage": Attribute(ZeroStageEnum, "gradients")}) == {"stage": ZeroStageEnum.gradients}
    assert read({"stage": ZeroStageEnum.weights}) == {"stage": ZeroStageEnum.weights}


def test_no_other_attribute_can_be_taken_in_a_checkpoint():
    with pytest.raises(UnpicklingError, match="only ZeRO stages"):
        read(Attribute(LossScaler, "__init__"))
    with pytest.raises(KeyError):
        read(Attribute(ZeroStageEnum, "__class__"))
