"""How far a kernel may be from float64: one table for all kernels and dtypes."""

from functools import cache
from importlib import resources

import yaml


@cache
def _table() -> dict[str, dict[str, float]]:
    text = resources.files("towtank.kernels").joinpath("tolerances.yaml").read_text("utf-8")
    table: dict[str, dict[str, float]] = yaml.safe_load(text)
    return table


def tolerance(dtype: str, summed: int) -> float:
    """Largest relative error of an output in `dtype` whose elements are sums of `summed` products.

    e = output + accumulation sqrt(summed), with both units from `tolerances.yaml`.

    Raises:
        KeyError: the table has no such dtype.
    """
    table = _table()
    error: float = table["output"][dtype] + table["accumulation"][dtype] * max(1, summed) ** 0.5
    return error


def smallest(dtype: str) -> float:
    """Largest absolute error of an element in `dtype` that is its own scale, beside the relative one: what is lost
    where numbers lie evenly.

    Raises:
        KeyError: the table has no such dtype.
    """
    return _table()["smallest"][dtype]
