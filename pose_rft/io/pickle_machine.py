"""A pickle interpreter that can build plain data and nothing else.

Python's own unpickler finds classes by name and calls them; even with the names restricted, the callables trust their
arguments. This machine calls nothing from the pickle: names are looked up in a table of builders that check their
arguments (`pose_rft.io.unpickle`), and every other opcode makes a plain number, string, list, tuple, dict or set.
Lengths are checked against the rest of the file, the memo is a dictionary, integers are limited to 64 bits, keys are
scalars. Source of the opcodes: the comments of Python's `pickletools`.
"""

import ast
import struct
from collections.abc import Callable, Mapping
from typing import Any

LARGEST_INTEGER = 1 << 64
SCALARS = (str, bytes, int, float, bool, type(None))
Builder = Callable[..., Any]


class NotData(Exception):
    """The pickle asks for something that is not data; the message says what."""


class Token:
    """A value that is not data (a class, a function or a dtype); valid only as an argument of a builder."""


class Name(Token):
    """A class or function that the pickle names; `call` replaces calling it, `new` builds an instance of it."""

    def __init__(self, name: str, call: Builder | None, new: Callable[[], Any] | None) -> None:
        self.name, self.call, self.new = name, call, new


class Arguments(tuple[Any, ...], Token):
    """A tuple that contains a token."""

    __slots__ = ()


class Machine:
    """Interpreter of one pickle.

    names: returns the `Name` for (module, name), or raises `NotData`. build: sets the state of an object that a builder
    made (opcode BUILD), or raises `NotData`. Strings of Python 2 are decoded as latin1.
    """

    def __init__(self, content: bytes, names: Callable[[str, str], Name], build: Callable[[Any, Any], None], /) -> None:
        self.content, self.names, self.build = content, names, build
        self.position = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Runs the pickle's opcodes and returns the object that they build.

        Raises:
            NotData, ValueError, IndexError, KeyError, TypeError, struct.error: not a pickle of plain data.
        """
        content, opcodes = self.content, OPCODES
        while True:
            code = content[self.position]
            self.position += 1
            if code == STOP:
                if len(self.stack) != 1 or self.marks:
                    raise ValueError("a pickle that ends with more or less than one object")
                return self.data(self.stack.pop())
            opcode = opcodes.get(code)
            if opcode is None:
                raise NotData(f"the opcode {bytes([code])!r}")
            opcode(self)

    def data(self, value: Any) -> Any:
        """Returns the value if it is data.

        Raises:
            NotData: the value is a token.
        """
        if isinstance(value, Token):
            raise NotData("a class or a function where data should be")
        return value

    def take(self, length: int) -> bytes:
        """Reads the next `length` bytes."""
        found = self.content[self.position : self.position + length]
        if len(found) != length or length < 0:
            raise ValueError(f"the pickle ends {length - len(found)} bytes early")
        self.position += length
        return found

    def unpack(self, form: struct.Struct) -> Any:
        """Reads the next number of the pickle, in the given `struct` format."""
        (value,) = form.unpack_from(self.content, self.position)
        self.position += form.size
        return value

    def line(self) -> bytes:
        """Reads the bytes up to the next newline."""
        end = self.content.index(b"\n", self.position)
        found = self.content[self.position : end]
        self.position = end + 1
        return found

    def above_mark(self) -> list[Any]:
        """Pops everything above the last mark, and the mark."""
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def pop(self) -> Any:
        """Pops the top of the stack."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("an object from below a mark")
        return self.stack.pop()

    def top(self) -> Any:
        """Returns the top of the stack without popping it."""
        return self.stack[-1]

    def tuple_of(self, items: list[Any]) -> None:
        """Pushes the items as one tuple."""
        kind = Arguments if any(isinstance(item, Token) for item in items) else tuple
        self.stack.append(kind(items))

    def extend(self, items: list[Any]) -> None:
        """Appends the items to the list on top of the stack."""
        target = self.top()
        if type(target) is not list:
            raise NotData(f"items for a {type(target).__name__}")
        for item in items:
            self.data(item)
        target.extend(items)

    def update(self, items: list[Any]) -> None:
        """Adds alternating keys and values to the dictionary on top of the stack."""
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise NotData(f"keys and values for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[scalar(key)] = self.data(value)

    def find(self, module: str, name: str) -> None:
        """Pushes the `Name` of a class or function that the pickle names."""
        self.stack.append(self.names(module, name))

    def reduce(self) -> None:
        """Pops arguments and a function, and pushes the result of the function's builder."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple) or function.call is None:
            raise NotData(f"a call of {getattr(function, 'name', type(function).__name__)}")
        self.stack.append(function.call(*arguments))

    def new_object(self) -> None:
        """Pops arguments and a class, and pushes an instance made by the class's builder."""
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, Name) or kind.new is None or arguments != ():
            raise NotData(f"an object of {getattr(kind, 'name', type(kind).__name__)}")
        self.stack.append(kind.new())

    def set_state(self) -> None:
        """Pops a state and sets it on the object below."""
        state = self.pop()
        self.build(self.top(), state)


def scalar(value: Any) -> Any:
    """Returns the value if it can be a dictionary key.

    Raises:
        NotData: not a number, string or None; hashing nested tuples could take for ever.
    """
    if type(value) not in SCALARS:
        raise NotData(f"a key of type {type(value).__name__}")
    return value


def integer(value: int) -> int:
    """Returns the value if its magnitude fits into 64 bits.

    Raises:
        ValueError: it does not.
    """
    if not -LARGEST_INTEGER < value < LARGEST_INTEGER:
        raise ValueError("an integer beyond 64 bits")
    return value


def _text_integer(line: bytes) -> int | bool:
    if line in (b"00", b"01"):
        return line == b"01"
    if len(line) > 22:
        raise ValueError("an integer beyond 64 bits")
    return integer(int(line.rstrip(b"L")))


def _quoted(line: bytes) -> str:
    """Decodes Python 2's `repr` of a string, as protocol 0 writes it."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a string without its quotes")
    found = ast.literal_eval("b" + line.decode("ascii"))
    if not isinstance(found, bytes):
        raise ValueError("more than one string")
    return found.decode("latin1")


U1, U2, I4, U4, U8, F8 = (struct.Struct(form) for form in ("<B", "<H", "<i", "<I", "<Q", ">d"))
Opcode = Callable[[Machine], None]


def _push(make: Callable[[Machine], Any]) -> Opcode:
    def run(machine: Machine) -> None:
        machine.stack.append(make(machine))

    return run


def _sized(form: struct.Struct, decode: Callable[[bytes], Any]) -> Opcode:
    """Pushes a value that is stored after its length."""

    def run(machine: Machine) -> None:
        machine.stack.append(decode(machine.take(machine.unpack(form))))

    return run


def _latin1(raw: bytes) -> str:
    return raw.decode("latin1")


def _long(raw: bytes) -> int:
    return integer(int.from_bytes(raw[:16], "little", signed=True)) if len(raw) <= 16 else integer(LARGEST_INTEGER)


def _put(read: Callable[[Machine], int]) -> Opcode:
    def run(machine: Machine) -> None:
        machine.memo[read(machine)] = machine.top()

    return run


def _get(read: Callable[[Machine], int]) -> Opcode:
    return _push(lambda machine: machine.memo[read(machine)])


def _tuple(length: int) -> Opcode:
    def run(machine: Machine) -> None:
        machine.tuple_of([machine.pop() for _ in range(length)][::-1])

    return run


def _list_of(machine: Machine) -> None:
    items = machine.above_mark()
    machine.stack.append([])
    machine.extend(items)


def _dict_of(machine: Machine) -> None:
    items = machine.above_mark()
    machine.stack.append({})
    machine.update(items)


def _set_items(machine: Machine) -> None:
    items, target = machine.above_mark(), machine.top()
    if type(target) is not set:
        raise NotData(f"members for a {type(target).__name__}")
    target.update(scalar(item) for item in items)


def _item(machine: Machine) -> None:
    item = machine.pop()
    machine.extend([item])


def _key(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.update([key, value])


def _global(machine: Machine) -> None:
    machine.find(machine.line().decode(), machine.line().decode())


def _global_of_stack(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise NotData("a name that is no text")
    machine.find(module, name)


STOP = ord(".")
OPCODES: Mapping[int, Opcode] = {
    ord(code): run
    for code, run in {
        "\x80": lambda machine: machine.unpack(U1) and None,  # protocol
        "\x95": lambda machine: machine.unpack(U8) and None,  # frame: only a hint for buffering
        "(": lambda machine: machine.marks.append(len(machine.stack)),
        "0": lambda machine: machine.pop() and None,
        "1": lambda machine: machine.above_mark() and None,
        "N": _push(lambda machine: None),
        "\x88": _push(lambda machine: True),
        "\x89": _push(lambda machine: False),
        "I": _push(lambda machine: _text_integer(machine.line())),
        "L": _push(lambda machine: _text_integer(machine.line())),
        "J": _push(lambda machine: machine.unpack(I4)),
        "K": _push(lambda machine: machine.unpack(U1)),
        "M": _push(lambda machine: machine.unpack(U2)),
        "\x8a": _sized(U1, _long),
        "\x8b": _sized(I4, _long),
        "F": _push(lambda machine: float(machine.line())),
        "G": _push(lambda machine: machine.unpack(F8)),
        "S": _push(lambda machine: _quoted(machine.line())),
        "T": _sized(I4, _latin1),
        "U": _sized(U1, _latin1),
        "V": _push(lambda machine: machine.line().decode("raw-unicode-escape").encode().decode()),
        "X": _sized(U4, bytes.decode),
        "\x8c": _sized(U1, bytes.decode),
        "\x8d": _sized(U8, bytes.decode),
        "B": _sized(U4, bytes),
        "C": _sized(U1, bytes),
        "\x8e": _sized(U8, bytes),
        "\x96": _sized(U8, bytes),  # a bytearray, as which numpy stores array contents
        "]": _push(lambda machine: []),
        "a": _item,
        "e": lambda machine: machine.extend(machine.above_mark()),
        "l": _list_of,
        ")": _push(lambda machine: ()),
        "t": lambda machine: machine.tuple_of(machine.above_mark()),
        "\x85": _tuple(1),
        "\x86": _tuple(2),
        "\x87": _tuple(3),
        "}": _push(lambda machine: {}),
        "s": _key,
        "u": lambda machine: machine.update(machine.above_mark()),
        "d": _dict_of,
        "\x8f": _push(lambda machine: set()),
        "\x90": _set_items,
        "\x91": _push(lambda machine: frozenset(scalar(item) for item in machine.above_mark())),
        "p": _put(lambda machine: integer(int(machine.line()[:22]))),
        "q": _put(lambda machine: machine.unpack(U1)),
        "r": _put(lambda machine: machine.unpack(U4)),
        "\x94": _put(lambda machine: len(machine.memo)),
        "g": _get(lambda machine: integer(int(machine.line()[:22]))),
        "h": _get(lambda machine: machine.unpack(U1)),
        "j": _get(lambda machine: machine.unpack(U4)),
        "c": _global,
        "\x93": _global_of_stack,
        "R": Machine.reduce,
        "\x81": Machine.new_object,
        "b": Machine.set_state,
    }.items()
}
