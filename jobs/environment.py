"""Variables of the environment that begin with TRAIND_ and that nothing reads: mostly a misspelt name.

They are told and not refused: several programs of one environment may share its variables, and Kubernetes makes some
for a service that is called traind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches

from jobs.settings import Settings

OF_OTHERS = (
    *("TRAIND_URL", "TRAIND_API_KEY", "TRAIND_DATA_DIR"),  # the CLI
    "TRAIND_KERNEL",  # optim_core
    *("TRAIND_DATABASE_PASSWORD", "TRAIND_REDIS_PASSWORD"),  # docker-compose.yml
    *("TRAIND_WORKER_CPUS", "TRAIND_WORKER_MEMORY_LIMIT", "TRAIND_STOP_GRACE_PERIOD"),  # docker-compose.yml
)
KNOWN = (*(f"TRAIND_{name.upper()}" for name in Settings.model_fields), *OF_OTHERS)
_KUBERNETES = re.compile(r"TRAIND_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)")
MOST_CHARACTERS = 80


def unread_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """For each such variable a line that names it and the one that may be meant; never its value."""
    names = sorted({name.upper() for name in environ if name.upper().startswith("TRAIND_")} - set(KNOWN))
    return [_line(name) for name in names if not _KUBERNETES.fullmatch(name)]


def _line(name: str) -> str:
    known = [each.removeprefix("TRAIND_") for each in KNOWN]
    close = get_close_matches(name.removeprefix("TRAIND_"), known, n=1, cutoff=0.7)
    remedy = f"did you mean TRAIND_{close[0]}?" if close else "docs/configuration.md lists what there is"
    return f"{name[:MOST_CHARACTERS]} is set, but traind has no such variable, so it does nothing; {remedy}"
