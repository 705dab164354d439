"""Stage `retrieval@reward|judge`: the text-pose retrieval models, one for the reward and one as evaluation judge.

Reads data/shards/posescript/{train,val,test}; writes models/retrieval_X, results/retrieval_X/{metrics.json,log.jsonl}.
The metrics are the recall of ground-truth poses, the upper bound of Table 2. `retrieval.members` above 1 trains that
many reward models; metrics and log are those of the first.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic
from pose_rft.params import Seeds, body_model_folder, load
from pose_rft.retrieval.ensemble import save_ensemble
from pose_rft.retrieval.model import Kind, TextPoseModel
from pose_rft.retrieval.pairs import Pairs, read_pairs
from pose_rft.retrieval.params import RetrievalParams
from pose_rft.retrieval.posescript import load_posescript
from pose_rft.seeds import derive
from pose_rft.shards.loader import ShardSet
from pose_rft.training.retrieval import ground_truth_recall, train
from stages.common import stage_main, training_dir
from stages.shard_sets import SHARDS, is_left_out

DATASET = "posescript"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.retrieval", description=__doc__)
    parser.add_argument("--model", choices=get_args(Kind), required=True)
    kind: Kind = parser.parse_args(arguments).model
    params, seeds = load("retrieval", RetrievalParams), load("seed", Seeds)
    if is_left_out(DATASET):
        raise PoseRftError(
            "`datasets` leaves out posescript, which retrieval, the semantic reward and every recall come from; put it "
            "back, or go only as far as `dvc repro validate sft@gaussian`."
        )
    began = time.monotonic()
    pairs = {split: read_pairs(ShardSet(SHARDS / DATASET / split)) for split in ("train", "val", "test")}
    model, log, facts = _model(kind, params, pairs, seeds.train, body_model_folder())
    seeds_of_others = [derive(seeds.train, "member", number) for number in range(1, params.members)]
    others = (
        [] if kind == "judge" else [_model(kind, params, pairs, s, body_model_folder())[0] for s in seeds_of_others]
    )
    metrics = {
        **facts,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "ground_truth": {split: ground_truth_recall(model, pairs[split]) for split in ("val", "test")},
        "seconds": round(time.monotonic() - began, 1),
    }
    save_ensemble([model.cpu(), *(other.cpu() for other in others)], Path(f"models/retrieval_{kind}"))
    results = Path(f"results/retrieval_{kind}")
    atomic.write_text(results / "log.jsonl", "".join(json.dumps(row) + "\n" for row in log))
    atomic.write_json(results / "metrics.json", metrics)


def _model(
    kind: Kind, params: RetrievalParams, pairs: Mapping[str, Pairs], seed: int, body_model: Path
) -> tuple[TextPoseModel, Sequence[Mapping[str, Any]], dict[str, Any]]:
    """Returns a released model unchanged, or one trained here, with its log and facts for the metrics."""
    if kind == "reward" and params.reward.released:
        return load_posescript(Path(params.reward.released), params.reward), (), {"trained": False}
    rest_joints = load_body_model(body_model).rest_joints(None)[0]
    own = {
        "retrieval": params.model_dump(mode="json", include={kind, "mirror", "validate_every", "save_every"}),
        "seed": seed,
    }
    scratch = training_dir(f"retrieval_{kind}", own, [SHARDS / DATASET / "train", SHARDS / DATASET / "val", body_model])
    trained = train(kind, params, pairs["train"], pairs["val"], rest_joints, scratch, seed)
    return trained.model, trained.log, {"trained": True, "best_step": trained.best_step}


if __name__ == "__main__":
    stage_main(main)
