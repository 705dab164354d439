"""DeepSpeed's checkpoint files: read without the full unpickler, and resharded for another number of processes.

ZeRO writes one optimiser file per process, which only the same number of processes can read. For another number, the
files are converted to DeepSpeed's universal checkpoint (arXiv 2406.18820), one folder per parameter, from which each
process loads its part.
"""

import io
import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor


def ranks_of(folder: Path) -> int | None:
    """Number of processes that wrote a ZeRO checkpoint; None if any number can read it (stage 0)."""
    return len(list(folder.glob("*zero_pp_rank_*_optim_states.pt"))) or None


def to_universal(folder: Path, out: Path) -> None:
    """Converts the ZeRO checkpoint `folder` to a universal checkpoint `out`; both directly hold DeepSpeed's files.

    Raises:
        Exception: whatever DeepSpeed raises about files that it cannot read.
    """
    from deepspeed.checkpoint import ds_to_universal

    out.mkdir(parents=True)
    settings = Namespace(
        input_folder=str(folder),
        output_folder=str(out),
        num_extract_workers=1,  # in this process: a fork would inherit the process group
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,  # only pipeline-parallel training writes it
    )
    with tensors_only(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(settings)


def module_state(folder: Path) -> dict[str, Tensor]:
    """The `module` entry of a checkpoint: weights below stage 3, buffers always."""
    file = min(folder.glob("*mp_rank_00_model_states.pt"))
    with tensors_only():
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content["module"]


@contextmanager
def tensors_only() -> Iterator[None]:
    """Restricts DeepSpeed's loading, which uses the full unpickler, to tensors and three of its own classes.

    Python 3.11.0 to 3.11.3 pickle an enum member as `getattr(class, name)`, so `getattr` is mapped to `zero_stage`.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    stages = ZeroStageEnum.__members__

    def zero_stage(kind: type, name: str) -> ZeroStageEnum:
        if kind is not ZeroStageEnum:
            raise UnpicklingError(f"getattr of {kind} in a checkpoint; only ZeRO stages are read by name")
        return stages[name]

    allowed = [LossScaler, ZeroStageEnum, fragment_address, (zero_stage, "builtins.getattr")]
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
