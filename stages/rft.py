"""Stage `rft`: reinforcement fine-tuning of models/sft_gaussian by HyGRPO (models/rft_VARIANT).

`--variant hygrpo` is the paper's method, `grpo` its discrete-only ablation: the same run without the pose term. With
`rft.supervised` both are SFT continued on the same prompts. A killed run continues from its last checkpoint with the
numbers that it would have drawn.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from pose_rft.io import atomic
from pose_rft.params import Seeds, body_model_folder, load
from stages.common import scratch_dir, stage_main, training_dir
from stages.launch import launched
from stages.shard_sets import SHARDS, training_of_this_run, validation_of_this_run

POLICY, RETRIEVAL = Path("models/sft_gaussian"), Path("models/retrieval_reward")
TRAIN = "train"
PROMPTS_AT_ONCE = 64


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.rft", description=__doc__)
    parser.add_argument("--variant", choices=("hygrpo", "grpo"), required=True)
    variant = parser.parse_args(arguments).variant
    if launched("stages.rft", arguments):
        return

    import torch

    from pose_rft.batches.collate import Collator
    from pose_rft.batches.examples import Example, ExampleStream, HeldoutParams
    from pose_rft.batches.feature_cache import CachedTokens, image_token_source
    from pose_rft.batches.samples import Samples, load_samples
    from pose_rft.body.smpl import load_body_model
    from pose_rft.hygrpo.params import RFTParams
    from pose_rft.hygrpo.reference import ReferencePolicy
    from pose_rft.hygrpo.run_artifacts import Records, watched
    from pose_rft.hygrpo.trainer import Tools, Trainer, captions_ahead
    from pose_rft.inference.answers import Prediction, heldout_examples, predict
    from pose_rft.inference.passes import Preparer, sampling, scoring
    from pose_rft.inference.rewards import Rewards
    from pose_rft.policy import hub
    from pose_rft.policy.lora import add_lora, trainable_parameters
    from pose_rft.policy.processor import ImageParams
    from pose_rft.retrieval.ensemble import load_ensemble
    from pose_rft.retrieval.sentence_encoder import SentenceEncoder
    from pose_rft.seeds import derive, torch_generator
    from pose_rft.shards.loader import ShardSet
    from pose_rft.training import loop, sft
    from pose_rft.training.calibration import calibrate
    from pose_rft.training.engine import Engine, start_distributed

    params, image = training_of_this_run(load("rft", RFTParams), "rft"), load("image", ImageParams)
    calibration = load("calibration", HeldoutParams)
    seed = derive(load("seed", Seeds).train, "rft", params.seed)  # both variants see the same prompts in the same order
    device = start_distributed()

    def samples(name: str) -> Samples:
        return load_samples(name, ShardSet(SHARDS / name), scratch_dir("samples", {}, []))

    training = {name: samples(f"{name}/{TRAIN}") for name in params.examples.datasets()}
    heldout = {
        (task, f"{name}/{split}"): samples(f"{name}/{split}")
        for task, sets in params.heldout.tasks()
        for name, split in sets.items()
    }
    validation = {(task, name): samples(name) for task, name in validation_of_this_run(calibration.tasks())}
    shown = {s.name: s for s in [*training.values(), *heldout.values(), *validation.values()]}

    body = load_body_model(body_model_folder())
    model, processor = hub.load_policy(POLICY)
    if params.lora is not None:
        add_lora(model, params.lora)
    trainable_parameters(model, "full" if params.lora is None else "lora")
    torch.nn.Module.to(model, device)
    reference = ReferencePolicy(model)
    cache = scratch_dir("features", {}, []) if params.cache_tokens else None
    tokens = image_token_source(model, image, shown, cache)
    if isinstance(tokens, CachedTokens):
        mirrored = params.examples.pictured() if params.examples.flip > 0 else []
        tokens.prepare([training[name].name for name in mirrored])
    engine = Engine(model, params.engine, params.steps)
    stream = ExampleStream(training, params.examples, processor, body, seed)
    examples = {
        (task, name): heldout_examples(task, found, processor, body, params.heldout.samples)
        for (task, name), found in heldout.items()
    }
    sentences = [example for (task, _), found in examples.items() if task == "text_pose" for example in found]

    body.to(device)
    retrieval = load_ensemble(RETRIEVAL).to(device)
    sentence_encoder = SentenceEncoder(params.rewards.sentence_encoder, device=device)
    rewards = Rewards(body, retrieval, sentence_encoder, processor, params.rewards)
    rewards.remember(captions_ahead(stream.draw, params.steps * params.batch))
    lockstep = params.engine.zero_stage == 3 and not params.cache_tokens
    prepare = Preparer(processor, tokens, device, lockstep)

    def answer(asked: Sequence[Example]) -> Prediction:
        return predict(
            engine.module,
            prepare,
            asked,
            end_token_id=processor.eos_token_id,
            max_new_tokens=params.max_new_tokens,
            batch=PROMPTS_AT_ONCE,
            generator=torch_generator(seed, "rft", "heldout", device=device),
            all_done=engine.on_every_rank,
        )

    sections = {name: section.model_dump(mode="json") for name, section in (("rft", params), ("image", image))}
    identity = {"variant": variant, "seed": seed} | sections
    scratch = training_dir("rft", identity, [POLICY, RETRIEVAL, *(s.shards.folder for s in training.values())])
    records = Records(
        scratch,
        answer,
        rewards,
        {f"{task}/{name}": found for (task, name), found in examples.items()},
        sentences[:: max(1, len(sentences) // params.fixed_sentences)][: params.fixed_sentences],
        params.steps,
        params.heldout_every,
        params.table_every,
        leader=engine.rank == 0,
    )
    tools = Tools(
        stream.draw,
        prepare,
        sampling(params.group_size, params.max_new_tokens, params.temperature, engine.on_every_rank),
        scoring(params.temperature),
        rewards,
        records.before,
        records.after,
    )
    trainer = Trainer(engine, reference, tools, params, variant, seed)
    one_step: Callable[[int], loop.StepStats] = trainer.step
    if params.supervised is not None:
        collator, weights = Collator(processor), params.supervised
        taught = sft.stepper(engine, stream, collator, tokens, body, params.batch, weights, lockstep)
        one_step = watched(taught, records.before)
    label, stop = f"rft {variant}", params.stop.reason
    log = loop.run(engine, one_step, params.steps, scratch, params.save_every, label, seed, stop)

    results = Path(f"results/rft_{variant}")
    metrics: dict[str, float | str | None] = {**records.finish(results, len(log))}
    if len(log) < params.steps:
        metrics |= {"stopped_after": len(log), "stopped_because": stop(log.row(-1, named=True))}
    trained = engine.finish()
    if engine.rank == 0:
        body.cpu()  # as the samples are
        calibrate(trained, processor, body, validation, tokens, calibration.samples, seed)
        with atomic.folder(Path(f"models/rft_{variant}")) as folder:
            hub.save_policy(folder, trained, processor)
        atomic.write_text(results / "log.jsonl", (scratch / "log.jsonl").read_text())
        atomic.write_json(results / "metrics.json", metrics)
    engine.leave()


if __name__ == "__main__":
    stage_main(main)
