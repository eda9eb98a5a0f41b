"""Peak memory of a process: its resident pages above those of the empty process, or the allocator of its GPU."""

from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What makes the kernel forget the peak of resident pages (proc(5), clear_refs)."""


def _status_bytes(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == key:
            return 1024 * int(value.split()[0])
    return None


@dataclass(slots=True)
class PeakMemory:
    """Watches the memory of this process from now on; make it before the model, when libraries are loaded."""

    device_type: str
    empty_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.device_type == "cpu":
            warm_libraries()
            self.empty_bytes = _status_bytes("VmRSS")
        self.forget()

    def forget(self) -> None:
        """Let the peak begin anew."""
        if self.device_type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        except OSError:  # then the peak is that of the whole process, which is the same but for loading
            return

    def peak_bytes(self) -> float | None:
        """Peak so far: resident bytes above the empty process, or those of the allocator; None: not known here."""
        if self.device_type == "cuda":
            import torch

            return float(torch.cuda.max_memory_allocated())
        peak = _status_bytes("VmHWM")
        if peak is None or self.empty_bytes is None:
            return None
        return float(max(0, peak - self.empty_bytes))


def warm_libraries() -> None:
    """Run a small product forward and backward, so that pages of libraries do not count as the model's."""
    import torch

    left = torch.ones(64, 64, requires_grad=True)
    for dtype in (torch.float32, torch.float64):
        made = torch.nn.functional.silu(left.to(dtype) @ left.to(dtype))
        # with a gradient of our own: PyTorch then loads more of itself
        made.backward(torch.ones_like(made))  # type: ignore[no-untyped-call]
