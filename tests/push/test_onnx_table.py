"""docs/push.md's table of ONNX files against the networks that are exported."""

import re
from pathlib import Path

import pytest
import torch

from pose_rft.policy.blazepose import BlazePose, blazepose_config, maps_size
from pose_rft.policy.hub import load_policy
from pose_rft.policy.params import BlazePoseParams
from pose_rft.push.onnx import parts

PAGE = (Path(__file__).resolve().parents[2] / "docs/push.md").read_text()
Shapes = dict[str, tuple[str, ...]]


def table(encoder: str) -> dict[str, tuple[Shapes, Shapes]]:
    """{file: (inputs, outputs)} of the rows for this encoder, each as {name: dimensions}."""
    found = {}
    for name, whose, *sides in re.findall(r"^\| `(\w+)\.onnx`(?: of (\w+))? \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE):
        if whose in ("", encoder):
            named = [re.findall(r"`(\w+)` \((.*?)\)", side) for side in sides]
            found[name] = tuple({one: tuple(text.split(", ")) for one, text in side} for side in named)
    return found


def test_the_table_is_of_what_is_exported(policy: Path) -> None:
    model, _ = load_policy(policy)
    encoder = model.pose_encoder
    blazepose = isinstance(encoder, BlazePose)
    sizes = {"B": 2, "P": encoder.image_size, "d": model.config.get_text_config().hidden_size}
    if blazepose:
        sizes["M"] = encoder.maps
    else:
        _, sizes["N"], sizes["D"] = encoder.tokens(torch.zeros(1, 3, sizes["P"], sizes["P"])).shape

    def told(shapes: Shapes) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(sum(sizes[term] if term in sizes else int(term) for term in one.split(" + ")) for one in shape)
            for name, shape in shapes.items()
        }

    documented = table("BlazePose" if blazepose else "others")
    exported = {part.name: part for part in parts(model)}
    assert documented.keys() == exported.keys()
    for name, part in exported.items():
        with torch.no_grad():
            found = part.network(*part.inputs.values())
        found = found if isinstance(found, tuple) else (found,)
        inputs, outputs = map(told, documented[name])
        assert inputs == {key: tuple(value.shape) for key, value in part.inputs.items()}
        assert outputs == {key: tuple(value.shape) for key, value in zip(part.outputs, found, strict=True)}


@pytest.mark.slow
def test_the_numbers_of_mediapipes_network_are_as_told() -> None:
    config, _ = blazepose_config(BlazePoseParams(variant="full", width=8, layers=1))
    maps = maps_size(config.graph)
    assert f"With MediaPipe's network M is {maps}, so `seen` is (1, {265 + maps})" in PAGE
