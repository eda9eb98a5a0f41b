"""AxoNN runs whose source does not print the grid."""

from dataclasses import replace

from towtank.hardware_profiles.records import Machine
from towtank.simulator.axonn import Workload, minimum_tensor_product, rank_grids
from towtank.simulator.errors import PlanError
from towtank.simulator.models.count import parameters
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.records import Stack


def fastest_ranked_plan(
    model: ModelSpec, machine: Machine, stack: Stack, devices: int, global_batch: int, *, top: int = 10
) -> tuple[int, Plan]:
    """Rank (from 1) and plan of the fastest of the `top` grids of AxoNN's communication model, with full
    recomputation and the largest micro-batch that fits, as its authors chose theirs (Singh et al., SC'24, section 5).

    Raises:
        PlanError: no grid fits, or the arguments allow none.
    """
    workload = Workload.gpt(
        num_layers=model.num_layers,
        hidden=model.hidden,
        sequences=global_batch,
        sequence_length=model.sequence,
    )
    ranking = rank_grids(
        workload,
        devices,
        machine,
        min_tensor=minimum_tensor_product(parameters(model).total),
        heads=model.attention.heads,
        top=top,
    )
    found = []
    for rank, ranked in enumerate(ranking.grids, start=1):
        plan = ranked.grid.apply_to(Plan(global_batch=global_batch, recompute="full", precision="bf16"))
        prediction = _largest_fitting(model, machine, stack, plan)
        if prediction is not None:
            found.append((prediction.step_time_s, rank, prediction.plan))
    if not found:
        raise PlanError(
            [f"none of the {len(ranking.grids)} best grids for {model.name} fits {machine.name}"], "grids"
        )
    _, rank, plan = min(found, key=lambda entry: entry[0])
    return rank, plan


def _largest_fitting(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Prediction | None:
    replica = plan.global_batch // (plan.tensor_z * plan.data)
    micro_batch = replica
    while micro_batch >= 1:
        if replica % micro_batch == 0:
            prediction = predict(model, machine, replace(plan, micro_batch=micro_batch), stack=stack)
            if prediction.fits:
                return prediction
        micro_batch //= 2
    return None
