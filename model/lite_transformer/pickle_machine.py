"""A pickle interpreter with no way to call, import or look up anything.

The standard unpickler imports what a pickle names and calls what it says. Here a name stays a ``Global``,
a value like any other, and a call succeeds only where the caller of this module supplied its meaning.
Opcodes and their arguments are decoded by the standard library's ``pickletools``.
"""

from __future__ import annotations

import mmap
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, Any, TypeAlias, TypeVar, cast

from lite_transformer.checkpoint import CheckpointError

T = TypeVar("T")
Stream: TypeAlias = BytesIO | mmap.mmap


class UnsafeCheckpoint(CheckpointError):
    """The file asks for code to be run. Nothing was run."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function, never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        # The name comes from an untrusted file and ends on a terminal: no control characters.
        return f"{self.module}.{self.name}"[:120].encode("unicode_escape").decode("ascii")


@dataclass(eq=False)
class Record:
    """An instance of a named class, as nothing but its fields."""

    kind: Global
    fields: dict[str, object] = field(default_factory=dict)


Calls = Mapping[Global, Callable[..., object]]
# Instructions that push their own decoded argument: a number, text or bytes.
_LITERALS = frozenset(
    op.name
    for op in pickletools.opcodes
    if op.arg and not op.stack_before and op.stack_after and op.stack_after[0].obtype is not object
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_IGNORED = frozenset(("PROTO", "FRAME"))


def load(stream: Stream, calls: Calls, persistent: Callable[[object], object]) -> Any:
    """The object of one pickle; leaves ``stream`` after it.

    Args:
        calls: meaning of each name that may be called.
        persistent: value of a persistent id (in a checkpoint: a storage).

    Raises:
        UnsafeCheckpoint: the pickle calls a name outside ``calls``.
        CheckpointError: the bytes are not a whole, well-formed pickle.
    """
    machine = _Machine(calls, persistent)
    try:
        with warnings.catch_warnings():
            # The decoder warns of odd backslashes in old text opcodes.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", stream)):
                if opcode.name == "STOP":
                    return machine.pop()
                machine.run(opcode.name, argument)
    except CheckpointError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise CheckpointError(f"damaged pickle ({type(error).__name__}: {str(error)[:100]})") from None
    raise CheckpointError("damaged pickle (it has no end)")


class _Machine:
    def __init__(self, calls: Calls, persistent: Callable[[object], object]) -> None:
        self.calls, self.persistent = calls, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.push(argument)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name not in _IGNORED:
            operation = getattr(self, f"op_{name.lower()}", None)
            if operation is None:
                raise UnsafeCheckpoint(f"refused: the file uses the pickle instruction {name}; nothing was run")
            operation(argument)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Values pushed since the last mark."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def top(self, kind: type[T]) -> T:
        """The value on top, which must be of this kind."""
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"expected a {kind.__name__}")
        return self.stack[-1]

    def call(self, function: Any, arguments: Any) -> object:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("a call needs a name and a tuple")
        if function not in self.calls:
            raise UnsafeCheckpoint(f"refused: the file asks to call {function}; nothing was run")
        return self.calls[function](*arguments)

    # Marks, memo and stack.

    def op_mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        if self.stack:
            self.pop()
        else:
            self.pop_mark()

    def op_pop_mark(self, _: Any) -> None:
        self.pop_mark()

    def op_dup(self, _: Any) -> None:
        self.push(self.stack[-1])

    def op_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index: int) -> None:
        self.push(self.memo[index])

    op_binget = op_long_binget = op_get

    # Containers.

    def op_empty_list(self, _: Any) -> None:
        self.push([])

    def op_list(self, _: Any) -> None:
        self.push(self.pop_mark())

    def op_append(self, _: Any) -> None:
        value = self.pop()
        self.top(list).append(value)

    def op_appends(self, _: Any) -> None:
        values = self.pop_mark()
        self.top(list).extend(values)

    def op_tuple(self, _: Any) -> None:
        self.push(tuple(self.pop_mark()))

    def op_tuple1(self, _: Any) -> None:
        self.push((self.pop(),))

    def op_tuple2(self, _: Any) -> None:
        second, first = self.pop(), self.pop()
        self.push((first, second))

    def op_tuple3(self, _: Any) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.push((first, second, third))

    def op_empty_dict(self, _: Any) -> None:
        self.push({})

    def op_dict(self, _: Any) -> None:
        self.push(_pairs(self.pop_mark()))

    def op_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[checked_key(key)] = value

    def op_setitems(self, _: Any) -> None:
        values = self.pop_mark()
        self.top(dict).update(_pairs(values))

    def op_empty_set(self, _: Any) -> None:
        self.push(set())

    def op_additems(self, _: Any) -> None:
        values = self.pop_mark()
        self.top(set).update(map(checked_key, values))

    def op_frozenset(self, _: Any) -> None:
        self.push(frozenset(map(checked_key, self.pop_mark())))

    # Names, calls and state.

    def op_global(self, name: str) -> None:
        self.push(Global(*name.split(" ", 1)))

    def op_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name must be text")
        self.push(Global(module, name))

    def op_reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(self.call(function, arguments))

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        keywords, arguments, function = self.pop(), self.pop(), self.pop()
        if keywords:
            raise UnsafeCheckpoint(f"refused: the file asks to call {function} with keywords; nothing was run")
        self.push(self.call(function, arguments))

    def op_inst(self, name: str) -> None:
        arguments = tuple(self.pop_mark())
        self.push(self.call(Global(*name.split(" ", 1)), arguments))

    def op_obj(self, _: Any) -> None:
        function, *arguments = self.pop_mark()
        self.push(self.call(function, tuple(arguments)))

    def op_build(self, _: Any) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Record) and isinstance(state, dict):
            target.fields.update({str(key): value for key, value in state.items()})
        elif not isinstance(target, OrderedDict):
            # An ordered dictionary's state is bookkeeping of torch (versions of modules): not needed.
            what = target if isinstance(target, Global) else type(target).__name__
            raise UnsafeCheckpoint(f"refused: the file asks to set the state of {what}; nothing was run")

    def op_persid(self, name: str) -> None:
        self.push(self.persistent(name))

    def op_binpersid(self, _: Any) -> None:
        self.push(self.persistent(self.pop()))


def checked_key(key: object) -> Any:
    """A dictionary key or set member: a plain value, or a flat tuple of them."""
    plain = (str, bytes, int, float, bool, type(None))
    # Hashing deeply nested tuples would overflow the C stack.
    flat = isinstance(key, tuple) and all(isinstance(item, plain) for item in key)
    if not flat and not isinstance(key, plain):
        raise TypeError(f"{type(key).__name__} as a key")
    return key


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(map(checked_key, values[::2]), values[1::2], strict=True))
