"""Examples for the OpenAPI document: specs that run as they stand, and an answer of each kind.

A test submits the specs and checks the answers against their models.
"""

from __future__ import annotations

from typing import Any

from jobs.catalog import resolve
from traind.spec import JobSpec

Json = dict[str, Any]

JOB_ID = "019a9d2c-3f51-7c1e-b8a2-5d0e6f7a8b9c"
JOB_PATH = f"/v1/jobs/{JOB_ID}"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
AT = [f"2026-11-22T12:00:{second:02}.000000Z" for second in range(10)]

SPEC: Json = {
    "name": "digits, Adam",
    "labels": {"study": "first-steps"},
    "dataset": {"name": "digits"},
    "model": {"name": "mlp", "hidden": [128]},
    "optimizer": {"name": "adam", "lr": 0.001},
    "training": {"epochs": 20, "batch_size": 32, "seed": 0},
}
SPECS: Json = {
    "adam": {"summary": "An MLP on digits with Adam", "value": SPEC},
    "sgd": {
        "summary": "The same with SGD and Nesterov momentum",
        "value": SPEC
        | {"name": "digits, SGD", "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}},
    },
    "groups": {
        "summary": "A net of its own layers; no weight decay on biases; cosine schedule",
        "value": {
            "dataset": {"name": "synthetic_regression", "n_features": 8},
            "model": {
                "name": "sequential",
                "layers": [
                    {"type": "linear", "out_features": 32},
                    {"type": "gelu"},
                    {"type": "linear", "out_features": 1},
                ],
            },
            "optimizer": {
                "name": "adam",
                "weight_decay": 0.01,
                "decoupled_weight_decay": True,
                "param_groups": [{"params": "*.bias", "weight_decay": 0.0}],
            },
            "schedule": {"name": "cosine", "warmup_steps": 50},
            "training": {"steps": 1_000, "batch_size": "full"},
        },
    },
}

_MODEL = resolve(JobSpec.model_validate(SPEC)).model
_SUMMARY: Json = {
    "last": {"train/loss": 0.081, "val/loss": 0.112, "val/accuracy": 0.966},
    "best": {"val/accuracy": {"value": 0.969, "step": 414}, "val/loss": {"value": 0.109, "step": 414}},
    "nonfinite": {},
}
_CREATOR: Json = {"key_id": 3, "name": "me"}
_JOB: Json = {
    "id": JOB_ID,
    "name": SPEC["name"],
    "labels": SPEC["labels"],
    "state": "running",
    "phase": "train",
    "waiting_for": None,
    "stopped_early": False,
    "queue": "default",
    "priority": 0,
    "attempt": 1,
    "max_attempts": 3,
    "crash_count": 0,
    "resume_exact": True,
    "resume_differences": [],
    "spec": SPEC,
    "resolved": {
        "dataset_sha256": SHA256,
        "input_shape": [1, 8, 8],
        "n_outputs": 10,
        "loss": "cross_entropy",
        "n_train": 1442,
        "n_validation": 355,
        "n_parameters": 9610,
        "batch_size": 32,
        "steps_per_epoch": 46,
        "total_steps": 920,
        "eval_every": 46,
        "device": "cpu",
        "threads": 2,
        "memory_bytes": 213324752,
        "model": _MODEL.model_dump(mode="json") if _MODEL else None,
    },
    "progress": {
        "step": 460,
        "total_steps": 920,
        "saved_step": None,
        "epoch": 10,
        "rate_steps_per_second": 1850.0,
        "eta_seconds": 0.25,
        "no_room": None,
    },
    "metrics": _SUMMARY,
    "error": None,
    "created_by": _CREATOR,
    "created_at": AT[0],
    "started_at": AT[1],
    "finished_at": None,
    "updated_at": AT[2],
    "version": 7,
    "links": {
        "self": JOB_PATH,
        "cancel": f"{JOB_PATH}/cancel",
        "pause": f"{JOB_PATH}/pause",
        "resume": f"{JOB_PATH}/resume",
        "retry": f"{JOB_PATH}/retry",
        "events": f"{JOB_PATH}/events",
        "attempts": f"{JOB_PATH}/attempts",
        "metrics": f"{JOB_PATH}/metrics",
        "checkpoints": f"{JOB_PATH}/checkpoints",
        "checks": f"{JOB_PATH}/checks",
        "audit": f"{JOB_PATH}/audit",
    },
}
_EVENT: Json = {
    "id": 12,
    "kind": "started",
    "from_state": "queued",
    "to_state": "running",
    "attempt": 1,
    "data": {"worker": "019a9d2b-0000-7000-8000-000000000000", "from_step": 0},
    "created_at": AT[1],
}
_ATTEMPT: Json = {
    "number": 1,
    "worker_id": "019a9d2b-0000-7000-8000-000000000000",
    "from_step": 0,
    "from_checkpoint_id": None,
    "fingerprint": {"torch": "2.13.0", "device": "cpu", "threads": 2},
    "resume_exact": None,
    "outcome": "crashed",
    "error": {"code": "trainer-crashed", "message": "the trainer died of signal 11 (SIGSEGV)", "retryable": True},
    "log": "Fatal Python error: Segmentation fault\n",
    "started_at": AT[1],
    "ended_at": AT[3],
}
_CHECKPOINT: Json = {
    "id": 3,
    "job_id": JOB_ID,
    "attempt": 1,
    "step": 920,
    "kind": "final",
    "complete": True,
    "pinned": False,
    "damage": None,
    "model": {"size": 38_784, "sha256": SHA256},
    "state": {"size": 80_112, "sha256": SHA256},
    "summary": _SUMMARY,
    "created_at": AT[4],
    "completed_at": AT[5],
    "links": {
        "self": "/v1/checkpoints/3",
        "job": JOB_PATH,
        "model": "/v1/checkpoints/3/content?part=model",
        "state": "/v1/checkpoints/3/content?part=state",
        "verify": "/v1/checkpoints/3/verify",
    },
}
CHECK_ID = "019a9d2d-4a62-7d2f-9b3c-6e1f70819a0b"
_CHECK: Json = {
    "id": CHECK_ID,
    "kind": "verify",
    "state": "succeeded",
    "phase": None,
    "attempt": 1,
    "job_id": JOB_ID,
    "checkpoint_id": 3,
    "from_checkpoint_id": 2,
    "from_step": 460,
    "to_step": 920,
    "steps_done": 460,
    "steps_total": 460,
    "result": {
        "kind": "verify",
        "equal": False,
        "exact": True,
        "reasons": [],
        "intact": {"model": False, "state": True},
        "unreadable": {},
        "ended": None,
        "n_tensors": 17,
        "n_different": 1,
        "differences": [
            {
                "tensor": "model/1.weight",
                "problem": "values",
                "n_elements": 8_192,
                "n_different": 1,
                "first_index": [17, 3],
                "stored": 0.0625,
                "replayed": 0.03125,
                "largest_difference": 0.03125,
            }
        ],
        "rest": [],
    },
    "error": None,
    "created_by": _CREATOR,
    "created_at": AT[5],
    "started_at": AT[6],
    "finished_at": AT[7],
    "updated_at": AT[7],
    "version": 5,
    "links": {
        "self": f"/v1/checks/{CHECK_ID}",
        "cancel": f"/v1/checks/{CHECK_ID}/cancel",
        "job": JOB_PATH,
        "checkpoint": "/v1/checkpoints/3",
    },
}
_SERIES: Json = {
    "key": "train/loss",
    "attempt": None,
    "count": 920,
    "buckets": {
        "step0": [1, 461],
        "step1": [460, 920],
        "first": [2.31, 0.12],
        "last": [0.12, None],
        "min": [0.08, 0.02],
        "max": [2.35, 0.31],
        "mean": [0.41, 0.09],
        "count": [460, 460],
        "nan_count": [0, 1],
    },
    "nonfinite": [["last", 1, "nan"]],
}
_WORKER: Json = {
    "id": "019a9d2b-0000-7000-8000-000000000000",
    "name": "gpu-box-1",
    "state": "live",
    "device": "cpu",
    "queues": ["default"],
    "slots": 1,
    "busy": 1,
    "jobs": [
        {
            "id": JOB_ID,
            "kind": "train",
            "name": SPEC["name"],
            "attempt": 1,
            "phase": "train",
            "step": 460,
            "total_steps": 920,
            "rate_steps_per_second": 1850.0,
            "lease_left_seconds": 57.2,
            "link": JOB_PATH,
        }
    ],
    "versions": {"traind": "0.1.0", "torch": "2.13.0"},
    "started_at": AT[0],
    "last_seen_at": AT[2],
    "seen_seconds": 2.8,
    "stopped_at": None,
    "trouble": None,
    "memory_bytes": 16777216000,
    "lacks": {},
}
_IDLE: Json = {"id": "019a9d2b-0000-7000-8000-000000000001", "name": "gpu-box-2", "busy": 0, "jobs": []}

ANSWERS: Json = {
    "Job": _JOB,
    "DryRun": {"spec": SPEC, "resolved": _JOB["resolved"] | {"device": None, "threads": None}, "waiting_for": None},
    "JobPage": {"jobs": [_JOB], "next_cursor": None},
    "EventPage": {"events": [_EVENT], "next_after": None},
    "AttemptList": {"attempts": [_ATTEMPT]},
    "Checkpoint": _CHECKPOINT,
    "Check": _CHECK,
    "CheckList": {"checks": [_CHECK]},
    "CheckpointList": {"checkpoints": [_CHECKPOINT]},
    "Metrics": {"job_id": JOB_ID, "step_from": 0, "step_to": None, "attempts": "visible", "series": [_SERIES]},
    "WorkerList": {"workers": [_WORKER, _WORKER | _IDLE]},
    "Ready": {"status": "degraded", "degraded": ["redis"]},
}
"""By the name of the model in api.schemas or api.check_schemas."""
