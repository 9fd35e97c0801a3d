"""The kernel built with the address and the undefined-behaviour sanitizer, over memory that it must keep within."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.optim_core.builds import PYTEST, build, copy_sources, libraries, python
from tests.optim_core.sample import one_in

COMPILER = os.environ.get("CC") or shutil.which("gcc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # In CI a missing compiler is a failure: tests/skips.py lets no such skip pass.
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
]
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
# The tests that guard memory, with two threads, and of the parity tests those that bring out every loop.
FILES = [
    f"tests/optim_core/test_{name}.py" for name in ("bounds", "aliasing", "odd_kinds", "parity", "clip", "telemetry")
]
CHOSEN = "not complex and not plain and not alone and (not parity or (float32 and (momentum or amsgrad)))"

ONE_STEP = """
import torch, optim_core
param = torch.nn.Parameter(torch.ones(5))
optimizer = optim_core.SGD([param], lr=0.5)
param.grad = torch.ones(5)
optimizer.step()
print(optim_core.backend())
"""


def environment() -> dict[str, str]:
    """What makes Python and torch, which are built without it, load beside a library that is built with it.

    torch throws C++ exceptions, which the sanitizer passes on only where it finds libstdc++ when it starts.
    """
    commands = [[str(COMPILER), f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so.6")]
    found = [subprocess.run(it, capture_output=True, text=True, check=True).stdout.strip() for it in commands]
    return {
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TRAIND_KERNEL": "native",
    }


def sanitized(folder: Path) -> Path:
    done = build(folder, CFLAGS=f"{SANITIZE} -g", LDFLAGS=SANITIZE)
    assert done.returncode == 0, done.stderr
    assert libraries(folder), done.stderr
    return folder


def test_the_kernel_keeps_within_its_memory(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    folder = sanitized(copy_sources(tmp_path, library=False))
    command = ("-m", "pytest", *PYTEST, "-s", "--maxfail=1", *FILES, "-k", CHOSEN)
    done = python(folder, *command, **environment(), **one_in(4, pytestconfig))
    assert done.returncode == 0, done.stderr[:3000] + done.stdout[-3000:]
    assert " passed" in done.stdout


def test_the_sanitizer_sees_one_element_too_many(tmp_path: Path) -> None:
    folder = copy_sources(tmp_path, library=False)
    source = folder / "optim_core" / "kernel" / "run.c"
    text = source.read_text()
    call = "l->update[rule][r->dtype](r, o, start, n);"
    assert call in text
    source.write_text(text.replace(call, call.replace("n)", "n + 1)")))
    setup = folder / "setup.py"
    setup.write_text(setup.read_text().replace('"-O3"', '"-O1"'))  # half of the compiler's time
    done = python(sanitized(folder), "-c", ONE_STEP, **environment())
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
