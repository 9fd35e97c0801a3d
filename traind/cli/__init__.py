"""The command line `traind`. `main` is its entry point; the rest is imported when it runs."""

from __future__ import annotations

import atexit
import gc

OBJECTS = 100_000
"""How many new objects there are between two collections of garbage. While modules are loaded, all are kept, and
looking for garbage among them takes a quarter of a short command's time.
"""


def main() -> None:
    """Run the command line and exit; Ctrl-C while it is still being loaded ends it as it does later."""
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)  # so that the collection at exit, too, passes over everything
    try:
        from traind.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
