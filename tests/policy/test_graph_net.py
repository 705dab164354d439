"""A graph read from a .tflite file computes what its file says; LiteRT agrees on the real ones."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pose_rft.body.rotations import axis_angle_to_matrix
from pose_rft.body.smpl import load_body_model
from pose_rft.errors import PoseRftError
from pose_rft.io.tflite import prune, read_tflite
from pose_rft.policy import pretrained
from pose_rft.policy.graph_net import GraphNet
from pose_rft.render.bodies import BodyPainter
from tests.support.tflite_files import every_operation


@pytest.fixture
def small(tmp_path):
    data, weights = every_operation(np.random.default_rng(0))
    (tmp_path / "net.tflite").write_bytes(data)
    return *read_tflite(tmp_path / "net.tflite"), weights


def test_every_operation_does_what_it_says(small):
    graph, weights, raw = small
    pixels = torch.randn(2, 3, 8, 8)
    tensors = {name: torch.from_numpy(value.copy()) for name, value in raw.items()}
    # SAME with stride 2 on 8 px and a kernel of 3 pads one row and column, behind.
    kernel = tensors["conv"].permute(0, 3, 1, 2)
    conv = F.relu6(F.conv2d(F.pad(pixels, (0, 1, 0, 1)), kernel, tensors["conv_bias"], 2))
    depth = F.conv2d(conv, tensors["depthwise"].permute(3, 0, 1, 2), tensors["depthwise_bias"], padding=1, groups=4)
    added = F.relu(depth + conv)
    resized = F.interpolate(F.max_pool2d(added, 2), (3, 3), mode="bilinear", align_corners=False)
    spread = torch.zeros(2, 6, 6, 1)
    for row in range(2):
        for column in range(2):
            spread[:, row::2, column::2, 0] = resized[:, 2 * row + column]
    final = torch.cat([spread, spread], 3).reshape(2, 72).sigmoid()
    with torch.no_grad():
        found = GraphNet(graph, weights)(pixels)
    for name, expected in zip(graph["outputs"], (final, added), strict=True):
        assert torch.allclose(found[name], expected, atol=1e-5)


def test_a_net_is_rebuilt_from_json_and_state_alone(small):
    graph, weights, _ = small
    net, pixels = GraphNet(graph, weights), torch.randn(1, 3, 8, 8)
    again = GraphNet(json.loads(json.dumps(graph)))
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert all((again(pixels)[name] == value).all() for name, value in net(pixels).items())


def test_inner_maps_can_be_kept_and_outputs_pruned_without_changing_the_rest(small):
    graph, weights, _ = small
    pixels, inner, last = torch.randn(1, 3, 8, 8), graph["steps"][1]["output"], graph["outputs"][0]
    less, left = prune(graph, weights, [last])
    with torch.no_grad():
        whole, part = GraphNet(graph, weights)(pixels), GraphNet(less, left)(pixels, keep=[inner])
    assert set(part) == {inner, last} and (part[last] == whole[last]).all()
    assert list(part[inner].shape[1:]) == graph["steps"][1]["shape"]


def test_an_unknown_step_is_named():
    step = {"op": "softmax", "inputs": [0], "output": 1, "shape": [3]}
    with pytest.raises(PoseRftError, match="softmax"):
        GraphNet({"input": 0, "input_shape": [3, 8, 8], "outputs": [1], "steps": [step]})


# Largest differences of the outputs, by their shape: landmarks px, world landmarks metres, score of a person; the
# detector's boxes px and logits up to 500.
LIMITS = {(195,): 0.01, (117,): 1e-5, (1,): 1e-5, (2254, 12): 0.01, (2254, 1): 2e-3}
XNNPACK_LIMITS = LIMITS | {(117,): 5e-5, (1,): 1e-4}
"""LiteRT's two sets of kernels differ by up to 4.8e-5 m on renders themselves: XNNPACK's sums lose about five times as
much to rounding in the deep layers. Its other kernels stay within 4e-6 m of the graph in double precision."""


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["own", "xnnpack"])
@pytest.mark.parametrize("source", pretrained.FETCHED, ids=lambda source: source.file)
def test_the_reference_runtime_computes_the_same(source, kernels, standin_folder):
    """What the file says is compared in double precision, what a user runs beside it in single."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert (make test-slow)")
    path = pretrained.find(source)
    kinds = litert.OpResolverType
    resolver = kinds.AUTO if kernels == "xnnpack" else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    limits, dtype = (XNNPACK_LIMITS, torch.float32) if kernels == "xnnpack" else (LIMITS, torch.float64)
    reference = litert.Interpreter(str(path), experimental_op_resolver_type=resolver)
    reference.allocate_tensors()
    net = GraphNet(*read_tflite(path)).to(dtype).eval()
    side = net.graph["input_shape"][1]
    painter = BodyPainter(load_body_model(standin_folder))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        pose = axis_angle_to_matrix(0.2 * torch.randn(24, 3, generator=generator))
        facing = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]) @ pose[:1]
        picture = painter.portrait(torch.cat([facing, pose[1:]]), size=side).astype(np.float32) / 255
        picture = picture * 2 - 1 if source is pretrained.DETECTOR else picture
        reference.set_tensor(reference.get_input_details()[0]["index"], picture[None])
        reference.invoke()
        with torch.no_grad():
            found = net(torch.from_numpy(picture).to(dtype).permute(2, 0, 1)[None])
        for name in net.graph["outputs"]:
            expected = reference.get_tensor(name)
            if expected.ndim < 4:  # not the person's mask and heatmaps
                assert np.abs(found[name].numpy() - expected).max() <= limits[expected.shape[1:]]
