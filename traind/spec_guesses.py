"""Guesses what an unknown word in a spec was meant to be. Called by `traind.spec_words`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

from traind.spec_fields import everywhere

LONGEST = 40
"""Maximum length of a word that is compared with known ones; comparing longer words takes too long."""
ALIASES: Final[Mapping[str, str]] = {
    "learning_rate": "lr",
    "learningrate": "lr",
    "step_lr": "lr",
    "epsilon": "eps",
    "beta1": "betas",
    "beta2": "betas",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "decay": "weight_decay",
    "adamw": "decoupled_weight_decay",
    "architecture": "model",
    "network": "model",
    "data": "dataset",
    "opt": "optimizer",
    "lr_schedule": "schedule",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "clip": "grad_clip_norm",
    "clip_grad_norm": "grad_clip_norm",
    "max_grad_norm": "grad_clip_norm",
    "random_seed": "seed",
    "max_steps": "steps",
    "n_steps": "steps",
    "n_epochs": "epochs",
    "gpu": "device",
    "timeout": "max_runtime_seconds",
    "retries": "max_attempts",
    "tags": "labels",
    "hidden_layers": "hidden",
    "hidden_sizes": "hidden",
    "units": "hidden",
}
"""Names that other libraries use for a field, in lower case, and the name here."""
NAMES: Final[Mapping[tuple[str, str], str]] = {
    ("optimizer", "adamw"): "adamw is adam with decoupled_weight_decay: true",
    ("optimizer", "momentum"): "it is sgd with momentum, such as momentum: 0.9",
    ("optimizer", "nesterov"): "it is sgd with momentum and nesterov: true",
    ("optimizer", "amsgrad"): "amsgrad is adam with amsgrad: true",
    ("optimizer", "nag"): "nag is sgd with momentum and nesterov: true",
    ("dataset", "mnist"): "choose digits (8 x 8) or fashion_mnist (28 x 28)",
    ("model", "logistic_regression"): "linear is one",
    ("schedule", "warmup"): "every schedule has warmup_steps",
}
"""Names that other libraries use, in lower case, and the equivalent here."""


def guess(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` probably means."""
    if len(word) > LONGEST:
        return None
    plain = {name.replace("_", ""): name for name in known}
    lower = word.lower().replace("-", "_")
    alias = ALIASES.get(lower)
    if alias in plain.values():
        return alias
    begun = [name for name in plain.values() if len(lower) > 2 and name.startswith(lower)]
    if len(begun) == 1:
        return begun[0]
    near = difflib.get_close_matches(lower.replace("_", ""), plain, n=1, cutoff=0.75)
    return plain[near[0]] if near else None


def known_name(section: str, name: str) -> str | None:
    """The equivalent here of what other libraries call `name`."""
    return NAMES.get((section, name.lower())) if len(name) <= LONGEST else None


def elsewhere(loc: Sequence[str | int], field: str) -> tuple[list[str], str | None]:
    """Which parts of the same section have `field`, and if none, its path in another section ("optimizer.lr")."""
    here = _section(loc)
    places = _places()
    siblings = [tag for path, tag in places.get(field, ()) if path == here and tag]
    if siblings or len(field) > LONGEST or any(isinstance(part, int) for part in loc):
        return siblings, None
    meant = field if field in places else guess(field, places)
    path = next((path for path, _ in places.get(meant or "", ()) if path != here), None)
    return [], ".".join((*path, meant)) if path and meant else None


def _section(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """`loc` without the tags of unions, which stand behind the section's name."""
    sections = {path for known in _places().values() for path, _ in known}
    return tuple(loc) if tuple(loc) in sections else tuple(loc[:-1])


@cache
def _places() -> dict[str, list[tuple[tuple[str, ...], str | None]]]:
    """Each field's places, those below training first: most fields that people misplace belong there."""
    found: dict[str, list[tuple[tuple[str, ...], str | None]]] = {}
    for path, tag, field in sorted(everywhere(), key=lambda place: place[0][:1] != ("training",)):
        if field not in ("name", "type"):
            found.setdefault(field, []).append((path, tag))
    return found
