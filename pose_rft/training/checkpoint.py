"""Atomic checkpoints, which are complete or absent, and the pointer to the newest one.

DeepSpeed writes directly into its final folder and names it before all ranks are done, so a kill leaves a checkpoint
that looks complete. Here every rank writes into a temporary folder; then one rank syncs the files, renames the folder,
updates `latest`, and only then removes the older checkpoints.

    <folder>/latest          the name of the newest complete checkpoint
    <folder>/00000150/       what `Learner.save` wrote after 150 steps
    <folder>/unfinished/     being written, or left by a kill: never read
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic

LATEST = "latest"
UNFINISHED = "unfinished"


class Learner(Protocol):
    """A model in training with its optimiser: an `Engine`, or a plain optimiser in one process."""

    @property
    def rank(self) -> int:
        """The rank of this process."""
        ...

    @property
    def module(self) -> Any:
        """The model in training."""
        ...

    def lr(self, step: int) -> float:
        """The learning rate of a step."""
        ...

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Writes everything that a resumed run needs, and `state`, under `folder`; every rank must call it."""
        ...

    def load(self, folder: Path) -> dict[str, Any]:
        """Inverse of `save`; returns its `state`."""
        ...


def save(learner: Learner, folder: Path, step: int) -> None:
    """Saves the state after `step` steps as the newest checkpoint in `folder`; every rank must call it."""
    temporary = folder / UNFINISHED
    if learner.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    _meet()
    learner.save(temporary, {"step": step})
    _meet()
    if learner.rank == 0:
        for script in temporary.glob("zero_to_*.py"):
            script.unlink()  # DeepSpeed's conversion tools; the final model is saved in the hub format instead
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        name = f"{step:08d}"
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(temporary, folder / name)
        _sync(folder)
        atomic.write_text(folder / LATEST, name)
        for old in folder.iterdir():
            if old.is_dir() and old.name != name:
                shutil.rmtree(old)
    _meet()


def restore(learner: Learner, folder: Path) -> int:
    """Loads the newest checkpoint into `learner`; returns the number of steps already done, 0 when there is none.

    Raises:
        PoseRftError: the newest checkpoint is missing, damaged, or does not match the learner.
    """
    pointer = folder / LATEST
    if not pointer.is_file():
        return 0
    name = pointer.read_bytes()[:64].decode("ascii", "replace").strip()
    checkpoint = folder / name
    if not re.fullmatch(r"\d{8}", name) or checkpoint.is_symlink() or not checkpoint.is_dir():
        raise PoseRftError(
            f"{pointer} names {name!r}, expected one of the folders beside it, such as 00000150; write the name of the "
            "newest one into it, or move the folder of `latest` away to start again."
        )
    return int(learner.load(checkpoint)["step"])


def _meet() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
