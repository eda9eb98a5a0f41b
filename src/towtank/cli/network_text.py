"""How `towtank network` prints: text, JSON documents and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.cli.text import count, percent, plural, seconds, significant, table

if TYPE_CHECKING:
    from towtank.cli.network_import import Imported
    from towtank.simulator.network.benchmark import Answer, Setting
    from towtank.simulator.network.placement import Placed
    from towtank.validation.network_fit import Compared


def _size(num_bytes: float) -> str:
    from towtank.hardware_profiles.units import format_bytes

    return format_bytes(num_bytes)


def _rate(bytes_per_s: float) -> str:
    return f"{significant(bytes_per_s / 1e9)} GB/s"


def answer_text(setting: "Setting", answer: "Answer", placed: "Placed") -> str:
    """One collective, with what it stands on."""
    title = f"{answer.collective} of {_size(answer.num_bytes)} {_on(setting)}: {seconds(answer.time_s)}"
    rows = [
        ("time", f"{seconds(answer.time_s)}{_alone(setting, answer)}"),
        (
            "bandwidth",
            f"algorithm {_rate(answer.algorithm_bytes_per_s)}, bus {_rate(answer.bus_bytes_per_s)} "
            "(as nccl-tests count them)",
        ),
        (
            "library",
            f"{setting.library.name}: {answer.choice.algorithm}, protocol {answer.choice.protocol}",
        ),
        *_about(setting, placed),
        ("limits", _limits(setting, answer)),
    ]
    return f"{title}\n\n{table(rows)}"


def _on(setting: "Setting") -> str:
    return f"over {plural(setting.together.size, 'device')} of {setting.machine.name}"


def _alone(setting: "Setting", answer: "Answer") -> str:
    if setting.num_groups == 1:
        return ""
    return (
        f" with {plural(setting.num_groups, 'group')} at once; {seconds(answer.alone_s)} for one alone "
        f"(contention factor {answer.contention:.2f})"
    )


def _about(setting: "Setting", placed: "Placed") -> list[tuple[str, str]]:
    """Groups, placement and other jobs."""
    from towtank.simulator.network.surroundings import background_text

    group = setting.together
    apart = "" if setting.stride == 1 else f", {count(setting.stride)} devices apart"
    where = {
        "contiguous": "contiguous",
        "scattered": f"scattered by a scheduler on a machine that is {percent(placed.fill)} full, seed {placed.seed}",
        "random": f"random, seed {placed.seed}",
    }[placed.kind]
    rows = [
        (
            "groups",
            f"{plural(setting.num_groups, 'group')} of {plural(group.size, 'device')}{apart}; each on "
            f"{plural(group.nodes, 'node')}, {count(group.local)} a node",
        ),
        ("placement", f"{plural(setting.nodes, 'node')}, {where}"),
    ]
    if setting.detour_share > 0:
        rows.append(("routing", f"{percent(setting.detour_share)} of the traffic goes on detours"))
    if taken := background_text(setting.around):
        rows.append(("background", taken))
    return rows


def _limits(setting: "Setting", answer: "Answer") -> str:
    rate = _rate(limit_bytes_per_s(setting, answer))
    links = f"{answer.limit}: at most {rate} of bus bandwidth a group"
    share = f"latency is {percent(answer.latency_share)} of the time"
    return f"latency: {percent(answer.latency_share)} of the time; then {links}" if answer.bound == "latency" else (
        f"{links}; {share}"
    )  # fmt: skip


def limit_bytes_per_s(setting: "Setting", answer: "Answer") -> float:
    """Bus bandwidth that the limiting links leave to a ring."""
    unit = setting.links.fabric.nvls
    if answer.choice.algorithm == "nvls" and unit is not None:
        return unit.reach * setting.together.port_bytes_per_s
    if answer.limit == "links inside the node":
        return setting.together.inside_bytes_per_s * setting.links.fabric.reach[answer.collective]
    return setting.together.between_bytes_per_s


def sweep_text(setting: "Setting", answers: "Sequence[Answer]", placed: "Placed") -> str:
    """A table over sizes."""
    heads = ("size", "time", "algorithm", "protocol", "alg. GB/s", "bus GB/s", "contention", "limits")
    rows = [
        (
            _size(answer.num_bytes),
            seconds(answer.time_s),
            answer.choice.algorithm,
            answer.choice.protocol,
            significant(answer.algorithm_bytes_per_s / 1e9),
            significant(answer.bus_bytes_per_s / 1e9),
            f"{answer.contention:.2f}",
            answer.bound,
        )
        for answer in answers
    ]
    about = [("library", setting.library.name), *_about(setting, placed)]
    return f"{answers[0].collective} {_on(setting)}\n\n{table(about)}\n\n{table(rows, heads, right=(0, 1, 4, 5, 6))}"


def sweep_plot(setting: "Setting", answers: "Sequence[Answer]") -> str:
    """Curves of bus bandwidth and time: all groups at once and, where they share links, one alone."""
    from towtank.simulator.network.collectives import bus_bandwidth
    from towtank.validation.network_plot import size_curves

    kind, size = answers[0].collective, setting.together.size
    name = "all groups at once" if setting.num_groups > 1 else "predicted"
    bandwidth = {name: [(a.num_bytes, a.bus_bytes_per_s / 1e9) for a in answers]}
    times = {name: [(a.num_bytes, a.time_s * 1e6) for a in answers]}
    if setting.num_groups > 1:
        bandwidth["one group alone"] = [
            (a.num_bytes, bus_bandwidth(kind, a.num_bytes, size, a.alone_s) / 1e9) for a in answers
        ]
        times["one group alone"] = [(a.num_bytes, a.alone_s * 1e6) for a in answers]
    return size_curves(bandwidth, times, (), f"{kind} {_on(setting)}")


def document(setting: "Setting", answers: "Sequence[Answer]", placed: "Placed") -> dict[str, Any]:
    """The same as a JSON document: SI units."""
    from towtank import __version__

    group = setting.together
    return {
        "towtank": __version__,
        "machine": setting.machine.name,
        "nodes": setting.nodes,
        "library": setting.library.name,
        "group": {
            "groups": setting.num_groups,
            "size": group.size,
            "stride": setting.stride,
            "nodes": group.nodes,
            "members_a_node": group.local,
        },
        "placement": {"kind": placed.kind, "fill": placed.fill, "seed": placed.seed},
        "background": dict(setting.around.background),
        "detour_share": setting.detour_share,
        "collectives": [_record(setting, answer) for answer in answers],
    }


def _record(setting: "Setting", answer: "Answer") -> dict[str, Any]:
    return {
        "collective": answer.collective,
        "message_bytes": answer.num_bytes,
        "time_s": answer.time_s,
        "alone_s": answer.alone_s,
        "contention_factor": answer.contention,
        "algorithm": answer.choice.algorithm,
        "protocol": answer.choice.protocol,
        "algorithm_bytes_per_s": answer.algorithm_bytes_per_s,
        "bus_bytes_per_s": answer.bus_bytes_per_s,
        "limit": answer.bound,
        "limiting_links": answer.limit,
        "limiting_links_bytes_per_s": limit_bytes_per_s(setting, answer),
        "latency_share": answer.latency_share,
    }


def comparison_text(imported: "Imported") -> str:
    """Rows of a file beside predictions, and what a fit has changed."""
    from towtank.cli.network_import import columns
    from towtank.validation.network_fit import median_error

    setting, fitted = imported.setting, imported.fitted
    heads = ("size", "measured", "predicted", "error", "bus GB/s", "predicted", "by", "limits")
    if fitted is not None:
        heads = (*heads[:4], "fitted", "error", *heads[6:])
    rows = [
        _comparison(imported, row, None if fitted is None else fitted.rows[number])
        for number, row in enumerate(imported.rows)
    ]
    worst = max(abs(row.error) for row in imported.rows)
    lines = [
        f"{imported.file}: {imported.collective}, {columns(imported.in_place)}, {_on(setting)} "
        f"({plural(setting.together.nodes, 'node')}, {setting.library.name})\n",
        table(rows, heads, right=range(6)),
        f"\n  median error {percent(median_error(imported.rows))}, worst {percent(worst)}, "
        f"{plural(len(imported.rows), 'row')}",
    ]
    if imported.benchmark.wrong:
        lines.append(f"  {plural(imported.benchmark.wrong, 'row')} had wrong results: distrust this run")
    if fitted is not None:
        lines.append(
            f"  fitted: latency {_factor(fitted.latency)}, bandwidth {_factor(fitted.bandwidth)}; "
            f"median error {percent(median_error(fitted.rows))}"
        )
    return "\n".join(lines)


def _factor(value: float | None) -> str:
    return "as before (the rows do not tell)" if value is None else f"x {value:.3g}"


def _comparison(imported: "Imported", row: "Compared", fitted: "Compared | None") -> tuple[str, ...]:
    from towtank.simulator.network.collectives import bus_bandwidth

    size = imported.setting.together.size
    measured = bus_bandwidth(imported.collective, row.num_bytes, size, row.measured_s)
    choice = row.predicted.choice
    start = (
        _size(row.num_bytes),
        seconds(row.measured_s),
        seconds(row.predicted.time_s),
        f"{100 * row.error:+.1f} %",
    )
    middle = (significant(measured / 1e9), significant(row.predicted.bus_bytes_per_s / 1e9))
    if fitted is not None:
        middle = (seconds(fitted.predicted.time_s), f"{100 * fitted.error:+.1f} %")
    return (*start, *middle, f"{choice.algorithm} {choice.protocol}", row.predicted.bound)


def use_of(path: Path) -> str:
    """How a profile that was written is used."""
    if path.absolute().parent.name == "machines":
        return f"profile: {path} (use it with --machine {path.stem} --profiles {path.parent.parent})"
    return f"profile: {path} (put it into DIR/machines, then --machine {path.stem} --profiles DIR)"


def comparison_plot(imported: "Imported") -> str:
    """Measured dots, predicted lines, and the fitted ones."""
    from towtank.simulator.network.collectives import bus_bandwidth
    from towtank.validation.network_plot import size_curves

    kind, size = imported.collective, imported.setting.together.size
    times = {
        "measured": [(row.num_bytes, row.measured_s) for row in imported.rows],
        "predicted": [(row.num_bytes, row.predicted.time_s) for row in imported.rows],
    }
    if imported.fitted is not None:
        times["fitted"] = [(row.num_bytes, row.predicted.time_s) for row in imported.fitted.rows]
    bandwidth = {
        name: [(x, bus_bandwidth(kind, x, size, time_s) / 1e9) for x, time_s in points]
        for name, points in times.items()
    }
    in_us = {name: [(x, time_s * 1e6) for x, time_s in points] for name, points in times.items()}
    return size_curves(bandwidth, in_us, ("measured",), f"{kind} {_on(imported.setting)}")


def comparison_document(imported: "Imported") -> dict[str, Any]:
    """The comparison as a JSON document: SI units."""
    from towtank import __version__
    from towtank.cli.network_import import columns
    from towtank.validation.network_fit import median_error

    fitted = imported.fitted
    return {
        "towtank": __version__,
        "file": str(imported.file),
        "machine": imported.setting.machine.name,
        "library": imported.setting.library.name,
        "collective": imported.collective,
        "devices": imported.setting.together.size,
        "nodes": imported.setting.together.nodes,
        "columns": columns(imported.in_place),
        "wrong_rows": imported.benchmark.wrong,
        "median_error": median_error(imported.rows),
        "rows": [_row_record(row) for row in imported.rows],
        "fit": None
        if fitted is None
        else {
            "latency_factor": fitted.latency,
            "bandwidth_factor": fitted.bandwidth,
            "median_error": median_error(fitted.rows),
            "rows": [_row_record(row) for row in fitted.rows],
        },
    }


def _row_record(row: "Compared") -> dict[str, Any]:
    return {
        "message_bytes": row.num_bytes,
        "measured_s": row.measured_s,
        "predicted_s": row.predicted.time_s,
        "error": row.error,
        "algorithm": row.predicted.choice.algorithm,
        "protocol": row.predicted.choice.protocol,
        "limit": row.predicted.bound,
    }
