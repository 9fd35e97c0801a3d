"""`traind.load_model`: a door to what the extra `worker` brings. Nothing of torch is imported before it is called."""

from __future__ import annotations

from importlib.metadata import entry_points
from os import PathLike
from typing import Any

FUNCTIONS = "traind.functions"


def load_model(path: str | PathLike[str]) -> Any:
    """The model in a file of weights, as `Client.download` or `traind download` wrote it: a torch.nn.Module in
    evaluation mode, on the CPU. It takes raw values and does its data set's preprocessing itself.

    `model(values)` makes outputs [batch, n_outputs] of a tensor or array [batch, ...] of any dtype.
    `model.preprocess(values)` is what its `model.layers`, a torch.nn.Sequential, take. `model.classes` has the names of
    the classes by index, or is None. `model.architecture` is the description in the file.

    Raises ModelUnreadable for a file that is damaged, not of traind, or of an early version that did not describe its
    model; OSError if it cannot be read; ImportError without torch. Nothing in the file is executed, so it may be
    anybody's.
    """
    found = tuple(entry_points(group=FUNCTIONS, name="load_model"))
    if not found:
        raise ImportError(
            "traind is on the path but not installed, or of an earlier version: pip install 'traind[worker]'"
        )
    try:
        load = found[0].load()
    except ModuleNotFoundError as error:
        raise ImportError(
            f"traind.load_model needs {error.name}; install the extra: pip install 'traind[worker]'", name=error.name
        ) from error
    return load(path)
