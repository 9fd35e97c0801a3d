"""All that a run is made of, built from its job and, where there is one, put back to where a checkpoint was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import nn

from jobs.catalog.architecture import architecture
from jobs.catalog.datasets import facts
from jobs.catalog.models import layers
from traind.spec import Optimizer as OptimizerSpec
from worker.training.data import Data, load_data
from worker.training.early_stopping import Stopping
from worker.training.errors import TrainingError
from worker.training.evaluate import LossFunction, loss_function
from worker.training.fingerprint import Fingerprint, differences, fingerprint, settle
from worker.training.messages import Phase, TrainerJob
from worker.training.metrics import Recorder
from worker.training.models import build_model
from worker.training.optimizer import Optimizer, build_optimizer
from worker.training.outbox import Emit
from worker.training.state import Document, restore
from worker.training.watch import Watch

Build = Callable[[OptimizerSpec, nn.Module], Optimizer]


@dataclass
class Session:
    """A run between two steps. `step` counts the updates made."""

    model: nn.Sequential
    data: Data
    optimizer: Optimizer
    loss_of: LossFunction
    recorder: Recorder
    stopping: Stopping
    watch: Watch
    fingerprint: Fingerprint
    architecture: Document
    """What goes into each file of weights, so that they can be used without traind."""
    step: int = 0
    last_saved: int | None = None
    """Step of the newest checkpoint."""

    def document(self) -> Document:
        """What of this, beside tensors, belongs into a checkpoint."""
        watched = self.watch.state()
        return {
            "step": self.step,
            "recorder": self.recorder.state(),
            "stopping": self.stopping.state(),
            "fingerprint": self.fingerprint,
            **({} if watched is None else {"watch": watched}),
        }


def prepare(job: TrainerJob, emit: Emit, *, build: Build = build_optimizer) -> tuple[Session, list[str]]:
    """Seed, model, data, optimizer, restore; and how this machine's fingerprint differs from the checkpoint's.

    Emits Phase("load"), again and again while data is downloaded. Raises TrainingError.
    """
    started = perf_counter()
    loads = partial(emit, Phase("load"))
    loads()
    spec, resolved = job.spec, job.resolved
    device = settle(resolved)
    torch.manual_seed(spec.training.seed)
    model = build_model(spec.model, resolved.input_shape, resolved.n_outputs).to(device)
    data = load_data(spec.dataset, job.settings, device, beat=loads)
    optimizer = build(spec.optimizer, model)
    recorder = Recorder(
        optimizer,
        started=started,
        log_every=spec.training.log_every,
        accuracy=resolved.loss == "cross_entropy",
        grad_norm=spec.training.grad_clip_norm is not None,
    )
    stopping = Stopping(spec.training.early_stopping)
    watch = Watch(spec.training.divergence, model)
    here = fingerprint(device, _dataset_sha256(job))
    loss_of, described = loss_function(resolved.loss), _architecture(job)
    session = Session(model, data, optimizer, loss_of, recorder, stopping, watch, here, described)
    return session, _restore(session, job)


def _restore(session: Session, job: TrainerJob) -> list[str]:
    if job.checkpoint is None:
        return []
    document = restore(job.checkpoint, session.model, session.optimizer)
    session.step = session.last_saved = document["step"]
    session.recorder.restore(document["recorder"])
    session.stopping.restore(document["stopping"])
    session.watch.restore(document.get("watch"))
    return differences(session.fingerprint, document["fingerprint"])


def _architecture(job: TrainerJob) -> Document:
    """Worked out again: a job that an earlier version took in has none in `resolved`."""
    data = facts(job.spec.dataset)
    return architecture(data, layers(job.spec.model, data.input_shape, data.n_outputs)).model_dump(mode="json")


def _dataset_sha256(job: TrainerJob) -> str:
    """The hash of the dataset as this worker knows it, which must be the one the job was accepted with."""
    here, accepted = facts(job.spec.dataset).sha256, job.resolved.dataset_sha256
    if here != accepted:
        raise TrainingError(
            f"this worker's {job.spec.dataset.name} has hash {here}, the job was accepted with {accepted}: "
            "api and worker are of different versions; submit the job again"
        )
    return here
