"""Text-pose pairs in memory, and their texts as precomputed arrays on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pose_rft.body.frames import semantic_frame
from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.io.mapped import new_array, open_array
from pose_rft.progress import Progress
from pose_rft.shards.loader import ShardSet

TEXTS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Pairs:
    """N poses with their captions. rotations: (N, 24, 3, 3) float32, AMASS frame without heading; captions by kind."""

    keys: tuple[str, ...]
    rotations: Tensor
    automatic: tuple[tuple[str, ...], ...]
    human: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, rows: Sequence[int]) -> "Pairs":
        """The pairs at `rows`."""
        return Pairs(
            tuple(self.keys[i] for i in rows),
            self.rotations[list(rows)],
            tuple(self.automatic[i] for i in rows),
            tuple(self.human[i] for i in rows),
        )

    def with_human(self) -> "Pairs":
        """The poses that have a human caption."""
        return self.subset([i for i, texts in enumerate(self.human) if texts])


def read_pairs(shards: ShardSet) -> Pairs:
    """Reads all samples with a pose and a caption from a folder of shards.

    Raises:
        PoseRftError: no sample has both.
    """
    keys, poses, automatic, human = [], [], [], []
    for i in range(len(shards)):
        record = shards.record(i)
        if record.smpl is None or not record.captions:
            continue
        rotations = axis_angle_to_matrix(
            torch.from_numpy(np.concatenate((record.smpl.global_orient[None], record.smpl.body_pose)))
        )
        keys.append(record.key)
        poses.append(semantic_frame(rotations, record.smpl.frame))
        automatic.append(tuple(caption.text for caption in record.captions if caption.kind == "automatic"))
        human.append(tuple(caption.text for caption in record.captions if caption.kind == "human"))
    if not keys:
        raise PoseRftError(f"{shards.folder} has no pose with a caption; convert PoseScript with its caption files.")
    return Pairs(tuple(keys), torch.stack(poses).float(), tuple(automatic), tuple(human))


class PreparedTexts:
    """Maps each text to the (T, …) input array of a text encoder, memory-mapped from the scratch folder.

    Features are stored as float16. The encoder is frozen, so it processes each text once for the whole training.
    """

    def __init__(self, folder: Path) -> None:
        self._flat = open_array(folder / "flat.npy")
        self._ends = open_array(folder / "ends.npy")
        texts = (folder / "texts.txt").read_text().split("\n")
        self._row = {text: i for i, text in enumerate(texts)}

    @classmethod
    def build(
        cls, texts: Sequence[str], prepare: Callable[[Sequence[str]], list[Tensor]], folder: Path, label: str
    ) -> "PreparedTexts":
        """Prepares the distinct texts and writes `folder` atomically, or opens it if an earlier run wrote it."""
        if not folder.is_dir():
            distinct = sorted({*texts}, key=lambda text: (len(text), text))
            if broken := next((text for text in distinct if "\n" in text), None):
                raise PoseRftError(f"The caption {broken[:80]!r} holds a line break; fix the caption file.")
            with atomic.folder(folder) as unfinished, Progress(label, len(distinct), "texts") as progress:
                lengths: list[int] = []
                with (unfinished / "raw").open("wb") as raw:
                    for first in range(0, len(distinct), TEXTS_AT_ONCE):
                        chunk = [_compact(array) for array in prepare(distinct[first : first + TEXTS_AT_ONCE])]
                        lengths += [len(array) for array in chunk]
                        raw.writelines(array.tobytes() for array in chunk)
                        progress.advance(len(chunk))
                        shape, kind = chunk[0].shape[1:], chunk[0].dtype
                _as_npy(unfinished / "raw", (sum(lengths), *shape), kind, unfinished / "flat.npy")
                np.save(unfinished / "ends.npy", np.cumsum(lengths))
                (unfinished / "texts.txt").write_text("\n".join(distinct))
        return cls(folder)

    def __getitem__(self, text: str) -> Tensor:
        row = self._row[text]
        first = int(self._ends[row - 1]) if row else 0
        array = torch.from_numpy(np.array(self._flat[first : self._ends[row]]))
        return array.float() if array.is_floating_point() else array.long()


def _compact(array: Tensor) -> np.ndarray:
    return array.cpu().to(torch.float16 if array.is_floating_point() else torch.int32).numpy()


def _as_npy(raw: Path, shape: tuple[int, ...], kind: np.dtype, target: Path) -> None:
    """Converts a file of raw numbers to .npy without loading it into memory at once."""
    with new_array(target, kind, shape) as whole:
        whole.reshape(-1)[:] = np.memmap(raw, dtype=kind, mode="r")
    raw.unlink()
