"""Predict one training step: the way from model, machine and plan to a Prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine, chosen, known
from towtank.simulator.bounds import step_bound
from towtank.simulator.cost.calibrated import stack_on
from towtank.simulator.cost.compute import peak
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.errors import PlanError
from towtank.simulator.graph import Engine
from towtank.simulator.memory import StageMemory, stage_memories
from towtank.simulator.models.flop import forward_flop, model_flop_per_token
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.network.crossing import group_pair_bytes_per_s
from towtank.simulator.network.surroundings import (
    Surroundings,
    check_surroundings,
    groups_of,
    surroundings_text,
)
from towtank.simulator.operation_times import operation_times
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import load_plan
from towtank.simulator.plan_rules import check
from towtank.simulator.program import Program, lower
from towtank.simulator.record import StepRecord
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack
from towtank.simulator.step import StepTime, time_step
from towtank.simulator.step_flows import StepFlows
from towtank.simulator.waiting import WAITING, slowest

EngineName = Literal["compiled", "simpy", "flows"]
DEFAULT_STACK = "megatron-core"


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """One predicted step. MFU and HFU count attention in full, as published figures do (Chowdhery et al.,
    PaLM, appendix B); HFU adds recomputed FLOP."""

    model: ModelSpec
    machine: Machine
    plan: Plan
    stack: Stack
    engine: EngineName
    step_time_s: float
    bound_s: float
    """Closed-form lower bound of the step time."""
    tokens_per_step: int
    model_flop: float
    """FLOP of forward and backward pass of the whole batch, without recomputation."""
    executed_flop: float
    mfu: float
    hfu: float
    breakdown_s: Mapping[str, float]
    memory: tuple[StageMemory, ...]
    memory_capacity_bytes: float
    provenance: tuple[str, ...]
    """What the prediction stands on."""
    step: StepTime
    surroundings: Surroundings = field(default_factory=Surroundings)
    """Placement of the job's nodes, and what other jobs take of the links."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens of the whole job per second."""
        return self.tokens_per_step / self.step_time_s

    @property
    def flop_per_s_per_device(self) -> float:
        """Model FLOP/s of one device."""
        return self.model_flop / self.step_time_s / self.plan.num_devices

    @property
    def executed_flop_per_s_per_device(self) -> float:
        """Executed FLOP/s of one device, recomputation counted."""
        return self.executed_flop / self.step_time_s / self.plan.num_devices

    @property
    def peak_stage(self) -> StageMemory:
        """The stage that needs most memory."""
        return max(self.memory, key=lambda stage: stage.peak_bytes)

    @property
    def peak_memory_bytes(self) -> float:
        """Peak of that stage in bytes per device."""
        return self.peak_stage.peak_bytes

    @property
    def fits(self) -> bool:
        """Whether every stage fits into the device's memory."""
        return self.peak_memory_bytes <= self.memory_capacity_bytes

    def record(self) -> StepRecord:
        """The prediction as a record that compares with a measured step."""
        operations = operation_times(self.step)
        return StepRecord("predicted", self.step_time_s, self.breakdown_s, operations, self.peak_memory_bytes)


def predict(
    model: str | Path | ModelSpec,
    machine: str | Machine,
    plan: str | Path | Plan,
    *,
    stack: str | Stack = DEFAULT_STACK,
    engine: EngineName = "compiled",
    devices: int | None = None,
    profile_dirs: Sequence[Path | str] = (),
    surroundings: Surroundings | None = None,
) -> Prediction:
    """Predict one optimizer step.

    Args:
        model: zoo name, path to a model YAML or a Hugging Face config.json, or a ModelSpec.
        machine: machine name such as `selene` or `dgx-h100:nodes=64`, or a Machine.
        plan: path to a plan file, or a Plan.
        stack: software that the job runs on.
        engine: `compiled` (fast), `simpy` (reference), or `flows` (reference in which collectives between nodes share
            the links of the machine's network).
        devices: number of devices asked for; the plan must occupy exactly these.
        profile_dirs: folders of private profiles.
        surroundings: where the job's nodes lie on the machine and what other jobs take of its links; None: the first
            nodes in order, and nobody else.

    Raises:
        PlanError: the plan or the surroundings break rules; ModelError, ProfileError, StackError: bad names or files;
        UnknownFigure: the machine's profile lacks a figure that the prediction needs.
    """
    directories = tuple(Path(folder) for folder in profile_dirs)
    model_spec = model if isinstance(model, ModelSpec) else load_model(model)
    the_machine = machine if isinstance(machine, Machine) else load_machine(machine, directories)
    the_plan = plan if isinstance(plan, Plan) else load_plan(plan)
    the_stack = stack_on(the_machine, stack if isinstance(stack, Stack) else load_stack(stack))
    check(model_spec, the_machine, the_plan, the_stack, devices)
    around, nodes = surroundings or Surroundings(), -(-the_plan.num_devices // the_machine.node.devices)
    check_surroundings(around, the_machine, nodes, flows=engine == "flows")
    the_plan = possible_overlap(the_plan, the_machine)
    program = lower(model_spec, the_plan, the_stack)
    if around.variability is not None:
        around = replace(around, slowest_link=around.variability.expected_link_share(nodes))
    cost = CostModel(the_machine, the_plan, the_stack, directories, crossing=engine != "flows", around=around)
    step = timed(program, cost, engine)
    if (differ := around.variability) is not None and differ.interruptions_per_s:
        pace = slowest(the_machine, the_plan.num_devices, differ, step.step_time_s)
        cost = cost_at(cost, directories, pace, around)
        step = timed(program, cost, engine)
    return _prediction(program, cost, step, engine)


def timed(program: Program, cost: CostModel, engine: EngineName) -> StepTime:
    """The step on the clock of an engine."""
    return time_step(program, cost, _engine(engine), StepFlows(cost) if engine == "flows" else None)


def cost_at(cost: CostModel, directories: tuple[Path, ...], pace: float, around: Surroundings) -> CostModel:
    """The same costs where the slowest device takes `pace` times as long, in other surroundings."""
    return CostModel(
        cost.machine, cost.plan, cost.stack, directories, pace, crossing=cost.crossing, around=around
    )


def bound(
    model: ModelSpec, machine: Machine, plan: Plan, stack: Stack, profile_dirs: tuple[Path, ...] = ()
) -> float:
    """Closed-form lower bound of the step time in seconds; the plan must have passed its rules."""
    return step_bound(model, CostModel(machine, possible_overlap(plan, machine), stack, profile_dirs))


def possible_overlap(plan: Plan, machine: Machine) -> Plan:
    """The plan without overlap of data-parallel collectives where the device runs one kernel after the other.

    Inside of blocks the single queue itself sees to that (`block_graph`).
    """
    if not machine.device.takes_turns:
        return plan
    return replace(plan, overlap=replace(plan.overlap, data_gradients=False, parameter_gather=False))


def _engine(name: EngineName) -> Engine:
    if name in ("simpy", "flows"):
        from towtank.simulator.engines.simpy_engine import simulate

        return simulate
    if name != "compiled":
        raise PlanError([f"engine = {name!r} is not known; choose compiled, simpy or flows"], "predict")
    return evaluate


def _prediction(program: Program, cost: CostModel, step: StepTime, engine: EngineName) -> Prediction:
    sizes = program.sizes
    model, plan, machine = sizes.model, sizes.plan, cost.machine
    model_flop, executed = _flop(model, plan, sizes.sequence, sizes.stack)
    available = step.step_time_s * plan.num_devices * peak(machine.device, plan.precision)
    capacity = known(
        machine.device,
        "memory_capacity",
        machine.device.memory_capacity_bytes,
        needed_for="the check of memory",
    )
    return Prediction(
        model=model,
        machine=machine,
        plan=plan,
        stack=sizes.stack,
        engine=engine,
        step_time_s=step.step_time_s,
        bound_s=step_bound(model, cost),
        tokens_per_step=plan.global_batch * sizes.sequence,
        model_flop=model_flop,
        executed_flop=executed,
        mfu=model_flop / available,
        hfu=executed / available,
        breakdown_s=step.breakdown_s,
        memory=stage_memories(program),
        memory_capacity_bytes=capacity,
        provenance=_provenance(cost, model),
        step=step,
        surroundings=cost.around,
    )


def _flop(model: ModelSpec, plan: Plan, sequence: int, stack: Stack) -> tuple[float, float]:
    """Model FLOP and executed FLOP of one step, attention counted in full."""
    tokens = plan.global_batch * sequence
    model_flop = tokens * model_flop_per_token(model, sequence, causal=False)
    count = forward_flop(model, sequence, causal=False)
    layers = count.total - count.head - count.embedding
    if stack.kernels.recompute_stops_early:
        layers -= count.mlp / (3 if model.mlp.gated else 2)
    again = 0.0
    if plan.recompute == "full":
        again = layers / plan.recompute_every
    elif plan.recompute == "selective":
        again = count.attention
    return model_flop, model_flop + plan.global_batch * again


def _provenance(cost: CostModel, model: ModelSpec) -> tuple[str, ...]:
    """One sentence on each thing that the numbers stand on."""
    device, fitted = cost.machine.device, cost.stack.fitted
    if cost.machine.calibration is not None:
        kernels = f"kernels and collectives: calibration {device.name}, {cost.machine.calibration.described}"
    elif device.measured_as == device.name:
        kernels = f"kernel times: measured on {device.name}"
    else:
        kernels = f"kernel times: {device.name} was not measured; shape dependence of {device.measured_as}"
    return (
        kernels,
        f"stack {cost.stack.name}: {fitted.source}",
        f"model {model.name}: {model.source}",
        *(
            f"{name}: {text}"
            for name, text in surroundings_text(cost.around, cost.machine, _nodes(cost)).items()
        ),
        *_scale_provenance(cost),
    )


def _nodes(cost: CostModel) -> int:
    return -(-cost.plan.num_devices // cost.machine.node.devices)


def _scale_provenance(cost: CostModel) -> tuple[str, ...]:
    """What the prediction takes for granted about many devices: nothing to say within a group of the network."""
    machine = cost.machine
    found = []
    if cost.slowest > 1:
        given = cost.around.variability
        own = (("speed_spread", given and given.speed), ("step_jitter", given and given.jitter))
        fields = [
            name for name, other in own if getattr(machine, name) is not None and not isinstance(other, float)
        ]
        texts = [machine.sources[name].text for name in fields if name in machine.sources]
        found.append(": ".join((WAITING, "; ".join(texts) or "spread as given")))
    if chosen(machine, "network.taper"):
        found.append(f"{machine.name}: taper {machine.network.taper:g} of its network, chosen by you")
    if groups_of(machine, cost.around.nodes(machine, _nodes(cost))) > 1:
        if group_pair_bytes_per_s(machine) is not None:
            order = ", nodes in order" if cost.around.placed.kind == "contiguous" else ""
            found.append(f"{machine.name}: rings share the cables between groups of the network{order}")
        elif machine.network.group_crossing is None:
            found.append(
                f"{machine.name}: cables between groups of the network are unknown; no contention there"
            )
    return tuple(found)
