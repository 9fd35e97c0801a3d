"""What a job costs beside the bare script: `python -m bench.overhead [--rounds N] [--quick] [--json FILE]`.

The same MLP and CNN on the same data, batches, steps, evaluations and threads, in turns: as a traind job on a warm
service, as a plain script with DataLoader (num_workers=0), and as one with preloaded tensors (`bench.scripts`). A
script counts from its first batch to its saved file. The job counts from its first batch to its `succeeded` event, so
evaluations, the final checkpoint's upload and the way through the pipe are in it. Ratios are script / job, medians
over rounds: above 1 the job is faster. Then the time from submit to the first metric that the API shows, of 20 small
jobs one after another. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local.supervisor import Service
from traind import Client

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"name": "mlp", "hidden": [128]}, "epochs": 200},
    "cnn": {"model": {"name": "cnn", "channels": [16, 32], "hidden": [64]}, "epochs": 40},
}
VARIANTS = {"": "dataloader", "_preloaded": "preloaded"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds of a quarter of the epochs")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    arguments = parser.parse_args()
    rounds, share = (2, 4) if arguments.quick else (arguments.rounds, 1)
    figures: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="traind-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="traind-bench-data-") as data_dir,
        Service(Path(data_dir)) as service,
        Client(service.url, service.api_key) as client,
    ):
        latencies = [submit_to_first_metric(client, seed) for seed in range(23)][3:]
        for name, settings in MODELS.items():
            spec = spec_of(settings["model"], settings["epochs"] // share)
            figures |= compare(client, name, spec, rounds, Path(folder) / f"{name}.json")
    figures["submit_to_first_metric_ms"] = round(statistics.median(latencies), 1)
    print(f"submit to first metric: median {figures['submit_to_first_metric_ms']} ms, worst {max(latencies):.0f} ms")
    text = json.dumps(figures)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


def spec_of(model: dict[str, Any], epochs: int) -> dict[str, Any]:
    return {
        "dataset": {"name": "digits"},
        "model": model,
        "optimizer": {"name": "adam", "lr": 1e-3},
        "training": {"epochs": epochs, "batch_size": 32, "threads": 1},
    }


def compare(client: Client, name: str, spec: dict[str, Any], rounds: int, path: Path) -> dict[str, float]:
    """Ratio script / job by variant, medians of `rounds` in turns."""
    path.write_text(json.dumps(spec))
    seconds: dict[str, list[float]] = {"job": [], **{variant: [] for variant in VARIANTS.values()}}
    for number in range(rounds):
        seconds["job"].append(run_job(client, spec))
        for variant in VARIANTS.values():
            seconds[variant].append(run_script(path, variant))
        latest = "  ".join(f"{kind} {values[-1]:.2f} s" for kind, values in seconds.items())
        print(f"{name}, round {number + 1} of {rounds}: {latest}", file=sys.stderr)
    job = statistics.median(seconds["job"])
    for variant in VARIANTS.values():
        script = statistics.median(seconds[variant])
        print(f"{name}: {variant} script {script:.2f} s, job {job:.2f} s, script / job {script / job:.2f}")
    return {name + suffix: round(statistics.median(seconds[v]) / job, 3) for suffix, v in VARIANTS.items()}


def run_job(client: Client, spec: dict[str, Any]) -> float:
    """Seconds from the job's first batch to its `succeeded` event."""
    job = client.wait(client.submit(spec).id)
    if job.state != "succeeded":
        raise SystemExit(f"job {job.id} ended {job.state}: {job.error}")
    times = {event.kind: event.created_at for event in client.events(job.id)}
    return (times["succeeded"] - times["ready"]).total_seconds()


def run_script(path: Path, variant: str) -> float:
    command = [sys.executable, "-m", "bench.scripts", str(path), variant]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def submit_to_first_metric(client: Client, seed: int) -> float:
    """Milliseconds from the submit to the first point of train/loss that the API shows."""
    spec = spec_of({"name": "linear"}, 20)
    spec["training"]["seed"] = seed
    began = time.perf_counter()
    job = client.submit(spec)
    while not client.get(job.id).metrics.last:
        time.sleep(0.002)
    milliseconds = (time.perf_counter() - began) * 1_000
    client.wait(job.id)
    return milliseconds


if __name__ == "__main__":
    main()
