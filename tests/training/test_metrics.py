"""Metric points: windows by step number, nothing lost at their edges, NaN kept, and what the summary says."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf, isnan, nan
from time import perf_counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.catalog import resolve
from traind.spec import EarlyStopping, JobSpec
from worker.training import outbox as module
from worker.training.early_stopping import Stopping
from worker.training.messages import Message, Metrics, Progress
from worker.training.metrics import Recorder, better
from worker.training.outbox import Outbox


def recorder(log_every: int = 1, *, accuracy: bool = False) -> Recorder:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.5, "metric_suffix": "", "initial_lr": 0.5}]
    optimizer = torch.optim.SGD(groups)
    return Recorder(optimizer, started=perf_counter(), log_every=log_every, accuracy=accuracy, grad_norm=False)


def taken(found: Recorder) -> Metrics:
    metrics = found.take()
    assert metrics is not None
    return metrics


def test_a_point_is_the_mean_of_its_window() -> None:
    found = recorder(3, accuracy=True)
    for step in range(1, 8):
        found.add(step, float(step), step / 10)
    metrics = taken(found)
    assert (metrics.step0, metrics.step1) == (3, 6)
    assert metrics.columns["train/loss"]["steps"] == [3, 6]
    assert metrics.columns["train/loss"]["values"] == [2.0, 5.0]
    assert metrics.columns["train/accuracy"]["values"] == pytest.approx([0.2, 0.5])
    assert metrics.columns["lr"]["values"] == [0.5, 0.5]
    assert all(0 <= time < 60 for time in metrics.columns["lr"]["times"])
    assert found.take() is None
    found.close_window(7)
    assert taken(found).columns["train/loss"] | {"times": []} == {"steps": [7], "times": [], "values": [7.0]}
    found.close_window(7)
    assert found.take() is None


def test_a_smaller_last_batch_counts_by_its_samples() -> None:
    """1,440 samples in full batches of 32, then 2: the epoch's loss is that of 1,442 samples."""
    found = recorder(46, accuracy=True)
    for step in range(1, 46):
        found.add(step, 1.0, 0.5)
    found.add(46, 722.0, 0.0, share=2 / 32)
    columns = taken(found).columns
    assert columns["train/loss"]["values"] == pytest.approx([(1_440 * 1.0 + 2 * 722.0) / 1_442])
    assert columns["train/accuracy"]["values"] == pytest.approx([1_440 * 0.5 / 1_442])


def test_a_window_of_one_small_batch_is_its_very_value() -> None:
    found = recorder(1)
    found.add(1, 0.1, share=1 / 3)
    assert taken(found).columns["train/loss"]["values"] == [0.1]


def test_the_open_window_of_an_older_release_goes_on() -> None:
    found = recorder(4)
    found.restore({"sums": {"train/loss": 6.0}, "count": 3, "summary": {"last": {}, "best": {}}})
    found.add(4, 2.0)
    assert taken(found).columns["train/loss"]["values"] == [2.0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(1, 7), st.integers(0, 40))
def test_a_window_goes_on_where_a_checkpoint_left_it(losses: list[float], log_every: int, cut: int) -> None:
    whole, first, second = recorder(log_every), recorder(log_every), recorder(log_every)
    points: dict[int, float] = {}
    for step, loss in enumerate(losses, 1):
        whole.add(step, loss)
        if step == cut + 1:
            points |= _points(first)
            second.restore(json.loads(json.dumps(first.state())))
        (first if step <= cut else second).add(step, loss)
    assert points | _points(first) | _points(second) == _points(whole)


def _points(found: Recorder) -> dict[int, float]:
    metrics = found.take()
    if metrics is None:
        return {}
    column = metrics.columns["train/loss"]
    return dict(zip(column["steps"], column["values"], strict=True))


def test_what_is_not_finite_is_a_point_like_any_other_and_never_the_best() -> None:
    found = recorder()
    found.add(1, nan)
    found.add_evaluation(1, {"val/loss": inf})
    metrics = taken(found)
    assert isnan(metrics.columns["train/loss"]["values"][0])
    assert metrics.columns["val/loss"]["values"] == [inf]
    assert isnan(metrics.summary["last"].pop("train/loss"))
    assert metrics.summary == {"last": {"lr": 0.5, "val/loss": inf}, "best": {}}


def test_the_best_is_the_first_of_the_best() -> None:
    found = recorder()
    for step, (loss, accuracy) in enumerate([(3.0, 0.5), (1.0, 0.7), (2.0, 0.7)], 1):
        found.add_evaluation(step, {"val/loss": loss, "val/accuracy": accuracy})
    assert taken(found).summary == {
        "last": {"val/loss": 2.0, "val/accuracy": 0.7},
        "best": {"val/loss": {"value": 1.0, "step": 2}, "val/accuracy": {"value": 0.7, "step": 2}},
    }


def test_telemetry_has_points_of_its_own_and_no_best() -> None:
    found = recorder(2)
    for step in range(1, 7):
        found.add(step, 1.0)
        if step % 3 == 0:
            found.add_telemetry(step, {"optimizer/update_norm": float(step), "optimizer/update_ratio": nan})
    assert found.n_points == 3 * 2 + 2 * 2
    metrics = taken(found)
    assert (metrics.step0, metrics.step1) == (2, 6)
    assert metrics.columns["optimizer/update_norm"]["steps"] == [3, 6]
    assert metrics.columns["optimizer/update_norm"]["values"] == [3.0, 6.0]
    assert isnan(metrics.summary["last"].pop("optimizer/update_ratio"))
    last = {"train/loss": 1.0, "lr": 0.5, "optimizer/update_norm": 6.0}
    assert metrics.summary == {"last": last, "best": {}}


def test_better() -> None:
    assert better("val/loss", 0.9, 1.0)
    assert not better("val/loss", 0.9, 1.0, margin=0.1)
    assert better("val/accuracy", 0.9, 0.8)
    assert not better("val/accuracy", 0.8, 0.8)
    assert not better("val/accuracy", 0.9, 0.8, margin=0.2)
    assert not better("val/loss", nan, 1.0)


def test_early_stopping_counts_evaluations_in_a_row() -> None:
    stopping = Stopping(EarlyStopping(metric="val/loss", patience=2, min_delta=0.5))
    stopped = []
    for value in (3.0, 2.6, 2.4, 2.3, 2.2):
        stopping.update({"val/loss": value})
        stopped.append(stopping.stopped)
    assert stopped == [False, False, False, False, True]


def test_early_stopping_is_restored_with_what_it_waited() -> None:
    rule = EarlyStopping(metric="val/accuracy", patience=2)
    first, second = Stopping(rule), Stopping(rule)
    first.update({"val/accuracy": 0.9})
    first.update({"val/accuracy": 0.9})
    second.restore(json.loads(json.dumps(first.state())))
    second.update({"val/accuracy": 0.8})
    assert second.stopped


def test_without_a_rule_it_never_stops() -> None:
    stopping = Stopping(None)
    stopping.update({"val/loss": nan})
    assert not stopping.stopped


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the outbox's clock on."""
    now = [100.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_messages_leave_at_once_first_and_then_four_times_a_second(clock: Callable[[float], None]) -> None:
    found, sent = recorder(), list[Message]()
    spec = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "sgd"}}
    outbox = Outbox(sent.append, found, resolve(JobSpec.model_validate(spec)))
    for step in range(1, 102):
        found.add(step, 1.0)
        outbox.beat(step)
        clock(0.01)
    metrics = [message for message in sent if isinstance(message, Metrics)]
    assert [(message.step0, message.step1) for message in metrics] == [(1, 1), (2, 26), (27, 51), (52, 76), (77, 101)]
    progress = [message for message in sent if isinstance(message, Progress)]
    assert [message.step for message in progress] == [1, 26, 51, 76, 101]
    assert progress[0].rate is None
    assert progress[-1].rate == pytest.approx(100)
    assert progress[-1].eta_seconds == pytest.approx((460 - 101) / 100)


def test_many_points_do_not_wait_for_the_clock(clock: Callable[[float], None]) -> None:
    found, sent = recorder(), list[Message]()
    spec = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "sgd"}}
    outbox = Outbox(sent.append, found, resolve(JobSpec.model_validate(spec)))
    for step in range(1, 2_500):
        found.add(step, 1.0)
        outbox.beat(step)
    sizes = [len(m.columns["lr"]["steps"]) for m in sent if isinstance(m, Metrics)]
    assert sizes == [1, 1_000, 1_000]


def test_evaluation_batches_are_signs_of_life(clock: Callable[[float], None]) -> None:
    found, sent = recorder(), list[Message]()
    spec = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "sgd"}}
    outbox = Outbox(sent.append, found, resolve(JobSpec.model_validate(spec)))
    for _ in range(3):
        outbox.evaluation_beat(46)
        clock(1.0)
    assert [(m.phase, m.step, m.evaluated) for m in sent if isinstance(m, Progress)] == [
        ("evaluate", 46, 1),
        ("evaluate", 46, 2),
        ("evaluate", 46, 3),
    ]
