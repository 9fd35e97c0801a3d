"""The datasets: what the catalogue says is what is loaded, from wherever it is taken."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from jobs.catalog.datasets import FASHION_MNIST, facts
from traind.spec import Dataset, Digits, FashionMnist, SyntheticClassification, SyntheticRegression
from worker.training.datasets import Arrays, fashion_mnist, load
from worker.training.datasets.digits import FILE, load_digits
from worker.training.datasets.fashion_mnist import fixed_order
from worker.training.datasets.synthetic import make_classification, make_regression
from worker.training.errors import DatasetCorrupt, DatasetUnavailable
from worker.training.messages import DataSettings

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NOWHERE = Path("/nonexistent")


def settings(folder: Path = NOWHERE, cache: Path = NOWHERE, url: str | None = None) -> DataSettings:
    return DataSettings(fashion_mnist_dir=folder, cache_dir=cache, fashion_mnist_url=url)


def check_against_catalogue(dataset: Dataset, arrays: Arrays) -> None:
    expected = facts(dataset)
    assert arrays.train_inputs.shape == (expected.n_train, *expected.input_shape)
    assert arrays.validation_inputs.shape == (expected.n_validation, *expected.input_shape)
    assert arrays.train_inputs.dtype == arrays.validation_inputs.dtype == np.float32
    if expected.loss == "cross_entropy":
        assert arrays.train_targets.dtype == np.int64
        assert set(arrays.train_targets) == set(range(expected.n_outputs))
    else:
        assert arrays.train_targets.shape == (expected.n_train, expected.n_outputs)


def test_digits() -> None:
    arrays = load(Digits(name="digits"), settings())
    check_against_catalogue(Digits(name="digits"), arrays)
    assert arrays.train_inputs.mean() == pytest.approx(0, abs=1e-5)
    assert arrays.train_inputs.std() == pytest.approx(1, abs=1e-5)
    assert np.bincount(arrays.validation_targets).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    first_row = arrays.train_inputs[0, 0, 0] * 6.018520911287141 + 4.882173196948682
    assert first_row.round().astype(int).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_digits_are_small_enough_to_ship() -> None:
    assert FILE.stat().st_size <= 60_000


def test_a_damaged_file_of_digits_is_refused(tmp_path: Path) -> None:
    changed = tmp_path / "digits.csv.gz"
    changed.write_bytes(gzip.compress(gzip.decompress(FILE.read_bytes()).replace(b"16", b"15", 1)))
    with pytest.raises(DatasetCorrupt, match="SHA-256"):
        load_digits(changed)
    changed.write_bytes(FILE.read_bytes()[:1000])
    with pytest.raises(DatasetCorrupt, match="install traind again"):
        load_digits(changed)


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian() -> None:
    dataset = FashionMnist(name="fashion_mnist")
    arrays = load(dataset, settings(DEBIAN))
    check_against_catalogue(dataset, arrays)
    assert arrays.train_inputs.mean() == pytest.approx(0, abs=1e-4)
    assert arrays.train_inputs.std() == pytest.approx(1, abs=1e-4)
    fewer = load(FashionMnist(name="fashion_mnist", train_size=1_000), settings(DEBIAN))
    assert np.array_equal(fewer.train_inputs, arrays.train_inputs[:1_000])
    assert np.array_equal(fewer.train_targets, arrays.train_targets[:1_000])


def test_the_fixed_order_of_fashion_mnist_never_changes() -> None:
    order = fixed_order(60_000)
    assert order[:6].tolist() == [53924, 25556, 57691, 20554, 16026, 55372]
    assert np.array_equal(np.sort(order), np.arange(60_000))


@pytest.fixture(scope="module")
def made_release(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    """Four files in the release's format, one grey per image, and the SHA-256 of each one's content."""
    folder, found = tmp_path_factory.mktemp("release"), {}
    greys = np.repeat(np.arange(60_000) % 251, 28 * 28).astype(np.uint8).tobytes()
    classes = (np.arange(60_000) % 10).astype(np.uint8).tobytes()
    for source in FASHION_MNIST.sources:
        n = 60_000 if source.startswith("train") else 10_000
        content = bytes(16) + greys[: n * 28 * 28] if "images" in source else bytes(8) + classes[:n]
        file = folder / f"{source}.gz"
        file.write_bytes(gzip.compress(content, 1))
        found[file] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def small_release(made_release: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with these files, which the catalogue takes for the release."""
    folder = tmp_path / "release"
    folder.mkdir()
    for file, sha256 in made_release.items():
        shutil.copy(file, folder)
        monkeypatch.setitem(FASHION_MNIST.sources, file.stem, sha256)
    return folder


@pytest.fixture
def address(small_release: Path) -> Iterator[str]:
    """The files on a local web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(small_release))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


SMALL = FashionMnist(name="fashion_mnist", train_size=5)


def test_fashion_mnist_is_loaded_once_and_cached(address: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    arrays = load(SMALL, settings(cache=cache, url=address))
    assert (arrays.train_inputs.shape, arrays.validation_inputs.shape) == ((5, 1, 28, 28), (10_000, 1, 28, 28))
    assert arrays.train_targets.tolist() == (fixed_order(60_000)[:5] % 10).tolist()
    assert sorted(path.name for path in (cache / "fashion-mnist").iterdir()) == sorted(
        f"{source}.gz" for source in FASHION_MNIST.sources
    )
    again = load(SMALL, settings(cache=cache))
    assert np.array_equal(again.train_inputs, arrays.train_inputs)


def test_the_folder_comes_before_the_address(small_release: Path) -> None:
    load(SMALL, settings(small_release, url="http://127.0.0.1:9/"))


def test_what_is_not_the_release_is_neither_used_nor_kept(address: str, small_release: Path, tmp_path: Path) -> None:
    wrong = small_release / "train-labels-idx1-ubyte.gz"
    wrong.write_bytes(gzip.compress(bytes(60_008)))
    with pytest.raises(DatasetCorrupt, match="SHA-256") as refused:
        load(SMALL, settings(cache=tmp_path, url=address))
    assert f"{address}train-labels-idx1-ubyte.gz" in str(refused.value)
    assert [path.name for path in (tmp_path / "fashion-mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_a_page_in_place_of_a_file_is_refused(address: str, small_release: Path, tmp_path: Path) -> None:
    (small_release / "train-images-idx3-ubyte.gz").write_text("<html>Sign in</html>")
    with pytest.raises(DatasetCorrupt, match="not a gzip file"):
        load(SMALL, settings(cache=tmp_path, url=address))


def test_too_large_a_download_is_broken_off(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "MAX_DOWNLOAD_BYTES", 1_000)
    with pytest.raises(DatasetCorrupt, match="more than 1,000 bytes"):
        load(SMALL, settings(cache=tmp_path, url=address))


def test_too_slow_a_download_is_broken_off(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DOWNLOAD_SECONDS", -1.0)
    with pytest.raises(DatasetUnavailable, match="did not arrive"):
        load(SMALL, settings(cache=tmp_path, url=address))


def test_a_silent_address_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "SILENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DatasetUnavailable, match="timed out"):
            load(SMALL, settings(cache=tmp_path, url=url))


def test_every_piece_of_a_download_is_a_sign_of_life(address: str, tmp_path: Path) -> None:
    beats: list[None] = []
    load(SMALL, settings(cache=tmp_path, url=address), beat=lambda: beats.append(None))
    assert len(beats) >= len(FASHION_MNIST.sources)
    beats.clear()
    load(SMALL, settings(cache=tmp_path, url=address), beat=lambda: beats.append(None))
    assert beats == []


@pytest.mark.parametrize(
    ("target", "why"), [("/proc/self/mem", "Input/output error"), ("/", "Is a directory")], ids=["disk", "folder"]
)
def test_a_file_that_cannot_be_read_is_named(small_release: Path, target: str, why: str) -> None:
    """Reading the first byte of a process's memory fails as a disk with a bad block does."""
    file = small_release / "t10k-labels-idx1-ubyte.gz"
    file.unlink()
    file.symlink_to(target)
    with pytest.raises(DatasetUnavailable, match=why) as refused:
        load(SMALL, settings(small_release))
    assert str(file) in str(refused.value)
    assert (refused.value.code, refused.value.retryable) == ("dataset-unavailable", True)


def test_a_link_that_leads_nowhere_is_no_file(small_release: Path, tmp_path: Path) -> None:
    file = small_release / "t10k-labels-idx1-ubyte.gz"
    file.unlink()
    file.symlink_to(tmp_path / "gone")
    with pytest.raises(DatasetUnavailable, match="is neither in"):
        load(SMALL, settings(small_release))


def test_an_address_that_has_it_not_is_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match=r"404.*TRAIND_FASHION_MNIST_URL") as refused:
        load(SMALL, settings(cache=tmp_path, url=f"{address}elsewhere"))
    assert (refused.value.code, refused.value.retryable) == ("dataset-unavailable", True)


def test_an_address_must_be_a_web_address(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match="must be an http or https address"):
        load(SMALL, settings(cache=tmp_path, url="file:///etc"))


def test_without_any_source_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable) as refused:
        load(SMALL, settings(cache=tmp_path))
    assert (refused.value.code, refused.value.retryable) == ("dataset-unavailable", True)
    for words in ("/nonexistent", str(tmp_path), "dataset-fashion-mnist", "TRAIND_FASHION_MNIST_URL"):
        assert words in str(refused.value)


CLASSES = SyntheticClassification(name="synthetic_classification", n_samples=103, n_classes=3)
REGRESSION = SyntheticRegression(name="synthetic_regression", n_samples=103, n_targets=2)


@pytest.mark.parametrize("dataset", [CLASSES, REGRESSION], ids=["classification", "regression"])
def test_synthetic_data_is_standardised_and_the_seeds(dataset: Dataset) -> None:
    arrays = load(dataset, settings())
    check_against_catalogue(dataset, arrays)
    assert np.allclose(arrays.train_inputs.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(arrays.train_inputs.std(axis=0), 1, atol=1e-5)
    assert np.array_equal(load(dataset, settings()).train_inputs, arrays.train_inputs)
    other = load(dataset.model_copy(update={"seed": 1}), settings())
    assert not np.array_equal(other.train_inputs, arrays.train_inputs)


def test_the_chunk_size_changes_nothing() -> None:
    for chunk_rows in (1, 7, 103):
        classes = make_classification(CLASSES, chunk_rows=chunk_rows)
        regression = make_regression(REGRESSION, chunk_rows=chunk_rows)
        assert np.array_equal(classes.train_inputs, make_classification(CLASSES).train_inputs)
        assert np.array_equal(regression.validation_targets, make_regression(REGRESSION).validation_targets)


def test_noise_is_the_spread_within_a_cluster() -> None:
    still = make_classification(CLASSES.model_copy(update={"noise": 0.0}))
    assert len(np.unique(still.train_inputs, axis=0)) == 3


def test_a_regressions_targets_have_standard_deviation_one_without_noise() -> None:
    large = SyntheticRegression(name="synthetic_regression", n_samples=20_000, noise=0.0)
    assert make_regression(large).train_targets.std() == pytest.approx(1, abs=0.03)


def test_the_catalogues_split_sizes_are_those_of_any_number_of_samples() -> None:
    for n in (10, 11, 14, 15):
        dataset = SyntheticRegression(name="synthetic_regression", n_samples=n)
        arrays = make_regression(dataset)
        sizes = len(arrays.train_targets), len(arrays.validation_targets)
        assert sizes == (facts(dataset).n_train, facts(dataset).n_validation)
