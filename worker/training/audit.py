"""Audit: the first steps of a job by optim_core, then by torch.optim's default implementation; how far apart are they?

The result, as JSON: {"equal", "steps", "optimizer", "torch", "ended": {"optim_core", "torch.optim"},
"first_different_step", "n_tensors", "n_different", "largest_ulp", "tensors": [...]}: each weight and each tensor of the
optimizer's state after the last step. Both passes have the same seed, threads and data; only the optimizer (with its
clipping) is another, so what they differ by is its rounding, carried on from step to step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from optim_core import SGD, Adam
from traind.spec import Optimizer as OptimizerSpec
from worker.training.compare import difference, flat, largest_ulp, pairs
from worker.training.messages import Audit, Checked, Control, Phase, Ready, Stopped, TrainerJob
from worker.training.optimizer import Optimizer, build_optimizer
from worker.training.outbox import Emit
from worker.training.replay import Interrupted, replay
from worker.training.session import Session, prepare
from worker.training.state import Tensors, model_tensors, state_tensors


class _Clipping(torch.optim.Optimizer):
    """torch's own clipping under the name that the loop calls."""

    def clip_grad_norm(self, max_norm: float) -> Tensor:
        return clip_grad_norm_([p for group in self.param_groups for p in group["params"]], max_norm)


class TorchSgd(_Clipping, torch.optim.SGD):
    pass


class TorchAdam(_Clipping, torch.optim.Adam):
    pass


def audit(job: TrainerJob, task: Audit, emit: Emit, control: Control) -> None:
    """The last message is Checked, or Stopped. Raises TrainingError."""
    job = _unmeasured(job)
    try:
        ours = _pass(job, emit, control, build_optimizer, steps=task.steps, done=0)
        theirs = _pass(job, emit, control, _torch_optimizer, steps=task.steps, done=task.steps)
    except Interrupted as interrupted:
        emit(Stopped(interrupted.kind, interrupted.step))
        return
    emit(Phase("compare"))
    names = {"steps": task.steps, "optimizer": ours.backend, "torch": torch.__version__}
    emit(Checked(task.steps + len(theirs.crcs), {**names, **_judge(ours, theirs)}))


class _Pass:
    """What a pass left: its tensors, a CRC-32 of the weights after each step, and why it ended early."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.crcs: list[int] = []
        self.ended: str | None = None
        self.tensors = Tensors()

    def note_step(self, model: nn.Module) -> None:
        crc = 0
        for parameter in model.parameters():
            crc = zlib.crc32(flat(parameter).view(torch.uint8).numpy().data, crc)
        self.crcs.append(crc)

    def keep(self, session: Session) -> None:
        model, _ = model_tensors(session.model)
        state = state_tensors(session.model, session.optimizer)
        kept = {f"model/{name}": tensor for name, tensor in model.items()}
        kept |= {f"state/{name}": tensor for name, tensor in state.items() if not name.startswith("rng/")}
        self.tensors = {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}


def _pass(
    job: TrainerJob,
    emit: Emit,
    control: Control,
    build: Callable[[OptimizerSpec, nn.Module], Optimizer],
    *,
    steps: int,
    done: int,
) -> _Pass:
    session, _ = prepare(job, emit, build=build)
    if done == 0:
        emit(Ready(session.fingerprint, job.resolved.n_parameters, 0, []))
    left = _Pass(session.fingerprint["optimizer"])
    note = partial(left.note_step, session.model)
    left.ended = replay(job, session, emit, control, to_step=steps, done=done, on_step=note)
    left.keep(session)
    return left


def _unmeasured(job: TrainerJob) -> TrainerJob:
    """torch's optimizers measure nothing; it changes no bits."""
    training = job.spec.training.model_copy(update={"telemetry_every": None})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"training": training})})


def _torch_optimizer(optimizer: OptimizerSpec, model: nn.Module) -> Optimizer:
    sgd, adam = cast(type[SGD], TorchSgd), cast(type[Adam], TorchAdam)  # they have all that the loop calls
    return build_optimizer(optimizer, model, sgd=sgd, adam=adam)


def _judge(ours: _Pass, theirs: _Pass) -> dict[str, Any]:
    comparable = len(ours.crcs) == len(theirs.crcs)
    tensors = [
        _distance(name, one, other)
        for name, one, other in pairs(ours.tensors, theirs.tensors)
        if comparable and one is not None and other is not None
    ]
    apart = [step + 1 for step, (a, b) in enumerate(zip(ours.crcs, theirs.crcs, strict=False)) if a != b]
    ulps = [tensor["largest_ulp"] for tensor in tensors]
    n_different = sum(tensor["n_different"] > 0 for tensor in tensors)
    return {
        "equal": comparable and n_different == 0 and ours.ended == theirs.ended,
        "ended": {"optim_core": ours.ended, "torch.optim": theirs.ended},
        "first_different_step": min(apart, default=None),
        "n_tensors": len(tensors),
        "n_different": n_different,
        "largest_ulp": None if None in ulps else max(ulps, default=None),
        "tensors": tensors,
    }


def _distance(name: str, ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    found = difference(ours, theirs)
    return {
        "tensor": name,
        "n_elements": ours.numel(),
        "n_different": 0 if found is None else found.n_different,
        "largest_ulp": largest_ulp(ours, theirs),
        "largest_difference": 0.0 if found is None else found.largest,
    }
