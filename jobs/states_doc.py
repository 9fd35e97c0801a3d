"""Writes docs/job-states.md from the list of transitions: `python -m jobs.states_doc docs/job-states.md`."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.lifecycle.crash import MAX_BACKOFF_SECONDS
from jobs.states import FINAL, TRANSITIONS, VERBS, Outcome, State

INTRO = """\
# States of a job

<!-- Written by `python -m jobs.states_doc docs/job-states.md`; a test compares. Change jobs/states.py instead. -->

These are all the moves there are; the list is `TRANSITIONS` in `jobs/states.py`, and only `jobs/lifecycle` moves a
job. Each move writes its event in the same transaction. The schema holds the rest: a final state has `finished_at`,
a running job has a lease, and only a running job has a request.
"""

RULES = f"""\
## Rules

- **Cancel wins over everything.** It is a request while the job runs (the API shows `cancelling`); whatever then
  becomes of the attempt, the job ends `cancelled`. Repeating it changes nothing.
- **Pause**, resume and retry are in the list of moves; no request for them exists yet. Pause is asked of a running job
  (`pausing`), as cancel is. An attempt that crashes meanwhile leaves the job `paused`.
- **A crash** is a trainer that died, a lease that ran out, or a worker whose connection is gone. It is counted; the
  job goes on from its last checkpoint: at once after the first crash, then after 2, 4, 8 s and so on, at most
  {MAX_BACKOFF_SECONDS:.0f} s; after `max_attempts` crashes it is `failed` with the code of the last.
- **A drain** (its worker was told to stop) puts the job back without counting a crash.
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
    lines = ["## What a client can ask", "", "| verb | in the states |", "|---|---|"]
    lines += [f"| {verb} | {', '.join(s for s in State if s in states)} |" for verb, states in VERBS.items()]
    return "\n".join([*lines, "", "In any other state it is refused (409) with the state and what is possible.", ""])


def _outcomes() -> str:
    names = ", ".join(f"`{outcome}`" for outcome in Outcome)
    return f"## Outcomes of an attempt\n\nThe job's own state, or why it was put back:\n{names}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.parse_args().path.write_text(document())


if __name__ == "__main__":
    main()
