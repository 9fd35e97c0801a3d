"""Verify: a replay gives every bit of a checkpoint, and whatever was changed in one is found and named."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.training.checking import PARTS, checked, flip, offset
from tests.training.scenario import Trained, files, trainer_job
from tests.training.test_resume import CASES, CUT, GPU, parts_of
from worker.training.messages import (
    Checkpoint,
    Control,
    Failed,
    Message,
    Metrics,
    Phase,
    Progress,
    Ready,
    Stopped,
    Verify,
)
from worker.training.tensor_file import read_tensors, write_tensors


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(trainer_job(tmp_path_factory.mktemp("whole"), **PARTS))


@pytest.mark.parametrize("device", GPU)
@pytest.mark.parametrize("case", CASES)
def test_every_checkpoint_is_its_replay_to_the_bit(case: str, device: str, tmp_path: Path) -> None:
    parts = parts_of(case) | {"resources": {"device": device}}
    run = Trained(trainer_job(tmp_path / "whole", **parts))
    for start, step in ((None, CUT), (CUT, run.finished.step), (None, run.finished.step)):
        found = checked(tmp_path, run, step, start=start, parts=parts)
        assert found["equal"], found
        assert (found["exact"], found["n_different"], found["rest"], found["ended"]) == (True, 0, [], None)


def test_a_checkpoint_that_was_taken_when_asked_to(tmp_path: Path) -> None:
    def pause(message: Message, control: Control) -> None:
        if isinstance(message, Checkpoint):
            control.stop = "pause"

    run = Trained(trainer_job(tmp_path / "whole", **PARTS), on_message=pause)
    assert isinstance(run.end, Stopped)
    assert run.end.step > 17
    assert checked(tmp_path, run, run.end.step, start=17)["equal"]


def test_a_streak_that_began_after_a_checkpoint_which_the_replay_does_not_take(tmp_path: Path) -> None:
    rule = {"loss_factor": 1.0001, "patience_steps": 1_000}
    parts = PARTS | {"optimizer": {"name": "sgd", "lr": 1e-12}, "training": PARTS["training"] | {"divergence": rule}}
    run = Trained(trainer_job(tmp_path / "whole", **parts))
    _, document = read_tensors(files(run.checkpoint(40)).state_path)
    assert document["watch"]["loss"]["good"] == 34
    assert checked(tmp_path, run, 40, start=17, parts=parts)["equal"]


FLIPS = [
    ("model", "1.weight", 0, 0),
    ("model", "4.bias", 39, 7),
    ("model", "1.bias", 2, 6),
    ("state", "optimizer/1.weight/exp_avg_sq", 1_000, 3),
    ("state", "optimizer/4.bias/step", 0, 5),
    ("state", "rng/cpu", 100, 1),
]


@pytest.mark.parametrize(("part", "tensor", "byte", "bit"), FLIPS)
def test_one_flipped_bit_is_found_and_its_tensor_named(
    whole: Trained, tmp_path: Path, part: str, tensor: str, byte: int, bit: int
) -> None:
    subject = files(whole.checkpoint(34), tmp_path)
    path: Path = getattr(subject, f"{part}_path")
    before = read_tensors(path)[0][tensor]
    flip(path, offset(path.read_bytes(), tensor) + byte, bit)
    after = read_tensors(path, check_crc=False)[0][tensor]
    found = checked(tmp_path, whole, 34, start=17, subject=subject, intact={"model": part != "model", "state": True})
    assert not found["equal"]
    (one,) = found["differences"]
    index = byte // before.element_size()
    assert (one["tensor"], one["problem"], one["n_different"]) == (f"{part}/{tensor}", "values", 1)
    assert one["n_elements"] == before.numel()
    place = 0
    for at, size in zip(one["first_index"], before.shape, strict=True):
        place = place * size + at
    assert place == index
    values = after.flatten()[index].item(), before.flatten()[index].item()
    assert (one["stored"], one["replayed"]) == values
    assert one["largest_difference"] == abs(values[0] - values[1])
    assert (found["n_different"], found["rest"], found["exact"]) == (1, [], True)


def test_many_different_tensors_are_counted_and_the_first_comes_first(whole: Trained, tmp_path: Path) -> None:
    subject = files(whole.checkpoint(34), tmp_path)
    weights, document = read_tensors(subject.model_path)
    weights["4.weight"][3, 5] = math.nan
    weights["1.bias"] *= 2
    write_tensors(subject.model_path, weights, document)
    found = checked(tmp_path, whole, 34, subject=subject)
    assert [one["tensor"] for one in found["differences"]] == ["model/1.bias", "model/4.weight"]
    assert (found["n_different"], found["n_tensors"]) == (2, 4 + 12 + 1)
    nan = found["differences"][1]
    assert (nan["first_index"], nan["stored"], nan["largest_difference"]) == ([3, 5], None, None)
    assert math.isfinite(nan["replayed"])


def test_tensors_that_are_missing_unexpected_or_of_another_kind(whole: Trained, tmp_path: Path) -> None:
    subject = files(whole.checkpoint(34), tmp_path)
    weights, document = read_tensors(subject.model_path)
    weights["5.weight"] = weights.pop("1.weight")
    weights["1.bias"] = weights["1.bias"].double()
    write_tensors(subject.model_path, weights, document)
    found = checked(tmp_path, whole, 34, subject=subject)["differences"]
    assert {one["tensor"]: one["problem"] for one in found} == {
        "model/1.weight": "missing",
        "model/1.bias": "kind",
        "model/5.weight": "unexpected",
    }
    kind = next(one for one in found if one["problem"] == "kind")
    assert (kind["stored"], kind["replayed"]) == ("float64 [16]", "float32 [16]")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"step": 33}, "state/step: stored 33, replayed 34"),
        ({"stopping": {"best": 0.5, "waited": 0, "stopped": False}}, "state/stopping/best: stored 0.5, replayed None"),
    ],
)
def test_the_part_that_is_no_tensor_is_compared(
    whole: Trained, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    subject = files(whole.checkpoint(34), tmp_path)
    tensors, document = read_tensors(subject.state_path)
    write_tensors(subject.state_path, tensors, document | change)
    found = checked(tmp_path, whole, 34, subject=subject)
    assert (found["equal"], found["n_different"], found["rest"]) == (False, 0, [expected])


def test_an_open_window_is_compared(whole: Trained, tmp_path: Path) -> None:
    subject = files(whole.checkpoint(34), tmp_path)
    tensors, document = read_tensors(subject.state_path)
    assert document["recorder"]["count"] == 34 % 7
    document["recorder"]["sums"]["train/loss"] += 1e-9
    write_tensors(subject.state_path, tensors, document)
    (one,) = checked(tmp_path, whole, 34, subject=subject)["rest"]
    assert one.startswith("state/recorder/sums/train/loss: stored ")


@pytest.mark.parametrize("described", [{}, {"model": {"dataset": "digits"}}], ids=["not", "otherwise"])
def test_weights_whose_use_an_earlier_version_described_otherwise_or_not_are_equal(
    whole: Trained, tmp_path: Path, described: dict[str, Any]
) -> None:
    subject = files(whole.checkpoint(34), tmp_path)
    tensors, document = read_tensors(subject.model_path)
    write_tensors(subject.model_path, tensors, {"aliases": document["aliases"]} | described)
    assert checked(tmp_path, whole, 34, start=17, subject=subject)["equal"]


def test_a_wrong_hash_alone_is_not_equal(whole: Trained, tmp_path: Path) -> None:
    found = checked(tmp_path, whole, 34, intact={"model": True, "state": False})
    assert (found["equal"], found["n_different"], found["rest"]) == (False, 0, [])
    assert found["intact"] == {"model": True, "state": False}


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


def no_json(path: Path) -> None:
    flip(path, 8, 3)


def no_object(path: Path) -> None:
    tensors, document = read_tensors(path)
    write_tensors(path, tensors, document)
    text = path.read_bytes()
    start = text.index(b'"traind":"') + 10
    end = text.index(b'"}', start)
    path.write_bytes(text[:start] + b"[1" + b" " * (end - start - 3) + b"]" + text[end:])


@pytest.mark.parametrize("damage", [cut_off, empty, huge_header, no_json, no_object], ids=lambda f: f.__name__)
@pytest.mark.parametrize("part", ["model", "state"])
def test_a_file_that_is_no_checkpoint_any_more(whole: Trained, tmp_path: Path, part: str, damage: Any) -> None:
    """The other one is compared all the same."""
    subject = files(whole.checkpoint(34), tmp_path / "files")
    damage(getattr(subject, f"{part}_path"))
    other = "state" if part == "model" else "model"
    names = {"model": "4.bias", "state": "rng/cpu"}
    path: Path = getattr(subject, f"{other}_path")
    flip(path, offset(path.read_bytes(), names[other]) + 8)
    found = checked(tmp_path, whole, 34, subject=subject)
    assert not found["equal"]
    assert list(found["unreadable"]) == [part]
    assert found["unreadable"][part]
    assert str(tmp_path) not in found["unreadable"][part]
    assert [one["tensor"] for one in found["differences"]] == [f"{other}/{names[other]}"]


def test_a_replay_from_another_start_differs(whole: Trained, tmp_path: Path) -> None:
    """The start counts: a checkpoint of step 17 that is not this job's leads elsewhere."""
    other = Trained(trainer_job(tmp_path / "other", **(PARTS | {"training": PARTS["training"] | {"seed": 6}})))
    job = trainer_job(tmp_path / "check", files(other.checkpoint(17)), **PARTS)
    task = Verify(
        step=34,
        final=False,
        subject=files(whole.checkpoint(34)),
        intact={"model": True, "state": True},
        trained_by=(whole.all(Ready)[0].fingerprint,),
    )
    run = Trained(job.model_copy(update={"check": task}))
    assert run.end.result["n_different"] > 4  # type: ignore[union-attr]


def test_another_fingerprint_is_no_proof(whole: Trained, tmp_path: Path) -> None:
    there = whole.all(Ready)[0].fingerprint
    others = [there | {"threads": 4, "differences": ["x"]}, there | {"differences": []}, there | {"torch": "1"}]
    found = checked(tmp_path, whole, 34, trained_by=others)
    assert (found["equal"], found["exact"]) == (True, False)
    assert found["reasons"] == ["threads: was 4, is 1", f"torch: was 1, is {there['torch']}"]


def test_a_replay_that_ends_before_says_why(whole: Trained, tmp_path: Path) -> None:
    """Another spec stands for whatever made the replay go another way."""
    stopping = {"training": PARTS["training"] | {"early_stopping": {"patience": 1, "min_delta": 100.0}}}
    found = checked(tmp_path, whole, 34, parts=stopping)
    assert (found["equal"], found["ended"]) == (False, "early stopping ended it after step 22")
    exploding = {"optimizer": {"name": "adam", "lr": 1e18}}
    found = checked(tmp_path, whole, 34, parts=exploding)
    assert not found["equal"]
    assert "became non-finite in step" in found["ended"]


def verify_job(folder: Path, whole: Trained, start: int | None = None) -> Any:
    task = Verify(
        step=34,
        final=False,
        subject=files(whole.checkpoint(34)),
        intact={"model": True, "state": True},
        trained_by=(),
    )
    job = trainer_job(folder, None if start is None else files(whole.checkpoint(start), folder), **PARTS)
    return job.model_copy(update={"check": task})


def test_it_leaves_signs_of_life_and_nothing_else(whole: Trained, tmp_path: Path) -> None:
    run = Trained(verify_job(tmp_path / "check", whole))
    assert [phase.name for phase in run.all(Phase)] == ["load", "train", "compare"]
    assert run.all(Metrics) == []
    assert run.all(Checkpoint) == []
    (first, *_) = run.all(Progress)
    assert (first.step, first.phase) == (1, "train")
    assert list((tmp_path / "check").iterdir()) == []


def test_it_stops_when_asked_to(whole: Trained, tmp_path: Path) -> None:
    def stop(message: Message, control: Control) -> None:
        control.stop = "drain"

    run = Trained(verify_job(tmp_path / "check", whole, start=17), on_message=stop)
    assert run.end == Stopped("drain", 18)


def test_a_start_that_is_damaged_fails_the_check(whole: Trained, tmp_path: Path) -> None:
    job = verify_job(tmp_path / "check", whole, start=17)
    path = job.checkpoint.model_path
    flip(path, offset(path.read_bytes(), "1.weight"))
    run = Trained(job)
    assert isinstance(run.end, Failed)
    assert (run.end.code, run.end.retryable) == ("checkpoint-corrupt", False)
