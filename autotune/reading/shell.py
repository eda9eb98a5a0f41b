"""As much of bash as launch scripts need: quotes, line ends with backslash, comments, variables, arrays, arithmetic.

Commands are read from top to bottom without running anything; what only a run could know (`$(...)`, arguments of the
script, variables of the environment) stays as it is written, so that who needs it can say what is missing.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POSITION = re.compile(r"\d+(?=:?[-=])")  # an argument of the script that has a default
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
_SEPARATORS = "\n;&|"
_REDIRECTION = re.compile(r"(\d*|&)(>>|>|<)&?[ \t]*[^\s;|&]+")
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_PREFIXES = ("export", "declare", "local", "readonly", "typeset", "env")


@dataclass(slots=True)
class Script:
    """Commands of a script, and the variables that it assigns."""

    commands: list[list[str]] = field(default_factory=list)
    variables: dict[str, list[str]] = field(default_factory=dict)


def read_script(text: str, defined: Mapping[str, str] | None = None) -> Script:
    """Read a script; `defined` are variables that its environment would hold."""
    script = Script(variables={name: [value] for name, value in (defined or {}).items()})
    fixed = set(script.variables)
    reader = _Reader(text.replace("\r\n", "\n").replace("\\\n", " "), script.variables)
    while (command := reader.command()) is not None:
        words = _assigned(command, script.variables, fixed)
        if words:
            script.commands.append(words)
    return script


@dataclass(slots=True)
class _Word:
    """A word with the fields that it expands to; `array` where it is an assignment of (...)."""

    fields: list[str]
    source: str
    """Its first characters as written, up to a quote or a variable, to tell assignments."""
    array: list[str] | None = None


def _assigned(words: list[_Word], variables: dict[str, list[str]], fixed: set[str]) -> list[str]:
    """Carry out the assignments at the start of a command; the words after them."""
    index = 0
    while index < len(words):
        word = words[index]
        match = _ASSIGNMENT.match(word.source)
        if match is None:
            if (word.fields and word.fields[0] in _PREFIXES) or (index and word.source.startswith("-")):
                index += 1
                continue
            break
        name, more = match.groups()
        value = word.array
        if value is None:
            value = [" ".join(word.fields)[match.end() :]]
        if name not in fixed:
            old = variables.get(name, [])
            joined = [("".join(old) + value[0])] if more and word.array is None else [*old, *value]
            variables[name] = joined if more else value
        index += 1
    return [text for word in words[index:] for text in word.fields]


class _Reader:
    """Cursor over a script."""

    def __init__(self, text: str, variables: dict[str, list[str]]) -> None:
        self.text, self.at, self.variables = text, 0, variables

    def command(self) -> list[_Word] | None:
        """Words up to the next separator; None at the end."""
        words: list[_Word] = []
        while self.at < len(self.text):
            letter = self.text[self.at]
            if (sent := _REDIRECTION.match(self.text, self.at)) is not None:
                self.at = sent.end()
            elif letter in _SEPARATORS:
                self.at += 1
                if words:
                    return words
            elif letter.isspace() or letter in "()":
                self.at += 1
            elif letter == "#":
                self._skip_line()
            else:
                words.append(self.word())
        return words or None

    def _skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def word(self) -> _Word:
        """One word, expanded."""
        fields, open_field, source = [""], False, ""
        plain = True
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter.isspace() or letter in _SEPARATORS or letter == ")":
                break
            if letter == "(" and source.endswith("=") and plain:
                return _Word([], source, self._array())
            if letter in "'\"$\\`":
                plain = False
                pieces, quoted = self._special(letter)
                fields[-1] += pieces[0] if pieces else ""
                fields += pieces[1:]
                open_field = open_field or (quoted and bool(pieces))
            else:
                fields[-1] += letter
                source += letter if plain else ""
                self.at += 1
        kept = [text for text in fields if text or open_field]
        return _Word(kept, source)

    def _array(self) -> list[str]:
        self.at += 1
        entries: list[str] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            letter = self.text[self.at]
            if letter.isspace():
                self.at += 1
            elif letter == "#":
                self._skip_line()
            else:
                before = self.at
                entries += self.word().fields
                self.at += self.at == before
        self.at += 1
        return entries

    def _special(self, letter: str) -> tuple[list[str], bool]:
        """Fields of a quoted part, a variable or an escaped letter, and whether it was quoted."""
        if letter == "'":
            return [self._until("'")], True
        if letter == '"':
            return self._double(), True
        if letter == "`":
            return [f"`{self._until('`')}`"], False
        if letter == "\\":
            self.at += 2
            return [self.text[self.at - 1 : self.at]], True
        values = self.variable()
        return [part for value in values for part in value.split()], False

    def _until(self, mark: str) -> str:
        start = self.at + 1
        end = self.text.find(mark, start)
        self.at = len(self.text) if end < 0 else end + 1
        return self.text[start : len(self.text) if end < 0 else end]

    def _double(self) -> list[str]:
        self.at += 1
        fields, empty = [""], False
        while self.at < len(self.text) and self.text[self.at] != '"':
            letter = self.text[self.at]
            if letter == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "$", "\\", "`"):
                fields[-1] += self.text[self.at + 1]
                self.at += 2
            elif letter == "$":
                values = self.variable()
                fields[-1] += values[0] if values else ""
                fields += values[1:]
                empty = empty or not values
            else:
                fields[-1] += letter
                self.at += 1
        self.at += 1
        return [] if empty and fields == [""] else fields  # "$@" without arguments is no word

    def variable(self) -> list[str]:
        """Values of `$NAME`, `${NAME...}`, `$((...))`; what is not known stays as written."""
        rest = self.text[self.at :]
        if rest.startswith("$(("):
            return [self._arithmetic(self._nested(3, "(", ")", closing="))"))]
        if rest.startswith("$("):
            return [f"$({self._nested(2, '(', ')')})"]
        if rest.startswith("${"):
            return self._braces(self._nested(2, "{", "}"))
        match = _NAME.match(rest, 1)
        if match is None:
            return self._argument(rest[1:2])
        self.at += match.end()
        found = self.variables.get(match[0])
        return [f"${match[0]}"] if found is None else [" ".join(found[:1])]

    def _argument(self, letter: str) -> list[str]:
        """Values of `$@`, `$1` and their like: none, and the text itself; a single `$` is text too."""
        if not letter or letter not in "@*#?!-$0123456789":
            self.at += 1
            return ["$"]
        self.at += 2
        return [] if letter in "@*" else [f"${letter}"]

    def _nested(self, opening: int, left: str, right: str, closing: str = "") -> str:
        """Text behind the first `opening` letters up to the bracket that closes, brackets inside it included."""
        start, depth = self.at + opening, 1
        self.at = start
        while self.at < len(self.text) and depth:
            depth += {left: 1, right: -1}.get(self.text[self.at], 0)
            self.at += 1
        end = self.at - (not depth)
        self.at += len(closing) - 1 if closing and not depth else 0
        return self.text[start:end]

    def _braces(self, inside: str) -> list[str]:
        name = _NAME.match(inside) or _POSITION.match(inside)
        if name is None:
            return [f"${{{inside}}}"]
        found, rest = self.variables.get(name[0]), inside[name.end() :]
        if rest in ("[@]", "[*]"):
            return list(found) if found is not None else []
        if rest[:2] in (":-", ":=") or rest[:1] in ("-", "="):
            default = rest.lstrip(":")[1:]
            if len(default) > 1 and default[0] == default[-1] and default[0] in "'\"":
                default = default[1:-1]
            return (
                [" ".join(found)] if found and found[0] else _Reader(f'"{default}"', self.variables)._double()
            )
        if found is None or rest:
            return [f"${{{inside}}}"]
        return [" ".join(found[:1])]

    def _arithmetic(self, expression: str) -> str:
        def value(match: re.Match[str]) -> str:
            found = self.variables.get(match["name"])
            return match[0] if found is None else found[0]

        filled = re.sub(r"\$?\{?(?P<name>[A-Za-z_]\w*)\}?", value, expression)
        try:
            return str(_evaluate(ast.parse(filled.strip(), mode="eval").body))
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
            return f"$(({expression}))"


def _evaluate(node: ast.expr) -> int:
    """Value of whole numbers with + - * / %."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.left), _evaluate(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand)
    raise ValueError("no arithmetic of whole numbers")
