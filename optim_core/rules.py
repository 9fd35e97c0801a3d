"""The update rules: one readable function each, in plain torch, for one parameter.

They are the reference that every faster path is held to. They hold no state and check no options: `optim_core.sgd`
and `optim_core.adam` do, and call them under `torch.no_grad()`. The operations and their order are those of torch
2.13's single-tensor loop, because the order decides the last bit.

Shapes: a parameter, its gradient and its buffers have one shape, any number of dimensions, 0-d and empty included;
any strides. dtypes: any floating or complex dtype, each operation rounding once to the parameter's dtype. A tensor
where a float may stand is 0-d; scalar arithmetic then runs in its dtype, as in torch.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def sgd_update(
    param: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> Tensor | None:
    """Move `param` in place by one step of gradient descent; return the momentum buffer.

        g = grad + weight_decay * param          (-grad with maximize)
        b = momentum * b + (1 - dampening) * g   (b = g at the first step)
        g = g + momentum * b                     (nesterov), else g = b
        param = param - lr * g

    Without momentum there is no buffer: it is passed through untouched. `momentum_buffer` is None at the first step
    (a clone of g is returned) and is written in place afterwards. There is no eps. `grad` is never written.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", eq. 1-4. As
    in torch, lr multiplies the buffer where the paper lets it enter the velocity (v = -lr * b while lr is constant;
    a changed lr acts at once on the whole buffer), and Nesterov's form stores the look-ahead point, theta + mu * v,
    as the parameter. The first buffer is the gradient itself, not dampened.

    NaN and infinity go into the parameter and stay in the buffer. A zero gradient still moves the parameter by
    weight decay and by what the buffer holds; a missing one is the caller's to skip. A sparse gradient works
    without weight decay (the buffer is then sparse too); with it torch's addition raises RuntimeError. Complex
    parameters need no special case: every operation is linear with real factors.

    Disagreements with torch's loop: none known, bit for bit.
    """
    if maximize:
        grad = -grad
    if weight_decay != 0:
        grad = grad.add(param, alpha=weight_decay)
    if momentum != 0:
        if momentum_buffer is None:
            momentum_buffer = grad.clone()
        else:
            momentum_buffer.mul_(momentum).add_(grad, alpha=1 - dampening)
        grad = grad.add(momentum_buffer, alpha=momentum) if nesterov else momentum_buffer
    param.add_(grad, alpha=-lr)
    return momentum_buffer


def adam_update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    *,
    step: float,
    lr: float | Tensor = 1e-3,
    beta1: float | Tensor = 0.9,
    beta2: float | Tensor = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    sqrt: Callable[[Tensor], Tensor] = torch.sqrt,
) -> None:
    """Move `param` and its moment buffers in place by one step of Adam; `step` counts this one, from 1.

        param = param * (1 - lr * weight_decay)        (decoupled), else
        g = grad + weight_decay * param                (-grad with maximize)
        m = m + (1 - beta1) * (g - m)                  exp_avg
        v = beta2 * v + (1 - beta2) * g * g            exp_avg_sq
        v = vmax = max(vmax, v)                        (AMSGrad: max_exp_avg_sq is not None; v's buffer stays)
        param = param - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    eps stands outside the root and after the bias correction, so for a vanishing gradient the step tends to
    lr * g / eps. The buffers start at zero. `grad` is never written.

    Source: Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1; AMSGrad: Reddi, Kale & Kumar
    2018, "On the Convergence of Adam and Beyond", algorithm 2, where torch (and we) correct the bias after the
    maximum, and the paper not at all; decoupled decay: Loshchilov & Hutter 2019, "Decoupled Weight Decay
    Regularization", algorithm 2, where torch (and we) scale the decay by lr and the paper by its schedule alone.

    NaN goes into the parameter and stays in m and v (the maximum passes it on); an infinite gradient gives NaN. A
    zero gradient still moves the parameter by m's memory; at the first step it gives 0 / eps = 0, and NaN with
    eps = 0. A missing gradient is the caller's to skip, so that step counts only updates; a sparse one the caller
    refuses. A complex parameter is two real ones, as in torch: v holds the squares of both parts.

    `sqrt` takes the root of v, in a new tensor. With torch.sqrt the bits are those of torch's loop; on the CPU that
    root is off by one ulp for some inputs, and `ieee_sqrt`, with which the bits are the native kernel's, is not.

    Disagreements with torch's loop: none for float options or tensor lr, bit for bit. Tensor betas of another dtype
    than the parameter: torch rounds beta1 to the parameter's dtype first, and computes the denominator of a 0-d
    parameter in theirs; one rounding each.
    """
    if maximize:
        grad = -grad
    if weight_decay != 0:
        if decoupled_weight_decay:
            param.mul_(1 - lr * weight_decay)
        else:
            grad = grad.add(param, alpha=weight_decay)
    if torch.is_complex(param):
        param, grad = torch.view_as_real(param), torch.view_as_real(grad)
        exp_avg, exp_avg_sq = torch.view_as_real(exp_avg), torch.view_as_real(exp_avg_sq)
        max_exp_avg_sq = None if max_exp_avg_sq is None else torch.view_as_real(max_exp_avg_sq)

    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=float(1 - beta2))
    if max_exp_avg_sq is not None:
        exp_avg_sq = torch.maximum(max_exp_avg_sq, exp_avg_sq, out=max_exp_avg_sq)

    step_size = lr / (1 - beta1**step)
    bias_correction2_sqrt = (1 - beta2**step) ** 0.5
    # torch divides into a second temporary; in place the bits are the same, and large parameters step faster.
    denom = sqrt(exp_avg_sq).div_(bias_correction2_sqrt).add_(eps)
    param.addcdiv_(exp_avg, denom, value=-float(step_size))


def ieee_sqrt(x: Tensor) -> Tensor:
    """The correctly rounded square root of each element, in a new tensor of x's dtype.

    torch's own on the CPU (MKL's) is off by one ulp on some 15 % of float32 and 1 % of float64 inputs (pytorch
    #31250), and differently so on other processors. float32: through float64, whose error is too small to matter
    after the second rounding. float64: one ulp up or down where the exact remainder x - root^2 (Dekker 1971, "A
    floating-point technique for extending the available precision") says that x is beyond the middle; x is scaled
    by a power of 4 where a part could overflow or underflow. Elsewhere (CUDA, reduced dtypes) torch's root is IEEE's.
    """
    if x.device.type != "cpu" or x.dtype not in {torch.float32, torch.float64}:
        return torch.sqrt(x)
    if x.dtype == torch.float32:
        return x.double().sqrt_().float()
    power = torch.ones_like(x).masked_fill_(x < 2.0**-500, 2.0**300).masked_fill_(x > 2.0**500, 2.0**-300)
    scaled = x * power * power
    root = torch.sqrt(scaled)
    split = root * (2.0**27 + 1)
    high = split - (split - root)
    low = root - high
    square = root * root
    remainder = (scaled - square) - (((high * high - square) + 2 * high * low) + low * low)
    up, down = torch.nextafter(root, torch.full_like(x, torch.inf)), torch.nextafter(root, torch.zeros_like(x))
    root = torch.where(remainder > root * (up - root), up, root)
    # Both sides are multiples of the square of an ulp, so that "beyond the middle" is "at least" here.
    return torch.where((remainder <= root * (down - root)) & (root > 0), down, root).div_(power)
