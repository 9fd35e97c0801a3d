"""Writes docs/job-states.md from the list of transitions: `python -m jobs.states_doc docs/job-states.md`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.lifecycle.crash import MAX_BACKOFF_SECONDS
from jobs.states import FINAL, FULFILLED, TRANSITIONS, VERBS, Outcome, ShownState, State

INTRO = """\
# States of a job

<!-- Written by `python -m jobs.states_doc docs/job-states.md`; a test compares. Change jobs/states.py instead. -->

This page lists all transitions. The list is `TRANSITIONS` in `jobs/states.py`, and only `jobs/lifecycle` changes a
job's state. Each transition writes its event in the same transaction. The schema enforces the rest: a final state has
`finished_at`, a running job has a lease, and only a running job has a request.
"""

RULES = f"""\
## Rules

- **Cancel wins over everything.** While the job runs, cancel is a request (the API shows `cancelling`): the trainer is
  killed at once, and however the attempt ends, the job becomes `cancelled`. If the worker's lease has run out, the
  worker is not asked: the job ends at once, even if no worker is left.
- **Pause** holds a waiting job at once. For a running job it is a request (`pausing`): the trainer stops at its next
  safe point, after its current step and that step's evaluation, and the job is `paused` only when the checkpoint taken
  there is complete. If the trainer is still loading, there is nothing to save, and the job is paused at once. After
  `TRAIND_PAUSE_SECONDS` the trainer is killed, and the job is paused at its last complete checkpoint; the event says
  `pause-expired`. If the attempt crashes meanwhile, or its worker drains, the job is also `paused`; if it reaches its
  end, the job ends with its own outcome.
- **Resume** makes a paused job wait for a worker again, without the rest of a back-off. If the job is still `pausing`,
  resume withdraws the pause: the trainer continues, or, if it has already stopped, the job waits for a worker instead
  of being paused.
- **Retry** continues a failed or cancelled job from its last checkpoint or, with `from=start`, trains it again from the
  beginning. In that case its line of history no longer contains earlier attempts (`attempts=all` still does). The
  crash count starts again at 0.
- **Repeating a verb** that was obeyed gives the same answer and changes nothing, so that a lost answer does no harm.
  This holds for a cancel while the job is cancelling or cancelled, for a pause while it is pausing or paused, and for a
  resume or retry (with the same `from`) while the job still waits or runs because of it, if no other verb came in
  between. After that, it is a new request: a retry that is repeated when the job has failed again is a second retry.
- **A crash** means that the trainer died, the lease ran out, or the worker's connection is gone. Crashes are counted,
  except one caused by a damaged checkpoint, unless the previous attempt ended in the same way. The job continues from
  its last checkpoint: at once after the first crash, then after 2, 4, 8 s and so on, at most
  {MAX_BACKOFF_SECONDS:.0f} s. After `max_attempts` crashes it is `failed` with the code of the last crash, even if a
  pause was requested. (For faults of the worker's machine, see [failures.md](failures.md).)
- **A drain** (the worker was told to stop) takes a checkpoint like a pause, within `TRAIND_DRAIN_SECONDS`, and returns
  the job to the queue without counting a crash. After that time the trainer is killed, and the job continues from its
  last complete checkpoint; the event says `drain-expired`.
- **max_runtime_seconds** applies to each attempt separately. Shortly before the limit (a tenth of it, at least half a
  second and two steps, at most 30 s) a checkpoint is taken as in a drain, and the job is `failed` with the code
  `max-runtime`; a retry continues from there. If the trainer reaches no safe point before the limit, it is killed.
- **Early stopping** (`training.early_stopping`) ends a job as `succeeded`. The job has `stopped_early` set, and the
  event `succeeded` names the rule and the step.
- Crashed jobs start before others, then jobs with a higher priority, then older jobs.
- `diverged` is an outcome with its step and last good checkpoint, not an error; it is never retried automatically.
"""


def document() -> str:
    """The page's text."""
    return "\n".join([INTRO, _diagram(), _moves(), _verbs(), _outcomes(), RULES])


def _diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {t.source or '[*]'} --> {t.target}: {t.event}" for t in TRANSITIONS]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join([*lines, "```", ""])


def _moves() -> str:
    lines = ["## Transitions", "", "| from | to | event | when |", "|---|---|---|---|"]
    lines += [f"| {t.source or '(new)'} | {t.target} | `{t.event}` | {t.cause} |" for t in TRANSITIONS]
    finals = ", ".join(f"`{state}`" for state in State if state in FINAL)
    return "\n".join([*lines, "", f"Final states: {finals}.", ""])


def _verbs() -> str:
    lines = [
        "## Verbs",
        "",
        "| verb | does something if the job is | is already done if it is |",
        "|---|---|---|",
    ]
    lines += [
        f"| {verb} | {_names(states)} | {_names(FULFILLED.get(verb, frozenset()))} |" for verb, states in VERBS.items()
    ]
    refused = (
        "In any other state the verb is refused (409), with the state and the possible verbs; see also the rule on"
        " repeats below."
    )
    return "\n".join([*lines, "", refused, ""])


def _names(states: frozenset[ShownState]) -> str:
    return ", ".join(state for state in ShownState if state in states)


def _outcomes() -> str:
    names = ", ".join(f"`{outcome}`" for outcome in Outcome)
    return f"## Outcomes of an attempt\n\nThe job's own state, or the reason why it went back to the queue:\n{names}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
