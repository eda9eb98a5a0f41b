"""Profile files on disk: where they lie, which one wins, and their YAML."""

import os
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml

from towtank.hardware_profiles.errors import InvalidProfile, ProfileError, UnknownProfile
from towtank.hardware_profiles.fields import Kind
from towtank.hardware_profiles.nearest import did_you_mean

SHIPPED: Final = Path(__file__).parent
ENVIRONMENT: Final = "TOWTANK_PROFILES"

Layers = tuple[Path, ...]
"""Folders with devices/, machines/ and networks/ inside, the winning one first."""

# libyaml parses ten times as fast; a PyYAML built without it still works.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(_Base):  # type: ignore[misc]
    """YAML in which a key may stand once only: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; raises yaml.constructor.ConstructorError for a key that stands twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice; keep one of the two", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _or_yaml_error(construct: Callable[[Any, yaml.ScalarNode], Any]) -> Callable[[Any, yaml.ScalarNode], Any]:
    """Constructor whose ValueError, of 2024-13-01 or 0x_, is a fault of the file like any other."""

    def checked(loader: Any, node: yaml.ScalarNode) -> Any:
        try:
            return construct(loader, node)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no value: {error}", node.start_mark
            ) from error

    return checked


for _tag in ("int", "float", "timestamp"):
    _name = f"tag:yaml.org,2002:{_tag}"
    StrictLoader.add_constructor(_name, _or_yaml_error(_Base.yaml_constructors[_name]))


def layers(profile_dirs: Sequence[Path | str] = ()) -> Layers:
    """Folders to search: `profile_dirs`, then those of the environment variable TOWTANK_PROFILES, then ours.

    Raises `ProfileError` for a folder that does not exist.
    """
    private = [Path(folder) for folder in profile_dirs]
    private += [Path(folder) for folder in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if folder]
    for folder in private:
        if not folder.is_dir():
            raise ProfileError(
                f"profile folder {folder} does not exist; "
                f"name a folder that holds devices/, machines/ or networks/"
            )
    return (*private, SHIPPED)


def find(kind: Kind, name: str, search: Layers) -> tuple[Path, Layers]:
    """File of the profile `name` and the layers below it; raises `UnknownProfile` with the nearest names."""
    for number, folder in enumerate(search):
        path = folder / kind / f"{name}.yaml"
        if path.is_file():
            return path, search[number + 1 :]
    singular = kind.removesuffix("s")
    known = sorted({*names(kind, search), *aliases(kind, search)})
    raise UnknownProfile(
        f"no {singular} is named {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
    )


def names(kind: Kind, search: Layers) -> list[str]:
    """Names of all profiles of one kind, sorted."""
    return sorted({path.stem for folder in search for path in (folder / kind).glob("*.yaml")})


def aliases(kind: Kind, search: Layers) -> dict[str, str]:
    """Other names of profiles, each with the name that it stands for; an upper layer wins."""
    table: dict[str, str] = {}
    for folder in reversed(search):
        for path in sorted((folder / kind).glob("*.yaml")):
            # Most files have none, and parsing all of them takes longer than the rest of a prediction.
            if b"\naliases:" in path.read_bytes():
                listed = read(path).get("aliases")
                table |= {str(alias): path.stem for alias in listed or ()} if isinstance(listed, list) else {}
    return table


def canonical(kind: Kind, name: str, search: Layers) -> str:
    """Name of the file that `name`, in any case, means: itself or what it is an alias of."""
    lower = name.strip().lower()
    if any((folder / kind / f"{lower}.yaml").is_file() for folder in search):
        return lower
    return aliases(kind, search).get(lower, lower)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `InvalidProfile` with line and column where it is none.

    The mapping is shared between calls: do not change it.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror}") from error
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read(path: Path, modified_ns: int, size: int) -> dict[str, Any]:
    """Time and size are arguments so that a file edited under a running process is read again."""
    try:
        document = yaml.load(path.read_bytes().decode("utf-8"), Loader=StrictLoader)
    except UnicodeDecodeError as error:
        raise InvalidProfile(path, [f"byte {error.start} is not UTF-8; save the file as UTF-8"]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidProfile(path, [f"{place}not valid YAML: {error.problem}"]) from error
    except yaml.YAMLError as error:
        raise InvalidProfile(path, [f"not valid YAML: {error}"]) from error
    if document is None:
        raise InvalidProfile(path, [f"the file is empty; write name: {path.stem} and from: or the figures"])
    if not isinstance(document, dict):
        raise InvalidProfile(path, [f"a profile is a mapping of keys, got {type(document).__name__}"])
    return document
