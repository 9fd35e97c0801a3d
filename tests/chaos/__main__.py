"""`python -m tests.chaos --seconds 120 --seed 1`: chaos, and a verdict on it.

Says on stderr what it does, and at the end in a table how it was; the last line of stdout is one JSON object. Exit
codes: 0, 1 on any violation, 130 where it was interrupted. The folder with the logs is kept on a violation, and where a
run breaks off with a traceback.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from local.signals import stop_signals
from tests.chaos import verdict
from tests.chaos.installation import WORKERS, Installation
from tests.chaos.mischief import KINDS, Mischief
from tests.chaos.phases import PHASES
from tests.chaos.references import train_all
from tests.chaos.stream import Stream
from tests.chaos.witness import Witness, processes_of
from tests.folders import found
from traind.client import Client

CALM_SECONDS = 240.0
"""How long the jobs may take to end once nothing more is done to them; a last back-off is part of it."""
TIDY_SECONDS = 20.0


@dataclass
class Result:
    """What the last line tells. Seconds to recover are from a hit until the job's next attempt was ready."""

    seed: int
    seconds: float
    jobs: int
    attempts: int
    machine_faults: int
    kills_by_phase: dict[str, int]
    hits_by_kind: dict[str, int]
    recover_seconds: dict[str, dict[str, float] | None]
    witness: dict[str, float]
    violations: list[str]
    logs: str | None = None


def main() -> int:
    options = _parser().parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    console = Console(stderr=True, log_path=False, soft_wrap=True)
    data_dir = Path(tempfile.mkdtemp(prefix="traind-chaos-"))
    console.log(f"seed {seed}, {options.seconds:g} s, folder {data_dir}")
    keep = options.keep
    try:
        with stop_signals():
            result = _run(data_dir, seed, options.seconds, console)
        keep = keep or bool(result.violations)
        result.logs = str(data_dir / "logs") if keep else None
    except KeyboardInterrupt:
        return 130
    except Exception:
        keep = True
        console.print(f"broke off; the logs are kept: {data_dir / 'logs'}", style="red", markup=False, highlight=False)
        raise
    finally:
        if not keep:
            shutil.rmtree(data_dir, ignore_errors=True)
    console.print(_table(result))
    for violation in result.violations:
        console.print(f"violation: {violation}", style="red", markup=False, highlight=False)
    print(json.dumps(asdict(result)))
    return 1 if result.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Chaos on the real service.")
    parser.add_argument("--seconds", type=float, default=120.0, help="of mischief; more where a phase was not hit yet")
    parser.add_argument("--seed", type=int, help="of the order of things; a random one by default")
    parser.add_argument("--keep", action="store_true", help="keep the folder also where all is well")
    return parser


def _run(data_dir: Path, seed: int, seconds: float, console: Console) -> Result:
    violations: list[str] = []
    with console.status("starting the service") as status, Installation(data_dir, lambda _line: None) as installation:
        client = Client(installation.url, installation.api_key)
        witness = Witness(installation.scratch)
        stream = Stream(client, random.Random(seed))
        mischief = Mischief(installation, witness, random.Random(seed + 1), console.log)
        with witness, stream:
            status.update("mischief")
            mischief.run(seconds)
            status.update("waiting for the jobs to end")
            console.log(f"calm; {len(stream.unfinished)} of {len(stream.submitted)} jobs to go")
            stream.finish(CALM_SECONDS)
            violations += _left_in(installation.scratch, TIDY_SECONDS)
        status.update("training the references")
        references = train_all(data_dir / "references")
        status.update("examining")
        records = verdict.examine(client, installation.api_key, stream.submitted, references)
        violations += verdict.lost_or_doubled(client, stream.submitted)
        client.close()
    violations += [f"left behind: process {process}" for process in processes_of(data_dir)]
    violations += mischief.violations
    violations += [f"never hit: {name}" for name in mischief.missed()]
    violations += [*witness.violations, *stream.violations, *verdict.unseen(witness, records)]
    violations += [text for record in records for text in record.violations]
    return Result(
        seed=seed,
        seconds=seconds,
        jobs=len(records),
        attempts=sum(len(record.attempts) for record in records),
        machine_faults=sum(record.machine_faults for record in records),
        kills_by_phase={phase: mischief.phases[phase] for phase in PHASES},
        hits_by_kind={kind: mischief.kinds[kind] for kind in KINDS},
        recover_seconds=_recovery(mischief, records),
        witness={"looks": witness.looks, "trainers": len(witness.met), "longest_gap": witness.longest_gap_seconds},
        violations=list(dict.fromkeys(violations)),
    )


def _left_in(scratch: Path, patience_seconds: float) -> list[str]:
    """Folders of attempts, and of workers that are gone; they may take a moment to disappear."""
    deadline = time.monotonic() + patience_seconds
    while True:
        attempts, workers = found(scratch, "worker-*/*-*"), found(scratch, "*worker-*")
        if not attempts and len(workers) == len(WORKERS):
            return []
        if time.monotonic() > deadline:
            return [f"left in scratch: {len(workers)} workers' folders, {[path.name for path in attempts]}"]
        time.sleep(0.1)


def _recovery(mischief: Mischief, records: list[verdict.Record]) -> dict[str, dict[str, float] | None]:
    killed = [hit for hit in mischief.hits if hit.kind in ("worker", "trainer")]
    stopped = [hit for hit in mischief.hits if hit.kind == "stop"]
    return {
        "killed": _summary(verdict.seconds_to_recover(killed, records)),
        "stopped": _summary(verdict.seconds_to_recover(stopped, records)),
        "postgres": _summary(mischief.postgres_seconds),
    }


def _summary(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {"n": len(seconds), "median": round(statistics.median(seconds), 3), "max": round(max(seconds), 3)}


def _table(result: Result) -> Table:
    table = Table(title=f"chaos, seed {result.seed}", show_header=False)
    rows: dict[str, Any] = {
        "jobs": result.jobs,
        "attempts": result.attempts,
        "ended by a machine": result.machine_faults,
    }
    rows |= {f"kills in {phase}": n for phase, n in result.kills_by_phase.items()}
    rows |= {f"hits of {kind}": n for kind, n in result.hits_by_kind.items()}
    for what, took in result.recover_seconds.items():
        text = f"{took['median']:.2f} s, at most {took['max']:.2f} s ({took['n']:g})" if took else "-"
        rows[f"recovered, {what}"] = text
    rows |= {f"witness: {name}": round(value, 2) for name, value in result.witness.items()}
    rows["violations"] = len(result.violations)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


if __name__ == "__main__":
    sys.exit(main())
