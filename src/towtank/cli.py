"""Command line of towtank: arguments only."""


def main() -> None:
    """Run the command line."""
