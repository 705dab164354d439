"""Reads a split's samples for every stage that trains or evaluates. Imported late, since it imports torch."""

from pose_rft.batches.samples import Samples, load_samples
from pose_rft.shards.loader import ShardSet
from stages.common import scratch_dir
from stages.shard_sets import SHARDS

TRAIN = "train"


def samples(name: str) -> Samples:
    """Reads the samples of `DATASET/SPLIT`, cached in scratch."""
    return load_samples(name, ShardSet(SHARDS / name), scratch_dir("samples", {}, []))
