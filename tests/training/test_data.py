"""Batches: which samples, in which order, from wherever a run goes on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.training.scenario import trainer_job
from worker.training import data as module
from worker.training.data import Data, batches, epoch_order, load_data


def numbered(n: int, width: int = 3) -> Data:
    """Sample i holds i in each feature, and target i."""
    inputs = torch.arange(n, dtype=torch.float32)[:, None].expand(n, width).contiguous()
    return Data(inputs, torch.arange(n), inputs[:0], torch.arange(0))


def take(
    data: Data, count: int, *, batch_size: int, shuffle: bool = True, seed: int = 0, step: int = 0
) -> list[Tensor]:
    found = islice(batches(data, batch_size=batch_size, shuffle=shuffle, seed=seed, step=step), count)
    targets = []
    for inputs, wanted in found:
        assert torch.equal(inputs[:, 0].long(), wanted)
        targets.append(wanted)
    return targets


@given(n=st.integers(2, 40), batch_size=st.integers(1, 40), seed=st.integers(0, 2**63 - 1))
def test_an_epoch_has_every_sample_once(n: int, batch_size: int, seed: int) -> None:
    batch_size = min(batch_size, n)
    per_epoch = -(-n // batch_size)
    for shuffle in (True, False):
        both = take(numbered(n), 2 * per_epoch, batch_size=batch_size, shuffle=shuffle, seed=seed)
        for epoch in (both[:per_epoch], both[per_epoch:]):
            assert sorted(torch.cat(epoch).tolist()) == list(range(n))
            assert [len(batch) for batch in epoch[:-1]] == [batch_size] * (per_epoch - 1)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_run_goes_on_from_any_step(batch_size: int, shuffle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside a block; here one holds a few batches only."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 200)
    data = numbered(50)
    whole = take(data, 120, batch_size=batch_size, shuffle=shuffle)
    for step in (0, 1, 6, 7, 8, 49, 50, 51, 99, 119):
        (batch,) = take(data, 1, batch_size=batch_size, shuffle=shuffle, step=step)
        assert torch.equal(batch, whole[step])
        assert batch.data_ptr() % 64 == whole[step].data_ptr() % 64, "matrix kernels may round by alignment"


@pytest.mark.parametrize("dataset", [{"name": "digits"}, {"name": "synthetic_regression", "n_samples": 1_001}])
def test_the_data_begins_at_the_same_alignment_in_every_process(dataset: dict[str, Any], tmp_path: Path) -> None:
    job = trainer_job(tmp_path, dataset=dataset)
    data = load_data(job.spec.dataset, job.settings, torch.device("cpu"))
    assert [part.data_ptr() % 64 for part in vars(data).values()] == [0, 0, 0, 0]


def test_the_order_is_the_seeds_and_the_epochs() -> None:
    assert torch.equal(epoch_order(30, seed=1, epoch=2), epoch_order(30, seed=1, epoch=2))
    others = [epoch_order(30, seed=1, epoch=3), epoch_order(30, seed=2, epoch=2), epoch_order(30, seed=2, epoch=1)]
    assert not any(torch.equal(epoch_order(30, seed=1, epoch=2), other) for other in others)


def test_without_shuffle_the_order_is_the_datas() -> None:
    assert torch.cat(take(numbered(10), 4, batch_size=3, shuffle=False)).tolist() == list(range(10))


def test_a_full_batch_is_the_data_itself() -> None:
    data = numbered(10)
    inputs, targets = next(batches(data, batch_size=10, shuffle=True, seed=0, step=0))
    assert inputs.data_ptr() == data.train_inputs.data_ptr()
    assert targets.tolist() == list(range(10))
