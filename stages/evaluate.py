"""Stage `evaluate`: one run's answers on test and validation sets, per sample and summed up (results/evaluate_RUN).

`--run` is a folder of models: sft_point, sft_gaussian, rft_grpo, rft_hygrpo. Sets that the run does not have are
missing in the tables; without PoseScript there is no recall, and nothing is evaluated. The tables of samples are of the
test sets; what is measured on validation sets stands below `validation` in metrics.json.
"""

import argparse
from pathlib import Path

from pose_rft.io import atomic
from pose_rft.params import Seeds, body_model_folder, load
from stages.common import scratch_dir, stage_main
from stages.shard_sets import SHARDS, of_this_run

MODELS = Path("models")
TRAIN = "train"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("--run", choices=("sft_point", "sft_gaussian", "rft_grpo", "rft_hygrpo"), required=True)
    run = parser.parse_args(arguments).run

    from functools import lru_cache
    from typing import Any

    import polars as pl
    import torch

    from pose_rft.batches.feature_cache import image_token_source
    from pose_rft.batches.samples import Samples, load_samples
    from pose_rft.body.smpl import load_body_model
    from pose_rft.errors import PoseRftError
    from pose_rft.evaluation import posecodes, protocols
    from pose_rft.evaluation.measuring import Measured
    from pose_rft.evaluation.sets import TEXT_SET, VALIDATION_TEXT, VQA_SET, asked_sets
    from pose_rft.inference.answers import Prediction, heldout_examples, heldout_rewards, predict
    from pose_rft.inference.passes import Preparer
    from pose_rft.inference.rewards import RewardParams, Rewards
    from pose_rft.policy import hub
    from pose_rft.policy.processor import ImageParams
    from pose_rft.progress import Progress
    from pose_rft.retrieval.model import load_retrieval
    from pose_rft.retrieval.sentence_encoder import SentenceEncoder
    from pose_rft.seeds import torch_generator
    from pose_rft.shards.loader import ShardSet

    params, image = load("evaluate", protocols.EvaluateParams), load("image", ImageParams)
    seed = load("seed", Seeds).data  # another training seed is measured with the same draws
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    body_of = lru_cache(lambda gender: load_body_model(body_model_folder(), gender))
    body = body_of("neutral")

    def samples(name: str) -> Samples:
        return load_samples(name, ShardSet(SHARDS / name), scratch_dir("samples", {}, []))

    model, processor = hub.load_policy(MODELS / run)
    torch.nn.Module.to(model, device)
    chosen = asked_sets(params, lambda names: of_this_run(names, "evaluation", optional=True))
    sets = {name: samples(name) for name in chosen.asked}
    examples = {
        name: heldout_examples(
            task,
            sets[name],
            processor,
            body,
            most,
            human_only=task == "text_pose",
            measured=task == "image_pose" and protocols.is_measured(sets[name]),
        )
        for name, (task, most) in chosen.asked.items()
    }
    stated = {"human": posecodes.true_codes(examples[TEXT_SET], body)}
    for grammar in posecodes.GRAMMARS:
        asked_in = posecodes.asked_in(grammar, examples[TEXT_SET], stated["human"], processor.text_questions)
        examples[grammar], stated[grammar] = asked_in
    cache = scratch_dir("features", {}, []) if params.cache_tokens else None
    tokens = image_token_source(model, image, sets, cache)
    prepare = Preparer(processor, tokens, device)
    judges = {kind: load_retrieval(MODELS / f"retrieval_{kind}").to(device) for kind in ("reward", "judge")}
    rewards = Rewards(
        body,
        judges["reward"],
        SentenceEncoder(params.sentence_encoder, device=device),
        processor,
        RewardParams(sentence_encoder=params.sentence_encoder),
    )

    found: dict[str, tuple[Prediction, dict[str, torch.Tensor]]] = {}
    with Progress(f"evaluate {run}", sum(map(len, examples.values())), "answers") as progress:
        for name in examples:
            prediction = predict(
                model,
                prepare,
                examples[name],
                end_token_id=processor.eos_token_id,
                max_new_tokens=params.max_new_tokens,
                batch=params.batch,
                generator=torch_generator(seed, "evaluate", name, device=device),
                progress=progress,
            )
            judged = name in sets  # the posecode judge's own captions get no rewards
            found[name] = (prediction, heldout_rewards(prediction, rewards) if judged else {})

    body.cpu()
    mean_sets = of_this_run(params.mean_pose_sets, "`evaluate.mean_pose_sets`")
    if not mean_sets:
        raise PoseRftError("All of `evaluate.mean_pose_sets` are left out of `datasets`; name one in both.")
    mean_joints = protocols.mean_training_joints(
        [samples(f"{name}/{TRAIN}") for name in mean_sets], body, params.mean_pose_samples
    )
    measured = Measured(model, processor, found, sets, tokens, judges, body, body_of, mean_joints, params, seed)

    pose_error, spreads, image_tables = measured.pictures(chosen.test)
    recall, spreads["posescript"], text_table = measured.sentences("posescript", TEXT_SET)
    tables = {"text_pose": text_table}
    if image_tables:
        tables["image_pose"] = pl.concat(image_tables)
    if VQA_SET in found:
        tables["vqa"] = measured.answers("llava_instruct", VQA_SET)

    validation: dict[str, Any] = {}
    validation["pose_error"], validation["distribution"], image_tables = measured.pictures(chosen.validation)
    validated = {"image_pose": pl.concat(image_tables)} if image_tables else {}
    if VALIDATION_TEXT in found:
        both = validation["distribution"]
        validation["recall"], both["posescript"], validated["text_pose"] = measured.sentences(
            "posescript", VALIDATION_TEXT
        )
    if validated:
        validation["heldout_reward"] = protocols.heldout_reward(validated)

    results = Path(f"results/evaluate_{run}")
    nothing = pl.DataFrame(schema={"dataset": pl.String, "key": pl.String})  # DVC wants every out
    for name in ("image_pose", "text_pose", "vqa"):
        atomic.write_parquet(results / f"{name}.parquet", tables.get(name, nothing))
    metrics = {"pose_error": pose_error, "recall": recall, "heldout_reward": protocols.heldout_reward(tables)}
    asked_for = {"human": TEXT_SET} | dict(zip(posecodes.GRAMMARS, posecodes.GRAMMARS, strict=True))
    metrics["distribution"] = spreads
    metrics["posecodes"] = {
        "policy": posecodes.agreements({kind: measured.shown(name) for kind, name in asked_for.items()}, stated, body),
        "mean_pose": posecodes.constant(measured.fallback, stated, body),
    }
    metrics["validation"] = validation
    metrics["sets"] = chosen.roles()
    metrics["image_sets"] = dict(chosen.test)
    metrics["samples"] = {name: len(table) for name, table in tables.items()}
    atomic.write_json(results / "metrics.json", metrics)


if __name__ == "__main__":
    stage_main(main)
