"""What DeepSpeed is told, and what is refused before it is asked."""

import pytest

from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.training.engine_params import EngineParams, deepspeed_config


def engine(**changes: object) -> EngineParams:
    return parse({"lr": 1e-3} | changes, EngineParams, "`rft.engine`")


def test_clipping_is_always_said_because_deepspeed_clips_by_default() -> None:
    assert deepspeed_config(engine(grad_clip=0.0))["gradient_clipping"] == 0.0


def test_offload_is_passed_to_deepspeed_in_its_own_words() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    offload = {"optimizer": "cpu", "parameters": "nvme", "nvme_path": "/local"}
    content = deepspeed_config(engine(zero_stage=3, offload=offload))["zero_optimization"]
    read = DeepSpeedZeroConfig(**content)
    assert read.offload_optimizer.device == "cpu" and read.offload_param.device == "nvme"
    assert str(read.offload_param.nvme_path) == "/local"
    assert deepspeed_config(engine(zero_stage=3))["zero_optimization"] == {"stage": 3}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offload": {"optimizer": "cpu"}}, "offload.optimizer cpu needs zero_stage 1 or higher, not 0"),
        ({"zero_stage": 2, "offload": {"parameters": "cpu"}}, "needs zero_stage 3"),
        ({"zero_stage": 3, "offload": {"optimizer": "nvme"}}, "needs offload.nvme_path"),
        ({"zero_stage": 2, "offload": {"optimizer": "nvme", "nvme_path": "/local"}}, "needs zero_stage 3"),
    ],
)
def test_an_offload_that_the_stage_cannot_do_is_refused_by_name(changes: dict[str, object], words: str) -> None:
    with pytest.raises(PoseRftError, match=words):
        engine(**changes)
