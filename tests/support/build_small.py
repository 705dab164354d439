"""Writes a small sample and its shards to the folder that is named; for tests that do so under several settings."""

import ctypes
import os
import sys
from pathlib import Path

import av

from pose_rft.datasets.registry import DataParams
from pose_rft.sample import build
from pose_rft.shards.convert import convert_release
from pose_rft.shards.plan import ShardParams
from tests.support.small_sample import small_sample

SHARDS = (("h36m", "train"), ("mpi_inf_3dhp", "train"), ("coco", "train"), ("mpii", "train"), ("posescript", "train"))
SHARDS += (("bedlam", "train"), ("3dpw", "validation"))
FITS = {
    "h36m": {"fits": [{"source": "neuralannot", "path": "Human36M_subject{subject}_SMPL_NeuralAnnot.json"}]},
    "mpi_inf_3dhp": {"fits": [{"source": "neuralannot", "path": "MPI-INF-3DHP_SMPL_NeuralAnnot.json"}]},
    "coco": {"fits": [{"source": "eft", "path": "eft/COCO2014-All-ver01.json"}], "body_joints": 6},
    "mpii": {"fits": [{"source": "eft", "path": "MPII_ver01.json"}]},
    "bedlam": {"smallest_box": 10.0},
}


def plain_ffmpeg() -> None:
    """FFmpeg without instructions of this CPU; it takes this from no environment variable."""
    (library,) = (Path(av.__file__).parents[1] / "av.libs").glob("libavutil*")
    ctypes.CDLL(str(library)).av_force_cpu_flags(0)


def main(out: Path, processes: int) -> None:
    params = small_sample(size=48, train=6, val=2, poses=10, dialogues=4)
    params = params.model_copy(update={"processes": processes, "varied": 0.7})
    build.build_sample(params, 1, out / "sample", ["USER: show the <POSE>."])
    for path in (out / "sample").rglob("*"):
        os.utime(path, (0, 0))  # a manifest tells of which files, and a file's time is part of what it is
    data = DataParams(
        source="sample", root=out / "sample" / build.RELEASES, body_model=out / "sample" / build.BODY_MODELS
    )
    shards = ShardParams(samples_per_shard=32, executor="serial", cluster=None, workers=1, jpeg_quality=92)
    for name, split in SHARDS:
        convert_release(name, split, out / "shards" / name / split, data, FITS, shards)


if __name__ == "__main__":
    if os.environ.get("PLAIN_FFMPEG"):
        plain_ffmpeg()
    main(Path(sys.argv[1]), int(sys.argv[2]))
