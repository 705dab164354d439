"""Stage `pose_encoder`: the encoder beside CLIP (models/pose_encoder), trained on 2D keypoints or imported."""

from pathlib import Path
from typing import TYPE_CHECKING

from pose_rft.core.params import Seeds, load
from pose_rft.io import atomic
from stages.common import scratch_dir, stage_main, training_dir

if TYPE_CHECKING:  # torch must not be loaded before stage_main has set its environment
    from pose_rft.policy.params import PoseEncoderParams
    from pose_rft.policy.pose_encoder import PoseEncoder
    from pose_rft.policy.processor import ImageParams

SHARDS = Path("data/shards")
TRAIN = ("h36m/train", "mpi_inf_3dhp/train", "coco/train", "mpii/train", "bedlam/train")
HELDOUT = ("3dpw/test",)
MODEL, RESULTS = Path("models/pose_encoder"), Path("results/pose_encoder")


def main(arguments: list[str]) -> None:
    if arguments:
        raise SystemExit("usage: python -m stages.pose_encoder")
    from pose_rft.policy.params import PoseEncoderParams
    from pose_rft.policy.pose_encoder import PoseEncoder
    from pose_rft.policy.processor import ImageParams

    params, image, seed = load("pose_encoder", PoseEncoderParams), load("image", ImageParams), load("seed", Seeds).train
    encoder: PoseEncoder
    if params.kind == "conv_vit":
        encoder, metrics, log = trained(params, image, seed)
    else:
        from pose_rft.policy.hub import import_pose_encoder

        encoder, metrics, log = import_pose_encoder(params), {}, ""
    counted = sum(parameter.numel() for parameter in encoder.parameters())
    with atomic.folder(MODEL) as folder:
        encoder.save_pretrained(folder)
    atomic.write_text(RESULTS / "log.jsonl", log)
    atomic.write_json(RESULTS / "metrics.json", metrics | {"parameters": counted})


def trained(
    params: "PoseEncoderParams", image: "ImageParams", seed: int
) -> tuple["PoseEncoder", dict[str, float], str]:
    """A conv_vit trained on the keypoints of the training sets, its held-out errors, and the text of its log."""
    import torch

    from pose_rft.core.errors import PoseRftError
    from pose_rft.core.seeds import derive
    from pose_rft.policy.pose_encoder import create_conv_vit
    from pose_rft.shards.loader import ShardSet
    from pose_rft.training import keypoints
    from pose_rft.training.samples import load_samples

    if params.training is None:
        raise PoseRftError("`pose_encoder.training` is missing, expected steps, batch and learning_rate of conv_vit.")
    identity = {"pose_encoder": params.model_dump(mode="json"), "image": image.model_dump(mode="json"), "seed": seed}
    scratch = training_dir("pose_encoder", identity, [SHARDS / name for name in TRAIN])
    torch.manual_seed(derive(seed, "pose_encoder"))
    encoder = create_conv_vit(params, image.pose_size)
    sets = {}
    for name in (*TRAIN, *HELDOUT):
        samples = load_samples(name, ShardSet(SHARDS / name), scratch_dir("samples", {}, []))
        sets[name] = keypoints.load_keypoints(samples, image, scratch_dir("crops", {}, []))
    rows = keypoints.train(encoder, {name: sets[name] for name in TRAIN}, params.training, scratch, seed)
    metrics = {f"heldout_pixels/{name}": keypoints.pixel_error(encoder, *sets[name]) for name in HELDOUT}
    metrics |= {"crop_pixels": image.pose_size, "loss": float(rows["loss"].to_numpy()[-20:].mean())}
    return encoder, metrics, (scratch / "log.jsonl").read_text()


if __name__ == "__main__":
    stage_main(main)
