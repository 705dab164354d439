"""Stage `evaluate`: one run's answers on the test sets, per sample and summed up (results/evaluate_RUN).

`--run` is a folder of models: sft_point, sft_gaussian, rft_grpo, rft_hygrpo. Test sets that the run does not have are
missing in the tables; without PoseScript there is no recall, and nothing is evaluated.
"""

import argparse
from pathlib import Path

from pose_rft.io import atomic
from pose_rft.params import Seeds, body_model_folder, load
from stages.common import scratch_dir, stage_main
from stages.shard_sets import SHARDS, of_this_run

MODELS = Path("models")
TEXT_SET, VQA_SET = "posescript/test", "llava_instruct/heldout"
TRAIN = "train"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("--run", choices=("sft_point", "sft_gaussian", "rft_grpo", "rft_hygrpo"), required=True)
    run = parser.parse_args(arguments).run

    from functools import lru_cache

    import polars as pl
    import torch

    from pose_rft.batches.examples import Task
    from pose_rft.batches.feature_cache import image_token_source
    from pose_rft.batches.samples import Samples, load_samples
    from pose_rft.body.smpl import load_body_model
    from pose_rft.errors import PoseRftError
    from pose_rft.evaluation import protocols
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
    pictured = dict.fromkeys(params.image_sets.values())
    asked: dict[str, tuple[Task, int | None]] = dict.fromkeys(pictured, ("image_pose", params.image_samples))
    asked |= {TEXT_SET: ("text_pose", params.text_samples), VQA_SET: ("vqa", params.vqa_samples)}
    asked = {name: asked[name] for name in of_this_run(asked, "evaluation", optional=True)}
    image_sets = {label: name for label, name in params.image_sets.items() if name in asked}
    sets = {name: samples(name) for name in asked}
    examples = {
        name: heldout_examples(
            task,
            sets[name],
            processor,
            body,
            most,
            human_only=name == TEXT_SET,
            measured=task == "image_pose" and protocols.is_measured(sets[name]),
        )
        for name, (task, most) in asked.items()
    }
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
        for name in asked:
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
            found[name] = (prediction, heldout_rewards(prediction, rewards))

    fallback = model.pose_head.mean_pose.float().cpu()
    body.cpu()
    mean_sets = of_this_run(params.mean_pose_sets, "`evaluate.mean_pose_sets`")
    if not mean_sets:
        raise PoseRftError("All of `evaluate.mean_pose_sets` are left out of `datasets`; name one in both.")
    mean_joints = protocols.mean_training_joints(
        [samples(f"{name}/{TRAIN}") for name in mean_sets], body, params.mean_pose_samples
    )
    pose_error, image_tables = {}, []
    for label, name in image_sets.items():
        refs = [example.image for example in examples[name] if example.image is not None]
        truth = protocols.true_joints(sets[name], [ref.row for ref in refs], body_of)
        table = protocols.image_pose_table(label, *found[name], truth, body, fallback, processor)
        image_tables.append(protocols.with_units(table, protocols.units(sets[name])))
        pose_error[label] = protocols.pose_errors(table, truth, mean_joints, fallback, body)
        if lifted := protocols.lifter_errors(model.pose_encoder, tokens, refs, truth, body):
            pose_error[label]["encoder_lifter"] = lifted
    prediction, values = found[TEXT_SET]
    text_table = protocols.text_pose_table("posescript", prediction, values, fallback, processor)
    tables = {"text_pose": protocols.with_units(text_table, protocols.units(sets[TEXT_SET]))}
    if image_tables:
        tables["image_pose"] = pl.concat(image_tables)
    if VQA_SET in found:
        vqa = protocols.vqa_table("llava_instruct", *found[VQA_SET], processor)
        tables["vqa"] = protocols.with_units(vqa, protocols.units(sets[VQA_SET]))
    poses = {
        "policy": protocols.shown_poses(prediction, prediction.mean, fallback),
        "ground_truth": protocols.true_text_poses(prediction),
    }
    recall = protocols.recall_table(text_table["caption"].to_list(), poses, judges, params.random_repeats, seed)

    results = Path(f"results/evaluate_{run}")
    nothing = pl.DataFrame(schema={"dataset": pl.String, "key": pl.String})  # DVC wants every out
    for name in ("image_pose", "text_pose", "vqa"):
        atomic.write_parquet(results / f"{name}.parquet", tables.get(name, nothing))
    metrics = {"pose_error": pose_error, "recall": recall, "heldout_reward": protocols.heldout_reward(tables)}
    metrics["image_sets"] = image_sets
    metrics["samples"] = {name: len(table) for name, table in tables.items()}
    atomic.write_json(results / "metrics.json", metrics)


if __name__ == "__main__":
    stage_main(main)
