"""`python -m worker.training spec.json`: train in the foreground, without database, broker or service.

stdout has the messages, one JSON object a line; stderr what went wrong and what to do. Ctrl-C takes a checkpoint at
the next safe point and stops, twice it stops at once; `--resume` goes on from the two files of a checkpoint.
Exit codes: 0 succeeded, 1 failed, 2 bad usage, 3 diverged, 130 stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from jobs.catalog import resolve
from traind.errors import InvalidSpec
from traind.spec import JobSpec
from worker.training.messages import (
    CheckpointFiles,
    Control,
    DataSettings,
    Failed,
    Finished,
    Message,
    Stopped,
    TrainerJob,
    encode,
)
from worker.training.waiting import let_threads_sleep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job as the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    out = options.out or Path(tempfile.mkdtemp(prefix="traind-training-"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        job = _job(options, out)
    except (OSError, InvalidSpec) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    let_threads_sleep()
    from worker.training.run import run  # loads torch, whose OpenMP reads its environment once

    control = Control()
    signal.signal(signal.SIGINT, _stop_once(control))
    ends: list[Message] = []

    def emit(message: Message) -> None:
        sys.stdout.write(encode(message).decode() + "\n")
        sys.stdout.flush()
        ends[:] = [message]

    run(job, emit, control)
    return _exit_code(ends[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker.training", description=__doc__)
    parser.add_argument("spec", type=Path, help="the job's spec, a JSON file")
    parser.add_argument("--out", type=Path, help="folder for checkpoints; a temporary one where it is not given")
    parser.add_argument("--resume", type=Path, nargs=2, metavar=("MODEL", "STATE"), help="go on from a checkpoint")
    parser.add_argument("--fashion-mnist-dir", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--fashion-mnist-url", help="address to load Fashion-MNIST from, where it is not found here")
    parser.add_argument("--cache-dir", type=Path, default=Path(os.path.expanduser("~/.cache/traind")))  # noqa: PTH111  never raises
    return parser


def _job(options: argparse.Namespace, out: Path) -> TrainerJob:
    """Raises InvalidSpec, or OSError where the file can't be read."""
    try:
        document = json.loads(options.spec.read_bytes())
        spec = JobSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidSpec.from_validation(error, document) from None
    except ValueError as error:
        raise InvalidSpec.at("", f"{options.spec} is not JSON: {error}", code="json") from None
    resume = options.resume and CheckpointFiles(model_path=options.resume[0], state_path=options.resume[1])
    settings = DataSettings(
        fashion_mnist_dir=options.fashion_mnist_dir,
        cache_dir=options.cache_dir,
        fashion_mnist_url=options.fashion_mnist_url,
    )
    return TrainerJob(spec=spec, resolved=resolve(spec), scratch_dir=out, checkpoint=resume, settings=settings)


def _stop_once(control: Control) -> Callable[[int, FrameType | None], None]:
    """The first signal asks for a checkpoint and a stop; the second one ends the process as usual."""

    def stop(number: int, _frame: FrameType | None) -> None:
        control.stop = "pause"
        signal.signal(number, signal.SIG_DFL)

    return stop


def _exit_code(end: Message) -> int:
    """And, where it isn't 0, the reason on stderr."""
    match end:
        case Finished(state="succeeded"):
            return 0
        case Finished(error=error):
            sys.stderr.write(f"diverged: {error and error['message']}\n")
            return 3
        case Stopped(step=step):
            sys.stderr.write(f"stopped at step {step}; go on with --resume\n")
            return 130
        case Failed(code=code, message=message, traceback=traceback):
            sys.stderr.write(f"{traceback or ''}{code}: {message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
