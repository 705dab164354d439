"""Stage `pose_encoder`: imports or trains the pose encoder that runs beside CLIP (models/pose_encoder).

For `blazepose`, only the lifter is trained, on the network's outputs for the training crops; `conv_vit` is trained
entirely, on 2D keypoints; `vitpose` and `hmr2` are used unchanged.

Training uses the splits of `TRAIN` that the run has, evaluation those of `HELDOUT`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.params import Seeds, load
from stages.common import scratch_dir, stage_main, training_dir
from stages.shard_sets import SHARDS, of_this_run

if TYPE_CHECKING:  # torch must not be loaded before stage_main has set its environment
    from pose_rft.policy.params import PoseEncoderParams
    from pose_rft.policy.pose_encoder import PoseEncoder
    from pose_rft.policy.processor import ImageParams

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
    elif params.kind == "blazepose":
        encoder, metrics, log = lifted(params, image, seed)
    else:
        from pose_rft.policy.hub import import_pose_encoder

        encoder, metrics, log = import_pose_encoder(params), {}, ""
    counted = sum(parameter.numel() for parameter in encoder.parameters())
    with atomic.folder(MODEL) as folder:
        encoder.save_pretrained(folder)
    atomic.write_text(RESULTS / "log.jsonl", log)
    atomic.write_json(RESULTS / "metrics.json", metrics | {"parameters": counted})


def splits() -> tuple[list[str], list[str]]:
    """Returns the training and the held-out splits that the run has.

    Raises:
        PoseRftError: there is no split to train on.
    """
    train, heldout = of_this_run(TRAIN, "the pose encoder"), of_this_run(HELDOUT, "the look at the pose encoder")
    if not train:
        raise PoseRftError(f"The pose encoder is trained on {', '.join(TRAIN)}, and `datasets` names none of them.")
    return train, heldout


def lifted(params: "PoseEncoderParams", image: "ImageParams", seed: int) -> tuple["PoseEncoder", dict[str, float], str]:
    """Returns a blazepose whose lifter is trained on the training sets, its held-out errors, and its log's text."""
    import torch

    from pose_rft.batches.observed import observed
    from pose_rft.batches.samples import mean_pose
    from pose_rft.body.smpl import load_body_model
    from pose_rft.params import body_model_folder
    from pose_rft.policy.blazepose import import_blazepose
    from pose_rft.seeds import derive
    from pose_rft.training import lifting
    from stages.samples import samples

    if params.blazepose is None or params.lifter is None:
        raise PoseRftError("`pose_encoder.blazepose` (variant, sizes) and `pose_encoder.lifter` (training) are needed.")
    train, heldout = splits()
    identity = {"pose_encoder": params.model_dump(mode="json"), "image": image.model_dump(mode="json"), "seed": seed}
    scratch = training_dir("pose_encoder", identity, [SHARDS / name for name in train])
    torch.manual_seed(derive(seed, "pose_encoder"))
    encoder = import_blazepose(params.blazepose)
    if image.pose_size != encoder.image_size:
        raise PoseRftError(f"image.pose_size is {image.pose_size} px, but blazepose takes {encoder.image_size} px.")
    body = load_body_model(body_model_folder())
    read = {name: samples(name) for name in (*train, *heldout)}

    def people(name: str, flip: bool) -> lifting.LiftingSet:
        seen = observed(encoder, read[name], image, flip, scratch_dir("features", {}, []))
        return lifting.lifting_set(encoder, read[name], seen, body, flip)

    sets = {f"{name}{' mirrored' if flip else ''}": people(name, flip) for name in train for flip in (False, True)}
    lifting.set_means(encoder.lifter, mean_pose([read[name] for name in train]), sets.values())
    rows = lifting.train(encoder.lifter, sets, body, params.lifter, scratch, seed)
    metrics = {
        f"{error}/{name}": value
        for name in heldout
        for error, value in lifting.joint_errors(encoder, people(name, False), body.cpu()).items()
    }
    metrics |= {"loss": float(rows["loss"].to_numpy()[-20:].mean())}
    return encoder, metrics, (scratch / "log.jsonl").read_text()


def trained(
    params: "PoseEncoderParams", image: "ImageParams", seed: int
) -> tuple["PoseEncoder", dict[str, float], str]:
    """Returns a conv_vit trained on the keypoints of the training sets, its held-out errors, and its log's text."""
    import torch

    from pose_rft.policy.pose_encoder import create_conv_vit
    from pose_rft.seeds import derive
    from pose_rft.training import keypoints
    from stages.samples import samples

    if params.training is None:
        raise PoseRftError("`pose_encoder.training` is missing, expected steps, batch and learning_rate of conv_vit.")
    train, heldout = splits()
    identity = {"pose_encoder": params.model_dump(mode="json"), "image": image.model_dump(mode="json"), "seed": seed}
    scratch = training_dir("pose_encoder", identity, [SHARDS / name for name in train])
    torch.manual_seed(derive(seed, "pose_encoder"))
    encoder = create_conv_vit(params, image.pose_size)
    crops = scratch_dir("features", {}, []) / "crops"
    sets = {name: keypoints.load_keypoints(samples(name), image, crops) for name in (*train, *heldout)}
    rows = keypoints.train(encoder, {name: sets[name] for name in train}, params.training, scratch, seed)
    metrics = {f"heldout_pixels/{name}": keypoints.pixel_error(encoder, *sets[name]) for name in heldout}
    metrics |= {"crop_pixels": image.pose_size, "loss": float(rows["loss"].to_numpy()[-20:].mean())}
    return encoder, metrics, (scratch / "log.jsonl").read_text()


if __name__ == "__main__":
    stage_main(main)
