"""Which kernel runs: TRAIND_KERNEL, a missing compiler, a stale library, a torch that does not fit; and who is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import optim_core
from tests.optim_core.builds import build, copy_sources, libraries, python
from tests.optim_core.forks import Forks, forks
from tests.optim_core.pairs import needs_kernel

STEP = """
import torch, optim_core
param = torch.nn.Parameter(torch.ones(3))
optimizer = optim_core.Adam([param], lr=0.5)
for _ in range(2):
    param.grad = torch.ones(3)
    optimizer.clip_grad_norm(1.0)
    optimizer.measure_next_step()
    optimizer.step()
assert abs(float(param[0].detach())) < 1e-5, param
assert optimizer.measured[0].update_norm > 0
"""
REPORT = STEP + "import optim_core.native\nprint(optim_core.backend())"
REMEDY = "install a C compiler with OpenMP (Debian: gcc libc6-dev) and install traind again, or set TRAIND_KERNEL=torch"


@pytest.fixture(scope="module")
def loaded() -> Iterator[Forks]:
    """With torch; the first tests of this file show that a process which has it to import does the same."""
    with forks("torch") as made:
        yield made


@pytest.fixture(scope="module")
def without_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an install leaves where there is no compiler."""
    folder = copy_sources(tmp_path_factory.mktemp("no-compiler"), library=False)
    done = build(folder, CC="/nonexistent/cc")
    assert done.returncode == 0, done.stderr
    assert libraries(folder) == []
    return folder


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library beside sources that were changed since."""
    folder = copy_sources(tmp_path_factory.mktemp("stale"), library=True)
    assert libraries(folder)
    with (folder / "optim_core" / "kernel" / "run.c").open("a") as file:
        file.write("\n/* a comment, no more */\n")
    return folder


def warned(stderr: str) -> int:
    return stderr.count("RuntimeWarning: optim_core updates by plain torch")


def test_without_a_compiler_it_installs_says_so_once_and_trains(without_library: Path) -> None:
    done = python(without_library, "-W", "always", "-c", REPORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch (not built: ")
    assert warned(done.stderr) == 1
    assert REMEDY in done.stderr


def test_without_a_compiler_torchs_kernel_may_be_chosen_in_silence(without_library: Path) -> None:
    done = python(without_library, "-W", "error", "-c", REPORT, TRAIND_KERNEL="torch")
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch\n", "")


def test_without_a_compiler_the_native_kernel_cannot_be_chosen(loaded: Forks, without_library: Path) -> None:
    done = loaded.python(without_library, REPORT, TRAIND_KERNEL="native")
    assert done.returncode == 1
    assert "ImportError: TRAIND_KERNEL=native, but the kernel is not built: " in done.stderr
    assert REMEDY in done.stderr


@needs_kernel
def test_a_stale_library_is_not_used(loaded: Forks, stale: Path) -> None:
    done = loaded.python(stale, REPORT, warn="always")
    assert done.stdout == "torch (built from other sources than those beside it)\n", done.stderr
    assert warned(done.stderr) == 1
    assert REMEDY in done.stderr
    refused = loaded.python(stale, REPORT, TRAIND_KERNEL="native")
    assert "the kernel is built from other sources than those beside it" in refused.stderr


@needs_kernel
def test_a_file_more_or_less_makes_a_library_stale(loaded: Forks, stale: Path, tmp_path: Path) -> None:
    folder = copy_sources(tmp_path, library=True)
    (folder / "optim_core" / "kernel" / "more.h").touch()
    assert loaded.python(folder, REPORT, warn="error", TRAIND_KERNEL="native").returncode == 0  # empty: the same
    (folder / "optim_core" / "kernel" / "more.h").write_text("/* more */\n")
    assert "other sources" in loaded.python(folder, REPORT, warn="ignore").stdout


@needs_kernel
def test_an_install_without_sources_takes_its_library(loaded: Forks, tmp_path: Path) -> None:
    folder = copy_sources(tmp_path, library=True)
    for path in (folder / "optim_core" / "kernel").iterdir():
        path.unlink()
    done = loaded.python(folder, REPORT, warn="error")
    assert done.stdout.strip() == optim_core.backend(), done.stderr


@needs_kernel
@pytest.mark.parametrize(("choice", "backend"), [("native", None), ("torch", "torch"), ("", None)])
def test_the_choice_is_followed(loaded: Forks, tmp_path: Path, choice: str, backend: str | None) -> None:
    folder = copy_sources(tmp_path, library=True)
    done = loaded.python(folder, REPORT, warn="error", TRAIND_KERNEL=choice)
    assert done.stdout.strip() == (backend or optim_core.backend()), done.stderr


@pytest.mark.parametrize("choice", ["Native", "cuda", "1", " "])
def test_another_choice_is_an_error(loaded: Forks, without_library: Path, choice: str) -> None:
    done = loaded.python(without_library, "import optim_core", TRAIND_KERNEL=choice)
    assert f"ImportError: TRAIND_KERNEL={choice!r}: it must be one of native, torch, or unset" in done.stderr


@needs_kernel
def test_a_torch_without_the_interface_gets_the_plain_rules(loaded: Forks, tmp_path: Path) -> None:
    folder = copy_sources(tmp_path, library=True)
    older = "import torch\ndel torch.Tensor.__dlpack_c_exchange_api__\n"
    done = loaded.python(folder, older + REPORT, warn="always")
    assert done.stdout.startswith("torch (this torch has no DLPack 1.x C exchange interface"), done.stderr
    assert warned(done.stderr) == 1


@needs_kernel
def test_a_library_that_does_not_load_gets_the_plain_rules(loaded: Forks, tmp_path: Path) -> None:
    """As one for another processor or C library."""
    folder = copy_sources(tmp_path, library=True)
    for name in libraries(folder):
        (folder / "optim_core" / name).write_bytes(b"not a library")
    done = loaded.python(folder, REPORT, warn="always")
    assert done.stdout.startswith("torch (not built: "), done.stderr
    assert warned(done.stderr) == 1
