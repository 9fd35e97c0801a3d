"""Fashion-MNIST from the operating system's package, else the cache folder, else the address in the settings.

Wherever a file comes from, the SHA-256 of its uncompressed content must be the catalogue's (Debian compresses the
files anew, the content is the official release's). There is no default address.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.catalog.datasets import FASHION_MNIST
from traind.spec import FashionMnist
from worker.training.datasets.arrays import Arrays, images, verify
from worker.training.errors import DatasetCorrupt, DatasetUnavailable
from worker.training.messages import DataSettings

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024
MAX_CONTENT_BYTES = 64 * 1024 * 1024
DOWNLOAD_SECONDS = 3_600.0
"""For one file: the largest, of 26 MB, arrives in it at 8 KB/s."""
SILENCE_SECONDS = 30.0


def load_fashion_mnist(dataset: FashionMnist, settings: DataSettings, beat: Callable[[], None]) -> Arrays:
    """60,000 (or train_size) training and 10,000 validation images of [1, 28, 28].

    `beat` is called whenever some of a download arrived. Raises DatasetUnavailable where no source has it or it
    cannot be read, or DatasetCorrupt.
    """
    chosen = fixed_order(60_000)[: dataset.train_size]
    train = _pixels(_content("train-images-idx3-ubyte", settings, beat))[chosen]
    classes = _classes(_content("train-labels-idx1-ubyte", settings, beat))[chosen]
    validation = _pixels(_content("t10k-images-idx3-ubyte", settings, beat))
    validation_classes = _classes(_content("t10k-labels-idx1-ubyte", settings, beat))
    return Arrays(images(train, FASHION_MNIST), classes, images(validation, FASHION_MNIST), validation_classes)


def fixed_order(n: int) -> NDArray[np.intp]:
    """A permutation of range(n) that is the same in every version of numpy: raw PCG64 output is guaranteed stable."""
    return np.argsort(np.random.PCG64(0).random_raw(n), kind="stable")


def _pixels(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28 * 28)


def _classes(content: bytes) -> NDArray[np.int64]:
    return np.frombuffer(content, np.uint8, offset=8).astype(np.int64)


def fashion_mnist_lack(settings: DataSettings) -> str | None:
    """Why it cannot be loaded, as far as the first byte of each file tells: it is nowhere, or cannot be read."""
    try:
        for source in FASHION_MNIST.sources:
            _find(source, settings, size=1)
    except DatasetUnavailable as error:
        return str(error)
    return None


def fashion_mnist_places(settings: DataSettings) -> list[Path]:
    """Where its files may lie."""
    return [path for source in FASHION_MNIST.sources for path in _paths(source, settings)]


def _paths(source: str, settings: DataSettings) -> tuple[Path, Path]:
    name = f"{source}.gz"
    return settings.fashion_mnist_dir / name, settings.cache_dir / "fashion-mnist" / name


def _content(source: str, settings: DataSettings, beat: Callable[[], None]) -> bytes:
    """The verified, uncompressed content of one of the four files."""
    if found := _find(source, settings):
        path, packed = found
        return _unpack(packed, source, found_at=str(path))
    url = f"{(settings.fashion_mnist_url or '').rstrip('/')}/{source}.gz"
    packed = _download(url, beat)
    content = _unpack(packed, source, found_at=url)
    with suppress(OSError):  # a cache that cannot be written costs the next job a download, and this one nothing
        _write(_paths(source, settings)[1], packed)
    return content


def _find(source: str, settings: DataSettings, *, size: int = -1) -> tuple[Path, bytes] | None:
    """Its file on this machine and the first `size` bytes of it; None if it is to be downloaded."""
    here, cached = _paths(source, settings)
    for path in (here, cached):
        found = _read(path, size)
        if found is not None:
            return path, found
    if settings.fashion_mnist_url is None:
        raise DatasetUnavailable(
            f"{here.name} is neither in {here.parent} nor in {cached.parent}: install Debian's package "
            "dataset-fashion-mnist, or put the four files there, or set TRAIND_FASHION_MNIST_URL to an address to "
            "load them from"
        )
    return None


def _read(path: Path, size: int) -> bytes | None:
    """None where there is no such file."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DatasetUnavailable(
            f"{path} cannot be read ({error.strerror}); make it readable, or replace it"
        ) from error


def _unpack(packed: bytes, source: str, *, found_at: str) -> bytes:
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(MAX_CONTENT_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetCorrupt(f"{found_at} is not a gzip file ({error}); remove or replace it") from error
    verify(FASHION_MNIST, source, content, found_at=found_at)
    return content


def _download(url: str, beat: Callable[[], None]) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise DatasetUnavailable(f"TRAIND_FASHION_MNIST_URL must be an http or https address, not {url}")
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    received = io.BytesIO()
    try:
        with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as response:  # noqa: S310, the scheme is checked
            while chunk := response.read1(1 << 20):
                received.write(chunk)
                beat()
                if received.tell() > MAX_DOWNLOAD_BYTES:
                    raise DatasetCorrupt(f"{url} sends more than {MAX_DOWNLOAD_BYTES:,} bytes; check the address")
                if time.monotonic() > deadline:
                    raise DatasetUnavailable(f"{url} did not arrive within {DOWNLOAD_SECONDS:.0f} seconds")
    except (OSError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DatasetUnavailable(f"{url} cannot be loaded: {error}; check TRAIND_FASHION_MNIST_URL") from error
    return received.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, also beside another process that does the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
