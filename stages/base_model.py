"""Stage `base_model`: the LLaVA before fine-tuning, in the hub's format, with a token for poses (models/base).

`base_model.source: tiny` builds a small one with the sample's tokenizer, `smollm2` one around a pretrained language
model, both after training a CLIP tower on BEDLAM's image-caption pairs (if BEDLAM is left out, the tower stays
untrained, as with `contrastive.steps: 0`); a hub id or a folder is loaded, checked, and given a row for `<POSE>`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pose_rft.io import atomic
from pose_rft.params import Seeds, load
from stages.common import scratch_dir, stage_main, training_dir
from stages.shard_sets import SHARDS, of_this_run

if TYPE_CHECKING:  # torch must not be loaded before stage_main has set its environment
    from transformers import CLIPVisionModel

    from pose_rft.policy.params import BaseModelParams, ContrastiveParams
    from pose_rft.policy.processor import ImageParams

TOKENIZER = Path("data/sample/tokenizer")
TRAIN, HELDOUT = SHARDS / "bedlam/train", SHARDS / "bedlam/val"
MODEL, RESULTS = Path("models/base"), Path("results/base_model")
RECALL_K, RECALL_POOL = 10, 200


def main(arguments: list[str]) -> None:
    if arguments:
        raise SystemExit("usage: python -m stages.base_model")
    from pose_rft.policy.hub import create_base
    from pose_rft.policy.params import BaseModelParams
    from pose_rft.policy.processor import ImageParams

    params, image, seed = load("base_model", BaseModelParams), load("image", ImageParams), load("seed", Seeds).train
    metrics: dict[str, float] = {}
    log = ""
    vision = None
    contrastive = params.contrastive if params.is_made_here else None
    untrained = "the base model's CLIP tower, which stays untrained"
    if contrastive is not None and contrastive.steps > 0 and of_this_run(["bedlam"], untrained):
        vision, metrics, log = trained_tower(params, contrastive, image, seed)
    base = create_base(params, image, TOKENIZER, seed, vision)
    counted = sum(parameter.numel() for parameter in base.llava.parameters())
    with atomic.folder(MODEL) as folder:
        base.save(folder)
    atomic.write_text(RESULTS / "log.jsonl", log)
    atomic.write_json(RESULTS / "metrics.json", metrics | {"parameters": counted})


def trained_tower(
    params: "BaseModelParams", training: "ContrastiveParams", image: "ImageParams", seed: int
) -> tuple["CLIPVisionModel", dict[str, float], str]:
    """Returns the contrastively trained vision tower, its held-out metrics, and the text of its log."""
    import torch
    from transformers import CLIPVisionModel

    from pose_rft.batches.crop_cache import load_crops
    from pose_rft.batches.samples import load_samples
    from pose_rft.policy.architectures import clip_vision_config
    from pose_rft.policy.hub import base_tokenizer
    from pose_rft.policy.room import check_room
    from pose_rft.seeds import derive
    from pose_rft.shards.loader import ShardSet
    from pose_rft.training import contrastive

    tower = clip_vision_config(params.sizes().vision, image.size)
    check_room(lambda: CLIPVisionModel(tower), "base_model.tiny.vision")
    identity = {"base_model": params.model_dump(mode="json"), "image": image.model_dump(mode="json"), "seed": seed}
    scratch = training_dir("base_model", identity, [TRAIN, TOKENIZER] if params.source == "tiny" else [TRAIN])
    tokenizer = base_tokenizer(params, TOKENIZER)
    torch.manual_seed(derive(seed, "base_model", "vision"))
    vision = CLIPVisionModel(tower)
    loaded = {}
    for folder in (TRAIN, HELDOUT):
        samples = load_samples(f"bedlam/{folder.name}", ShardSet(folder), scratch_dir("samples", {}, []))
        crops = load_crops(samples, image.size, image.box_scale, scratch_dir("features", {}, []) / "crops")
        loaded[folder] = samples, crops
    rows, pair = contrastive.train(vision, tokenizer, *loaded[TRAIN], training, scratch, seed)
    recall, pool = contrastive.heldout_recall(pair, tokenizer, *loaded[HELDOUT], RECALL_K, RECALL_POOL)
    metrics = {f"heldout_recall_at_{RECALL_K}": 100 * recall, "chance": 100 * RECALL_K / pool, "pool": pool}
    metrics["loss"] = float(rows["loss"].to_numpy()[-20:].mean())
    return pair.vision, metrics, (scratch / "log.jsonl").read_text()


if __name__ == "__main__":
    stage_main(main)
