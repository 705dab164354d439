"""Checks the nesting depth and the element types of MATLAB v5 files, without recursion.

scipy's reader recurses through cells and structs in C: 20,000 nested ones crash the interpreter, and so do numbers of
an invalid type. The walk reads a matrix as scipy does: element by element, without trusting the lengths of containers.
Source: MAT-File Format (MathWorks), version 5.
"""

import struct
import zlib

DEEPEST = 30
MOST_INFLATED_PER_BYTE, FREE = 1100, 1 << 26
COMPRESSED, MATRIX = 15, 14
CELL, STRUCT, OBJECT, SPARSE, CHAR, FUNCTION, OPAQUE = 1, 2, 3, 5, 4, 16, 17
NUMBERS = range(6, 16)
COMPLEX = 0x800
NUMERIC = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18))  # types of data elements with numbers or text


def check_depth(content: bytes) -> None:
    """Rejects a MAT file that nests deeper than any release does.

    Raises:
        ValueError, struct.error, zlib.error: nested too deeply, of a class that no release uses, or damaged.
    """
    order = "<" if content[126:128] == b"IM" else ">"
    tag = struct.Struct(order + "II")
    position = 128
    while position + tag.size <= len(content):
        kind, length = tag.unpack_from(content, position)
        position += tag.size
        if kind == COMPRESSED:
            inflater = zlib.decompressobj()
            most = FREE + MOST_INFLATED_PER_BYTE * length
            _Walk(inflater.decompress(content[position : position + length], most), order).run()
        elif kind == MATRIX:
            _Walk(content[position - tag.size : position + length], order).run()
        position += length


class _Walk:
    def __init__(self, content: bytes, order: str) -> None:
        self.content, self.order = memoryview(content), order
        self.tag, self.head = struct.Struct(order + "II"), struct.Struct(order + "6I")
        self.position = 0

    def run(self) -> None:
        """Walks the variable to its end; `left` counts the matrices still to come on each open level."""
        left = [1]
        while left:
            if not left[-1]:
                left.pop()
                continue
            left[-1] -= 1
            inside = self._matrix()
            if inside:
                left.append(inside)
                if len(left) > DEEPEST:
                    raise ValueError(f"cells or structs nested more than {DEEPEST} deep")

    def _matrix(self) -> int:
        """Advances past a matrix, up to the first of its inner matrices, and returns the number of these."""
        kind, length = self.tag.unpack_from(self.content, self.position)
        if kind != MATRIX:
            raise ValueError("something else than a matrix inside a cell or a struct")
        if not length:
            self.position += self.tag.size
            return 0
        flags = self.head.unpack_from(self.content, self.position)[4]
        self.position += self.head.size
        kind = flags & 0xFF
        dimensions = self._element()
        count = 1
        for (n,) in struct.iter_unpack(self.order + "i", dimensions):
            count *= max(n, 0)
        self._element()  # the name
        if kind == CELL:
            return count
        if kind == STRUCT:
            (longest,) = struct.unpack(self.order + "i", self._element()[:4])
            return count * (len(self._element()) // max(longest, 1))
        if kind not in (CHAR, SPARSE, *NUMBERS):
            raise ValueError(f"a variable of class {kind}, expected numbers, text, cells or structs")
        parts = 1 + bool(flags & COMPLEX) if kind != CHAR else 1
        for _ in range(parts + 2 * (kind == SPARSE)):
            self._element(NUMERIC)
        return 0

    def _element(self, types: frozenset[int] | None = None) -> memoryview:
        """Returns the content of the next data element and advances past it and its padding to 8 bytes."""
        kind, length = self.tag.unpack_from(self.content, self.position)
        if types is not None and kind & 0xFFFF not in types:
            raise ValueError(f"an element of type {kind & 0xFFFF}, expected numbers or text")
        start = self.position + self.tag.size
        if kind >> 16:  # up to four bytes are stored in the tag itself
            length, start = kind >> 16, start - 4
            self.position += self.tag.size
        else:
            self.position = start + length + -length % 8
        if self.position > len(self.content) + 8:
            raise ValueError("a variable is cut")
        return self.content[start : start + length]
