"""Stage `sft`: from LLaVA to a pose MLLM by supervised pretraining (models/sft_VARIANT).

`--variant point` is Table 3's "Baseline", `gaussian` its "Baseline + Dist.". A killed run resumes from its last
checkpoint; the model folder holds the weights, the LoRA adapters beside them, and the processor.
"""

import argparse
from pathlib import Path
from typing import Literal, get_args

from pose_rft.params import Seeds, load
from stages.common import stage_main
from stages.launch import launched
from stages.shard_sets import training_of_this_run

Variant = Literal["point", "gaussian"]
BASE, ENCODER = Path("models/base"), Path("models/pose_encoder")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.sft", description=__doc__)
    parser.add_argument("--variant", choices=get_args(Variant), required=True)
    variant: Variant = parser.parse_args(arguments).variant
    if not launched("stages.sft", arguments):
        train(variant)


def train(variant: Variant) -> None:
    """Sets → base and encoder → policy → tokens → training → calibration → models/sft_VARIANT."""
    from pose_rft.batches.collate import Collator
    from pose_rft.batches.samples import mean_pose
    from pose_rft.body.rotations import matrix_to_sixd
    from pose_rft.inference.heldout import heldout_metrics
    from pose_rft.policy import hub
    from pose_rft.policy.params import PolicyParams
    from pose_rft.policy.processor import ImageParams
    from pose_rft.seeds import derive
    from pose_rft.training import sft
    from pose_rft.training.engine import start_distributed
    from stages import sessions

    params = training_of_this_run(load("sft", sft.SFTParams), "sft")
    policy, image = load("policy", PolicyParams), load("image", ImageParams)
    seed = derive(load("seed", Seeds).train, "sft")  # both variants see the same examples in the same order
    device = start_distributed()
    sets = sessions.Sets.of(params)

    encoder = None if policy.fusion == "clip_only" else hub.load_pose_encoder(ENCODER)
    mean = matrix_to_sixd(mean_pose([sets.training[name] for name in params.examples.pictured() or sets.training]))
    model, processor = hub.create_policy(hub.load_base(BASE, "auto"), encoder, policy, image, variant, mean, seed)
    sessions.make_trainable(model, params, device)
    session = sessions.Session.of(model, processor, params, sets, seed)
    scratch = session.folder("sft", variant, {"policy": policy}, [BASE, *([ENCODER] if encoder is not None else [])])

    body, tokens, most = session.body.to(device), session.tokens, params.heldout.samples
    collator = Collator(processor)
    sft.train(session.engine, session.stream, collator, tokens, body, params, scratch, f"sft {variant}", seed)
    session.leave(
        f"sft_{variant}",
        scratch,
        lambda trained: heldout_metrics(trained, processor, body, sets.heldout, tokens, most, seed),
    )


if __name__ == "__main__":
    stage_main(main)
