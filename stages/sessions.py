"""What `sft` and `rft` share: sets of samples, the trained policy and its tokens, the run's folder, what it leaves.

Imported after the launcher's parent has gone its way: it brings torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pose_rft.batches.examples import HeldoutParams, Task
from pose_rft.batches.feature_cache import CachedTokens, ImageTokenSource, image_token_source
from pose_rft.batches.samples import Samples, load_samples
from pose_rft.io import atomic
from pose_rft.params import Section, load
from pose_rft.policy import hub
from pose_rft.policy.lora import add_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.processor import ImageParams, PoseProcessor
from pose_rft.shards.loader import ShardSet
from stages.common import scratch_dir, training_dir
from stages.shard_sets import SHARDS, validation_of_this_run

TRAIN = "train"


def samples(name: str) -> Samples:
    """The samples of `DATASET/SPLIT`, cached in scratch."""
    return load_samples(name, ShardSet(SHARDS / name), scratch_dir("samples", {}, []))


@dataclass(frozen=True)
class Sets:
    """training by data set; heldout and validation (of `calibration`) by task and `DATASET/SPLIT`."""

    training: Mapping[str, Samples]
    heldout: Mapping[tuple[Task, str], Samples]
    validation: Mapping[tuple[Task, str], Samples]

    @classmethod
    def of(cls, params: Any, calibration: HeldoutParams) -> "Sets":
        """Those that the section `sft` or `rft` names."""
        training = {name: samples(f"{name}/{TRAIN}") for name in params.examples.datasets()}
        tasks = params.heldout.tasks()
        looked_at = [(task, f"{name}/{split}") for task, sets in tasks for name, split in sets.items()]
        heldout = {(task, name): samples(name) for task, name in looked_at}
        validation = {(task, name): samples(name) for task, name in validation_of_this_run(calibration.tasks())}
        return cls(training, heldout, validation)

    @property
    def folders(self) -> list[Path]:
        """The shards that the training depends on."""
        return [found.shards.folder for found in self.training.values()]

    def all(self) -> dict[str, Samples]:
        groups = (self.training, self.heldout, self.validation)
        return {found.name: found for group in groups for found in group.values()}


def make_trainable(model: PoseLlava, params: Any, device: torch.device) -> None:
    """Adapters where the section has `lora`, gradients where the training needs them, everything on the device."""
    if params.lora is not None:
        add_lora(model, params.lora)
    trainable_parameters(model, "full" if params.lora is None else "lora")
    torch.nn.Module.to(model, device)


def image_tokens(model: PoseLlava, params: Any, sets: Sets) -> ImageTokenSource:
    """What the frozen encoders say of every picture, made ahead for training pictures, plain and mirrored."""
    cache = scratch_dir("features", {}, []) if params.cache_tokens else None
    tokens = image_token_source(model, load("image", ImageParams), sets.all(), cache)
    if isinstance(tokens, CachedTokens):
        mirrored = params.examples.pictured() if params.examples.flip > 0 else []
        tokens.prepare([sets.training[name].name for name in mirrored])
    return tokens


def run_folder(stage: str, variant: str, seed: int, sections: Mapping[str, Section], inputs: Sequence[Path]) -> Path:
    """The scratch folder of this very run: keyed by all that its result depends on."""
    chosen = {name: section.model_dump(mode="json") for name, section in sections.items()}
    return training_dir(stage, {"variant": variant, "seed": seed} | chosen, inputs)


def leave_results(
    name: str, model: PoseLlava, processor: PoseProcessor, scratch: Path, metrics: Mapping[str, Any]
) -> None:
    """Writes models/NAME, and log and metrics of results/NAME."""
    results = Path("results") / name
    with atomic.folder(Path("models") / name) as folder:
        hub.save_policy(folder, model, processor)
    atomic.write_text(results / "log.jsonl", (scratch / "log.jsonl").read_text())
    atomic.write_json(results / "metrics.json", metrics)
