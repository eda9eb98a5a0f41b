"""Golden journals: tests/golden/lowering/*.txt list every operation of one layer, both passes, with its stream,
its size and what it waits for. After a wanted change, write them anew with

    TOWTANK_ACCEPT=1 pytest tests/simulator/lowering/test_golden.py

and read the difference.
"""

import os
from pathlib import Path

import pytest
from lowered import gpt, moe, plan, stack_with

from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Operation, Stream
from towtank.simulator.program import lower

GOLDEN = Path(__file__).parents[2] / "golden" / "lowering"

CASES = {
    "megatron-tp4-sp": (
        gpt(),
        plan(tensor_x=4, sequence_parallel=True, micro_batch=2),
        "megatron-core",
        "Megatron-Core, x = 4 with sequence parallelism.\n"
        "Hidden state: 256 tokens x 256 x 2 B = 131072 B; weights of x: 192 x 256, 256 x 64, 256 x 256 twice.",
    ),
    "axonn-x2y2z2": (
        gpt(),
        plan(tensor_x=2, tensor_y=2, tensor_z=2, micro_batch=2),
        "axonn",
        "AxoNN, x = y = z = 2, overlaps of input gradients, reduce-scatters and all-gathers on.\n"
        "Outputs of QKV: 256 tokens x 768 / 2 x 2 B = 196608 B, summed over y; input gradients\n"
        "256 x 256 / 2 x 2 B = 65536 B, summed over x. Weight of QKV: 768 x 256 / 4 x 2 B = 98304 B over z.",
    ),
    "fsdp8": (
        gpt(),
        plan(data=8, zero_stage=3, recompute="full", micro_batch=2),
        "torchtitan",
        "torchtitan FSDP over 8 devices with full recompute.\n"
        "Weights of a layer: (12 x 256^2 + 2 x 256) x 2 B = 1573888 B; gradients in fp32: twice that.",
    ),
    "moe-ep4": (
        moe(),
        plan(data=4, expert=4, micro_batch=2),
        "megatron-core",
        "Megatron-Core, 8 experts over 4 devices, 2 experts a token.\n"
        "Copies: 256 tokens x 2 x 256 x 2 B = 262144 B; each device handles 512 of them, 256 for each expert.",
    ),
    "ring-cp2": (
        gpt(),
        plan(context=2, micro_batch=2),
        "megatron-core",
        "Megatron-Core, ring attention over 2 devices.\n"
        "Keys and values of both: 2 x 256 tokens x 256 x 2 B = 262144 B; backward their gradients as well.",
    ),
}


def describe(work) -> str:
    if isinstance(work, Matmul):
        batch = f" x {work.batch}" if work.batch > 1 else ""
        return f"matmul {work.m} x {work.n} x {work.k}{batch} {work.precision}"
    if isinstance(work, AttentionCore):
        return f"attention {work.batch} x {work.queries} queries x {work.keys} keys, {work.heads} heads"
    if isinstance(work, Elementwise):
        return f"{work.bytes:.0f} B, {work.launches} launches"
    return f"{work.collective} {work.bytes:.0f} B over {work.group}"


def waits(operation: Operation, names: list[str]) -> str:
    """What the operation waits for besides the operation before it on its stream."""
    found = []
    for index, back in operation.after:
        found.append(names[index] if back == 0 else f"compute {index} of layer {-back:+d}")
    return ", ".join(dict.fromkeys(found))


def journal(key: str) -> str:
    model, the_plan, stack, explanation = CASES[key]
    program = lower(model, the_plan, stack_with(stack))
    lines = [*explanation.splitlines(), ""]
    for title, blocks in (("forward", program.forward), ("backward", program.backward)):
        lines += [f"{title} pass of a layer", f"  {'stream':16} {'operation':38} {'size':52} waits for"]
        segment = next(s for s in blocks[0][0].segments if s.prefixes[0].startswith("layer."))
        names = [operation.name for operation in segment.template]
        for operation in segment.template:
            mark = "~" if operation.phase == "recompute" else " "
            stream = "" if operation.stream is Stream.COMPUTE else str(operation.stream)
            text = f"{mark} {stream:16} {operation.name:38} {describe(operation.work):52} {waits(operation, names)}"
            lines.append(text.rstrip())
        lines.append("")
    lines.append("~ recomputed")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("key", CASES)
def test_golden(key):
    path = GOLDEN / f"{key}.txt"
    if os.environ.get("TOWTANK_ACCEPT"):
        path.write_text(journal(key), encoding="utf-8")
    assert journal(key) == path.read_text(encoding="utf-8")
