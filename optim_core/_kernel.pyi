"""The types of the native kernel; optim_core/kernel/module.c says what they do."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

SGD: int
ADAM: int
levels: tuple[str, ...]
source_hash: str

class Table:
    def read(
        self, rule: int, param_groups: list[dict[str, Any]], state: Mapping[Tensor, Any], scales: list[float] | None, /
    ) -> list[tuple[dict[str, Any], Tensor, Tensor]] | None: ...
    def run(
        self,
        threads: int,
        measure: bool,
        /,
    ) -> tuple[list[Tensor], list[tuple[float, float, float]] | None]: ...
    def forget(self) -> None: ...
    def grad_squares(
        self, param_groups: list[dict[str, Any]], threads: int, /
    ) -> tuple[list[float], list[tuple[dict[str, Any], Tensor, Tensor]] | None]: ...

def bind(tensor_type: type, parameter_type: type, /) -> None: ...
def use(level: str, /) -> None: ...
