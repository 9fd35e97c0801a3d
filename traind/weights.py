"""`traind.load_model`, implemented by the extra `worker`. torch is imported only when it is called."""

from __future__ import annotations

from importlib.metadata import entry_points
from os import PathLike
from typing import Any

FUNCTIONS = "traind.functions"


def load_model(path: str | PathLike[str]) -> Any:
    """Load the model from a weights file written by `Client.download` or `traind download`: a torch.nn.Module in
    evaluation mode, on the CPU. The model takes raw values and applies its data set's preprocessing itself.

    `model(values)` takes a tensor or array [batch, ...] of any dtype and returns outputs [batch, n_outputs].
    `model.preprocess(values)` returns the input of `model.layers`, a torch.nn.Sequential. `model.classes` has the names
    of the classes by index, or is None. `model.architecture` is the description in the file.

    Raises ModelUnreadable if the file is damaged, not from traind, or from an early version that did not describe its
    model; OSError if it cannot be read; ImportError without torch. Nothing in the file is executed, so it may come from
    an untrusted source.
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
