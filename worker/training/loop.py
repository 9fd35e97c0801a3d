"""The training loop. `prepare` seeds, builds and restores; from there it reads top to bottom, step after step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isfinite

from worker.training.checkpoints import Checkpoints
from worker.training.data import batches
from worker.training.divergence import Divergence, check_parameters, check_step, largest
from worker.training.evaluate import count_correct, evaluate
from worker.training.messages import CheckpointKind, Control, Finished, Phase, Ready, StopKind, Stopped, TrainerJob
from worker.training.outbox import Emit, Outbox
from worker.training.schedule import multiplier, set_rates
from worker.training.session import Session, prepare
from worker.training.telemetry import telemetry


def train(job: TrainerJob, emit: Emit, control: Control) -> None:
    """Train to the end of the spec and say so: the last message is Finished, or Stopped where `control` asks.

    `emit` is called from two threads. Raises TrainingError where the run can't go on.
    """
    session, differences = prepare(job, emit)
    emit(Ready(session.fingerprint, job.resolved.n_parameters, session.step, differences))
    emit(Phase("train"))
    outbox = Outbox(emit, session.recorder, job.resolved)
    described = session.architecture
    with Checkpoints(session.model, session.optimizer, job.scratch_dir, emit, architecture=described) as checkpoints:
        try:
            end = _steps(job, session, outbox, checkpoints, control)
        except Divergence as divergence:
            session.recorder.close_window(session.step)
            outbox.flush()
            error = divergence.error(session.last_saved)
            end = Finished("diverged", session.step, session.recorder.summary(), error)
        checkpoints.wait()
    emit(end)


def _steps(
    job: TrainerJob, session: Session, outbox: Outbox, checkpoints: Checkpoints, control: Control
) -> Finished | Stopped:
    """All steps that are left, with their checkpoints. Raises Divergence."""
    for last in steps(job, session, outbox):
        stop = control.stop
        if kind := _due(session.step, last=last, every=job.spec.training.checkpoint_every, stop=stop):
            _save(session, outbox, checkpoints, kind)
        if stop is not None and not last:
            return Stopped(stop, session.step)
    early = session.stopping.stopped and session.step < job.resolved.total_steps
    stopped = {"stopped_early": True} if early else {}
    return Finished("succeeded", session.step, session.recorder.summary() | stopped, None)


def steps(job: TrainerJob, session: Session, outbox: Outbox) -> Iterator[bool]:
    """Train, and yield at the safe point after each step and its evaluation: whether it was the last.

    Raises Divergence, from the step that met it.
    """
    spec, resolved, training = job.spec, job.resolved, job.spec.training
    model, optimizer, recorder, loss_of = session.model, session.optimizer, session.recorder, session.loss_of
    watch = session.watch
    parameters, classes, clip = list(model.parameters()), resolved.loss == "cross_entropy", training.grad_clip_norm
    total_steps, step = resolved.total_steps, session.step
    model.train()
    source = batches(
        session.data, batch_size=resolved.batch_size, shuffle=training.shuffle, seed=training.seed, step=step
    )
    while step < total_steps and not session.stopping.stopped:
        session.step = step = step + 1
        inputs, targets = next(source)  # [batch, *input_shape]; [batch] or [batch, n_targets]
        outputs = model(inputs)  # [batch, n_outputs]
        loss = loss_of(outputs, targets)  # []
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        observed = [loss.item()]
        if classes:
            observed.append(count_correct(outputs, targets) / len(targets))
        if clip is not None:
            observed.append(optimizer.clip_grad_norm(clip).item())
        rate = multiplier(spec.schedule, step, total_steps)
        set_rates(optimizer, rate)
        recorder.add(step, *observed, share=len(targets) / resolved.batch_size)
        norm_is_finite = clip is not None and isfinite(observed[-1])
        check_step(model, () if norm_is_finite else [p.grad for p in parameters], step, observed[0])
        watch.see_loss(step, observed[0], session.last_saved)
        measured = training.telemetry_every is not None and step % training.telemetry_every == 0
        if measured:
            optimizer.measure_next_step()
        watch.before_update()
        optimizer.step()
        if measured:
            recorder.add_telemetry(step, telemetry(optimizer))
        watch.see_update(step, rate, session.last_saved)
        outbox.beat(step)

        last = step == total_steps
        if last or step % resolved.eval_every == 0:
            _evaluate(session, outbox)
            last = last or session.stopping.stopped
        yield last


def _evaluate(session: Session, outbox: Outbox) -> None:
    step = session.step
    values = evaluate(session.model, session.data, session.loss_of, partial(outbox.evaluation_beat, step))
    session.recorder.add_evaluation(step, values)
    if not isfinite(values["val/loss"]):
        check_parameters(session.model, step)
        raise Divergence("loss", step, largest(session.model.named_parameters()))
    session.stopping.update(values)


def _due(step: int, *, last: bool, every: int | None, stop: StopKind | None) -> CheckpointKind | None:
    """The kind of checkpoint to take at this safe point, if any."""
    if last:
        return "final"
    if stop is not None:
        return "drain" if stop == "limit" else stop
    return "interval" if every is not None and step % every == 0 else None


def _save(session: Session, outbox: Outbox, checkpoints: Checkpoints, kind: CheckpointKind) -> None:
    """Metrics up to this step leave before its checkpoint does."""
    check_parameters(session.model, session.step)
    if kind == "final":
        session.recorder.close_window(session.step)
    outbox.flush()
    if kind != "interval":
        outbox.emit(Phase("checkpoint"))
    checkpoints.save(
        session.document(),
        step=session.step,
        kind=kind,
        summary=session.recorder.summary(),
        needed=session.watch.good(),
    )
    session.last_saved = session.step
