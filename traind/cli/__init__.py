"""The command line `traind`. `main` is its entry point; the rest is imported when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit; Ctrl-C while it is still being loaded ends it as it does later."""
    try:
        from traind.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
