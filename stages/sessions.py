"""What `sft` and `rft` share: sets of samples, the policy under training with its inputs, and its outputs.

Imports torch, so only processes that train import it, not the one that launches them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pose_rft.batches.examples import ExampleStream, HeldoutParams, Task
from pose_rft.batches.feature_cache import CachedTokens, ImageTokenSource, image_token_source
from pose_rft.batches.samples import Samples
from pose_rft.body.smpl import BodyModel, load_body_model
from pose_rft.io import atomic
from pose_rft.params import Section, body_model_folder, load
from pose_rft.policy import hub
from pose_rft.policy.lora import add_lora, trainable_parameters
from pose_rft.policy.model import PoseLlava
from pose_rft.policy.processor import ImageParams, PoseProcessor
from pose_rft.training.calibration import calibrate
from pose_rft.training.engine import Engine
from stages.common import scratch_dir, training_dir
from stages.samples import TRAIN, samples
from stages.shard_sets import validation_of_this_run


@dataclass(frozen=True)
class Sets:
    """Samples: training by data set; heldout and validation (of `calibration`) by task and `DATASET/SPLIT`."""

    training: Mapping[str, Samples]
    heldout: Mapping[tuple[Task, str], Samples]
    validation: Mapping[tuple[Task, str], Samples]

    @classmethod
    def of(cls, params: Any) -> "Sets":
        """Loads the sets named by the section `sft` or `rft`, and those of `calibration`."""
        calibration = load("calibration", HeldoutParams)
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
    """Adds LoRA adapters if the section has `lora`, enables gradients for trained weights, moves all to `device`."""
    if params.lora is not None:
        add_lora(model, params.lora)
    trainable_parameters(model, "full" if params.lora is None else "lora")
    torch.nn.Module.to(model, device)


@dataclass(frozen=True, eq=False)
class Session:
    """A policy under training; params: the section `sft` or `rft`; tokens: the frozen encoders' image tokens."""

    params: Any
    seed: int
    sets: Sets
    body: BodyModel
    processor: PoseProcessor
    tokens: ImageTokenSource
    engine: Engine
    stream: ExampleStream

    @classmethod
    def of(cls, model: PoseLlava, processor: PoseProcessor, params: Any, sets: Sets, seed: int) -> "Session":
        """Creates the image tokens, engine and example stream of a trainable policy."""
        body = load_body_model(body_model_folder())
        tokens = image_tokens(model, params, sets)
        engine = Engine(model, params.engine, params.steps)
        stream = ExampleStream(sets.training, params.examples, processor, body, seed)
        return cls(params, seed, sets, body, processor, tokens, engine, stream)

    def folder(self, stage: str, variant: str, sections: Mapping[str, Section], inputs: Sequence[Path]) -> Path:
        """Returns the scratch folder of exactly this run, keyed by everything that its result depends on."""
        named = {stage: self.params, "image": load("image", ImageParams), **sections}
        chosen = {name: section.model_dump(mode="json") for name, section in named.items()}
        return training_dir(stage, {"variant": variant, "seed": self.seed} | chosen, [*inputs, *self.sets.folders])

    def leave(self, name: str, scratch: Path, measure: Callable[[PoseLlava], Mapping[str, Any]]) -> None:
        """Measures and calibrates the trained policy, writes models/NAME, and its log and metrics to results/NAME."""
        trained = self.engine.finish()
        if self.engine.rank == 0:
            self.body.cpu()  # as the samples are
            metrics = measure(trained)
            most = load("calibration", HeldoutParams).samples
            calibrate(trained, self.processor, self.body, self.sets.validation, self.tokens, most, self.seed)
            with atomic.folder(Path("models") / name) as folder:
                hub.save_policy(folder, trained, self.processor)
            results = Path("results") / name
            atomic.write_text(results / "log.jsonl", (scratch / "log.jsonl").read_text())
            atomic.write_json(results / "metrics.json", metrics)
        self.engine.leave()


def image_tokens(model: PoseLlava, params: Any, sets: Sets) -> ImageTokenSource:
    """Returns the frozen encoders' tokens of all pictures; a cache is filled in advance, also with mirrored ones."""
    cache = scratch_dir("features", {}, []) if params.cache_tokens else None
    tokens = image_token_source(model, load("image", ImageParams), sets.all(), cache)
    if isinstance(tokens, CachedTokens):
        mirrored = params.examples.pictured() if params.examples.flip > 0 else []
        tokens.prepare([sets.training[name].name for name in mirrored])
    return tokens
