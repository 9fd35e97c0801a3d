"""Which kernel updates on the CPU: the native one, at an instruction set, or the plain rules.

`TRAIND_KERNEL=native|torch` chooses when the package is imported; unset, it is the native kernel where it was built.
The instruction set is the best that torch itself uses (`ATEN_CPU_CAPABILITY` included) and this processor has, because
the bits are torch's at the same set. `optim_core.kernel` holds the C; this module is what the optimizers know of it.
"""

import os
import warnings
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch

CHOICES = ("native", "torch")
# torch's names of its own levels; others (arm64's, "NO AVX") are what the compiler's default gives.
LEVELS = {"AVX512": ("avx512", "avx2", "portable"), "AVX2": ("avx2", "portable")}


def backend() -> str:
    """What updates parameters on the CPU: "native (avx512)", "native (avx2)", "native (portable)" or "torch".

    Followed, for "torch", by why it isn't the native kernel.
    """
    if kernel is not None:
        return f"native ({level})"
    return "torch" if not _reason else f"torch ({_reason})"


def source_hash() -> str | None:
    """The hash of the C files beside this package, None where it is installed without them."""
    folder = Path(__file__).with_name("kernel")
    files = sorted(str(path.relative_to(folder.parent.parent)) for path in folder.glob("*.[ch]"))
    if not files:
        return None
    return sha256(b"".join((folder.parent.parent / name).read_bytes() for name in files)).hexdigest()


def _load() -> tuple[ModuleType | None, str]:
    """The kernel, or None and why it is missing."""
    try:
        from optim_core import _kernel
    except ImportError as error:
        return None, f"not built: {error}"
    expected = source_hash()
    if expected not in {None, _kernel.source_hash}:
        return None, "built from other sources than those beside it"
    try:
        _kernel.bind(torch.Tensor, torch.nn.Parameter)
    except ImportError as error:
        return None, str(error)
    return _kernel, ""


def _choose() -> tuple[ModuleType | None, str]:
    """The kernel that TRAIND_KERNEL asks for. Raises ImportError where it asks for what is not there."""
    wanted = os.environ.get("TRAIND_KERNEL") or None
    if wanted not in {None, *CHOICES}:
        raise ImportError(f"TRAIND_KERNEL={wanted!r}: it must be one of {', '.join(CHOICES)}, or unset")
    if wanted == "torch":
        return None, ""
    found, reason = _load()
    if found is None and wanted == "native":
        raise ImportError(f"TRAIND_KERNEL=native, but the kernel is {reason}; {REMEDY}")
    if found is None:
        warnings.warn(f"optim_core updates by plain torch: its kernel is {reason}; {REMEDY}", RuntimeWarning, 2)
    return found, reason


def _use_best(module: ModuleType) -> str:
    capability = torch.backends.cpu.get_cpu_capability()
    best = next(name for name in LEVELS.get(capability, ("portable",)) if name in module.levels)
    module.use(best)
    return best


REMEDY = "install a C compiler with OpenMP (Debian: gcc libc6-dev) and install traind again, or set TRAIND_KERNEL=torch"

kernel, _reason = _choose()
level = None if kernel is None else _use_best(kernel)
