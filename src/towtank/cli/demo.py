"""`towtank demo`: published runs predicted."""


def demo() -> None:
    """Predict four published runs and print them beside what was measured."""
