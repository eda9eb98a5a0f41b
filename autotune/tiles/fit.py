"""Seconds of each count of the CPU model, fitted to recorded times and judged on shapes that were left out.

`python -m towtank.autotune.tiles.fit` prints the judgement; `--write` puts the rates into cpu_rates.yaml.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

from towtank.autotune.tiles.captures import Capture, Record, load, shipped
from towtank.autotune.tiles.cpu_model import TERMS, Cpu, counts, seconds

FITTED = tuple(name for name in TERMS if name != "parallel")
PARALLEL_S = 5e-6
"""Seconds of one meeting of all threads: two waits on a counter; captures of one thread do not tell."""
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


def fit(records: Sequence[Record], cpu: Cpu) -> dict[str, float]:
    """Rates that are not negative and leave the least sum of squared relative errors."""
    import numpy as np
    from scipy.optimize import nnls

    table = np.array([[counts(each.sizes, each.tile, cpu)[name] for name in FITTED] for each in records])
    table /= np.array([each.least_s for each in records])[:, None]
    scale = np.where(table.max(axis=0) > 0, table.max(axis=0), 1.0)
    found, _ = nnls(table / scale, np.ones(len(records)))
    return {
        **{name: float(each) for name, each in zip(FITTED, found / scale, strict=True)},
        "parallel": PARALLEL_S,
    }


def judge(records: Sequence[Record], cpu: Cpu, rates: Mapping[str, float], seed: int = 0) -> Judgement:
    """How well the model with these rates orders the tiles of one shape."""
    predicted = [seconds(each.sizes, each.tile, cpu, rates) for each in records]
    measured = [each.least_s for each in records]
    everything = range(len(records))
    random = Random(seed)
    samples = [random.sample(everything, SAMPLE) for _ in range(DRAWS)]
    correlations = [_correlation(predicted, measured, sample) for sample in samples]
    tops = [_top(predicted, measured, sample) for sample in samples]
    return Judgement(
        tuple(records[0].sizes.values()),
        _correlation(predicted, measured, everything),
        median(correlations),
        min(correlations),
        _top(predicted, measured, everything),
        median(tops),
        sum(top <= 1.05 for top in tops) / DRAWS,
        median(abs(one / other - 1) for one, other in zip(predicted, measured, strict=True)),
    )


def _correlation(predicted: Sequence[float], measured: Sequence[float], chosen: Sequence[int]) -> float:
    from scipy.stats import spearmanr

    return float(
        spearmanr([predicted[each] for each in chosen], [measured[each] for each in chosen]).statistic
    )


def _top(predicted: Sequence[float], measured: Sequence[float], chosen: Sequence[int]) -> float:
    first = sorted(chosen, key=predicted.__getitem__)[:TOP]
    return min(measured[each] for each in first) / min(measured[each] for each in chosen)


def left_out(capture: Capture, cpu: Cpu) -> Iterator[Judgement]:
    """The judgement of each shape by rates that were fitted to the others."""
    for shape in capture.shapes():
        others = [each for each in capture.records if tuple(each.sizes.values()) != shape]
        yield judge(capture.of(shape), cpu, fit(others, cpu))


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
        for each in left_out(capture, cpu):
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
        "# Seconds of each count of cpu_model.py. Written by python -m towtank.autotune.tiles.fit --write, which says",
        f"# how far they can be trusted. Fitted to kernels/captures/{name}; `parallel` is assumed (fit.py).",
        "seconds:",
        *(f"  {key}: {value:.3e}" for key, value in rates.items()),
    ]
    Path(__file__).with_name("cpu_rates.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
