"""Sizes in params that no machine holds are a sentence, before anything is allocated."""

import copy
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionModel

from pose_rft.errors import PoseRftError
from pose_rft.params import parse
from pose_rft.params_file import read_yaml
from pose_rft.policy.architectures import clip_vision_config
from pose_rft.policy.config import ConvVitConfig
from pose_rft.policy.hub import create_base
from pose_rft.policy.params import BaseModelParams, LoRAParams, PolicyParams, PoseEncoderParams, TinyVisionParams
from pose_rft.policy.pose_encoder import ConvVit, create_conv_vit
from pose_rft.policy.processor import ImageParams
from pose_rft.policy.room import check_room
from pose_rft.retrieval.params import RetrievalParams
from tests.support.tiny_policies import BASE, IMAGE

SECTIONS: dict[str, Any] = {
    "base_model": BaseModelParams,
    "pose_encoder": PoseEncoderParams,
    "policy": PolicyParams,
    "image": ImageParams,
    "retrieval": RetrievalParams,
}
SIZES = ("width", "layers", "heads", "patch", "size", "rank", "latent", "neurons", "bottleneck", "feedforward")
ROOT = Path(__file__).resolve().parents[2]


def sizes(content: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where a section gives the size of something that is built."""
    if not isinstance(content, dict):
        return [path] if path and path[-1].endswith(SIZES) and type(content) is int else []
    return [found for key, value in content.items() for found in sizes(value, (*path, key))]


@pytest.mark.parametrize("preset", ["micro", "sample", "smollm"])
@pytest.mark.parametrize("section", SECTIONS)
def test_every_size_of_a_network_has_a_bound(preset: str, section: str) -> None:
    written = read_yaml(ROOT / f"presets/{preset}.yaml")[section]
    content = parse(written, SECTIONS[section], section).model_dump(mode="json")  # with what stands in code alone
    places = sizes(content)
    assert places
    for place in places:
        changed = copy.deepcopy(content)
        node = changed
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = 10**9
        with pytest.raises(PoseRftError, match=rf"`{'.'.join(place)}` is 1000000000, but input should be less"):
            parse(changed, SECTIONS[section], f"`{section}`")


def test_the_rank_of_adapters_has_a_bound() -> None:
    with pytest.raises(PoseRftError, match="`rank` is 1000000000"):
        parse({"rank": 10**9, "alpha": 1, "dropout": 0, "targets": ["q_proj"]}, LoRAParams, "`rft.lora`")


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_base_that_the_memory_does_not_hold_is_refused_before_it_is_built(tokenizer_folder: Path, part: str) -> None:
    params = copy.deepcopy(BASE)
    params["tiny"][part] |= {"width": 32_768, "layers": 100, "heads": 64}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PoseRftError, match=r"`base_model\.tiny` describes a model of .* this machine has \d+ GiB"):
        create_base(BaseModelParams.model_validate(params), IMAGE, tokenizer_folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kB"


def test_so_is_such_a_pose_encoder() -> None:
    params = {"kind": "conv_vit", "conv_vit": {"width": 32_768, "layers": 8, "heads": 64}}
    with pytest.raises(PoseRftError, match=r"`pose_encoder\.conv_vit` describes a model of"):
        create_conv_vit(PoseEncoderParams.model_validate(params), IMAGE.pose_size)


def test_looking_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    check_room(lambda: CLIPVisionModel(clip_vision_config(TinyVisionParams(**BASE["tiny"]["vision"]), 32)), "any")
    check_room(lambda: ConvVit(ConvVitConfig(image_size=32, width=8, layers=1, heads=2)), "any")
    assert torch.equal(torch.get_rng_state(), before)
