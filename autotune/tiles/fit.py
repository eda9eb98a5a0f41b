"""Seconds of each count of the CPU model, fitted to recorded times and judged on shapes that were left out.

`python -m towtank.autotune.tiles.fit` prints the judgement; `--write` puts the rates into cpu_rates.yaml.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from towtank.autotune.tiles.captures import Capture, Record, load, shipped
from towtank.autotune.tiles.cpu_model import TERMS, Cpu, counts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FITTED = tuple(name for name in TERMS if name != "parallel")
PARALLEL_S = 5e-6
"""Seconds of one meeting of all threads: two waits on a counter. Captures of one thread do not tell"""
SAMPLE, TOP, DRAWS = 40, 5, 200


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the model orders the tiles of one shape."""

    shape: tuple[int, ...]
    correlation: float
    """Spearman's, of all tiles."""
    sample_correlation: float
    """The median over random samples of tiles."""
    sample_correlation_least: float
    top: float
    """Time of the best of the model's top tiles over the least of all."""
    sample_top: float
    """The same within samples, the median."""
    sample_top_within: float
    """Share of the samples in which it is 1.05 at most."""
    error: float
    """Median relative error."""


def features(records: Sequence[Record], cpu: Cpu) -> "Array":
    """Counts of the fitted terms, a row for each record."""
    import numpy as np

    found = [counts(each.sizes, each.tile, cpu) for each in records]
    return np.array([[each[name] for name in FITTED] for each in found])


def fit(records: Sequence[Record], cpu: Cpu) -> dict[str, float]:
    """Rates that are not negative and leave the least sum of squared relative errors."""
    import numpy as np

    rates = _solve(features(records, cpu), np.array([each.least_s for each in records]))
    return {**{name: float(each) for name, each in zip(FITTED, rates, strict=True)}, "parallel": PARALLEL_S}


def _solve(table: "Array", times: "Array") -> "Array":
    import numpy as np
    from scipy.optimize import nnls

    relative = table / times[:, None]
    scale = np.where(relative.max(axis=0) > 0, relative.max(axis=0), 1.0)
    found, _ = nnls(relative / scale, np.ones(len(times)))
    return np.asarray(found / scale)


def left_out(capture: Capture, cpu: Cpu) -> "Iterator[tuple[tuple[int, ...], Array, Array]]":
    """(shape, predicted, measured) of each shape of a capture of one thread, by rates fitted to the others."""
    import numpy as np

    table = features(capture.records, cpu)
    times = np.array([each.least_s for each in capture.records])
    shapes = np.array([tuple(each.sizes.values()) for each in capture.records])
    for shape in capture.shapes():
        own = (shapes == shape).all(axis=1)
        yield shape, table[own] @ _solve(table[~own], times[~own]), times[own]


def judge(shape: tuple[int, ...], predicted: "Array", measured: "Array", seed: int = 0) -> Judgement:
    """How well predictions order the tiles of one shape."""
    import numpy as np

    random = Random(seed)
    samples = [random.sample(range(len(measured)), SAMPLE) for _ in range(DRAWS)]
    correlations = [spearman(predicted[sample], measured[sample]) for sample in samples]
    tops = [_top(predicted[sample], measured[sample]) for sample in samples]
    return Judgement(
        shape,
        spearman(predicted, measured),
        median(correlations),
        min(correlations),
        _top(predicted, measured),
        median(tops),
        sum(top <= 1.05 for top in tops) / DRAWS,
        float(np.median(np.abs(predicted / measured - 1))),
    )


def spearman(predicted: "Array", measured: "Array") -> float:
    """Spearman's rank correlation; ties, of tiles that differ in nothing that is counted, share their mean rank."""
    import numpy as np
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(predicted), rankdata(measured))[0, 1])


def _top(predicted: "Array", measured: "Array") -> float:
    return float(measured[predicted.argsort(kind="stable")[:TOP]].min() / measured.min())


def recorded_cpu() -> Cpu:
    """The core of the shipped capture: AMD EPYC of the third generation (Zen 3), as its caches were told there."""
    return Cpu(vector_floats=8, registers=16, l1_bytes=32 << 10, l2_bytes=512 << 10, l3_bytes=32 << 20)


def main() -> None:
    """Print the judgement, and write the rates where asked to."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="write the rates into cpu_rates.yaml")
    options = parser.parse_args()
    for name in shipped():
        capture, cpu = load(name), recorded_cpu()
        print(f"{name}\n{capture.heading}\nEach shape by rates fitted to the others:")
        print("shape           Spearman  40 tiles  (least)  top 5 of all  top 5 of 40  within 5 %  error")
        for each in (judge(*part) for part in left_out(capture, cpu)):
            shape = "x".join(map(str, each.shape))
            print(
                f"{shape:15} {each.correlation:8.3f}  {each.sample_correlation:8.3f}  "
                f"{each.sample_correlation_least:7.3f}  {each.top:12.3f}  {each.sample_top:11.3f}  "
                f"{each.sample_top_within:10.0%}  {each.error:5.1%}"
            )
        if options.write:
            _write(name, fit(capture.records, cpu))


def _write(name: str, rates: Mapping[str, float]) -> None:
    lines = [
        "# Seconds of each count of cpu_model.py, by python -m towtank.autotune.tiles.fit --write, which says",
        f"# how far they can be trusted. Fitted to kernels/captures/{name}; `parallel` is assumed (fit.py).",
        "seconds:",
        *(f"  {key}: {value:.3e}" for key, value in rates.items()),
    ]
    Path(__file__).with_name("cpu_rates.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
