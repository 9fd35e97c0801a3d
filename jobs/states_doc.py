"""Writes docs/job-states.md from the list of transitions: `python -m jobs.states_doc docs/job-states.md`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.lifecycle.crash import MAX_BACKOFF_SECONDS
from jobs.states import FINAL, FULFILLED, TRANSITIONS, VERBS, Outcome, ShownState, State

INTRO = """\
# States of a job

<!-- Written by `python -m jobs.states_doc docs/job-states.md`; a test compares. Change jobs/states.py instead. -->

These are all the moves there are; the list is `TRANSITIONS` in `jobs/states.py`, and only `jobs/lifecycle` moves a
job. Each move writes its event in the same transaction. The schema holds the rest: a final state has `finished_at`,
a running job has a lease, and only a running job has a request.
"""

RULES = f"""\
## Rules

- **Cancel wins over everything.** It is a request while the job runs (the API shows `cancelling`); its trainer is
  killed at once, and whatever else becomes of the attempt, the job ends `cancelled`. A worker whose lease has run out
  is not asked: the job ends at once, also if no worker is left.
- **Pause** holds a job that waits at once. Of one that runs it is a request (`pausing`): the trainer stops at its next
  safe point, after the step it is at and that step's evaluation, and the job is `paused` only when the checkpoint it
  takes there is complete. A trainer that is still loading has nothing to save and is paused at once. After
  `TRAIND_PAUSE_SECONDS` it is killed, and the job is paused as of its last complete checkpoint; the event says
  `pause-expired`. An attempt that crashes meanwhile, or whose worker drains, leaves the job `paused` too; one that
  reaches its end ends as it does.
- **Resume** lets a paused job wait for a worker again, without the rest of a back-off. Of a job that is still `pausing`
  it takes the request back: the trainer goes on, or if it has stopped already, the job waits for a worker instead
  of being paused.
- **Retry** of a failed or cancelled job goes on from its last checkpoint, or with `from=start` over again: then
  nothing of the earlier attempts is in its one line of history any more, from the retry on (`attempts=all` still has
  it). The crash count begins at 0.
- **Repeating a verb** that was obeyed answers the same and changes nothing, so that a lost answer does no harm: cancel
  of a job that is cancelling or cancelled, pause of one that is pausing or paused, and resume or retry (with the same
  `from`) of one that waits or runs since, if no other verb came between. Later it is a new request: a retry that is
  repeated when the job has failed again is a second retry.
- **A crash** is a trainer that died, a lease that ran out, or a worker whose connection is gone. It is counted, but
  for one by a damaged checkpoint, unless the attempt before ended so, too. The job goes on from its last checkpoint: at
  once after the first crash, then after 2, 4, 8 s and so on, at most {MAX_BACKOFF_SECONDS:.0f} s; after `max_attempts`
  crashes it is `failed` with the code of the last, also if it was to be paused.
- **A drain** (its worker was told to stop) takes a checkpoint as a pause does, within `TRAIND_DRAIN_SECONDS`, and puts
  the job back without counting a crash. After that time the trainer is killed, and the job goes on from its last
  complete checkpoint; the event says `drain-expired`.
- **max_runtime_seconds** counts for each attempt by itself. Shortly before its end (a tenth of it,
  at least half a second and two steps, at most 30 s) a checkpoint is taken as for a drain, and the job is `failed` with
  the code `max-runtime`; a retry goes on from there. A trainer that reaches no safe point until the end is killed.
- **Early stopping** (`training.early_stopping`) ends a job as `succeeded`. The job says `stopped_early`, and the event
  `succeeded` names the rule and the step.
- Crashed jobs start before others, then higher priority, then the older job.
- `diverged` is an outcome with its step and last good checkpoint, not an error; it is never retried by itself.
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
    lines = ["## Moves", "", "| from | to | event | when |", "|---|---|---|---|"]
    lines += [f"| {t.source or '(new)'} | {t.target} | `{t.event}` | {t.cause} |" for t in TRANSITIONS]
    finals = ", ".join(f"`{state}`" for state in State if state in FINAL)
    return "\n".join([*lines, "", f"Final states: {finals}.", ""])


def _verbs() -> str:
    lines = [
        "## What a client can ask",
        "",
        "| verb | does something if the job is | is already done if it is |",
        "|---|---|---|",
    ]
    lines += [
        f"| {verb} | {_names(states)} | {_names(FULFILLED.get(verb, frozenset()))} |" for verb, states in VERBS.items()
    ]
    refused = (
        "In any other state it is refused (409) with the state and what is possible; see also the rule of repeats."
    )
    return "\n".join([*lines, "", refused, ""])


def _names(states: frozenset[ShownState]) -> str:
    return ", ".join(state for state in ShownState if state in states)


def _outcomes() -> str:
    names = ", ".join(f"`{outcome}`" for outcome in Outcome)
    return f"## Outcomes of an attempt\n\nThe job's own state, or why it was put back:\n{names}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
