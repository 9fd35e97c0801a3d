"""The command line `traind`. `main` is its entry point; the rest is imported when it runs."""

from __future__ import annotations

import atexit
import gc

OBJECTS = 100_000
"""How many new objects trigger a garbage collection. Objects created while modules are loaded are all kept, and looking
for garbage among them takes a quarter of a short command's time.
"""


def main() -> None:
    """Run the command line and exit. Ctrl-C has the same effect during the import as later."""
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)  # so that the collection at exit skips everything, too
    try:
        from traind.cli.app import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
