"""Stage `evaluate`: one run's answers on test and validation sets, per sample and aggregated (results/evaluate_RUN).

`--run` is a folder below models/: sft_point, sft_gaussian, rft_grpo, rft_hygrpo. Sets that the run does not have are
missing from the tables; without the captions of `evaluate.text_set` the stage ends with an error. The per-sample tables
cover the test sets; metrics on the validation sets are under `validation` in metrics.json.
"""

import argparse
from functools import lru_cache, partial
from pathlib import Path

from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.params import Seeds, body_model_folder, load
from stages.common import scratch_dir, stage_main
from stages.shard_sets import of_this_run

MODELS = Path("models")
RUNS = ("sft_point", "sft_gaussian", "rft_grpo", "rft_hygrpo")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__)
    parser.add_argument("--run", choices=RUNS, required=True)
    evaluate(parser.parse_args(arguments).run)


def evaluate(run: str) -> None:
    """Policy → sets and questions → answers and rewards → test and validation metrics → results/evaluate_RUN."""
    import polars as pl
    import torch

    from pose_rft.batches.feature_cache import image_token_source
    from pose_rft.body.smpl import load_body_model
    from pose_rft.evaluation import protocols
    from pose_rft.evaluation.measuring import Measured
    from pose_rft.evaluation.questions import answers, questions
    from pose_rft.evaluation.sets import asked_sets
    from pose_rft.inference.passes import Preparer
    from pose_rft.inference.rewards import RewardParams, Rewards
    from pose_rft.policy import hub
    from pose_rft.policy.processor import ImageParams
    from pose_rft.retrieval.model import load_retrieval
    from pose_rft.retrieval.sentence_encoder import SentenceEncoder
    from stages.samples import TRAIN, samples

    params, image = load("evaluate", protocols.EvaluateParams), load("image", ImageParams)
    seed = load("seed", Seeds).data  # so that runs of other training seeds are evaluated with the same draws
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    body_of = lru_cache(lambda gender: load_body_model(body_model_folder(), gender))
    body = body_of("neutral")
    model, processor = hub.load_policy(MODELS / run)
    torch.nn.Module.to(model, device)

    chosen = asked_sets(params, partial(of_this_run, whose="evaluation", optional=True))
    sets = {name: samples(name) for name in chosen.asked}
    asked = questions(chosen, sets, processor, body)
    tokens = image_token_source(model, image, sets, scratch_dir("features", {}, []) if params.cache_tokens else None)

    judges = {kind: load_retrieval(MODELS / f"retrieval_{kind}").to(device) for kind in ("reward", "judge")}
    sentences = SentenceEncoder(params.sentence_encoder, device=device)
    own = RewardParams(sentence_encoder=params.sentence_encoder)
    rewards = Rewards(body, judges["reward"], sentences, processor, own)
    found = answers(model, Preparer(processor, tokens, device), asked, rewards, params, seed, f"evaluate {run}")

    body.cpu()
    mean_sets = of_this_run(params.mean_pose_sets, "`evaluate.mean_pose_sets`")
    if not mean_sets:
        raise PoseRftError("All of `evaluate.mean_pose_sets` are left out of `datasets`; name one in both.")
    posed = [samples(f"{name}/{TRAIN}") for name in mean_sets]
    mean_joints = lru_cache(lambda reads: protocols.mean_training_joints(posed, body, params.mean_pose_samples, reads))
    measured = Measured(model, processor, found, sets, tokens, judges, body, body_of, mean_joints, params, seed)
    metrics, tables = measured.test(chosen, asked)
    metrics |= {"validation": measured.validation(chosen), "sets": chosen.roles(), "image_sets": dict(chosen.test)}

    results = Path(f"results/evaluate_{run}")
    nothing = pl.DataFrame(schema={"dataset": pl.String, "key": pl.String})  # DVC requires every out
    for name in ("image_pose", "text_pose", "vqa"):
        atomic.write_parquet(results / f"{name}.parquet", tables.get(name, nothing))
    atomic.write_json(results / "metrics.json", metrics)


if __name__ == "__main__":
    stage_main(main)
