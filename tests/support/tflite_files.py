"""Small .tflite files, written by hand: a FlatBuffers writer of a few lines, and a graph with every operation."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

Fields = dict[int, Any]
"""A table: {field number: ("code", scalar) | (n,) array | str | Fields | list of Fields}."""


def flatbuffer(root: Fields, identifier: bytes) -> bytes:
    data = bytearray(8)
    data[4:8] = identifier
    struct.pack_into("<I", data, 0, _table(data, root))
    return bytes(data)


def _table(data: bytearray, fields: Fields) -> int:
    """Appends the table with all that it refers to; returns where it begins."""
    count = max(fields, default=-1) + 1
    vtable = len(data)
    data += bytes(4 + 2 * count)
    table = len(data)
    data += struct.pack("<i", table - vtable)
    later = []
    for field, value in fields.items():
        struct.pack_into("<H", data, vtable + 4 + 2 * field, len(data) - table)
        if isinstance(value, tuple):
            data += struct.pack("<" + value[0], value[1])
        else:
            later.append((len(data), value))
            data += bytes(4)
    struct.pack_into("<HH", data, vtable, 4 + 2 * count, len(data) - table)
    for at, value in later:
        target = _table(data, value) if isinstance(value, dict) else _vector(data, value)
        struct.pack_into("<I", data, at, target - at)
    return table


def _vector(data: bytearray, value: Any) -> int:
    at = len(data)
    if isinstance(value, str):
        value = np.frombuffer(value.encode(), np.uint8)
    data += struct.pack("<I", len(value))
    if isinstance(value, np.ndarray):
        data += value.tobytes()
        return at
    slots = len(data)
    data += bytes(4 * len(value))
    for index, fields in enumerate(value):
        slot = slots + 4 * index
        struct.pack_into("<I", data, slot, _table(data, fields) - slot)
    return at


def ints(*values: int) -> np.ndarray:
    return np.array(values, "<i4")


KINDS = {"f4": 0, "f2": 1, "i4": 2}


class TfliteWriter:
    """Collects tensors and operators of one graph."""

    def __init__(self) -> None:
        self.tensors: list[Fields] = []
        self.buffers: list[Fields] = [{}]
        self.codes: list[Fields] = []
        self.operators: list[Fields] = []

    def tensor(self, shape: Sequence[int], value: np.ndarray | None = None, sparsity: Fields | None = None) -> int:
        fields: Fields = {0: ints(*shape), 1: ("b", 0), 2: ("I", 0)}
        if value is not None:
            self.buffers.append({0: np.frombuffer(value.tobytes(), np.uint8)})
            fields |= {1: ("b", KINDS[value.dtype.str[1:]]), 2: ("I", len(self.buffers) - 1)}
        if sparsity is not None:
            fields[6] = sparsity
        self.tensors.append(fields)
        return len(self.tensors) - 1

    def constant(self, value: np.ndarray) -> int:
        return self.tensor(value.shape, value)

    def run(self, code: int, inputs: Sequence[int], shape: Sequence[int], options: Fields | None = None) -> int:
        output = self.tensor(shape)
        self.codes.append({0: ("b", code), 3: ("i", code)})
        fields: Fields = {0: ("I", len(self.codes) - 1), 1: ints(*inputs), 2: ints(output)}
        self.operators.append(fields | ({4: options} if options else {}))
        return output

    def file(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        graph = {0: self.tensors, 1: ints(*inputs), 2: ints(*outputs), 3: self.operators}
        return flatbuffer({0: ("I", 3), 1: self.codes, 2: [graph], 4: self.buffers}, b"TFL3")


def every_operation(rng: np.random.Generator) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file with every operation that is read, 8 x 8 x 3 to 72 numbers, and the weights in it (float32, as written).

    conv (half precision, stride 2, SAME, relu6) -> depthwise (sparse, VALID after padding) -> + conv -> max pool ->
    resize -> depth to space -> concatenation with itself -> reshape -> sigmoid.
    """
    w = TfliteWriter()
    weights = {
        "conv": rng.normal(size=(4, 3, 3, 3)).astype("<f2").astype("<f4"),
        "conv_bias": rng.normal(size=4).astype("<f2").astype("<f4"),
        "depthwise": (rng.normal(size=(1, 3, 3, 4)) * (rng.random((1, 3, 3, 4)) < 0.4)).astype("<f4"),
        "depthwise_bias": rng.normal(size=4).astype("<f4"),
    }
    pixels = w.tensor((1, 8, 8, 3))
    half, bias = w.constant(weights["conv"].astype("<f2")), w.constant(weights["conv_bias"].astype("<f2"))
    full, bias = w.run(6, [half], (4, 3, 3, 3)), w.run(6, [bias], (4,))
    conv = w.run(3, [pixels, full, bias], (1, 4, 4, 4), {0: ("b", 0), 1: ("i", 2), 2: ("i", 2), 3: ("b", 3)})
    padded = w.run(34, [conv, w.constant(ints(0, 0, 1, 1, 1, 1, 0, 0).reshape(4, 2))], (1, 6, 6, 4))
    flat, sparsity = _rows(weights["depthwise"])
    sparse = w.run(124, [w.tensor((1, 3, 3, 4), flat, sparsity)], (1, 3, 3, 4))
    stride = {0: ("b", 1), 1: ("i", 1), 2: ("i", 1)}
    depth = w.run(4, [padded, sparse, w.constant(weights["depthwise_bias"])], (1, 4, 4, 4), stride | {3: ("i", 1)})
    added = w.run(0, [depth, conv], (1, 4, 4, 4), {0: ("b", 1)})
    pool = {0: ("b", 0), 1: ("i", 2), 2: ("i", 2), 3: ("i", 2), 4: ("i", 2)}
    pooled = w.run(17, [added], (1, 2, 2, 4), pool)
    resized = w.run(23, [pooled, w.constant(ints(3, 3))], (1, 3, 3, 4), {3: ("?", True)})
    spread = w.run(5, [resized], (1, 6, 6, 1), {0: ("i", 2)})
    double = w.run(2, [spread, spread], (1, 6, 6, 2), {0: ("i", 3)})
    flat_out = w.run(22, [double, w.constant(ints(1, 72))], (1, 72))
    return w.file([pixels], [w.run(14, [flat_out], (1, 72)), added]), weights


def _rows(dense: np.ndarray) -> tuple[np.ndarray, Fields]:
    """(1, 3, 3, C) with its zeros left out of the last dimension."""
    rows = dense.reshape(-1, dense.shape[-1])
    segments = np.concatenate([[0], np.cumsum((rows != 0).sum(1))]).astype("<i4")
    columns = np.nonzero(rows)[1].astype(np.uint8)
    levels: list[Fields] = [{0: ("b", 0), 1: ("i", size)} for size in dense.shape[:-1]]
    levels.append({0: ("b", 1), 2: ("B", 1), 3: {0: segments}, 4: ("B", 3), 5: {0: columns}})
    return rows[rows != 0], {0: ints(0, 1, 2, 3), 2: levels}


def in_blocks(dense: np.ndarray, block: int) -> tuple[np.ndarray, Fields]:
    """(R, C) with zero blocks of `block` rows left out: traversal row block, column, row in block."""
    blocks = dense.reshape(len(dense) // block, block, -1).transpose(0, 2, 1)
    filled = (blocks != 0).any(-1)
    segments = np.concatenate([[0], np.cumsum(filled.sum(1))]).astype("<u2")
    columns = np.nonzero(filled)[1].astype("<u2")
    levels: list[Fields] = [
        {0: ("b", 0), 1: ("i", len(blocks))},
        {0: ("b", 1), 2: ("B", 2), 3: {0: segments}, 4: ("B", 2), 5: {0: columns}},
        {0: ("b", 0), 1: ("i", block)},
    ]
    return blocks[filled].reshape(-1), {0: ints(0, 1, 2), 1: ints(0), 2: levels}
