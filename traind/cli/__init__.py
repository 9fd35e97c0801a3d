"""The command line `traind`. `main` is its entry point; the rest is imported when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit."""
    from traind.cli.app import main as run

    run()
