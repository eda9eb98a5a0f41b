"""Which model of the zoo has the shape in a file."""

from functools import cache

from towtank.autotune.export.names import names_of
from towtank.autotune.reading.records import Options
from towtank.simulator.models.load import list_models, load_model
from towtank.simulator.models.records import Attention, ModelSpec

_NAMES = names_of("megatron")
_SHAPE = ("num_layers", "hidden", "heads")
_MORE = ("ffn", "kv_heads", "vocab", "num_experts")


def model_of(options: Options, given: ModelSpec | None) -> tuple[str | None, ModelSpec | None]:
    """Name and record of the model in the zoo with the shape in the options; a fault where `given` has another."""
    shape = {key: options.number(_NAMES[key]) for key in (*_SHAPE, *_MORE)}
    if options.raw(_NAMES["grouped_queries"]) is None:
        shape["kv_heads"] = None  # a dump has the default of an option that is off
    if given is not None:
        options.faults += [
            f"{_NAMES[key]} {value}, but {given.name} has {_of(given, key)}; name the model of the file with --model"
            for key, value in shape.items()
            if key in _SHAPE and value is not None and value != _of(given, key)
        ]
        return None, given
    if any(shape[key] is None for key in _SHAPE):
        return None, None
    matching = [name for name in _names() if _alike(load_model(name), shape)]
    names = {load_model(name).name for name in matching}
    if len(names) != 1:
        if names:
            options.notes.append(f"the shape is that of {', '.join(sorted(names))}; say which with --model")
        return None, None
    name = names.pop()
    return name, load_model(name)


@cache
def _names() -> tuple[str, ...]:
    return tuple(list_models())


def _alike(model: ModelSpec, shape: dict[str, int | None]) -> bool:
    return all(value is None or value == _of(model, key) for key, value in shape.items()) and (
        (shape["num_experts"] is None) == (model.experts is None)
    )


def _of(model: ModelSpec, key: str) -> int | None:
    attention = model.attention
    values = {
        "num_layers": model.num_layers,
        "hidden": model.hidden,
        "heads": attention.heads,
        "ffn": model.mlp.hidden,
        "kv_heads": attention.kv_heads if isinstance(attention, Attention) else None,
        "vocab": model.vocab,
        "num_experts": model.experts.num_experts if model.experts else None,
    }
    return values[key]
