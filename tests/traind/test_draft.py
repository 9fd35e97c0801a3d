"""Flags over a file: what spec they make, and which flag or line an error names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.traind.commands import Here
from traind.cli import documents
from traind.cli.draft import FLAGS, BadFlag, Draft
from traind.cli.errors import Refused
from traind.errors import Problem

FILE = """\
dataset: {name: digits}
model:
  name: mlp
  hidden: [32]
optimizer:
  name: sgd
  lr: 1e-1
  momentum: 0.9
training:
  epochs: 5
  seed: 3
labels: {study: rates}
"""


def from_flags(**given: Any) -> Draft:
    draft = Draft()
    draft.flags(dict.fromkeys(FLAGS) | given)
    return draft


@pytest.fixture
def from_file(tmp_path: Path) -> Draft:
    (tmp_path / "job.yaml").write_text(FILE)
    return Draft(documents.read(str(tmp_path / "job.yaml")))


def flags(draft: Draft, **given: Any) -> Draft:
    draft.flags(dict.fromkeys(FLAGS) | given)
    return draft


def test_flags_alone_make_a_whole_spec() -> None:
    draft = from_flags(
        **{"name": "n", "dataset": "digits", "model": "mlp", "hidden": "64,32", "optimizer": "adam", "lr": 1e-3},
        **{"betas": "0.8,0.99", "weight_decay": 0.1, "batch_size": "16", "steps": 100, "seed": 7, "schedule": "cosine"},
        **{"device": "cpu", "queue": "fast", "priority": 5},
    )
    draft.label("study=rates=2")
    draft.assign("training.eval_every=50")
    draft.check()
    assert draft.document == {
        "name": "n",
        "dataset": {"name": "digits"},
        "model": {"name": "mlp", "hidden": [64, 32]},
        "optimizer": {"name": "adam", "lr": 0.001, "betas": [0.8, 0.99], "weight_decay": 0.1},
        "schedule": {"name": "cosine"},
        "training": {"steps": 100, "batch_size": 16, "seed": 7, "eval_every": 50},
        "resources": {"device": "cpu", "queue": "fast", "priority": 5},
        "labels": {"study": "rates=2"},
    }


def test_flags_override_a_file_and_leave_the_rest(from_file: Draft) -> None:
    flags(from_file, lr=0.5, batch_size="full", nesterov=True)
    from_file.label("arm=b")
    assert from_file.document["optimizer"] == {"name": "sgd", "lr": 0.5, "momentum": 0.9, "nesterov": True}
    assert from_file.document["training"] == {"epochs": 5, "seed": 3, "batch_size": "full"}
    assert from_file.document["labels"] == {"study": "rates", "arm": "b"}
    assert from_file.notes == []


def test_another_optimizer_takes_nothing_over_from_the_files(from_file: Draft) -> None:
    flags(from_file, optimizer="adam", lr=0.002)
    assert from_file.document["optimizer"] == {"name": "adam", "lr": 0.002}
    assert from_file.notes == ["--optimizer adam replaces the whole of the file's optimizer"]
    from_file.check()


def test_the_same_optimizer_keeps_the_files_options(from_file: Draft) -> None:
    flags(from_file, optimizer="sgd")
    assert from_file.document["optimizer"]["momentum"] == 0.9


def test_steps_take_the_place_of_the_files_epochs(from_file: Draft) -> None:
    flags(from_file, steps=10)
    assert from_file.document["training"] == {"seed": 3, "steps": 10}
    assert from_file.notes == ["the file's epochs gives way to the flag"]


def test_epochs_and_steps_as_flags_contradict_each_other() -> None:
    draft = from_flags(dataset="digits", model="mlp", optimizer="sgd", epochs=1, steps=10)
    with pytest.raises(Refused) as raised:
        draft.check()
    assert raised.value.lines == ("--steps (/training/steps): give epochs or steps, not both",)


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("training.grad_clip_norm=1e-1", ("training", "grad_clip_norm"), 0.1),
        ("training.shuffle=false", ("training", "shuffle"), False),
        ("model.activation=tanh", ("model", "activation"), "tanh"),
        ('optimizer.param_groups=[{"params": "*.bias", "lr": 0}]', ("optimizer", "param_groups", 0, "lr"), 0),
        ("model.hidden.0=8", ("model", "hidden", 0), 8),
        ("schedule.name=step", ("schedule", "name"), "step"),
        ("training.epochs=null", ("training", "epochs"), None),
        ("name=a=b", ("name",), "a=b"),
    ],
)
def test_set_reaches_any_field(from_file: Draft, assignment: str, path: tuple[Any, ...], value: Any) -> None:
    from_file.assign(assignment)
    here: Any = from_file.document
    for key in path:
        here = here[key]
    assert here == value


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("training.epochs", "write it as path.to.field=value"),
        ("=1", "write it as"),
        ("a..b=1", "write it as"),
        ("model.hidden.1=8", "there is no item '1'; the list has 1"),
        ("model.hidden.x=8", "there is no item 'x'"),
        ("model.hidden.-1=8", "there is no item '-1'"),
        ("model.hidden.²=8", "there is no item '²'"),
        ("model.name.x=8", "/model/name is not a mapping"),
        ("training.seed=!!python/none x", "is refused"),
        ("training.seed=[1", "line 1"),
    ],
)
def test_a_bad_set_names_itself(from_file: Draft, assignment: str, reason: str) -> None:
    with pytest.raises(BadFlag, match=reason) as raised:
        from_file.assign(assignment)
    assert "--set" in str(raised.value)


@pytest.mark.parametrize(("name", "value"), [("hidden", "64;32"), ("betas", "0.9,x"), ("batch_size", "all")])
def test_a_flag_that_cannot_be_read_names_itself(name: str, value: str) -> None:
    with pytest.raises(BadFlag, match=f"--{name.replace('_', '-')} {value}: give "):
        from_flags(**{name: value})


def test_a_file_with_another_shape_than_a_flag_needs_is_refused(from_file: Draft) -> None:
    from_file.document["optimizer"] = "adam"
    with pytest.raises(BadFlag, match="--lr: /optimizer is not a mapping"):
        flags(from_file, lr=0.1)


def test_errors_name_the_flag_the_set_or_the_line(from_file: Draft) -> None:
    flags(from_file, lr=-1.0)
    from_file.assign("training.eval_every=0")
    from_file.document["model"]["hiden"] = [1]
    with pytest.raises(Refused) as raised:
        from_file.check()
    lines = "\n".join(raised.value.lines)
    assert "--lr (/optimizer/lr): " in lines
    assert "--set training.eval_every (/training/eval_every): " in lines
    assert "job.yaml:2 (/model/hiden): " in lines


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("optimzer.lr=1", "--set optimzer.lr (/optimzer): a spec has no optimzer; did you mean optimizer?"),
        ("training.epoch=1", "--set training.epoch (/training/epoch): training has no epoch; did you mean epochs?"),
        ("optimizer.betas=[0.9, 0.99]", "--set optimizer.betas (/optimizer/betas): sgd has no betas (adam has); its "),
        ("optimizer.lr='1e-3'", "(/optimizer/lr): must be a number, not the string '1e-3'; write it without quotes"),
        ("optimizer=adam", '(/optimizer): must be a mapping such as {"name": "adam"}, not the string '),
    ],
)
def test_a_set_of_what_is_no_field_says_which_is(from_file: Draft, assignment: str, line: str) -> None:
    from_file.assign(assignment)
    with pytest.raises(Refused) as raised:
        from_file.check()
    assert line in raised.value.lines[0]


def test_a_flood_of_problems_is_told_briefly(from_file: Draft) -> None:
    from_file.document |= {f"{i}{'x' * 5_000}": 0 for i in range(1_000)}
    with pytest.raises(Refused) as raised:
        from_file.check()
    assert raised.value.lines[20:] == ("and 980 more",)
    assert sum(map(len, raised.value.lines)) < 20 * 600


def test_what_is_missing_names_the_flag_that_gives_it() -> None:
    with pytest.raises(Refused) as raised:
        from_flags(lr=0.1).check()
    assert [line.partition(":")[0] for line in raised.value.lines] == [
        "--dataset (/dataset)",
        "--model (/model)",
        "--optimizer (/optimizer/name)",
    ]


def test_the_services_own_problems_are_explained_the_same_way(from_file: Draft) -> None:
    refused = from_file.refused([Problem("/model/hidden/0", "shape", "too wide"), Problem("", "x", "the whole")])
    assert [line.rpartition("/job.yaml")[2] for line in refused.lines] == [
        ":4 (/model/hidden/0): too wide",
        ":1 (/): the whole",
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--label", "a=b", "--label", "a=c"), "--label a: given twice; which value of /labels/a is meant"),
        (("--label", "a=b", "--label", "a=b"), "--label a: given twice"),
        (("--set", "training.seed=1", "--set", "training.seed=2"), "--set training.seed: given twice"),
        (("--set", "labels.a=b", "--label", "a=c"), "--label a: --set labels.a has set it already"),
        (("--seed", "1", "--set", "training.seed=2"), "--set training.seed: --seed has set it already"),
        (("--seed", "1", "--set", "training={}"), "--set training: --seed has set it already"),
        (("--idempotency-key", ""), "idempotency_key: give 1 to 255 printable ASCII"),
        (("--idempotency-key", "a\nb"), "idempotency_key: give 1 to 255 printable ASCII"),
    ],
)
def test_nothing_that_is_given_is_passed_over(here: Here, options: tuple[str, ...], reason: str) -> None:
    given = ("--dataset", "digits", "--model", "mlp", "--optimizer", "adam", *options)
    done = here("submit", *given, env={"TRAIND_URL": "http://127.0.0.1:1", "TRAIND_API_KEY": "td_x"})
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_a_part_and_then_a_field_in_it_can_be_set(from_file: Draft) -> None:
    from_file.assign("optimizer={name: adam, lr: 1}")
    from_file.assign("optimizer.lr=2")
    from_file.label("study=mine")
    assert from_file.document["optimizer"] == {"name": "adam", "lr": 2}
    assert from_file.document["labels"] == {"study": "mine"}
