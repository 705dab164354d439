"""Captions per second: poses one by one, and in batches as in the BEDLAM reader.

    python -m benchmarks.captions [--poses 1000] [--body data/sample/body_models]

Both variants describe the same random poses in one process, in turn, and must give the same sentences. Also measured:
farthest-point selection of poses against the plain algorithm, which looks at all points for every choice.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pose_rft.body.smpl import load_body_model
from pose_rft.captions.describe import describe_pose, describe_poses
from pose_rft.datasets.bedlam.script import farthest_points
from pose_rft.sample.key_poses import sample_pose

CAPTIONS = 3  # per pose, as in BEDLAM-Script
TOGETHER = 64  # poses per batch
CANDIDATES, CHOSEN = 50_000, 1_000


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    outcome = work()
    return outcome, time.perf_counter() - start


def captions(count: int, body: Path) -> None:
    rest = load_body_model(body).rest_joints().detach()[0].numpy()
    poses = np.stack([sample_pose(np.random.default_rng(i)) for i in range(count)])

    def alone() -> list[list[str]]:
        return [describe_pose(pose, rest, np.random.default_rng(i), CAPTIONS) for i, pose in enumerate(poses)]

    def together() -> list[list[str]]:
        texts = []
        for start in range(0, count, TOGETHER):
            rngs = [np.random.default_rng(i) for i in range(start, min(start + TOGETHER, count))]
            texts += describe_poses(poses[start : start + TOGETHER], rest, rngs, CAPTIONS)
        return texts

    together()  # warms up what is created once per process
    (one, slow), (many, fast) = timed(alone), timed(together)
    assert one == many, "the sentences depend on the batch"
    print(
        f"{count} poses, {CAPTIONS} captions each: one by one {count / slow:.0f} poses/s, {TOGETHER} at once ", end=""
    )
    print(f"{count / fast:.0f} poses/s, ratio {slow / fast:.1f}")


def selection() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 80, (2_000, 66))
    points = np.rint(centres[rng.integers(len(centres), size=CANDIDATES)] + rng.normal(0, 20, (CANDIDATES, 66)))
    points = points.astype(np.float32)

    def plain() -> list[int]:
        nearest, chosen = np.square(points - points[0]).sum(1), [0]
        while len(chosen) < CHOSEN // 10:
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(1))
        return chosen

    (slowly, slow), (quickly, fast) = timed(plain), timed(lambda: farthest_points(points, CHOSEN))
    assert slowly == quickly[: len(slowly)].tolist(), "another selection"
    print(f"farthest of {CANDIDATES}: plain {len(slowly) / slow:.0f} choices/s, ", end="")
    print(f"from a pool {CHOSEN / fast:.0f} choices/s, ratio {CHOSEN / fast / (len(slowly) / slow):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=int, default=1_000)
    parser.add_argument("--body", type=Path, default=Path("data/sample/body_models"))
    options = parser.parse_args()
    captions(options.poses, options.body)
    selection()


if __name__ == "__main__":
    main()
