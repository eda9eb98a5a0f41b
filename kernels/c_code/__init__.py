"""Matrix multiply in generated C, compiled for the CPU at hand by the system's compiler."""
