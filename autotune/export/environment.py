"""Variables of the environment that a plan decides, whatever the program."""

from towtank.simulator.plan import Precision

TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"
"""PyTorch's switch (aten/src/ATen/Context.cpp): 1 rounds the operands of fp32 multiplies to TF32, 0 keeps them."""


def precision_variables(precision: Precision) -> tuple[tuple[str, str], ...]:
    """What tells fp32 from TF32, which programs have no option for; empty for narrower formats."""
    return ((TF32, "1" if precision == "tf32" else "0"),) if precision in ("fp32", "tf32") else ()
