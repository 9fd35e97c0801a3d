"""The list of transitions is whole, and its page is current."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.states import FINAL, FULFILLED, TRANSITIONS, VERBS, Request, ShownState, State, possible, shown, transition
from jobs.states_doc import document


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "job-states.md"
    assert page.read_text() == document(), "run: python -m jobs.states_doc docs/job-states.md"


def test_each_move_is_listed_once() -> None:
    moves = [(t.source, t.target) for t in TRANSITIONS]
    assert len(moves) == len(set(moves))


def test_every_state_is_reached_from_a_submit() -> None:
    reached: set[State | None] = {None}
    for _ in State:
        reached |= {t.target for t in TRANSITIONS if t.source in reached}
    assert reached == {None, *State}


def test_a_final_state_is_left_only_by_a_retry() -> None:
    assert {t.event for t in TRANSITIONS if t.source in FINAL} == {"retried"}


def test_outcomes_of_success_and_divergence_are_never_left() -> None:
    assert not [t for t in TRANSITIONS if t.source in {State.SUCCEEDED, State.DIVERGED}]


def test_an_unlisted_move_is_refused() -> None:
    with pytest.raises(KeyError):
        transition(State.SUCCEEDED, State.RUNNING)


def test_possible_names_the_verbs_of_a_state() -> None:
    assert possible(ShownState.RUNNING) == ("cancel", "pause")
    assert possible(ShownState.PAUSING) == ("cancel", "resume")
    assert possible(ShownState.CANCELLING) == possible(ShownState.SUCCEEDED) == ()


def test_a_verb_that_does_something_where_it_is_done_would_be_a_contradiction() -> None:
    for verb, states in FULFILLED.items():
        assert not states & VERBS[verb]


def test_a_request_is_shown_in_place_of_running() -> None:
    assert shown(State.RUNNING, Request.NONE) is ShownState.RUNNING
    assert shown(State.RUNNING, Request.PAUSE) is ShownState.PAUSING
    assert shown(State.RUNNING, Request.CANCEL) is ShownState.CANCELLING
