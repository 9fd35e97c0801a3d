"""What the jobs of a chaos run train: short, each with something that an interruption could spoil."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

DIGITS = {"name": "digits"}
WIDE = {"name": "synthetic_classification", "n_samples": 250_000, "n_features": 64, "n_classes": 8, "seed": 4}
"""Takes a while to make, and to evaluate."""


LONG = "sgd-dropout-cosine"
"""Takes longer than a lease, and says little: a trainer whose worker is stopped must end by itself, not be held up."""


def _spec(**parts: Any) -> Spec:
    """On one thread, never out of attempts, with every checkpoint kept to be compared."""
    parts["training"] = {"threads": 1, **parts["training"]}
    return {"resources": {"max_attempts": 100}, "checkpoints": {"keep_last": None}, **parts}


SPECS: dict[str, Spec] = {
    LONG: _spec(
        dataset=DIGITS,
        model={"name": "mlp", "hidden": [64], "dropout": 0.2},
        optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
        schedule={"name": "cosine", "warmup_steps": 50},
        training={"steps": 30_000, "log_every": 250, "eval_every": 1_500, "checkpoint_every": 1_700, "seed": 1},
    ),
    "nesterov-cnn": _spec(
        dataset=DIGITS,
        model={"name": "cnn", "channels": [6], "hidden": [24]},
        optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
        schedule={"name": "step", "step_size": 300, "gamma": 0.5},
        training={
            "steps": 900,
            "batch_size": 16,
            "log_every": 5,
            "eval_every": 100,
            "checkpoint_every": 130,
            "seed": 2,
        },
    ),
    "adam-early-stopping": _spec(
        dataset={"name": "synthetic_classification", "noise": 2.0, "seed": 3},
        model={"name": "mlp", "hidden": [64, 32], "activation": "gelu", "dropout": 0.1},
        optimizer={"name": "adam", "lr": 3e-3, "decoupled_weight_decay": True, "weight_decay": 0.01},
        training={
            **{"steps": 6_000, "batch_size": 8, "log_every": 3, "eval_every": 250, "checkpoint_every": 350, "seed": 3},
            "early_stopping": {"metric": "val/loss", "patience": 6},
            "grad_clip_norm": 1.0,
        },
    ),
    "amsgrad-evaluation": _spec(
        dataset=WIDE,
        model={"name": "mlp", "hidden": [256, 256]},
        optimizer={"name": "adam", "lr": 1e-3, "amsgrad": True},
        training={"steps": 120, "log_every": 4, "eval_every": 15, "checkpoint_every": 25, "seed": 4},
    ),
    "adam-large": _spec(
        dataset=DIGITS,
        model={"name": "mlp", "hidden": [768, 768], "dropout": 0.3},
        optimizer={"name": "adam", "lr": 5e-4},
        schedule={"name": "linear", "final_factor": 0.1},
        training={"steps": 240, "log_every": 2, "eval_every": 50, "checkpoint_every": 45, "seed": 5},
    ),
    "full-batch": _spec(
        dataset={"name": "synthetic_regression", "n_samples": 20_000, "n_features": 32, "n_targets": 2, "seed": 6},
        model={"name": "mlp", "hidden": [48], "activation": "tanh"},
        optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.8},
        training={"steps": 250, "batch_size": "full", "eval_every": 40, "checkpoint_every": 60, "seed": 6},
    ),
}
