"""DeepSpeed as the sole owner of optimiser, ZeRO, precision and accumulation, from one CPU process to many nodes.

A single process needs no launcher; several connect as described in `ranks.py`. Nothing is compiled: the shared-memory
operator (only for inference) is disabled and AdamW is torch's own. The learning rate is a function of the step, so a
resumed run needs no scheduler state.

One update is `accumulation` calls of `forward` and `backward`, then one `step`:

    for micro_batch in ...:
        loss = engine.forward(loss_of, micro_batch)  # loss_of(model, micro_batch)
        engine.backward(loss, keys)
    norm = engine.step(step)

ZeRO-3 needs the whole loss computation inside `forward`; up to stage 2, calling `module` directly is equivalent.

Every rank must use the same trained parameters in every backward pass, in the same order: ZeRO 1-3 abort if a rank
leaves one out, and stage 2 silently sums gradients of different parameters if their order differs. A batch without
images or poses runs the same operations on empty tensors (see `sft.batch_loss`).
"""

import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pose_rft.errors import PoseRftError
from pose_rft.training import checkpoint_files, ranks
from pose_rft.training.engine_params import EngineParams, deepspeed_config, learning_rate

T = TypeVar("T")

TAG = "engine"  # the folder that DeepSpeed creates in a checkpoint


def start_distributed() -> torch.device:
    """Joins the launcher's process group, or creates a group of one; returns this process's device.

    Raises:
        PoseRftError: a launcher set some of its variables but not all, or another account has connected.
    """
    gpu = torch.cuda.is_available()
    if not gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is imported
    os.environ.setdefault("DS_LOG_LEVEL", "warning")
    # DeepSpeed calls collectives by names that torch has deprecated; users can do nothing about it.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        ranks.join("nccl" if gpu else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    return device


class _Compute(nn.Module):
    """Gives DeepSpeed a single forward pass that returns the loss, whichever methods of the model it calls."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[..., T], *inputs: Any) -> T:
        return compute(self.model, *inputs)


class Engine:
    """A model in training; `module` is the model itself, on `device`.

    Only parameters with `requires_grad` go to the optimiser; vectors and scalars (biases, norms, log-sigmas) get no
    weight decay.
    """

    def __init__(self, model: nn.Module, params: EngineParams, total_steps: int) -> None:
        self.device = start_distributed()
        import deepspeed
        from deepspeed.utils import logger

        logger.setLevel("WARNING")
        self.params, self.total_steps = params, total_steps
        self.accumulation = params.accumulation
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": params.weight_decay},
            {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
        ]
        chosen = [group for group in groups if group["params"]]
        if params.checkpoint_activations:
            model.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        computed = _Compute(model.to(self.device))
        config = deepspeed_config(params)
        self._engine = deepspeed.initialize(model=computed, model_parameters=chosen, config=config)[0]
        ranks.refuse_strangers()  # in the groups that DeepSpeed has created
        for part in model.modules():  # DeepSpeed casts weights but not statistics; BatchNorm rejects mixed dtypes
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and params.bf16:
                for name in ("running_mean", "running_var"):
                    setattr(part, name, getattr(part, name).bfloat16())
        self._keys: list[str] = []
        self._pending = 0  # backward() calls since the last step()

    @property
    def module(self) -> Any:
        """The model; `Any` because callers know which model they passed."""
        return self._engine.module.model

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return torch.distributed.get_rank()

    @property
    def world_size(self) -> int:
        """The number of training processes."""
        return torch.distributed.get_world_size()

    def lr(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self.params, step, self.total_steps)

    def forward(self, compute: Callable[..., T], *inputs: Any) -> T:
        """Returns `compute(module, *inputs)`: a loss, or a tuple that contains it."""
        return self._engine(compute, *inputs)

    def backward(self, loss: Tensor, keys: Sequence[str] = ()) -> None:
        """Accumulates the gradient of one micro-batch; `keys`: its samples, named in errors about non-finite values.

        Raises:
            PoseRftError: the loss is not finite.
        """
        if self._pending == self.accumulation:
            raise ValueError(f"step() is due after {self.accumulation} backward() calls")
        if not bool(torch.isfinite(loss.detach()).all()):
            raise PoseRftError(f"The loss is {float(loss.detach()):g} for samples {_shown(keys)}; {_REMEDY}")
        if self.params.stage:
            # DeepSpeed does this in its own forward; without it, stage 3 keeps only the last micro-batch's gradient
            # if a caller used `module` directly.
            self._engine.optimizer.clear_backward_seen_flag()
        self._engine.backward(loss)
        self._keys += keys
        self._pending += 1
        if self._pending < self.accumulation:
            self._engine.step()  # not an update: DeepSpeed counts micro-batches here

    def step(self, step: int) -> float:
        """Updates the weights with the learning rate of `step`; returns the gradient norm before clipping.

        Raises:
            PoseRftError: the gradient is not finite (the weights are then unchanged).
        """
        if self._pending != self.accumulation:
            raise ValueError(f"step() came after {self._pending} of {self.accumulation} backward() calls")
        keys, self._keys, self._pending = self._keys, [], 0
        for group in self._engine.optimizer.param_groups:
            group["lr"] = self.lr(step)
        norm = self._plain_norm()
        if norm is None or math.isfinite(norm):
            self._engine.step()
        norm = float(self._engine.get_global_grad_norm()) if norm is None else norm
        if not math.isfinite(norm):
            # The norm is of the gradient summed over ranks: any rank may be the cause.
            keys = [key for part in ranks.gather(keys, self.device) for key in part]
            raise PoseRftError(f"The gradient of step {step} is not finite for samples {_shown(keys)}; {_REMEDY}")
        return norm

    def mean(self, value: float) -> float:
        """The mean of a value over all ranks; every rank must call it."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total) / self.world_size

    def leave(self) -> None:
        """Exits this process, if it is one of several, once all of them have finished; otherwise does nothing.

        Gloo's threads abort one in ten normal interpreter exits, which a launcher would take for a failure.
        """
        if self.world_size == 1:
            return
        torch.distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def _plain_norm(self) -> float | None:
        """Gradient norm where DeepSpeed neither reports nor checks it (stage 0 in fp32), otherwise None."""
        if self.params.stage != 0:
            return None
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Writes weights, optimiser and `state` (plain numbers and strings) under `folder`; every rank must call it."""
        self._engine.save_checkpoint(
            str(folder),
            tag=TAG,
            client_state={"pose_rft": state},
            save_latest=False,
            exclude_frozen_parameters=True,
        )

    def load(self, folder: Path) -> dict[str, Any]:
        """Inverse of `save`, for any number of processes; returns its `state`.

        Raises:
            PoseRftError: the folder does not hold a checkpoint of this model and ZeRO stage.
        """
        saved_by = checkpoint_files.ranks_of(folder / TAG)
        try:
            if saved_by in (None, self.world_size):
                client = self._load(folder)
            else:
                client = self._load_universal(folder, folder / "universal")
        except Exception as error:
            raise PoseRftError(
                f"{folder} is not a checkpoint of this model ({' '.join(str(error).split())[:200]}); delete it to "
                "start again."
            ) from error
        return client["pose_rft"]

    def _load(self, folder: Path) -> dict[str, Any]:
        with checkpoint_files.tensors_only():
            path, client = self._engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=False)
        if path is None:
            raise ValueError("it holds no weights")
        return client

    def _load_universal(self, folder: Path, universal: Path) -> dict[str, Any]:
        """Loads a checkpoint saved by another number of processes, through a temporary universal checkpoint."""
        problem: str | None = None
        if self.rank == 0:
            shutil.rmtree(universal, ignore_errors=True)
            try:
                checkpoint_files.to_universal(folder / TAG, universal / TAG)
            except Exception as error:
                problem = str(error) or type(error).__name__
        problem = ranks.gather(problem, self.device)[0]
        if problem is not None:
            raise ValueError(problem)
        config = self._engine._config
        config.load_universal_checkpoint = True
        try:
            client = self._load(universal)
        finally:
            config.load_universal_checkpoint = False
        # A universal checkpoint restores parameters only.
        buffers = {name for name, _ in self._engine.module.named_buffers()}
        saved = checkpoint_files.module_state(folder / TAG)
        kept = {name: value for name, value in saved.items() if name in buffers}
        self._engine.module.load_state_dict(kept, strict=False)
        torch.distributed.barrier()
        if self.rank == 0:
            shutil.rmtree(universal)
        return client

    def finish(self) -> Any:
        """Returns the trained module, complete on every rank and detached from this engine, which can train no more."""
        module = self.module
        if self.params.stage < 3:
            return module
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(module.parameters())):
            whole = {name: parameter.data.clone() for name, parameter in module.named_parameters()}
        self._engine.destroy()  # removes the hooks that would partition the weights again
        for prefix, part in module.named_modules():
            for name, parameter in part.named_parameters(recurse=False):
                value = whole[f"{prefix}.{name}" if prefix else name]
                setattr(part, name, nn.Parameter(value, requires_grad=parameter.requires_grad))
        return module


_REMEDY = "look at these samples, or lower the learning rate."


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
