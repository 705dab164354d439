"""Stage `rft`: reinforcement fine-tuning of models/sft_gaussian by HyGRPO (models/rft_VARIANT).

`--variant hygrpo` is the paper's method, `grpo` its discrete-only ablation: the same run without the pose term. With
`rft.supervised` both are SFT continued on the same prompts. A killed run continues from its last checkpoint with the
numbers that it would have drawn.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pose_rft.params import Seeds, body_model_folder, load
from stages.common import stage_main
from stages.launch import launched
from stages.shard_sets import training_of_this_run

if TYPE_CHECKING:  # heavy, and the launcher's parent does without
    from pose_rft.batches.examples import Example
    from pose_rft.hygrpo.params import RFTParams
    from pose_rft.inference.answers import Prediction
    from pose_rft.inference.passes import Preparer
    from pose_rft.policy.processor import PoseProcessor
    from pose_rft.training.engine import Engine

Variant = Literal["hygrpo", "grpo"]
POLICY, RETRIEVAL = Path("models/sft_gaussian"), Path("models/retrieval_reward")
PROMPTS_AT_ONCE = 64


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.rft", description=__doc__)
    parser.add_argument("--variant", choices=get_args(Variant), required=True)
    variant: Variant = parser.parse_args(arguments).variant
    if not launched("stages.rft", arguments):
        train(variant)


def train(variant: Variant) -> None:
    """Sets → policy and reference → tokens → rewards → records → trainer → calibration → models/rft_VARIANT."""
    from pose_rft.batches.collate import Collator
    from pose_rft.batches.examples import ExampleStream, HeldoutParams
    from pose_rft.body.smpl import load_body_model
    from pose_rft.hygrpo.params import RFTParams
    from pose_rft.hygrpo.reference import ReferencePolicy
    from pose_rft.hygrpo.run_artifacts import Records, watched
    from pose_rft.hygrpo.trainer import Trainer, TrainerComponents, captions_ahead
    from pose_rft.inference.answers import heldout_examples
    from pose_rft.inference.passes import Preparer, sampling, scoring
    from pose_rft.inference.rewards import Rewards
    from pose_rft.policy import hub
    from pose_rft.policy.processor import ImageParams
    from pose_rft.retrieval.ensemble import load_ensemble
    from pose_rft.retrieval.sentence_encoder import SentenceEncoder
    from pose_rft.seeds import derive
    from pose_rft.training import loop, sft
    from pose_rft.training.calibration import calibrate
    from pose_rft.training.engine import Engine, start_distributed
    from stages import sessions

    params, image = training_of_this_run(load("rft", RFTParams), "rft"), load("image", ImageParams)
    calibration = load("calibration", HeldoutParams)
    seed = derive(load("seed", Seeds).train, "rft", params.seed)  # both variants see the same prompts in the same order
    device = start_distributed()
    sets = sessions.Sets.of(params, calibration)
    body = load_body_model(body_model_folder())

    model, processor = hub.load_policy(POLICY)
    sessions.make_trainable(model, params, device)
    reference = ReferencePolicy(model)
    tokens = sessions.image_tokens(model, params, sets)
    engine = Engine(model, params.engine, params.steps)
    stream = ExampleStream(sets.training, params.examples, processor, body, seed)
    examples = {
        (task, name): heldout_examples(task, found, processor, body, params.heldout.samples)
        for (task, name), found in sets.heldout.items()
    }

    body.to(device)
    retrieval = load_ensemble(RETRIEVAL).to(device)
    sentence_encoder = SentenceEncoder(params.rewards.sentence_encoder, device=device)
    rewards = Rewards(body, retrieval, sentence_encoder, processor, params.rewards)
    rewards.remember(captions_ahead(stream.draw, params.steps * params.batch))
    prepare = Preparer(processor, tokens, device)

    sections = {"rft": params, "image": image}
    scratch = sessions.run_folder("rft", variant, seed, sections, [POLICY, RETRIEVAL, *sets.folders])
    records = Records(
        scratch,
        _answerer(engine, prepare, processor, params, seed),
        rewards,
        {f"{task}/{name}": found for (task, name), found in examples.items()},
        _some([one for (task, _), found in examples.items() if task == "text_pose" for one in found], params),
        params.steps,
        params.heldout_every,
        params.table_every,
        leader=engine.rank == 0,
    )
    tools = TrainerComponents(
        stream.draw,
        prepare,
        sampling(params.group_size, params.max_new_tokens, params.temperature),
        scoring(params.temperature),
        rewards,
        records.before,
        records.after,
    )
    one_step: Callable[[int], loop.StepStats] = Trainer(engine, reference, tools, params, variant, seed).step
    if params.supervised is not None:
        collator, weights = Collator(processor), params.supervised
        taught = sft.stepper(engine, stream, collator, tokens, body, params.batch, weights)
        one_step = watched(taught, records.before)
    label, stop = f"rft {variant}", params.stop.reason
    log = loop.run(engine, one_step, params.steps, scratch, params.save_every, label, seed, stop)

    metrics: dict[str, float | str | None] = {**records.finish(Path(f"results/rft_{variant}"), len(log))}
    if len(log) < params.steps:
        metrics |= {"stopped_after": len(log), "stopped_because": stop(log.row(-1, named=True))}
    trained = engine.finish()
    if engine.rank == 0:
        body.cpu()  # as the samples are
        calibrate(trained, processor, body, sets.validation, tokens, calibration.samples, seed)
        sessions.leave_results(f"rft_{variant}", trained, processor, scratch, metrics)
    engine.leave()


def _answerer(
    engine: "Engine", prepare: "Preparer", processor: "PoseProcessor", params: "RFTParams", seed: int
) -> "Callable[[Sequence[Example]], Prediction]":
    """What the policy under training answers to held-out examples, with the same draws at every look."""
    from pose_rft.inference.answers import predict
    from pose_rft.seeds import torch_generator

    def answer(asked: "Sequence[Example]") -> "Prediction":
        return predict(
            engine.module,
            prepare,
            asked,
            end_token_id=processor.eos_token_id,
            max_new_tokens=params.max_new_tokens,
            batch=PROMPTS_AT_ONCE,
            generator=torch_generator(seed, "rft", "heldout", device=engine.device),
        )

    return answer


def _some(sentences: "Sequence[Example]", params: "RFTParams") -> "Sequence[Example]":
    """The sentences whose poses are followed over time, evenly spread."""
    return sentences[:: max(1, len(sentences) // params.fixed_sentences)][: params.fixed_sentences]


if __name__ == "__main__":
    stage_main(main)
