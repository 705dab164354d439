"""Stage `rft`: reinforcement fine-tuning of models/sft_gaussian by HyGRPO (models/rft_VARIANT).

`--variant hygrpo` is the paper's method, `grpo` its discrete-only ablation: the same run without the pose term. With
`rft.reinforced: false` both continue SFT on the same prompts. A killed run resumes from its last checkpoint with the
same random draws as an uninterrupted one.
"""

import argparse
from pathlib import Path
from typing import Literal, get_args

from pose_rft.params import Seeds, load
from stages.common import stage_main
from stages.launch import launched
from stages.shard_sets import training_of_this_run

Variant = Literal["hygrpo", "grpo"]
POLICY, RETRIEVAL = Path("models/sft_gaussian"), Path("models/retrieval_reward")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.rft", description=__doc__)
    parser.add_argument("--variant", choices=get_args(Variant), required=True)
    variant: Variant = parser.parse_args(arguments).variant
    if not launched("stages.rft", arguments):
        train(variant)


def train(variant: Variant) -> None:
    """Sets → policy and reference → session → judges and records → training → calibration → models/rft_VARIANT."""
    from pose_rft.hygrpo.params import RFTParams
    from pose_rft.hygrpo.reference import ReferencePolicy
    from pose_rft.policy import hub
    from pose_rft.seeds import derive
    from pose_rft.training import loop
    from pose_rft.training.engine import start_distributed
    from stages import reinforcement, sessions

    params = training_of_this_run(load("rft", RFTParams), "rft")
    seed = derive(load("seed", Seeds).train, "rft", params.seed)  # both variants see the same prompts in the same order
    device = start_distributed()
    sets = sessions.Sets.of(params)

    model, processor = hub.load_policy(POLICY)
    sessions.make_trainable(model, params, device)
    reference = ReferencePolicy(model)
    session = sessions.Session.of(model, processor, params, sets, seed)
    scratch = session.folder("rft", variant, {}, [POLICY, RETRIEVAL])

    examples = reinforcement.followed(session)
    rewards = reinforcement.judges(session, RETRIEVAL)
    records = reinforcement.records(session, rewards, examples, scratch)
    one_step = reinforcement.step(session, reference, rewards, records, variant)
    label, stop = f"rft {variant}", params.stop.reason
    log = loop.run(session.engine, one_step, params.steps, scratch, params.save_every, label, seed, stop)

    metrics: dict[str, float | str | None] = {**records.finish(Path(f"results/rft_{variant}"), len(log))}
    if len(log) < params.steps:
        metrics |= {"stopped_after": len(log), "stopped_because": stop(log.row(-1, named=True))}
    session.leave(f"rft_{variant}", scratch, lambda trained: metrics)


if __name__ == "__main__":
    stage_main(main)
