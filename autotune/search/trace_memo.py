"""Memory of functions of a plan by what they read of it: exact, and without a list of fields to keep up to date.

A function of the sizes of a plan reads a few of their fields (the forward pass of a layer reads the tensor degrees
and the micro-batch, not the data-parallel degree). Given what it has read so far, the next field that it reads is
certain. So its calls form a tree: at each node a field, at each branch a value of it, at each leaf an answer.
"""

from collections.abc import Callable, Hashable
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any, Generic, TypeVar, cast

from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.records import Stack

Answer = TypeVar("Answer")


class Traced:
    """Stands for sizes, a plan or switches, and notes which of their fields are read.

    Model and stack are those of the whole search and pass as they are.
    """

    def __init__(self, real: Any, note: Callable[[str], None], path: str = "") -> None:
        self._real = real
        self._note = note
        self._path = path

    def __getattr__(self, name: str) -> Any:
        """A field that is read for the first time; later on it is found before this is called."""
        method = getattr(type(self._real), name, None)
        if isinstance(method, FunctionType):
            value: Any = MethodType(method, self)  # it reads fields itself
        else:
            value = getattr(self._real, name)
            path = f"{self._path}{name}"
            if isinstance(value, Plan | Overlap):
                value = Traced(value, self._note, f"{path}.")
            elif not isinstance(value, ModelSpec | Stack):
                self._note(path)
        setattr(self, name, value)
        return value


class _Node:
    """A field, and where each of its values leads."""

    __slots__ = ("branches", "path", "read")

    def __init__(self, path: str) -> None:
        self.path = path
        self.read = attrgetter(path)
        self.branches: dict[Hashable, Any] = {}


class _Leaf(Generic[Answer]):
    __slots__ = ("answer",)

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class TraceMemo(Generic[Answer]):
    """A function of sizes that is called once for each combination of values that it reads.

    It must read fields of the sizes only, and nothing of them by another way; a `key` tells further arguments apart.
    """

    def __init__(self, function: Callable[..., Answer]) -> None:
        self._function = function
        self._roots: dict[Hashable, Any] = {}

    def __call__(self, sizes: Sizes, key: Hashable = None, *arguments: Any) -> Answer:
        """Answer of `function(sizes, *arguments)`."""
        node = self._roots.get(key)
        while node.__class__ is _Node:
            node = node.branches.get(node.read(sizes))
        if node is None:
            return self._learn(sizes, key, arguments)
        return cast("_Leaf[Answer]", node).answer

    def _learn(self, sizes: Sizes, key: Hashable, arguments: tuple[Any, ...]) -> Answer:
        paths: dict[str, None] = {}
        # fresh for every call, so that no cache which goes by identity hides what is read
        traced = Traced(sizes, lambda path: paths.setdefault(path))
        answer = self._function(cast(Sizes, traced), *arguments)
        holder, at = self._roots, key
        for path in paths:
            node = holder.setdefault(at, _Node(path))
            if node.__class__ is not _Node or node.path != path:
                raise AssertionError(f"{self._function} read {path} where it has read something else before")
            holder, at = node.branches, node.read(sizes)
        holder[at] = _Leaf(answer)
        return answer
