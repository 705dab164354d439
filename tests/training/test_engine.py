"""The DeepSpeed engine against plain PyTorch, in one process."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from pose_rft.errors import PoseRftError
from pose_rft.training.engine import Engine, EngineParams, learning_rate
from tests.support.two_ranks import environment

torch.set_num_threads(1)

# A process that asks the system for a free port and lets it go finds it taken at once.
TAKEN = """
import socket

class Greedy(socket.socket):
    taken = []
    def close(self):
        name = self.getsockname()
        super().close()
        if name[1]:
            other = socket.create_server(name[:2])
            self.taken.append(other)
socket.socket = Greedy
from pose_rft.training.engine import start_distributed
start_distributed()
import torch
print(torch.distributed.get_world_size())
"""


class Toy(nn.Module):
    """Two trained layers, one frozen, one that only some batches use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.rare = nn.Linear(3, 3)

    def loss(self, x: torch.Tensor, rare: bool = False) -> torch.Tensor:
        y = self.frozen(self.second(torch.tanh(self.first(x))))
        loss = (y - x[:, :3]).float().square().mean()
        return loss + self.rare(y[: len(y) if rare else 0]).float().square().sum() / len(y)


def toy(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy()


def batches(n: int, seed: int = 1) -> list[torch.Tensor]:
    return list(torch.randn(n, 16, 4, generator=torch.Generator().manual_seed(seed)))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        return {name: value.detach().float().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_every_zero_stage_takes_the_same_steps_as_plain_torch(stage: int) -> None:
    params = EngineParams(lr=1e-2, zero_stage=stage, accumulation=2, warmup=0.5, grad_clip=0.3, weight_decay=0.1)
    data = batches(6)
    plain = toy()
    decayed = [p for p in plain.parameters() if p.requires_grad and p.ndim == 2]
    rest = [p for p in plain.parameters() if p.requires_grad and p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
    engine = Engine(toy(), params, total_steps=3)
    for step in range(3):
        micro = data[2 * step : 2 * step + 2]
        optimizer.zero_grad()
        (sum(plain.loss(x) for x in micro) / 2).backward()
        plain_norm = nn.utils.clip_grad_norm_(decayed + rest, 0.3)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(params, step, 3)
        optimizer.step()
        for x in micro:
            engine.backward(engine.forward(Toy.loss, x))
        assert engine.step(step) == pytest.approx(float(plain_norm), rel=1e-5)
    ours = weights(engine.module)
    for name, expected in plain.named_parameters():
        torch.testing.assert_close(ours[name], expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("offload", [{"optimizer": "cpu"}, {"optimizer": "cpu", "parameters": "cpu"}])
def test_offload_changes_no_step(offload: dict[str, str]) -> None:
    stage = 3 if "parameters" in offload else 2
    norms = []
    for places in ({}, offload):
        params = EngineParams.model_validate({"lr": 1e-2, "zero_stage": stage, "offload": places})
        engine = Engine(toy(), params, total_steps=3)
        found = []
        for step, x in enumerate(batches(3)):
            engine.backward(engine.forward(Toy.loss, x))
            found.append(engine.step(step))
        norms.append(found)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_bf16_lowers_the_loss_with_float32_master_weights() -> None:
    engine = Engine(toy(), EngineParams(lr=3e-2, bf16=True, zero_stage=2), total_steps=30)
    x = batches(1)[0].bfloat16()
    losses = []
    for step in range(30):
        loss = engine.module.loss(x)
        engine.backward(loss)
        engine.step(step)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


class Linear(nn.Module):
    """A loss whose gradient is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def loss(self, slope: torch.Tensor) -> torch.Tensor:
        return (self.weight.float() * slope).sum()


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_adds_up_micro_batches_in_float32(stage: int) -> None:
    """bfloat16 would keep the first gradient alone: each of the others is below half of its last bit."""
    parts = 33
    params = EngineParams(lr=1e-3, bf16=True, zero_stage=stage, accumulation=parts, grad_clip=0.0)  # type: ignore[arg-type]
    engine = Engine(Linear(), params, total_steps=1)
    slopes = [torch.full((4, 4), 1.0 if part == 0 else 2.0**-9) for part in range(parts)]
    for slope in slopes:
        engine.backward(engine.forward(Linear.loss, slope))
    assert engine.step(0) == pytest.approx(float((sum(slopes) / parts).norm()), rel=1e-3)  # type: ignore[union-attr]


@pytest.mark.parametrize("stage", [0, 2])
def test_a_loss_that_is_not_finite_names_its_samples(stage: int) -> None:
    engine = Engine(toy(), EngineParams(lr=1e-2, zero_stage=stage), total_steps=3)
    with pytest.raises(PoseRftError, match=r"coco_17.*lower the learning rate"):
        engine.backward(engine.module.loss(batches(1)[0]) / 0.0, ["coco_17"])


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_gradient_that_is_not_finite_names_its_samples_and_changes_no_weight(stage: int) -> None:
    engine = Engine(toy(), EngineParams(lr=1e-2, zero_stage=stage), total_steps=3)
    before = weights(engine.module)
    loss = engine.module.loss(batches(1)[0])
    engine.backward(loss + (loss - loss.detach()).abs().sqrt(), ["mpii_3"])  # 0 with an infinite slope
    with pytest.raises(PoseRftError, match="step 0 is not finite for samples mpii_3"):
        engine.step(0)
    after = weights(engine.module)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_step_is_refused_before_the_last_micro_batch_and_backward_after_it() -> None:
    engine = Engine(toy(), EngineParams(lr=1e-2, accumulation=2), total_steps=3)
    x = batches(1)[0]
    engine.backward(engine.module.loss(x))
    with pytest.raises(ValueError, match="1 of 2"):
        engine.step(0)
    engine.backward(engine.module.loss(x))
    with pytest.raises(ValueError, match="due"):
        engine.backward(engine.module.loss(x))


def test_the_rate_rises_linearly_then_falls_along_half_a_cosine() -> None:
    params = EngineParams(lr=2.0, warmup=0.1, final_lr=0.1)
    rates = [learning_rate(params, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(2.0 / 11) and rates[10] == 2.0
    assert rates[55] == pytest.approx(2.0 * 0.55) and rates[100] == pytest.approx(0.2)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_a_process_alone_starts_whatever_ports_others_take() -> None:
    done = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, env=environment(), timeout=120)
    assert done.stdout.split()[-1:] == ["1"], done.stderr
