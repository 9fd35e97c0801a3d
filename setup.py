"""Builds optim_core's kernel; all else about the package stands in pyproject.toml.

Where there is no compiler the package installs without it, and optim_core says so when it is imported.
"""

import sys
from hashlib import sha256
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("optim_core/kernel")
SOURCES = sorted(map(str, FOLDER.glob("*.c")))
HEADERS = sorted(map(str, FOLDER.glob("*.h")))
# What optim_core.native.source_hash computes from the files beside it: a stale binary is told by it.
HASH = sha256(b"".join(Path(name).read_bytes() for name in sorted(SOURCES + HEADERS))).hexdigest()

# Not -ffast-math nor -march=native: the bits are torch's, on every machine. The levels set their own target.
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]

setup(
    ext_modules=[
        Extension(
            "optim_core._kernel",
            sources=SOURCES,
            depends=HEADERS,
            define_macros=[("SOURCE_HASH", f'"{HASH}"')],
            extra_compile_args=FLAGS + OPENMP,
            extra_link_args=OPENMP,
            optional=True,
        )
    ]
)
