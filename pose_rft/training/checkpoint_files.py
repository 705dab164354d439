"""DeepSpeed's checkpoint files: read without the full unpickler, and cut anew for another number of processes.

ZeRO writes one optimiser file per process, which as many processes can read again. For another number the files are
turned into DeepSpeed's universal form (arXiv 2406.18820), one folder per parameter, of which each process takes its
part.
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
    """How many processes wrote a ZeRO checkpoint; None where any number can read it (stage 0)."""
    return len(list(folder.glob("*zero_pp_rank_*_optim_states.pt"))) or None


def to_universal(folder: Path, out: Path) -> None:
    """Writes the universal form of the ZeRO checkpoint `folder` as `out`; both are parents of DeepSpeed's files.

    Raises:
        Exception: whatever DeepSpeed raises about files that it does not understand.
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
        inject_missing_state=True,  # what only pipeline-parallel trainings write
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
    """DeepSpeed loads checkpoints with the full unpickler; here only tensors and three of its classes may appear.

    Python 3.11.0 to 3.11.3 write the member of an enum as `getattr(class, name)`, so that name stands for `zero_stage`.
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
