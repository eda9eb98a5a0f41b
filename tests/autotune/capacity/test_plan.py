"""Capacity plans: assembled from facts, charged, drawn and chosen."""

from dataclasses import replace

import numpy as np
import pytest

from towtank.autotune.capacity.assemble import StepFigures, assemble, observed_rates
from towtank.autotune.capacity.charges import bill, device_power
from towtank.autotune.capacity.choose import Limits, choose, faults_of, knee, one_more_day, pareto
from towtank.autotune.capacity.delivery import delivery
from towtank.autotune.capacity.draws import StepInterval, draw_factors, importance, job_with
from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.facts import reliability, site_of, sites
from towtank.autotune.capacity.request import Charges, Operation, Uncertainty
from towtank.autotune.capacity.run.monte_carlo import simulate_many
from towtank.autotune.capacity.run.records import RunOutcome
from towtank.autotune.capacity.study import CapacityPlan, Request, candidate_devices, plan_run
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

DAY = 86400.0
FIGURES = StepFigures(step_time_s=10.0, devices=1024, parameters=70e9, forward_backward_s=9.0)


def request(**changes) -> Request:
    return Request(load_model("llama2-7b"), 1e11, 256, load_stack("megatron-core"), **changes)


def planned(devices: int = 64, **changes) -> CapacityPlan:
    machine = load_machine("dgx-h100:nodes=32")
    plan = Plan(data=devices, zero_stage=1, global_batch=256)
    changes.setdefault("uncertainty", Uncertainty(runs=20))
    return plan_run(request(**changes), machine, plan)


def test_published_interruptions_are_met_by_the_day() -> None:
    # Llama 3: 419 unexpected interruptions in 54 days on 2,048 nodes are 7.76 a day
    causes = observed_rates(reliability("llama3-h100"), 8)
    a_day = sum(cause.per_node_s * 2048 + cause.per_job_s for cause in causes) * DAY
    assert a_day == pytest.approx(419 / 54, rel=1e-12)


def test_causes_are_those_of_the_published_table() -> None:
    # table 5 of Llama 3: its rows by what broke
    causes = {cause.name: cause.interruptions for cause in reliability("llama3-h100").causes}
    assert causes == {
        "device": 148 + 72 + 19 + 17 + 6 + 6, "node": 32 + 3 + 3 + 2 + 2 + 2 + 2, "link": 35 + 7,
        "software": 54 + 7 + 2,
    }  # fmt: skip
    assert sum(causes.values()) == 419


def test_nodes_of_half_as_many_devices_fail_half_as_often() -> None:
    # 6.5 failures of a thousand nodes of 8 A100 and day; Perlmutter has 4 in a node
    job = assemble(load_machine("perlmutter"), FIGURES, 1000, Operation()).job
    assert job.nodes == 256
    assert job.failures_per_s * DAY == pytest.approx(256 * 0.0065 / 2)


def test_a_checkpoint_is_fourteen_bytes_a_parameter() -> None:
    made = assemble(load_machine("dgx-h100"), FIGURES, 1000, Operation(storage_bytes_per_s=1e11))
    # 70e9 x 14 bytes at 100 GB/s
    assert made.job.checkpoints.write_s == pytest.approx(9.8)
    assert any("0.98 TB" in text for text in made.assumptions)


def test_storage_takes_what_the_nodes_send_and_opens_a_file_a_device() -> None:
    machine = load_machine("dgx-h100")
    sent = machine.node.injection_bytes_per_s
    assert sent is not None
    # 128 nodes send less than 1 PB/s; 1,024 files at 500 a second
    made = assemble(machine, FIGURES, 1000, Operation(storage_bytes_per_s=1e15, storage_files_per_s=500.0))
    assert made.job.checkpoints.write_s == pytest.approx(70e9 * 14 / (128 * sent) + 1024 / 500)
    assert any("network interfaces of 128 nodes" in text for text in made.assumptions)


def test_what_nobody_knows_is_left_out_and_said() -> None:
    made = assemble(load_machine("isambard-ai"), FIGURES, 1000, Operation())
    assert made.job.causes == ()
    assert made.job.checkpoints.write_s == 0
    assert [text.split(":")[0] for text in made.unknown] == [
        "failures of isambard-ai",
        "bandwidth of storage",
    ]


def test_storage_of_the_site_has_its_bandwidth_and_its_metadata() -> None:
    made = assemble(load_machine("alps"), FIGURES, 1000, Operation())
    # 0.98 TB at 1.09 TB/s, and 1,024 files at 374,000 a second
    assert made.job.checkpoints.write_s == pytest.approx(0.98 / 1.09 + 1024 / 374_000)
    given = assemble(load_machine("alps"), FIGURES, 1000, Operation(storage_files_per_s=100.0))
    assert given.job.checkpoints.write_s == pytest.approx(0.98 / 1.09 + 10.24)


def test_limits_of_the_centre_depend_on_the_nodes() -> None:
    frontier = site_of("frontier")
    assert [frontier.limit_s(nodes) for nodes in (1, 92, 184, 9000)] == [7200, 21600, 43200, 43200]
    assert site_of("nowhere").limit_s(1) is None


def test_every_fact_of_a_site_has_a_source() -> None:
    for name, site in sites().items():
        fields = ("unit", "limits", "storage_write", "storage_files_per_s", "carbon_g_per_kwh")
        known = {field for field in fields if getattr(site, field)}
        assert known <= set(site.sources), name
        load_machine(name)


def test_an_unknown_reliability_names_the_nearest() -> None:
    with pytest.raises(CapacityError, match="did you mean 'llama3-h100'"):
        reliability("lama3-h100")


def outcome(training_s: float = 7200.0, restart_s: float = 3600.0, queue_s: float = 1800.0) -> RunOutcome:
    parts = {"training": training_s, "restart": restart_s, "queue": queue_s}
    held = training_s + restart_s
    return RunOutcome(held + queue_s, parts, {}, 1, 1, held)


def test_a_bill_by_hand() -> None:
    machine = load_machine("perlmutter")
    machine = replace(
        machine, device=replace(machine.device, tdp_w=400.0, idle_w=50.0), power_usage_effectiveness=1.1
    )
    charges = Charges(price_per_device_hour_usd=2.0, carbon_g_per_kwh=100.0)
    power = device_power(machine, 0.8, charges)
    # (50 + 350 x 0.8) x 1.1
    assert power.training_w == pytest.approx(363.0)
    assert power.all_w(8, 4) == pytest.approx(8 * 363 + 4 * 55)
    one = bill(outcome(), machine, devices=8, spare_nodes=1, power=power, charges=charges)
    # two working nodes and a spare for three hours
    assert (one.node_hours, one.device_hours, one.allocation_units) == (9, 36, 9)
    # 8 devices: 2 h at 363 W, 1 h at 55 W; 4 spare devices 3 h at 55 W
    assert one.energy_kwh == pytest.approx((8 * (2 * 363 + 55) + 4 * 3 * 55) / 1000)
    assert one.cost_usd == 72
    assert one.carbon_t == pytest.approx(one.energy_kwh * 1e-4)


def test_energy_of_an_unknown_idle_power_is_unknown() -> None:
    machine = load_machine("dgx-h100")
    power = device_power(machine, 0.8, Charges())
    assert power.training_w is None
    assert "power usage effectiveness of dgx-h100" in power.why_unknown
    assert bill(outcome(), machine, 8, 0, power, Charges()).energy_kwh is None


def test_drawn_step_times_have_the_quantiles_of_the_interval() -> None:
    drawn = draw_factors(StepInterval(0.8, 1.3), Uncertainty(runs=20000))["step_time"]
    assert np.quantile(drawn, [0.05, 0.95]) == pytest.approx([0.8, 1.3], rel=0.02)
    assert set(draw_factors(StepInterval(0.8, 1.3), Uncertainty(runs=3))) == {"step_time", "delivery"}


def test_delivery_is_drawn_from_what_was_fitted_to_published_runs() -> None:
    drawn = draw_factors(StepInterval(0.8, 1.3), Uncertainty(runs=20000))["delivery"]
    # quantiles of Student's t with two degrees of freedom, from a table: 0.8165 at 75 %, 2.9200 at 95 %
    ends = np.quantile(np.log(drawn), [0.05, 0.25, 0.5, 0.75, 0.95]) / delivery().scale
    assert ends == pytest.approx([-2.92, -0.8165, 0.0, 0.8165, 2.92], abs=0.08)
    # cut where 1 % lies beyond: no run takes 50 times as long
    assert np.log(drawn).max() / delivery().scale == pytest.approx(6.9646, abs=1e-3)
    job = assemble(load_machine("dgx-h100"), FIGURES, 10, Operation()).job
    assert job_with(job, {"step_time": 1.5, "delivery": 2.0}).training_s == pytest.approx(3 * job.training_s)
    plain = planned(uncertainty=Uncertainty(runs=5, ranges={"delivery": (1.0, 1.0)}))
    assert not any("published runs of" in text for text in plain.assumptions)
    assert any("published runs of" in text for text in planned().assumptions)


def test_an_interval_beside_the_prediction_keeps_its_ends() -> None:
    # runs of this kind were always slower than predicted
    drawn = draw_factors(StepInterval(1.1, 1.4), Uncertainty(runs=20000))["step_time"]
    assert np.quantile(drawn, [0.05, 0.95]) == pytest.approx([1.1, 1.4], rel=0.02)


def test_ranges_are_drawn_within_their_ends_and_reach_the_run() -> None:
    uncertainty = Uncertainty(runs=100, ranges={"failure_rate": (0.5, 2.0), "step_time": (1.0, 1.0)})
    drawn = draw_factors(StepInterval(0.8, 1.3), uncertainty)
    assert 0.5 <= drawn["failure_rate"].min() < drawn["failure_rate"].max() <= 2.0
    job = assemble(load_machine("dgx-h100"), FIGURES, 10, Operation(failures_per_node_day=0.1)).job
    changed = job_with(job, {"failure_rate": 2.0, "step_time": 1.5, "restart": 3.0})
    assert changed.failures_per_s == 2 * job.failures_per_s
    assert changed.training_s == 1.5 * job.training_s
    assert changed.recovery.restart_s == 3 * job.recovery.restart_s


def test_the_input_that_moves_the_run_matters_most() -> None:
    rng = np.random.default_rng(0)
    factors = {"queue": rng.uniform(size=200), "step_time": rng.uniform(size=200)}
    found = importance(factors, 10 * factors["step_time"] + 0.1 * factors["queue"])
    assert [name for name, _ in found] == ["step_time", "queue"]
    assert found[0][1] > 0.9


def test_effective_training_time_of_llama_3_is_above_ninety_percent() -> None:
    """At 16,384 H100 with the published failures, quick detection and restart, checkpoints at Daly's interval."""
    figures = StepFigures(step_time_s=15.0, devices=16384, parameters=405e9, forward_backward_s=14.5)
    operation = Operation(
        reliability="llama3-h100", storage_bytes_per_s=2e12, detection_s=60.0, restart_s=300.0, spare_nodes=16,
    )  # fmt: skip
    job = assemble(load_machine("grand-teton"), figures, int(54 * DAY / 15), operation).job
    outcomes = simulate_many(job, 10, seed=0)
    assert outcomes.mean_goodput >= 0.9
    days = np.mean([run.elapsed_s for run in outcomes.runs]) / DAY
    interruptions = np.mean([run.num_interruptions for run in outcomes.runs]) / days
    assert interruptions == pytest.approx(419 / 54, rel=0.1)


def test_a_whole_plan_has_the_time_of_its_steps_at_least() -> None:
    plan = planned(deadline_s=30 * DAY)
    steps = -int(-1e11 // (256 * 4096))
    assert plan.job.steps == steps
    assert plan.job.training_s == pytest.approx(steps * plan.step_time_s)
    assert plan.days.low < plan.days.median < plan.days.high
    assert plan.chance == np.mean([run.elapsed_s <= 30 * DAY for run in plan.outcomes.runs])
    assert any("price" in text for text in plan.unknown)


def test_choice_front_knee_and_trade() -> None:
    plans = [planned(devices) for devices in (32, 64, 128, 256)]
    front = pareto(plans)
    assert set(map(id, front)) <= set(map(id, plans)) and front
    chosen = choose(plans, Limits())
    assert chosen is not None
    assert chosen.billed("device_hours").median == min(one.billed("device_hours").median for one in plans)
    fast = plans[-1]
    trade = one_more_day(fast, plans)
    assert trade is not None and trade.more_days > 0 and trade.fewer_device_hours > 0
    assert knee(plans) in plans and knee(plans[:2]) is None


def test_the_power_limit_is_that_of_training() -> None:
    plan = planned()
    hot = replace(plan, power_w=2e6)
    assert faults_of(hot, Limits(power_w=1e6)) == ["power 2,000,000 W is over the limit of 1,000,000 W"]
    assert faults_of(hot, Limits(power_w=3e6)) == []


def test_limits_that_are_broken_or_cannot_be_judged_are_said() -> None:
    plan = planned(deadline_s=1 * DAY)
    faults = faults_of(plan, Limits(deadline_s=DAY, budget_usd=1.0, power_w=1.0))
    assert len(faults) == 3
    assert "unknown" in faults[1] and "unknown" in faults[2]
    assert choose([plan], Limits(deadline_s=DAY)) is None


def test_candidates_lie_around_what_the_deadline_asks_for() -> None:
    machine = load_machine("perlmutter")
    short = candidate_devices(request(deadline_s=2 * DAY), machine)
    long = candidate_devices(request(deadline_s=60 * DAY), machine)
    assert max(long) < max(short)
    assert all(devices % machine.node.devices == 0 and devices <= machine.num_devices for devices in short)


def test_spares_that_are_not_asked_for_suffice_in_nineteen_of_twenty_moments() -> None:
    # 1,024 devices are 128 nodes; 0.01 failures of a node and day, a day of repair: 1.28 broken on average.
    # Poisson: 0.278 + 0.356 + 0.228 + 0.097 = 0.959 up to 3
    made = assemble(load_machine("dgx-h100"), FIGURES, 10, Operation(failures_per_node_day=0.01))
    assert made.job.recovery.spare_nodes == 3
    full = assemble(load_machine("dgx-h100:nodes=129"), FIGURES, 10, Operation(failures_per_node_day=0.01))
    assert full.job.recovery.spare_nodes == 1
    asked = assemble(load_machine("dgx-h100"), FIGURES, 10, Operation(spare_nodes=7))
    assert asked.job.recovery.spare_nodes == 7


def test_spares_of_a_large_and_failing_job_are_the_quantile_too() -> None:
    # 1,000 nodes, each failing once a day, a day of repair: every node may be broken, Poisson with mean 1,000
    figures = StepFigures(step_time_s=10.0, devices=8000, parameters=70e9, forward_backward_s=9.0)
    made = assemble(load_machine("dgx-h100"), figures, 10, Operation(failures_per_node_day=1.0))
    # 1,000 + 1.645 sqrt(1,000) = 1,052
    assert made.job.recovery.spare_nodes == pytest.approx(1052, abs=2)


def test_more_spares_than_the_machine_has_nodes_are_refused() -> None:
    with pytest.raises(CapacityError, match="9 spares, but dgx-h100 has 1 nodes beside the 128"):
        assemble(load_machine("dgx-h100:nodes=129"), FIGURES, 10, Operation(spare_nodes=9))


def test_each_job_starts_as_long_as_a_restart_takes() -> None:
    made = assemble(load_machine("frontier"), FIGURES, 10, Operation(restart_s=300.0))
    assert made.job.allocation.start_s == 300
    given = assemble(load_machine("frontier"), FIGURES, 10, Operation(restart_s=300.0, start_s=20.0))
    assert given.job.allocation.start_s == 20


def test_a_ramp_trains_its_tokens_with_smaller_batches_first() -> None:
    plan = planned(ramp=((64, 1e10),))
    first, last = plan.job.stretches
    assert first.steps == -int(-1e10 // (64 * 4096)) and last.steps == -int(-9e10 // (256 * 4096))
    # a step of fewer sequences is shorter, but not by as much as it has fewer
    assert last.step_time_s / 4 <= first.step_time_s < last.step_time_s


def test_a_ramp_that_does_not_divide_says_so() -> None:
    with pytest.raises(CapacityError, match="96 sequences does not divide among 64 replicas"):
        planned(ramp=((96, 1e10),))


def test_without_the_time_of_a_checkpoint_one_in_twenty_intervals_fails_at_most() -> None:
    # 128 nodes, 0.1 failures of a node and day: 6,750 s between failures
    made = assemble(load_machine("dgx-h100"), FIGURES, 1000, Operation(failures_per_node_day=0.1))
    assert made.job.checkpoints.interval_steps == round(6750 / 20 / 10)
    quiet = assemble(load_machine("dgx-h100"), FIGURES, 1000, Operation(failures_per_node_day=0.0))
    assert quiet.job.checkpoints.interval_steps == 360
