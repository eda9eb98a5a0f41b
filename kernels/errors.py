"""What can go wrong with kernels through no fault of ours."""


class KernelError(ValueError):
    """A kernel, backend or device that is not there, or that may not be used; the message says what to do."""


class TooLargeError(KernelError):
    """Inputs that the memory of the device cannot hold."""
