"""What one step did to a param group, in the numbers that tell whether a learning rate fits."""

from dataclasses import dataclass
from math import nan

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class GroupTelemetry:
    """Norms over the parameters of a group that had a gradient at this step; 0 where none had."""

    grad_norm: float
    """L2 norm of the gradients as they are stored: before `clip_grad_norm`'s factor, without weight decay."""
    update_norm: float
    """L2 norm of the change of the parameters, decay included."""
    weight_norm: float
    """L2 norm of the parameters before the step."""
    rate_quantiles: tuple[float, ...] | None = None
    """Adam: the `QUANTILES` of the effective rate, lr / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps), over an
    even sample of the group's elements (2,048 at most, but one of each parameter); None for SGD."""

    @property
    def update_ratio(self) -> float:
        """update_norm / weight_norm: about 1e-3 is usual. NaN where the parameters were all zero."""
        return self.update_norm / self.weight_norm if self.weight_norm else nan
