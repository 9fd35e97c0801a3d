"""The verdict: what the service says of each job in the end, beside what the witness saw and the references hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import httpx2

from jobs.lifecycle.crash import MACHINE_FAULTS
from jobs.states import State, transition
from tests.chaos.mischief import Hit
from tests.chaos.references import Reference
from tests.chaos.stream import Submitted
from tests.chaos.witness import Witness
from traind.client import Client, Event

ALL_POINTS = 10_000
SURELY_SEEN_SECONDS = 0.5
INTERRUPTED = {"crashed", "lost"}


@dataclass
class Record:
    """What the API told of one job."""

    submitted: Submitted
    attempts: list[dict[str, Any]]
    events: list[Event]
    violations: list[str]

    @property
    def id(self) -> str:
        return self.submitted.job.id

    @property
    def machine_faults(self) -> int:
        """How many attempts ended by a fault of their worker's machine."""
        return sum(1 for attempt in self.attempts if (attempt["error"] or {}).get("code") in MACHINE_FAULTS)


def examine(client: Client, api_key: str, submitted: list[Submitted], references: dict[str, Reference]) -> list[Record]:
    """Each job's record, with all that is wrong in it."""
    return [_record(client, api_key, each, references[each.spec]) for each in submitted]


def lost_or_doubled(client: Client, submitted: list[Submitted]) -> Iterator[str]:
    """The service's jobs are those that were submitted, each once."""
    listed, known = [job.id for job in client.list()], [each.job.id for each in submitted]
    yield from (f"lost: job {job} is not in the list" for job in known if listed.count(job) != 1)
    yield from (f"doubled: job {job} was never asked for" for job in listed if known.count(job) != 1)


def unseen(witness: Witness, records: list[Record]) -> Iterator[str]:
    """A witness that missed a trainer proves nothing."""
    seen = {(trainer.job, trainer.attempt) for trainer in witness.met}
    for record in records:
        ready = {event.attempt: event.created_at for event in record.events if event.kind == "ready"}
        ended = {a["number"]: datetime.fromisoformat(a["ended_at"]) for a in record.attempts if a["ended_at"]}
        for number in ready.keys() & ended.keys():
            seconds = (ended[number] - ready[number]).total_seconds()
            if seconds > SURELY_SEEN_SECONDS and (record.id, number) not in seen:
                yield f"blind witness: attempt {number} of job {record.id} ran for {seconds:.1f} s and was not seen"


def seconds_to_recover(hits: list[Hit], records: list[Record]) -> list[float]:
    """From each hit of an attempt to when the job's next one was ready, in order."""
    of_job = {record.id: record.events for record in records}
    found = []
    for hit in hits:
        for job, attempt in hit.caught.attempts:
            ready = [event for event in of_job.get(job, []) if event.kind == "ready" and event.attempt > attempt]
            if ready:
                found.append(ready[0].created_at.timestamp() - hit.caught.at)
    return sorted(found)


def _record(client: Client, api_key: str, submitted: Submitted, reference: Reference) -> Record:
    job = submitted.job.id
    answer = httpx2.get(f"{client.url}/v1/jobs/{job}/attempts", headers={"Authorization": f"Bearer {api_key}"})
    answer.raise_for_status()
    record = Record(submitted, answer.json()["attempts"], list(client.events(job)), [])
    found = [
        *_ending(record),
        *_story(record),
        *_counting(record),
        *_weights(client, job, reference),
        *_metrics(client, record, reference),
    ]
    record.violations = [f"job {job} ({submitted.spec}): {text}" for text in found]
    return record


def _ending(record: Record) -> Iterator[str]:
    """It succeeded, and each attempt before the last was ended by what was done to it."""
    job, numbers = record.submitted.job, [attempt["number"] for attempt in record.attempts]
    if job.state != "succeeded":
        yield f"not done: {job.state} {job.error.code if job.error else ''}"
        return
    if numbers != list(range(1, job.attempt + 1)):
        yield f"attempts are numbered {numbers}"
    *before, last = [attempt["outcome"] for attempt in record.attempts]
    if last != "succeeded" or not set(before) <= INTERRUPTED:
        yield f"its attempts ended as {[*before, last]}"


def _story(record: Record) -> Iterator[str]:
    """Its events are a walk through the permitted moves, with one start and one end of each attempt."""
    moves = [event for event in record.events if event.to_state is not None]
    for event in moves:
        try:
            source = None if event.from_state is None else State(event.from_state)
            permitted = transition(source, State(str(event.to_state))).event
        except KeyError:
            permitted = None
        if event.kind != permitted:
            yield f"illegal event {event.kind} from {event.from_state} to {event.to_state}"
    if any(first.to_state != second.from_state for first, second in pairwise(moves)):
        yield f"its states do not follow each other: {[event.to_state for event in moves]}"
    started = [event.attempt for event in moves if event.to_state == "running"]
    ended = [event.attempt for event in moves if event.from_state == "running"]
    numbers = [attempt["number"] for attempt in record.attempts]
    if not started == ended == numbers:
        yield f"attempts {numbers}, but events start {started} and end {ended}"


def _counting(record: Record) -> Iterator[str]:
    """No fault of a worker's machine was counted among the job's crashes."""
    counted = 0
    for event in record.events:
        if (crashes := event.data.get("crash_count")) is not None:
            code = event.data["error"]["code"]
            if code in MACHINE_FAULTS and crashes != counted:
                yield f"{code} in attempt {event.attempt} used up an attempt: {crashes} crashes, before {counted}"
            counted = crashes


def _weights(client: Client, job: str, reference: Reference) -> Iterator[str]:
    """Every checkpoint of its one line of history is the reference's, to the bit."""
    own = {c.step: (c.model.sha256, c.state.sha256) for c in client.checkpoints(job)}
    if own.keys() != reference.checkpoints.keys():
        yield f"checkpoints at {sorted(own)}, not {sorted(reference.checkpoints)}"
    for step in sorted(own.keys() & reference.checkpoints.keys()):
        for part, found, wanted in zip(("weights", "state"), own[step], reference.checkpoints[step], strict=True):
            if found != wanted:
                yield f"the {part} of step {step} differ from the reference's"


def _metrics(client: Client, record: Record, reference: Reference) -> Iterator[str]:
    """Every point is the reference's, to the bit; none doubled, none dropped."""
    series = {each.key: each for each in client.metrics(record.id, max_points=ALL_POINTS).series}
    if series.keys() != reference.points.keys():
        yield f"metrics {sorted(series)}, not {sorted(reference.points)}"
    for key in sorted(series.keys() & reference.points.keys()):
        own = list(zip(series[key].buckets.step0, series[key].values("first"), strict=True))
        if set(series[key].buckets.count) != {1} or own != reference.points[key]:
            yield f"{key} differs from the reference's: {_first_difference(own, reference.points[key])}"
    summary = record.submitted.job.metrics
    best = {key: {"value": each.value, "step": each.step} for key, each in summary.best.items()}
    if (summary.last, best) != (reference.summary["last"], reference.summary["best"]):
        yield f"its summary is not the reference's: {summary.last} {best}"


def _first_difference(own: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> str:
    pairs = (f"{a}, not {b}" for a, b in zip(own, wanted, strict=False) if a != b)
    return next(pairs, f"{len(own)} points, not {len(wanted)}")
