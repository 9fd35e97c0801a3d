"""Files of weights: the model that comes out gives what the job reported, and a hostile file gives an error."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy, mse_loss

from jobs.catalog import resolve
from jobs.catalog.architecture import architecture
from jobs.catalog.datasets import FASHION_MNIST
from tests.training.raw import raw_digits
from tests.training.scenario import NOWHERE, Trained, files, trainer_job
from traind.errors import ModelUnreadable
from traind.spec import FlattenLayer, LinearLayer
from worker.training.data import load_data
from worker.training.datasets.arrays import images
from worker.training.messages import DataSettings, TrainerJob
from worker.training.tensor_file import read_tensors, write_tensors
from worker.training.weights import TrainedModel, load_model

EVERY_LAYER = {
    "name": "sequential",
    "layers": [
        {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "stride": 1, "padding": 1, "bias": False},
        {"type": "batch_norm2d"},
        {"type": "leaky_relu"},
        {"type": "max_pool2d", "kernel_size": 2, "stride": 1},
        {"type": "layer_norm"},
        {"type": "avg_pool2d", "kernel_size": 2},
        {"type": "silu"},
        {"type": "flatten"},
        {"type": "dropout", "p": 0.1},
        {"type": "linear", "out_features": 16, "bias": False},
        {"type": "batch_norm1d"},
        {"type": "sigmoid"},
        {"type": "linear", "out_features": 10},
    ],
}
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SYNTHETIC = {"name": "synthetic_classification", "n_samples": 400}
ADAM = {"name": "adam", "lr": 0.005}


def trained(job: TrainerJob) -> tuple[Path, dict[str, float]]:
    """A run's file of weights, and its last metrics."""
    run = Trained(job)
    return files(run.checkpoint(job.resolved.total_steps)).model_path, run.finished.summary["last"]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlp")
    return trained(trainer_job(folder, optimizer=ADAM, training={"epochs": 1}))[0]


@pytest.mark.parametrize(
    "model",
    [
        {"name": "linear"},
        {"name": "mlp", "hidden": [32, 16], "activation": "gelu", "dropout": 0.1},
        {"name": "cnn", "channels": [4, 8], "hidden": [16], "activation": "tanh"},
        EVERY_LAYER,
    ],
    ids=lambda model: model["name"],
)
def test_on_raw_digits_a_loaded_model_is_as_good_as_its_job_said(model: dict[str, Any], tmp_path: Path) -> None:
    path, reported = trained(trainer_job(tmp_path, model=model, optimizer=ADAM, training={"epochs": 2}))
    images, classes = raw_digits()
    loaded = load_model(path)
    with torch.no_grad():
        outputs = loaded(images)
    assert loaded.classes == tuple("0123456789")
    assert (outputs.argmax(1) == classes).double().mean().item() == reported["val/accuracy"] > 0.3
    assert cross_entropy(outputs, classes).item() == pytest.approx(reported["val/loss"], rel=1e-5)


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_on_raw_fashion_mnist_a_loaded_model_is_as_good_as_its_job_said(tmp_path: Path) -> None:
    job = trainer_job(
        tmp_path,
        dataset={"name": "fashion_mnist", "train_size": 3_000},
        model={"name": "linear"},
        optimizer=ADAM,
        training={"epochs": 1},
    )
    settings = DataSettings(fashion_mnist_dir=DEBIAN, cache_dir=NOWHERE)
    path, reported = trained(job.model_copy(update={"settings": settings}))
    pixels = gzip.decompress((DEBIAN / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((DEBIAN / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    model, classes = load_model(path), np.frombuffer(labels, np.uint8)
    assert model.classes is not None
    with torch.no_grad():
        found = model(np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28).copy()).argmax(1).numpy()
    assert np.mean(found == classes) == reported["val/accuracy"] > 0.6


@pytest.mark.parametrize("dataset", [SYNTHETIC, {"name": "synthetic_regression", "n_samples": 400, "n_targets": 2}])
def test_synthetic_features_need_no_preprocessing(dataset: dict[str, Any], tmp_path: Path) -> None:
    job = trainer_job(tmp_path, dataset=dataset, optimizer=ADAM, training={"epochs": 5})
    path, reported = trained(job)
    data = load_data(job.spec.dataset, job.settings, torch.device("cpu"))
    loaded = load_model(path)
    assert torch.equal(loaded.preprocess(data.validation_inputs), data.validation_inputs)
    assert loaded.classes is None
    with torch.no_grad():
        outputs = loaded(data.validation_inputs)
    if job.resolved.loss == "mse":
        assert mse_loss(outputs, data.validation_targets).item() == pytest.approx(reported["val/loss"], rel=1e-5)
    else:
        accuracy = (outputs.argmax(1) == data.validation_targets).double().mean().item()
        assert accuracy == reported["val/accuracy"]


def test_preprocessing_gives_the_bits_that_training_saw(mlp: Path) -> None:
    settings = DataSettings(fashion_mnist_dir=NOWHERE, cache_dir=NOWHERE)
    seen = load_data(trainer_job(mlp.parent).spec.dataset, settings, torch.device("cpu")).validation_inputs
    raw, model = raw_digits()[0], load_model(mlp)
    for values in (raw, raw.double(), raw.view(-1, 64), raw.view(-1, 1, 8, 8).long(), raw.numpy(), raw.tolist()):
        assert torch.equal(model.preprocess(values), seen)
    layers = FlattenLayer(type="flatten"), LinearLayer(type="linear", out_features=10)
    fashion = TrainedModel(architecture(FASHION_MNIST, layers))
    pixels = np.random.default_rng(0).integers(0, 256, (5, 784)).astype(np.uint8)
    assert torch.equal(fashion.preprocess(pixels), torch.tensor(images(pixels, FASHION_MNIST)))
    assert fashion.classes is not None
    assert fashion.classes[9] == "Ankle boot"


@pytest.mark.parametrize("shape", [(), (64,), (2, 63), (2, 9, 8), (1, 3, 8, 8)])
def test_values_of_another_shape_are_refused(shape: tuple[int, ...], mlp: Path) -> None:
    with pytest.raises(ValueError, match=r"the model takes \[batch, 1, 8, 8\], not "):
        load_model(mlp)(torch.zeros(shape))


def test_the_file_says_of_its_model_what_resolved_says(tmp_path: Path) -> None:
    job = trainer_job(tmp_path, model=EVERY_LAYER, training={"steps": 2, "checkpoint_every": 1})
    run = Trained(job)
    resolved = resolve(job.spec).model
    assert resolved is not None
    for step in (1, 2):
        document = read_tensors(files(run.checkpoint(step)).model_path)[1]
        assert document["model"] == resolved.model_dump(mode="json")
    assert load_model(files(run.checkpoint(2)).model_path).architecture == resolved


def test_the_description_is_enough_for_plain_torch(tmp_path: Path) -> None:
    path, _ = trained(trainer_job(tmp_path, model=EVERY_LAYER, training={"steps": 2}))
    tensors, document = read_tensors(path)
    layers = [getattr(torch.nn, layer["module"])(**layer["arguments"]) for layer in document["model"]["layers"]]
    plain = torch.nn.Sequential(*layers)
    plain.load_state_dict(tensors)
    loaded, values = load_model(path), torch.randn(3, 1, 8, 8)
    assert torch.equal(plain.eval()(loaded.preprocess(values)), loaded(values))


def test_a_checkpoint_without_the_description_resumes_and_says_why_it_does_not_load(tmp_path: Path) -> None:
    path = files(Trained(trainer_job(tmp_path, training={"steps": 2})).checkpoint(2))
    tensors, document = read_tensors(path.model_path)
    write_tensors(path.model_path, tensors, {"aliases": document["aliases"]})
    job = trainer_job(tmp_path / "again", path, training={"steps": 4})
    assert Trained(job).finished.state == "succeeded"
    with pytest.raises(ModelUnreadable, match="earlier version of traind"):
        load_model(path.model_path)


def test_the_state_of_a_checkpoint_is_not_taken_for_weights(tmp_path: Path) -> None:
    run = Trained(trainer_job(tmp_path, training={"steps": 1}))
    with pytest.raises(ModelUnreadable, match='the weights are its part "model"'):
        load_model(files(run.checkpoint(1)).state_path)


Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, tuple[str, Edit]] = {
    "unknown-layer": ("there is no layer 'Transformer'", lambda m: m["layers"][1].update(module="Transformer")),
    "no-layer": ("there is no layer '__init__'", lambda m: m["layers"][1].update(module="__init__")),
    "argument": ("device", lambda m: m["layers"][1]["arguments"].update(device="cuda")),
    "derived-argument": ("layers/0 is not", lambda m: m["layers"][0]["arguments"].update(in_features=64)),
    "too-wide": ("out_features", lambda m: m["layers"][1]["arguments"].update(out_features=2**40)),
    "wide": ("layers/3 is not", lambda m: m["layers"][1]["arguments"].update(out_features=65_536)),
    "text": ("out_features", lambda m: m["layers"][1]["arguments"].update(out_features="16")),
    "name": ("layers/1 is not", lambda m: m["layers"][1].update(name="x")),
    "other-tensors": (
        r"its tensor 1.weight is F32 \[16, 64\], but the model's is F32 \[15, 64\]",
        lambda m: (
            m["layers"][1]["arguments"].update(out_features=15),
            m["layers"][3]["arguments"].update(in_features=15),
        ),
    ),
    "no-tensor": (
        "it has no tensor 4.bias",
        lambda m: m["layers"].append(
            {"name": "4", "module": "Linear", "arguments": {"in_features": 10, "out_features": 10, "bias": True}}
        ),
    ),
    "more-tensors": (
        "it has a tensor '3.bias', of which",
        lambda m: m["layers"][3]["arguments"].update(bias=False),
    ),
    "huge": (
        "at most 100,000,000",
        lambda m: m.update(
            input_shape=[4_096, 65_536, 65_536],
            layers=[{"name": "0", "module": "Flatten", "arguments": {}}],
        ),
    ),
    "many-layers": ("layers: Tuple should have at most 256", lambda m: m.update(layers=m["layers"] * 100)),
    "no-layers": ("layers: Tuple should have at least 1", lambda m: m.update(layers=[])),
    "deep": ("layers/0/arguments", lambda m: m["layers"][0].update(arguments=[[[]]])),
    "outputs": ("not 11 outputs", lambda m: m.update(n_outputs=11)),
    "classes": ("there are 1 classes for 10 outputs", lambda m: m.update(classes=["one"])),
    "std": ("preprocessing/std", lambda m: m["preprocessing"].update(std=0.0)),
    "nan": ("preprocessing/mean", lambda m: m["preprocessing"].update(mean=float("nan"))),
    "unknown-field": ("preprocessing/gamma", lambda m: m["preprocessing"].update(gamma=2.2)),
    "missing-field": ("preprocessing", lambda m: m.pop("preprocessing")),
    "empty-shape": ("input_shape", lambda m: m.update(input_shape=[])),
    "zero-shape": ("input_shape/0", lambda m: m.update(input_shape=[0])),
}


@pytest.mark.parametrize(("reason", "edit"), EDITS.values(), ids=EDITS)
def test_a_description_that_no_spec_leads_to_is_refused(reason: str, edit: Edit, mlp: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(mlp)
    edit(document["model"])
    write_tensors(tmp_path / "hostile", tensors, document)
    with pytest.raises(ModelUnreadable, match=reason) as refused:
        load_model(tmp_path / "hostile")
    assert str(tmp_path / "hostile") in str(refused.value)


HEADER = b'{"__metadata__":{"traind":%s},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def with_metadata(text: str) -> bytes:
    header = HEADER % json.dumps(text).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged, or no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "a header of 67,324,752 bytes"),
        (bytes(100), "damaged, or no safetensors file"),
        (b"\x80\x02}q\x00." + b"\xff" * 100, "no file of weights: as safetensors it would have a header of"),
        ((2**62).to_bytes(8, "little"), "a header of 4,611,686,018,427,387,904 bytes"),
        (with_metadata("{'a': 1}"), "is no JSON"),
        (with_metadata("[" * 100_000), "is no JSON"),
        (with_metadata("9" * 5_000), "is no JSON"),
        (with_metadata("[1]"), "no JSON object"),
        (with_metadata('{"model": 5}'), "valid dictionary"),
        (with_metadata('{"model": {}}'), "dataset: Field required"),
        (with_metadata("{}"), "earlier version"),
    ],
    ids=range(12),
)
def test_files_of_anything_else_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelUnreadable, match=reason):
        load_model(tmp_path / "file")


def test_a_torn_or_changed_file_a_foreign_one_and_no_file_at_all(mlp: Path, tmp_path: Path) -> None:
    content = bytearray(mlp.read_bytes())
    (tmp_path / "torn").write_bytes(content[:-1])
    content[-1] ^= 1
    (tmp_path / "changed").write_bytes(content)
    save_file({"w": torch.ones(1)}, tmp_path / "foreign")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "torn": "damaged",
        "changed": "CRC-32",
        "foreign": "a safetensors file, but not of traind",
        "pipe": "not a regular file",
        ".": "not a regular file",
    }.items():
        with pytest.raises(ModelUnreadable, match=reason):
            load_model(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "missing")


def test_a_loaded_model_trains_on(mlp: Path) -> None:
    model = load_model(mlp)
    assert not model.training
    model.train()(raw_digits()[0][:4]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.layers.parameters())
