"""Converts one release to WebDataset shards and reads them back with `webdataset`.

The release is a miniature of PoseScript with its AMASS files, rendered here; a real one is converted by the same call.
"""

import tempfile
from pathlib import Path

import webdataset

from pose_rft.datasets.registry import DataParams
from pose_rft.record import Record
from pose_rft.sample import write_posescript
from pose_rft.sample.people import Studio
from pose_rft.sample.plan import PoseScriptSample, SampleParams
from pose_rft.sample.standin import build_standin
from pose_rft.shards.convert import convert_release
from pose_rft.shards.plan import ShardParams


def main(folder: Path) -> int:
    """Returns how many samples came back."""
    few = PoseScriptSample(train=20, train_human=8, val=2, test=2)
    sample = SampleParams.model_construct(posescript=few)
    writer, releases, body = write_posescript, folder / "releases", folder / "body"
    build_standin(body)
    studio = Studio(body)
    results = [writer.render(task, sample, 0, studio, releases) for task in writer.tasks(sample, 0)]
    writer.finish(sample, 0, results, releases)

    data = DataParams(source="releases", root=releases, body_model=body)
    shards = ShardParams(samples_per_shard=8, executor="serial", workers=1, jpeg_quality=92)
    made = convert_release("posescript", "train", folder / "shards", data, {}, shards)
    print(f"{made.manifest.samples} samples in {len(made.manifest.shards)} shards, {made.metrics['defects']} defects")

    tars = [str(path) for path in sorted(made.folder.glob("*.tar"))]
    count = 0
    for members in webdataset.WebDataset(tars, shardshuffle=False):
        record = Record.from_members({name: members[name] for name in members if not name.startswith("__")})
        count += 1
    print(f"{count} samples read; the last one is {record.key}: {record.captions[0].text}")
    return count


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
