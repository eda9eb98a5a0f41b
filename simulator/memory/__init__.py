"""Memory: bytes that each stage needs on a device at its peak, and what they consist of."""

from towtank.simulator.memory.stages import StageMemory, stage_memories

__all__ = ["StageMemory", "stage_memories"]
