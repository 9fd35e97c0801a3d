"""How OpenMP's threads wait for work: asleep. Called before torch is loaded, by whatever starts a trainer.

By default libgomp's idle threads spin, which beside other work makes a job with two threads ten times slower than one
with one. libgomp reads its environment once, when it is loaded with torch.
"""

from __future__ import annotations

import os

OWN_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_threads_sleep() -> None:
    """Set OMP_WAIT_POLICY=PASSIVE for this process and its children, unless the user has said how threads wait."""
    if not any(name in os.environ for name in OWN_SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
