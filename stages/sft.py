"""Stage `sft`: from LLaVA to a pose MLLM by supervised pretraining (models/sft_VARIANT).

`--variant point` is Table 3's "Baseline", `gaussian` its "Baseline + Dist.". A killed run continues from its last
checkpoint; the model folder holds the weights, LoRA's adapters beside them, and the processor.
"""

import argparse
from pathlib import Path

from pose_rft.io import atomic
from pose_rft.params import Seeds, body_model_folder, load
from stages.common import scratch_dir, stage_main, training_dir
from stages.launch import launched
from stages.shard_sets import SHARDS, training_of_this_run, validation_of_this_run

BASE, ENCODER = Path("models/base"), Path("models/pose_encoder")
TRAIN = "train"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.sft", description=__doc__)
    parser.add_argument("--variant", choices=("point", "gaussian"), required=True)
    variant = parser.parse_args(arguments).variant
    if launched("stages.sft", arguments):
        return

    import torch

    from pose_rft.batches.collate import Collator
    from pose_rft.batches.examples import ExampleStream, Task
    from pose_rft.batches.feature_cache import CachedTokens, image_token_source
    from pose_rft.batches.samples import Samples, load_samples, mean_pose
    from pose_rft.body.rotations import matrix_to_sixd
    from pose_rft.body.smpl import load_body_model
    from pose_rft.inference.heldout import heldout_metrics
    from pose_rft.policy import hub
    from pose_rft.policy.lora import add_lora, trainable_parameters
    from pose_rft.policy.params import PolicyParams
    from pose_rft.policy.processor import ImageParams
    from pose_rft.seeds import derive
    from pose_rft.shards.loader import ShardSet
    from pose_rft.training import sft
    from pose_rft.training.calibration import calibrate
    from pose_rft.training.engine import Engine, start_distributed

    params = training_of_this_run(load("sft", sft.SFTParams), "sft")
    policy, image = load("policy", PolicyParams), load("image", ImageParams)
    calibration = load("calibration", sft.HeldoutParams)
    seed = derive(load("seed", Seeds).train, "sft")  # both variants see the same examples in the same order
    device = start_distributed()

    def samples(name: str) -> Samples:
        return load_samples(name, ShardSet(SHARDS / name), scratch_dir("samples", {}, []))

    training = {name: samples(f"{name}/{TRAIN}") for name in params.examples.datasets()}
    heldout: dict[tuple[Task, str], Samples] = {
        (task, f"{name}/{split}"): samples(f"{name}/{split}")
        for task, sets in params.heldout.tasks()
        for name, split in sets.items()
    }
    validation = {(task, name): samples(name) for task, name in validation_of_this_run(calibration.tasks())}
    shown = {s.name: s for s in [*training.values(), *heldout.values(), *validation.values()]}

    body = load_body_model(body_model_folder())
    encoder = None if policy.fusion == "clip_only" else hub.load_pose_encoder(ENCODER)
    mean = matrix_to_sixd(mean_pose([training[name] for name in params.examples.pictured() or training]))
    base = hub.load_base(BASE, "auto")
    model, processor = hub.create_policy(base, encoder, policy, image, variant, mean, seed)
    if params.lora is not None:
        add_lora(model, params.lora)
    trainable_parameters(model, "full" if params.lora is None else "lora")

    torch.nn.Module.to(model, device)
    cache = scratch_dir("features", {}, []) if params.cache_tokens else None
    tokens = image_token_source(model, image, shown, cache)
    if isinstance(tokens, CachedTokens):
        mirrored = params.examples.pictured() if params.examples.flip > 0 else []
        tokens.prepare([training[name].name for name in mirrored])
    engine = Engine(model, params.engine, params.steps)
    stream = ExampleStream(training, params.examples, processor, body, seed)
    inputs = [BASE, *([ENCODER] if encoder is not None else []), *(s.shards.folder for s in training.values())]
    identity = {"variant": variant, "seed": seed} | {
        name: section.model_dump(mode="json")
        for name, section in (("sft", params), ("policy", policy), ("image", image))
    }
    scratch = training_dir("sft", identity, inputs)
    body.to(device)
    sft.train(engine, stream, Collator(processor), tokens, body, params, scratch, f"sft {variant}", seed)

    trained = engine.finish()
    if engine.rank == 0:
        body.cpu()  # as the samples are
        metrics = heldout_metrics(trained, processor, body, heldout, tokens, params.heldout.samples, seed)
        calibrate(trained, processor, body, validation, tokens, calibration.samples, seed)
        results = Path(f"results/sft_{variant}")
        with atomic.folder(Path(f"models/sft_{variant}")) as folder:
            hub.save_policy(folder, trained, processor)
        atomic.write_text(results / "log.jsonl", (scratch / "log.jsonl").read_text())
        atomic.write_json(results / "metrics.json", metrics)
    engine.leave()


if __name__ == "__main__":
    stage_main(main)
