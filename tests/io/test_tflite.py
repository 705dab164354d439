"""A .tflite file is read as it is, or refused in one sentence."""

import numpy as np
import pytest

from pose_rft.errors import PoseRftError
from pose_rft.io.flatbuffer import Table
from pose_rft.io.tflite import prune, read_tflite
from tests.support.tflite_files import TfliteWriter, every_operation, flatbuffer, in_blocks, ints


def read(tmp_path, data: bytes):
    path = tmp_path / "net.tflite"
    path.write_bytes(data)
    return read_tflite(path)


def test_half_and_sparse_weights_become_what_they_stand_for(tmp_path):
    data, weights = every_operation(np.random.default_rng(0))
    graph, found = read(tmp_path, data)
    first, second = (step["output"] for step in graph["steps"] if step["op"] == "conv")
    assert (found[f"convs.{first}.weight"] == weights["conv"].transpose(0, 3, 1, 2)).all()
    assert (found[f"convs.{first}.bias"] == weights["conv_bias"]).all()
    assert (found[f"convs.{second}.weight"] == weights["depthwise"].transpose(3, 0, 1, 2)).all()


def test_a_matrix_sparse_in_blocks_is_laid_out_again(tmp_path):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(8, 1, 1, 5)).astype("<f4")
    matrix.reshape(2, 4, 5)[[0, 1, 1], :, [2, 0, 4]] = 0
    flat, sparsity = in_blocks(matrix.reshape(8, 5), 4)
    levels = sparsity[2]
    one = {0: ("b", 0), 1: ("i", 1)}
    sparsity = {0: ints(0, 1, 2, 3, 4), 1: ints(0), 2: [levels[0], one, one, levels[1], levels[2]]}
    w = TfliteWriter()
    pixels = w.tensor((1, 2, 2, 5))
    dense = w.run(124, [w.tensor(matrix.shape, flat, sparsity)], matrix.shape)
    options = {0: ("b", 1), 1: ("i", 1), 2: ("i", 1)}
    out = w.run(3, [pixels, dense, w.constant(np.zeros(8, "<f4"))], (1, 2, 2, 8), options)
    _, weights = read(tmp_path, w.file([pixels], [out]))
    assert (weights[f"convs.{out}.weight"] == matrix.transpose(0, 3, 1, 2)).all()


def test_pruning_keeps_what_an_output_needs_and_nothing_else(tmp_path):
    graph, weights = read(tmp_path, every_operation(np.random.default_rng(0))[0])
    first = next(step["output"] for step in graph["steps"])
    small, left = prune(graph, weights, [first])
    assert [step["output"] for step in small["steps"]] == [first]
    assert set(left) == {f"convs.{first}.weight", f"convs.{first}.bias"}
    assert small["outputs"] == [first] and len(graph["steps"]) > 1


def test_a_cut_file_is_refused(tmp_path):
    data, _ = every_operation(np.random.default_rng(0))
    for length in range(0, len(data) - 1, 37):
        with pytest.raises(PoseRftError, match=r"net\.tflite is not a \.tflite network"):
            read(tmp_path, data[:length])


def test_damage_is_a_sentence_or_a_graph(tmp_path):
    """No damage may end in another exception, nor ask for much memory (`parsing` bounds it)."""
    rng = np.random.default_rng(2)
    data, _ = every_operation(rng)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for at in rng.integers(8, len(data), 3):
            damaged[at] = rng.integers(256)
        try:
            read(tmp_path, bytes(damaged))
        except PoseRftError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50


def test_a_shape_that_declares_a_terabyte_is_refused(tmp_path):
    w = TfliteWriter()
    pixels = w.tensor((1, 8, 8, 3))
    levels = [{0: ("b", 0), 1: ("i", 2**20)}] * 2
    huge = w.run(124, [w.tensor((2**20, 2**20), np.zeros(1, "<f4"), {0: ints(0, 1), 2: levels})], (2**20, 2**20))
    with pytest.raises(PoseRftError, match="numbers altogether"):
        read(tmp_path, w.file([pixels], [huge]))


@pytest.mark.parametrize(
    "code, options, said",
    [(99, {}, "operation 99 is not known"), (23, {2: ("?", True)}, "half-pixel"), (3, {4: ("i", 2)}, "dilated")],
)
def test_what_cannot_be_run_is_named(tmp_path, code, options, said):
    w = TfliteWriter()
    pixels = w.tensor((1, 8, 8, 3))
    rest = [w.constant(np.zeros((4, 3, 3, 3), "<f4")), w.constant(np.zeros(4, "<f4"))]
    with pytest.raises(PoseRftError, match=said):
        read(tmp_path, w.file([pixels], [w.run(code, [pixels, *rest], (1, 8, 8, 4), options)]))


@pytest.mark.parametrize("data", [b"", b"not a network at all", b"\x08\0\0\0TFL3"])
def test_a_foreign_file_is_named(tmp_path, data):
    with pytest.raises(PoseRftError, match=r"net\.tflite is not a \.tflite network"):
        read(tmp_path, data)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PoseRftError, match=r"gone\.tflite does not exist"):
        read_tflite(tmp_path / "gone.tflite")


def test_absent_fields_have_their_defaults():
    table = Table.root(flatbuffer({1: ("i", -3), 2: "name"}, b"TEST"), b"TEST")
    assert (table.number(0, "i", 7), table.number(1, "i"), table.text(2), table.number(9, "b")) == (7, -3, "name", 0)
    assert table.table(3) is None and len(table.vector(4, "f4")) == 0
