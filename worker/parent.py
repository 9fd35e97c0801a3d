"""Tells whoever started this worker whether it takes jobs, on an inherited descriptor: `traind up` says it on.

A line of JSON, {"trouble": null or text}, once it takes jobs or first cannot, and again whenever that changes. Shorter
than PIPE_BUF, so that a line of a worker that is killed, or two workers' lines, never mix.
"""

from __future__ import annotations

import contextlib
import json
import os

MOST_CHARACTERS = 600
"""Of at most six bytes each in JSON."""


class Parent:
    """Of one worker process; `descriptor` None: nobody asked."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._told: str | None = ""  # nothing yet
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def tell(self, trouble: str | None) -> None:
        """Say why no job is taken now, or None, if that is news. Raises nothing."""
        if self._descriptor is None or trouble == self._told:
            return
        self._told = trouble
        line = json.dumps({"trouble": trouble and trouble[:MOST_CHARACTERS]}) + "\n"
        with contextlib.suppress(OSError):  # whoever asked is gone
            os.write(self._descriptor, line.encode())
