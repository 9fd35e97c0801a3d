"""How well the default number of threads fits: `python -m bench.threads [--rounds N] [--quick] [--json FILE]`.

Jobs of an MLP, a CNN and two 2048-wide MLPs on a warm service, in turns with the default number of threads and with
each fixed one up to the usable cores: on the machine as it is, beside one and beside two processes that keep a core
busy. A job counts from its first batch to its `succeeded` event. A ratio is the default's median over that of the best
fixed number: 1 if the default is the best choice, above 1 if it is slower. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.overhead import run_job
from local.supervisor import Service
from traind import Client
from worker.cores import usable_cores

GOAL = 1.15
BUSY = (0, 1, 2)
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"name": "mlp", "hidden": [128]}, "epochs": 120},
    "cnn": {"model": {"name": "cnn", "channels": [16, 32], "hidden": [64]}, "epochs": 20},
    "mlp_2048": {"model": {"name": "mlp", "hidden": [2048]}, "epochs": 40},
    "mlp_2048_2048": {"model": {"name": "mlp", "hidden": [2048, 2048]}, "epochs": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="traind-bench-data-") as data_dir,
        Service(Path(data_dir)) as service,
        Client(service.url, service.api_key) as client,
    ):
        client.wait(client.submit(spec_of(MODELS["mlp"], None)).id)
        for number in BUSY:
            with busy(number):
                for name, settings in MODELS.items():
                    label = f"{name}_beside_{number}"
                    figures[label] = compare(client, label, settings, 2 if arguments.quick else arguments.rounds)
    worst = max(figures, key=lambda name: figures[name])
    print(f"worst: {worst} {figures[worst]:.2f} (goal: at most {GOAL})")
    text = json.dumps({**figures, "worst": figures[worst]})
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute without end."""
    with ExitStack() as stack:
        for _ in range(processes):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


def spec_of(settings: dict[str, Any], threads: int | None) -> dict[str, Any]:
    return {
        "dataset": {"name": "digits"},
        "model": settings["model"],
        "optimizer": {"name": "adam", "lr": 1e-3},
        "training": {"epochs": settings["epochs"], "batch_size": 32, "threads": threads},
    }


def compare(client: Client, label: str, settings: dict[str, Any], rounds: int) -> float:
    """The default's median seconds over the least median of a fixed number of threads."""
    seconds: dict[int | None, list[float]] = {None: [], **{n: [] for n in range(1, usable_cores() + 1)}}
    for number in range(rounds):
        for threads, values in seconds.items():
            values.append(run_job(client, spec_of(settings, threads)))
        latest = "  ".join(f"{threads or 'default'}: {values[-1]:.2f} s" for threads, values in seconds.items())
        print(f"{label}, round {number + 1} of {rounds}: {latest}", file=sys.stderr)
    medians = {threads: statistics.median(values) for threads, values in seconds.items()}
    default, best = medians.pop(None), min(medians.values())
    fixed = ", ".join(f"{threads} threads {value:.2f} s" for threads, value in medians.items())
    print(f"{label}: default {default:.2f} s, {fixed}; default / best {default / best:.2f}")
    return round(default / best, 3)


if __name__ == "__main__":
    main()
