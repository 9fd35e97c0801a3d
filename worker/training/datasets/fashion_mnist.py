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
from worker.training.errors import DatasetCorrupt, DatasetUnavailable, DownloadFailed
from worker.training.messages import DataSettings

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024
MAX_CONTENT_BYTES = 64 * 1024 * 1024
DOWNLOAD_SECONDS = 3_600.0
"""For one file: the largest, of 26 MB, arrives in it at 8 KB/s."""
SILENCE_SECONDS = 30.0


def load_fashion_mnist(dataset: FashionMnist, settings: DataSettings, beat: Callable[[], None]) -> Arrays:
    """60,000 (or train_size) training and 10,000 validation images of [1, 28, 28].

    `beat` is called whenever some of a download arrived. Raises DatasetUnavailable where no source has it or it
    cannot be read, DownloadFailed or DatasetCorrupt.
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


def _content(source: str, settings: DataSettings, beat: Callable[[], None]) -> bytes:
    """The verified, uncompressed content of one of the four files."""
    name = f"{source}.gz"
    cached = settings.cache_dir / "fashion-mnist" / name
    for path in (settings.fashion_mnist_dir / name, cached):
        found = _read(path)
        if found is not None:
            return _unpack(found, source, found_at=str(path))
    if settings.fashion_mnist_url is None:
        raise DatasetUnavailable(
            f"{name} is neither in {settings.fashion_mnist_dir} nor in {cached.parent}: install Debian's package "
            "dataset-fashion-mnist, or put the four files there, or set TRAIND_FASHION_MNIST_URL to an address to "
            "load them from"
        )
    url = f"{settings.fashion_mnist_url.rstrip('/')}/{name}"
    packed = _download(url, beat)
    content = _unpack(packed, source, found_at=url)
    with suppress(OSError):  # a cache that cannot be written costs the next job a download, and this one nothing
        _write(cached, packed)
    return content


def _read(path: Path) -> bytes | None:
    """None where there is no such file."""
    try:
        return path.read_bytes()
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
                    raise DownloadFailed(f"{url} did not arrive within {DOWNLOAD_SECONDS:.0f} seconds")
    except (OSError, HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DownloadFailed(f"{url} cannot be loaded: {error}; check TRAIND_FASHION_MNIST_URL") from error
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
