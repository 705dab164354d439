"""Random access to a folder of shards: reading a sample takes one open, one `pread` per member, and one close.

The members are contiguous, but reading them one by one avoids copying the image out of a larger read.

A ShardSet has no state besides the index, so it can be pickled to workers, forked and shared by threads. The order of
samples is decided elsewhere: see `pose_rft.shards.mixture`.
"""

import hashlib
import os
import sys
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
import polars as pl

from pose_rft.errors import PoseRftError
from pose_rft.record import Record
from pose_rft.shards.index import read_table
from pose_rft.shards.manifest import INDEX, MANIFEST, Manifest, shard_name


class ShardSet:
    """The samples of one folder of shards (`data/shards/DATASET/SPLIT`), addressed by their row in the index.

    Raises:
        PoseRftError: on construction, if the folder holds no finished conversion.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self.rows: pl.DataFrame = read_table(self.folder / INDEX)
        if len(self.rows) != self.manifest.samples:
            raise PoseRftError(
                f"{self.folder / INDEX} has {len(self.rows)} rows, its manifest says {self.manifest.samples}; "
                "convert again."
            )
        self._keys = self.rows["key"]
        self._shards = self.rows["shard"].to_numpy()
        members = self.rows["members"].explode().struct.unnest()
        self._names = [name and sys.intern(name) for name in members["name"]]
        self._offsets, self._sizes = members["offset"].to_numpy(), members["size"].to_numpy()
        self._check_places()
        self._first = np.concatenate(
            [np.zeros(1, dtype=np.int64), np.cumsum(self.rows["members"].list.len().to_numpy(), dtype=np.int64)]
        )

    def _check_places(self) -> None:
        """Checks the offsets and sizes of the index, which is untrusted, before they are passed to `pread`.

        Raises:
            PoseRftError: a member lies in no shard of the manifest, or outside its shard.
        """
        sizes = np.array([marker.bytes for marker in self.manifest.shards], dtype=np.int64)
        counts = self.rows["members"].list.len().fill_null(0).to_numpy()
        whole = not any(column.null_count() for column in (self._keys, self.rows["shard"], self.rows["members"]))
        whole &= bool(len(self.rows) == 0 or (counts.min() > 0 and self._shards.max() < len(sizes)))
        if whole and len(self.rows):
            room = np.repeat(sizes[self._shards.astype(np.int64)], counts)
            start, length = self._offsets.astype(np.int64), self._sizes.astype(np.int64)
            whole = bool(((start >= 0) & (length >= 0) & (length <= room) & (start <= room - length)).all())
        if not whole or None in self._names:
            raise PoseRftError(f"{self.folder / INDEX} names places in no shard of its manifest; convert again.")

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the manifest, which holds the sha256 of every shard."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @cached_property
    def _row_of_key(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self._keys)}

    def row(self, key: str) -> int:
        """Returns the number of a sample's row in the index.

        Raises:
            PoseRftError: no sample has this key.
        """
        try:
            return self._row_of_key[key]
        except KeyError:
            raise PoseRftError(f"{self.folder} has no sample {key!r}; its index.parquet lists the keys.") from None

    def record(self, i: int) -> Record:
        """Reads sample i, exactly as it was converted.

        Raises:
            PoseRftError: the shard is missing, truncated or damaged at this sample.
            IndexError: i is not in [0, len).
        """
        if not 0 <= i < len(self):
            raise IndexError(f"{self.folder} has {len(self)} samples, not one number {i}")
        key, path = self._keys[i], f"{self.folder}/{shard_name(int(self._shards[i]))}"
        first, last = int(self._first[i]), int(self._first[i + 1])
        sizes = self._sizes[first:last].tolist()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                contents = list(map(os.pread, repeat(descriptor), sizes, self._offsets[first:last].tolist()))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise PoseRftError(
                f"Shard {path} cannot be read ({error.strerror}); run `pose-rft shards verify {self.folder}`."
            ) from None
        if list(map(len, contents)) != sizes:
            raise PoseRftError(
                f"Shard {path} is truncated before sample {key}; delete {self.folder} and convert again."
            )
        try:
            record = Record.from_members(dict(zip(self._names[first:last], contents, strict=True)))
        except PoseRftError as error:
            raise PoseRftError(f"Shard {path}, sample {key}: {error}") from None
        if record.key != key:
            raise PoseRftError(f"Shard {path} holds {record.key} where its index says {key}; convert again.")
        return record
