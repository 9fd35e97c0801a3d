"""The arena: many replicas of one model in flat memory, moved in one pass, each by options of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from optim_core.adam import Adam
from optim_core.base import clip_factor
from optim_core.sgd import SGD
from optim_core.telemetry import GroupTelemetry


class Arena:
    """N replicas of a model's parameters, their gradients and their state as views of flat buffers [N, elements].

    - kind: `SGD`, `Adam` or `AdamW`.
    - params: the model's parameters stacked, [N, *shape] each, of one floating dtype and device. They are moved into
      the arena: their values stay, their memory (`.data`) becomes a view of it. For models where every parameter
      gets a gradient at every step; the step copies the gradients in.
    - rows: N dicts of options, one hyperparameter row a replica: what a param group of `kind` takes beside `params`.

    Each replica's parameters and state are, bit for bit, what `kind` alone would make of them.

    Raises ValueError where the stacks, the dtypes or the number of rows do not fit; what `kind` raises for options.
    """

    def __init__(
        self, kind: type[SGD] | type[Adam], params: Iterable[Parameter], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        self.params = list(params)
        check_stacks(self.params, len(rows))
        for row in rows:
            kind([Parameter(torch.empty(0))], **row)  # the options of a param group go unchecked, as in torch
        self._build(kind, rows)

    def _build(self, kind: type[SGD] | type[Adam], rows: Sequence[Mapping[str, Any]]) -> None:
        """Move the parameters into a flat buffer and make the optimizer over its rows."""
        first = self.params[0]
        n_elements = sum(param[0].numel() for param in self.params)
        flat = torch.empty(len(first), n_elements, dtype=first.dtype, device=first.device)
        flat_grad = torch.zeros_like(flat)
        self._views, self._grads = self._split(flat), self._split(flat_grad)
        for param, view in zip(self.params, self._views, strict=True):
            param.data = view.copy_(param.data)
        self._replicas = [Parameter(row) for row in flat]
        for replica, grad in zip(self._replicas, flat_grad, strict=True):
            replica.grad = grad
        groups = [{**row, "params": [replica]} for row, replica in zip(rows, self._replicas, strict=True)]
        self.optimizer: SGD | Adam = kind(groups)

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Views [..., *shape] of [..., elements], one for each parameter."""
        shapes = [param.shape[1:] for param in self.params]
        parts = torch.split(flat, [shape.numel() for shape in shapes], dim=-1)
        return [part.view(*flat.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The options of each replica; change them as those of a param group."""
        return self.optimizer.param_groups

    @property
    def measured(self) -> tuple[GroupTelemetry, ...] | None:
        """What the step after `measure_next_step` did to each replica."""
        return self.optimizer.measured

    def measure_next_step(self) -> None:
        """As `RuleOptimizer.measure_next_step`."""
        self.optimizer.measure_next_step()

    def zero_grad(self) -> None:
        """Drop the gradients, and the factors of `clip_grad_norm`."""
        for param in self.params:
            param.grad = None
        self.optimizer._scales = None

    def clip_grad_norm(self, max_norms: Sequence[float]) -> Tensor:
        """Bound each replica's gradient norm by its own max_norm (inf: not at all); return the norms, [N].

        As `RuleOptimizer.clip_grad_norm`: one pass, and the factors wait for the next step. Raises ValueError where
        there is not one max_norm ≥ 0 for each replica.
        """
        if len(max_norms) != len(self.rows) or not all(max_norm >= 0 for max_norm in max_norms):
            raise ValueError(f"max_norms must be {len(self.rows)} numbers of at least 0, one a replica: {max_norms}")
        self._take_gradients()
        norms = [total**0.5 for total in self.optimizer._grad_squares()]
        self.optimizer._scales = [clip_factor(limit, norm) for limit, norm in zip(max_norms, norms, strict=True)]
        return torch.tensor(norms, dtype=self.params[0].dtype)

    def step(self) -> None:
        """One step of every replica.

        Raises RuntimeError where a parameter has no gradient, and where one was re-assigned (`.data`, `.to`): its
        values would not move.
        """
        self._take_gradients()
        self.optimizer.step()
        increment_version(self.params)

    def _take_gradients(self) -> None:
        """Copy the gradients in, once all is checked."""
        gradients = []
        for index, (param, view) in enumerate(zip(self.params, self._views, strict=True)):
            if not same_memory(param, view):
                raise RuntimeError(f"parameter {index} was re-assigned after the arena was made; make a new Arena")
            if param.grad is None:
                raise RuntimeError(f"parameter {index} has no gradient; in an arena every parameter needs one")
            gradients.append(param.grad)
        torch._foreach_copy_(self._grads, gradients)

    def state_dict(self, replica: int) -> dict[str, Any]:
        """One replica's state dict in torch's form, as if `kind` had trained its parameters alone; copies."""
        entry = self.optimizer.state[self._replicas[replica]]
        flat = {key: self._split(value) for key, value in entry.items() if key != "step"}
        state = {}
        for index in range(len(self.params) if entry else 0):
            state[index] = {"step": entry["step"].clone()} if "step" in entry else {}
            state[index] |= {key: parts[index].clone() for key, parts in flat.items()}
        options = {key: value for key, value in self.rows[replica].items() if key != "params"}
        return {"state": state, "param_groups": [options | {"params": list(range(len(self.params)))}]}

    def load_state_dict(self, replica: int, state_dict: dict[str, Any]) -> None:
        """Take over one replica's state and options from a state dict in torch's form.

        Raises ValueError where it isn't of one param group with this model's parameters, all with equal steps.
        """
        groups, state = state_dict["param_groups"], state_dict["state"]
        if len(groups) != 1 or len(groups[0]["params"]) != len(self.params):
            raise ValueError(f"the state dict must have one param group of {len(self.params)} parameters")
        entries = [state[index] for index in groups[0]["params"] if state.get(index)]
        if entries and (len(entries) != len(self.params) or len({float(e.get("step", 0)) for e in entries}) != 1):
            raise ValueError("in an arena all parameters of a replica have state, of equal steps")
        for entry in entries[:1]:
            keys = [key for key in entry if key != "step"]
            merged = {key: torch.cat([torch.as_tensor(e[key]).reshape(-1) for e in entries]) for key in keys}
            if any(value.shape != self._replicas[0].shape for value in merged.values()):
                raise ValueError(f"the state must be of the parameters' {len(self._replicas[0])} elements")
            entries[0] = merged | ({"step": torch.as_tensor(entry["step"]).clone()} if "step" in entry else {})
        whole = self.optimizer.state_dict()
        whole["state"] = (
            whole["state"] | {replica: entries[0]}
            if entries
            else {index: entry for index, entry in whole["state"].items() if index != replica}
        )
        whole["param_groups"][replica] = {**groups[0], "params": whole["param_groups"][replica]["params"]}
        self.optimizer.load_state_dict(whole)

    def __getstate__(self) -> dict[str, Any]:
        dicts = [self.state_dict(replica) for replica in range(len(self.rows))]
        return {"params": self.params, "kind": type(self.optimizer), "state_dicts": dicts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Lay the copied parameters out anew, in an arena of their own."""
        options = [dict(one["param_groups"][0]) for one in state["state_dicts"]]
        rows = [{key: value for key, value in row.items() if key != "params"} for row in options]
        self.params = state["params"]
        self._build(state["kind"], rows)
        for replica, state_dict in enumerate(state["state_dicts"]):
            self.load_state_dict(replica, state_dict)


def same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same view of the same memory."""
    return (one.data_ptr(), one.shape, one.stride(), one.dtype) == (
        other.data_ptr(),
        other.shape,
        other.stride(),
        other.dtype,
    )


def check_stacks(params: list[Parameter], n: int) -> None:
    """Raise ValueError where these are not n replicas of one model's parameters."""
    if not params or not n:
        raise ValueError("an arena needs at least one parameter and one row of options")
    for index, param in enumerate(params):
        if param.dim() == 0 or len(param) != n:
            raise ValueError(f"parameter {index} has shape {tuple(param.shape)}; for {n} rows it must be [{n}, ...]")
        if not param.is_floating_point() or (param.dtype, param.device) != (params[0].dtype, params[0].device):
            raise ValueError(f"parameter {index} is {param.dtype} on {param.device}; all must be floating and the same")
