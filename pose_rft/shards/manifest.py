"""The two kinds of JSON files that record what was written: `NNNNN.json` per shard, `manifest.json` per folder.

A marker is written after its shard and marks it complete; the manifest is written last and marks the folder complete.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic, door
from pose_rft.io.json_files import read_json

CONVERTER_VERSION = 1
MANIFEST = "manifest.json"
INDEX = "index.parquet"
SHARD = re.compile(r"\d{5,}\.tar")
DEFECTS = "defects.parquet"


def shard_name(index: int) -> str:
    """Returns the file name of a shard."""
    return f"{index:05d}.tar"


def marker_name(index: int) -> str:
    """Returns the file name of the marker that says a shard is complete."""
    return f"{index:05d}.json"


@dataclass(frozen=True)
class Marker:
    """Sample count, size in bytes and sha256 of one complete shard; `defects`: number of defect rows of its units."""

    shard: str
    count: int
    bytes: int
    sha256: str
    defects: int

    def __post_init__(self) -> None:
        texts, numbers = (self.shard, self.sha256), (self.count, self.bytes, self.defects)
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            raise TypeError(f"a shard's entry holds {texts} and {numbers}")
        if not SHARD.fullmatch(self.shard):  # manifests are untrusted, and this name is opened
            raise ValueError(f"{self.shard!r:.40} is no name of a shard")

    def write(self, path: Path) -> None:
        """Writes the marker beside its shard."""
        atomic.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Marker | None":
        """Reads a marker; None if it is missing or damaged, so the shard counts as incomplete."""
        try:
            return cls(**read_json(path, dict))
        except (PoseRftError, ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Manifest:
    """Totals and origin of a folder of shards. `expected`: planned number of samples; `defects`: count by reason."""

    dataset: str
    split: str
    schema: int
    converter: int
    inventory: str
    licence: str
    plan: str
    samples: int
    expected: int
    bytes: int
    defects: Mapping[str, int]
    shards: tuple[Marker, ...]
    statistics: Mapping[str, Any]

    def __post_init__(self) -> None:
        numbers = (self.schema, self.samples, self.expected, self.bytes, *dict(self.defects).values())
        if not all(type(number) is int for number in numbers) or not isinstance(self.statistics, Mapping):
            raise TypeError(f"a manifest holds {numbers} where it counts")

    def write(self, folder: Path) -> None:
        """Writes the manifest into a folder of shards."""
        atomic.write_json(folder / MANIFEST, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads the manifest of a folder of shards.

        Raises:
            PoseRftError: the folder has no manifest (no conversion, or an unfinished one), or an unreadable one.
        """
        path = folder / MANIFEST
        try:
            content = read_json(path, dict)
            return cls(**{**content, "shards": tuple(Marker(**marker) for marker in content["shards"])})
        except door.Missing:
            raise PoseRftError(
                f"{path} does not exist, so {folder} holds no finished conversion; run `dvc repro convert`."
            ) from None
        except (PoseRftError, ValueError, TypeError, KeyError) as error:
            cause = str(error).rstrip(".")
            raise PoseRftError(f"{path} cannot be read ({cause:.300}); delete {folder} and convert again.") from None
