"""Reads a convolutional network from a .tflite file as a plain graph and weights; `policy/graph_net.py` runs them.

Supports only what such float networks use: convolution (including depthwise), addition, max pooling, padding, bilinear
resizing, depth to space, concatenation, reshaping, sigmoid; weights in float32 or float16, sparse ones converted to
dense. Quantised networks are not supported. The graph is JSON and the weights are named as in `GraphNet`'s state dict,
so a saved model no longer needs the .tflite file. Sources: TensorFlow Lite's schema.fbs (field numbers and
enumerations) and, for sparse tensors, "Sparsity in TFLite: traversal order, block map and dimension metadata" in it.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from pose_rft.io import door
from pose_rft.io.flatbuffer import Table
from pose_rft.io.parsing import parsing

Step = dict[str, Any]
"""`op` (conv, add, max_pool, pad, resize, depth_to_space, concat, reshape, sigmoid), `inputs` and `output` (tensor
ids), `shape` of the output without the batch (channels first for feature maps), and the operation's parameters."""


class Graph(TypedDict):
    """input, outputs: tensor ids; input_shape: (3, H, W); steps in execution order."""

    input: int
    input_shape: list[int]
    outputs: list[int]
    steps: list[Step]


Weights = dict[str, NDArray[np.float32]]
"""`convs.ID.weight` (out, in / groups, kh, kw) and `convs.ID.bias` (out,); ID: the convolution's output tensor."""

MOST_TABLES = 4096  # tensors or operators; the networks read here have fewer than 600
MOST_NUMBERS = 100_000_000  # weights; the largest of BlazePose has 14 million
FLOAT32, FLOAT16, INT32 = 0, 1, 2
DTYPES = {FLOAT32: "f4", FLOAT16: "f2", INT32: "i4"}
ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}
SAME = 0
ADD, CONCATENATION, CONV, DEPTHWISE, DEPTH_TO_SPACE, DEQUANTIZE = 0, 2, 3, 4, 5, 6
LOGISTIC, MAX_POOL, RESHAPE, RESIZE, PAD, DENSIFY = 14, 17, 22, 23, 34, 124


def read_tflite(path: Path) -> tuple[Graph, Weights]:
    """Reads the graph and the weights of a network with one input.

    Raises:
        PoseRftError: no such file, not a .tflite file, damaged, or with unsupported operations.
    """
    data = door.read_file(path)
    with parsing(path, "a .tflite network of convolutions"):
        return _Reader(data).read()


def prune(graph: Graph, weights: Weights, outputs: Sequence[int]) -> tuple[Graph, Weights]:
    """Keeps only the steps and weights that `outputs` need (ids of any tensors of the graph, in the order wanted)."""
    needed, kept = set(outputs), []
    for step in reversed(graph["steps"]):
        if step["output"] in needed:
            needed |= set(step["inputs"])
            kept.append(step)
    names = {f"convs.{step['output']}" for step in kept}
    left = {name: value for name, value in weights.items() if name.rpartition(".")[0] in names}
    return {**graph, "outputs": list(outputs), "steps": kept[::-1]}, left


class _Reader:
    def __init__(self, data: bytes) -> None:
        model = Table.root(data, b"TFL3")
        main = model.tables(2, 1)[0]
        self.codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(1, MOST_TABLES)]
        self.tensors = main.tables(0, MOST_TABLES)
        self.operators = main.tables(3, MOST_TABLES)
        self.shapes = [[int(n) for n in tensor.vector(0, "i4")] for tensor in self.tensors]
        self.inputs, self.outputs = main.vector(1, "i4").tolist(), main.vector(2, "i4").tolist()
        self.numbers = 0
        buffers = model.tables(4, MOST_TABLES)
        found = ((index, self._constant(index, buffers)) for index in range(len(self.tensors)))
        self.constants = {index: value for index, value in found if value is not None}
        self.weights: Weights = {}

    def read(self) -> tuple[Graph, Weights]:
        if len(self.inputs) != 1:
            raise ValueError(f"{len(self.inputs)} inputs, expected one picture")
        steps: list[Step] = []
        known = {self.inputs[0]}
        for operator in self.operators:
            kind = self.codes[operator.number(0, "I")]
            inputs, output = operator.vector(1, "i4").tolist(), int(operator.vector(2, "i4")[0])
            if kind in (DEQUANTIZE, DENSIFY):
                self.constants[output] = self.constants[inputs[0]].astype(np.float32)
                continue
            step = self._step(kind, inputs, output, operator.table(4))
            if not set(step["inputs"]) <= known:
                raise ValueError(f"tensor {output} is computed before what it needs")
            known.add(output)
            steps.append(step)
        if not set(self.outputs) <= known:
            raise ValueError("an output is never computed")
        return {
            "input": self.inputs[0],
            "input_shape": _channels_first(self.shapes[self.inputs[0]]),
            "outputs": self.outputs,
            "steps": steps,
        }, self.weights

    def _step(self, kind: int, inputs: list[int], output: int, options: Table | None) -> Step:
        shape = _channels_first(self.shapes[output])
        step: Step = {"inputs": [i for i in inputs if i not in self.constants], "output": output, "shape": shape}

        def option(field: int, code: str = "i") -> int:
            return 0 if options is None else options.number(field, code)

        if kind in (CONV, DEPTHWISE):
            depthwise = kind == DEPTHWISE
            dilations = (5, 6) if depthwise else (4, 5)
            if any(options is not None and options.number(field, "i", 1) != 1 for field in dilations):
                raise ValueError(f"convolution {output} is dilated")
            weight, bias = (self.constants[i].astype(np.float32) for i in inputs[1:])
            weight = weight.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
            self.weights[f"convs.{output}.weight"] = np.ascontiguousarray(weight)
            self.weights[f"convs.{output}.bias"] = bias
            step |= {
                "op": "conv",
                "groups": len(weight) if depthwise else 1,
                "act": ACTIVATIONS[option(4 if depthwise else 3, "b")],
            }
            step |= {
                "channels": [self.shapes[inputs[0]][3], len(weight)],
                **self._window(inputs[0], weight.shape[2:], option),
            }
        elif kind == MAX_POOL:
            step |= {"op": "max_pool", "act": ACTIVATIONS[option(5, "b")]}
            step |= self._window(inputs[0], (option(4), option(3)), option)
        elif kind == ADD:
            step |= {"op": "add", "act": ACTIVATIONS[option(0, "b")]}
        elif kind == PAD:
            rows, columns, channels = self.constants[inputs[1]].reshape(4, 2).tolist()[1:]
            step |= {"op": "pad", "pad": [*columns, *rows, *channels]}
        elif kind == RESIZE:
            if option(2, "?") or not option(3, "?"):
                raise ValueError(f"resizing {output} aligns corners, expected half-pixel centres")
            step |= {"op": "resize"}
        elif kind == DEPTH_TO_SPACE:
            step |= {"op": "depth_to_space", "block": option(0)}
        elif kind == CONCATENATION:
            rank = len(self.shapes[output])
            axis = option(0) % rank
            step |= {"op": "concat", "axis": {1: 2, 2: 3, 3: 1}[axis] if rank == 4 else axis}
        elif kind == RESHAPE:
            step |= {"op": "reshape"}
        elif kind == LOGISTIC:
            step |= {"op": "sigmoid"}
        else:
            raise ValueError(f"operation {kind} is not known here")
        if len(step["inputs"]) != {"add": 2, "concat": len(inputs)}.get(step["op"], 1):
            raise ValueError(f"{step['op']} {output} has {len(step['inputs'])} inputs")
        return step

    def _window(self, source: int, kernel: Sequence[int], option: Any) -> Step:
        """Kernel, stride, padding (left, right, top, bottom) of a convolution or pooling; SAME pads more at the end."""
        stride = [option(2), option(1)]
        pad = []
        for size, width, step in zip(self.shapes[source][2:0:-1], kernel[::-1], stride[::-1], strict=True):
            total = max((-(-size // step) - 1) * step + width - size, 0) if option(0, "b") == SAME else 0
            pad += [total // 2, total - total // 2]
        return {"kernel": [int(n) for n in kernel], "stride": stride, "pad": pad}

    def _constant(self, index: int, buffers: list[Table]) -> NDArray[Any] | None:
        """Returns a tensor's constant value; None if the tensor is computed."""
        tensor, shape = self.tensors[index], self.shapes[index]
        raw = buffers[tensor.number(2, "I")].vector(0, "u1")
        if not len(raw):
            return None
        self.numbers += prod(shape)
        if min(shape, default=1) < 1 or self.numbers > MOST_NUMBERS:
            raise ValueError(f"tensor {index} of shape {shape}; more than {MOST_NUMBERS} numbers altogether, or none")
        flat = raw.view("<" + DTYPES[tensor.number(1, "b")])
        sparsity = tensor.table(6)
        return flat.reshape(shape) if sparsity is None else _dense(sparsity, shape, flat)


def _channels_first(shape: list[int]) -> list[int]:
    """(1, H, W, C) → (C, H, W); for other ranks, drops only the batch dimension."""
    return [shape[3], shape[1], shape[2]] if len(shape) == 4 else shape[1:]


def _dense(sparsity: Table, shape: list[int], flat: NDArray[Any]) -> NDArray[Any]:
    """Expands a sparse tensor to a dense one.

    The dimensions, including those of blocks, are walked in `traversal order`. Each is dense (all its indices occur) or
    lists, for every row of the dimensions before it, the indices of non-zeros (segments and indices, as in CSR).
    """
    order, block_of = sparsity.vector(0, "i4").tolist(), sparsity.vector(1, "i4").tolist()
    levels = sparsity.tables(2, 16)
    blocks = [levels[len(shape) + k].number(1, "i") for k in range(len(block_of))]
    outer = list(shape)
    for dimension, size in zip(block_of, blocks, strict=True):
        outer[dimension] //= size
    rows = np.zeros(1, np.int64)
    indices: list[NDArray[np.int64]] = []
    for level in levels:
        if level.number(0, "b") == 0:
            size = level.number(1, "i")
            counts = np.full(len(rows), size)
            inside = np.tile(np.arange(size), len(rows))
            rows = np.repeat(rows * size, size) + inside
            found = inside
        else:
            segments, columns = _index_vector(level, 2), _index_vector(level, 4)
            counts = segments[rows + 1] - segments[rows]
            starts = np.repeat(segments[rows], counts)
            rows = starts + np.arange(len(starts)) - np.repeat(np.cumsum(counts) - counts, counts)
            found = columns[rows]
        if len(rows) > MOST_NUMBERS:
            raise ValueError("a sparse tensor with more rows than numbers")
        indices = [np.repeat(known, counts) for known in indices] + [found]
    expanded = np.zeros(outer + blocks, flat.dtype)
    expanded[tuple(indices[order.index(k)] for k in range(len(order)))] = flat
    interleaved = [
        axis for d in range(len(shape)) for axis in (d, *(len(shape) + k for k, b in enumerate(block_of) if b == d))
    ]
    return expanded.transpose(interleaved).reshape(shape)


def _index_vector(level: Table, field: int) -> NDArray[np.int64]:
    table = level.table(field + 1)
    if table is None:
        raise ValueError("a sparse dimension without indices")
    return table.vector(0, {1: "i4", 2: "u2", 3: "u1"}[level.number(field, "B")]).astype(np.int64)
