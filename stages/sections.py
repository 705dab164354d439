"""The sections of params.yaml and their types: every valid key, including those whose default is only in the code.

A value that is the same in every preset and that no user changes has its default in the section's type, beside its
source; a params file may still set it. `datasets` has a type per reader (`pose_rft.datasets.registry`).
"""

import types
import typing
from collections.abc import Mapping

from pydantic import BaseModel

from pose_rft.batches.examples import HeldoutParams
from pose_rft.datasets.registry import DataParams
from pose_rft.evaluation.protocols import EvaluateParams
from pose_rft.hygrpo.params import RFTParams
from pose_rft.params import Section, Seeds
from pose_rft.policy.params import BaseModelParams, PolicyParams, PoseEncoderParams
from pose_rft.policy.processor import ImageParams
from pose_rft.retrieval.params import RetrievalParams
from pose_rft.sample.plan import SampleParams
from pose_rft.shards.plan import ShardParams
from pose_rft.training.sft import SFTParams
from pose_rft.validation.run import ValidateParams
from stages.launch import LaunchParams

SECTIONS: Mapping[str, type[Section]] = {
    "seed": Seeds,
    "launch": LaunchParams,
    "data": DataParams,
    "sample": SampleParams,
    "shards": ShardParams,
    "validate": ValidateParams,
    "image": ImageParams,
    "base_model": BaseModelParams,
    "pose_encoder": PoseEncoderParams,
    "policy": PolicyParams,
    "sft": SFTParams,
    "calibration": HeldoutParams,
    "retrieval": RetrievalParams,
    "rft": RFTParams,
    "evaluate": EvaluateParams,
}


def sections_in(annotation: object) -> list[type[BaseModel]]:
    """Returns the section types inside an annotation, such as those of a union, tuple or list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, tuple, list):
        return [found for inner in typing.get_args(annotation) for found in sections_in(inner)]
    return []


def is_key(dotted: str) -> bool:
    """Returns whether a dotted name is a key of its section's type, even if params.yaml leaves it to its default."""
    section, *names = dotted.split(".")
    kinds: list[type[BaseModel]] = [SECTIONS[section]] if section in SECTIONS and names else []
    for name in names:
        fields = [kind.model_fields[name] for kind in kinds if name in kind.model_fields]
        if not fields:
            return False
        kinds = [found for field in fields for found in sections_in(field.annotation)]
    return bool(names)
