"""The job spec: what a client submits, complete and frozen.

Pure pydantic. It holds what can be judged from the spec alone (types, ranges, torch's own rules for
hyperparameters); what needs the catalogue (shapes, parameter names, number of steps) is judged by
`jobs.catalog.resolve`. Called by the api at submit, by the CLI if there is no service, and by the worker.

Names and defaults of the optimizers are torch's. Unknown fields and non-finite numbers are refused.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from traind.architecture import Architecture

SPEC_VERSION: Final = 1
INT32_MAX = 2**31 - 1

Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]
LARGEST = 1e18
"""Limit of a hyperparameter: products of two, and Adam's bias correction, still fit into float32."""
NonNegative = Annotated[Float, Field(ge=0, le=LARGEST)]
Dampening = Annotated[Float, Field(ge=-LARGEST, le=LARGEST)]
Count = Annotated[Int, Field(ge=1, le=INT32_MAX)]
CountOrZero = Annotated[Int, Field(ge=0, le=INT32_MAX)]
Seed = Annotated[Int, Field(ge=0, le=2**63 - 1)]
Noise = Annotated[Float, Field(ge=0, le=1_000_000)]
Probability = Annotated[Float, Field(ge=0, lt=1)]
NO_CONTROL: Final = r"^[^\x00-\x1f\x7f]*$"
NOT_BLANK: Final = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
Text = Annotated[str, Strict(), StringConstraints(max_length=200, pattern=NO_CONTROL)]
Title = Annotated[str, Strict(), StringConstraints(max_length=200, pattern=NOT_BLANK)]
QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
Slug = Annotated[str, Strict(), StringConstraints(pattern=rf"^{QUEUE_NAME.pattern}$")]


def refuse(message: str, *, at: str = "") -> PydanticCustomError:
    """The error for a rule that involves several fields; raise it in the validator of the field to be named.

    `at` is the JSON pointer, relative to that field, of the part that is wrong.
    """
    return PydanticCustomError("rule", "{message}", {"message": message, "at": at})


class Part(BaseModel):
    """Base of every part: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


# --- dataset -----------------------------------------------------------------------------------------


class Digits(Part):
    """Optical digits, 1,797 grey images of 8 x 8 in 10 classes, shipped with traind (UCI, CC BY 4.0)."""

    name: Literal["digits"]


class FashionMnist(Part):
    """Fashion-MNIST, 60,000 training and 10,000 validation images of 28 x 28 in 10 classes (MIT)."""

    name: Literal["fashion_mnist"]
    train_size: Annotated[Int, Field(ge=1, le=60_000)] = 60_000
    """How many training images to use: the first ones of a fixed, seeded permutation."""


class SyntheticClassification(Part):
    """Gaussian clusters, one per class, drawn from the dataset's own seed."""

    name: Literal["synthetic_classification"]
    n_samples: Annotated[Int, Field(ge=10, le=1_000_000)] = 2_000
    n_features: Annotated[Int, Field(ge=1, le=4_096)] = 20
    n_classes: Annotated[Int, Field(ge=2, le=1_000)] = 4
    noise: Noise = 1.0
    """Standard deviation within a cluster; the clusters' centres have standard deviation 1."""
    seed: Seed = 0

    @field_validator("n_classes")
    @classmethod
    def _enough_samples(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("n_samples", value):
            raise refuse(f"n_classes ({value}) must not exceed n_samples ({info.data['n_samples']})")
        return value

    @field_validator("n_features")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        return _limit_elements(value, info)


class SyntheticRegression(Part):
    """A random linear map of Gaussian features plus Gaussian noise, drawn from the dataset's own seed."""

    name: Literal["synthetic_regression"]
    n_samples: Annotated[Int, Field(ge=10, le=1_000_000)] = 2_000
    n_features: Annotated[Int, Field(ge=1, le=4_096)] = 20
    n_targets: Annotated[Int, Field(ge=1, le=1_000)] = 1
    noise: Noise = 0.1
    """Standard deviation of the noise added to the targets, which have standard deviation 1 without it."""
    seed: Seed = 0

    @field_validator("n_features")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        return _limit_elements(value, info)

    @field_validator("n_targets")
    @classmethod
    def _quick_enough(cls, value: int, info: ValidationInfo) -> int:
        work = value * info.data.get("n_samples", 1) * info.data.get("n_features", 1)
        if work > 10_000_000_000:
            raise refuse(f"n_samples x n_features x n_targets is {work:,}; at most 10,000,000,000 are computed here")
        return value


def _limit_elements(n_features: int, info: ValidationInfo) -> int:
    n_samples = info.data.get("n_samples", 1)
    if n_samples * n_features > 200_000_000:
        raise refuse(f"n_samples x n_features is {n_samples * n_features:,}; at most 200,000,000 fit in memory here")
    return n_features


Dataset = Annotated[Digits | FashionMnist | SyntheticClassification | SyntheticRegression, Field(discriminator="name")]

# --- model -------------------------------------------------------------------------------------------

Activation = Literal["relu", "gelu", "tanh", "sigmoid", "silu", "leaky_relu"]
Width = Annotated[Int, Field(ge=1, le=65_536)]
Channels = Annotated[Int, Field(ge=1, le=4_096)]
Kernel = Annotated[Int, Field(ge=1, le=64)]


class LinearLayer(Part):
    """torch.nn.Linear: [batch, in] to [batch, out_features]."""

    type: Literal["linear"]
    out_features: Width
    bias: Bool = True


class Conv2dLayer(Part):
    """torch.nn.Conv2d with square kernels: [batch, channels, height, width]."""

    type: Literal["conv2d"]
    out_channels: Channels
    kernel_size: Kernel
    stride: Kernel = 1
    padding: Annotated[Int, Field(ge=0, le=64)] = 0
    bias: Bool = True


class MaxPool2dLayer(Part):
    """torch.nn.MaxPool2d; the default stride is kernel_size."""

    type: Literal["max_pool2d"]
    kernel_size: Kernel
    stride: Kernel | None = None


class AvgPool2dLayer(Part):
    """torch.nn.AvgPool2d; the default stride is kernel_size."""

    type: Literal["avg_pool2d"]
    kernel_size: Kernel
    stride: Kernel | None = None


class BatchNorm1dLayer(Part):
    """torch.nn.BatchNorm1d over [batch, features]."""

    type: Literal["batch_norm1d"]


class BatchNorm2dLayer(Part):
    """torch.nn.BatchNorm2d over [batch, channels, height, width]."""

    type: Literal["batch_norm2d"]


class LayerNormLayer(Part):
    """torch.nn.LayerNorm over all dimensions but the batch."""

    type: Literal["layer_norm"]


class FlattenLayer(Part):
    """torch.nn.Flatten: [batch, ...] to [batch, features]."""

    type: Literal["flatten"]


class DropoutLayer(Part):
    """torch.nn.Dropout."""

    type: Literal["dropout"]
    p: Probability = 0.5


class ActivationLayer(Part):
    """An elementwise activation of torch.nn."""

    type: Activation


Layer = Annotated[
    LinearLayer
    | Conv2dLayer
    | MaxPool2dLayer
    | AvgPool2dLayer
    | BatchNorm1dLayer
    | BatchNorm2dLayer
    | LayerNormLayer
    | FlattenLayer
    | DropoutLayer
    | ActivationLayer,
    Field(discriminator="type"),
]


class Linear(Part):
    """One linear layer from the flattened input to the outputs: logistic or linear regression."""

    name: Literal["linear"]


class Mlp(Part):
    """A multilayer perceptron: flatten, then linear, activation and dropout per hidden size, then linear."""

    name: Literal["mlp"]
    hidden: Annotated[tuple[Width, ...], Field(max_length=64)] = (128,)
    activation: Activation = "relu"
    dropout: Probability = 0.0


class Cnn(Part):
    """A small convolutional net: per channel count conv 3 x 3, activation and max-pool 2; then an MLP head."""

    name: Literal["cnn"]
    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)] = (16, 32)
    hidden: Annotated[tuple[Width, ...], Field(max_length=64)] = (64,)
    activation: Activation = "relu"
    dropout: Probability = 0.0


class Sequential(Part):
    """A list of layers; the shapes are checked against the dataset at submit."""

    name: Literal["sequential"]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=256)]


Model = Annotated[Linear | Mlp | Cnn | Sequential, Field(discriminator="name")]

# --- optimizer ---------------------------------------------------------------------------------------

Pattern = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200, pattern=NO_CONTROL)]


def _at_least_zero(reason: str, value: float) -> float:
    """`reason` is torch's."""
    if value < 0:
        raise refuse(f"{reason}: {value}")
    return value


def _fraction(reason: str, value: float) -> float:
    if not 0 <= value < 1:
        raise refuse(f"{reason}: {value}")
    return value


_SHOWN = WithJsonSchema({"type": "number", "minimum": 0, "maximum": LARGEST})
_SHOWN_FRACTION = WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 1})
_NotTooLarge = Annotated[Float, Field(le=LARGEST)]
LearningRate = Annotated[_NotTooLarge, AfterValidator(partial(_at_least_zero, "Invalid learning rate")), _SHOWN]
Momentum = Annotated[_NotTooLarge, AfterValidator(partial(_at_least_zero, "Invalid momentum value")), _SHOWN]
WeightDecay = Annotated[_NotTooLarge, AfterValidator(partial(_at_least_zero, "Invalid weight_decay value")), _SHOWN]
Epsilon = Annotated[_NotTooLarge, AfterValidator(partial(_at_least_zero, "Invalid epsilon value")), _SHOWN]
Beta1 = Annotated[Float, AfterValidator(partial(_fraction, "Invalid beta parameter at index 0")), _SHOWN_FRACTION]
Beta2 = Annotated[Float, AfterValidator(partial(_fraction, "Invalid beta parameter at index 1")), _SHOWN_FRACTION]


def _torch_nesterov(nesterov: bool, *, momentum: float, dampening: float, at: str = "") -> None:
    """torch.optim.SGD's own rule and reason."""
    if nesterov and (momentum <= 0 or dampening != 0):
        raise refuse("Nesterov momentum requires a momentum and zero dampening", at=at)


class SgdGroup(Part):
    """Overrides for the parameters whose names match `params` (fnmatch); what is not given is inherited."""

    params: Pattern
    lr: LearningRate | None = None
    momentum: Momentum | None = None
    dampening: Dampening | None = None
    weight_decay: WeightDecay | None = None
    nesterov: Bool | None = None
    maximize: Bool | None = None


class AdamGroup(Part):
    """Overrides for the parameters whose names match `params` (fnmatch); what is not given is inherited."""

    params: Pattern
    lr: LearningRate | None = None
    betas: tuple[Beta1, Beta2] | None = None
    eps: Epsilon | None = None
    weight_decay: WeightDecay | None = None
    amsgrad: Bool | None = None
    maximize: Bool | None = None
    decoupled_weight_decay: Bool | None = None


class Sgd(Part):
    """torch.optim.SGD: gradient descent with optional momentum, torch's Nesterov form and coupled weight decay."""

    name: Literal["sgd"]
    lr: LearningRate = 1e-3
    momentum: Momentum = 0.0
    dampening: Dampening = 0.0
    weight_decay: WeightDecay = 0.0
    nesterov: Bool = False
    maximize: Bool = False
    param_groups: Annotated[tuple[SgdGroup, ...], Field(max_length=64)] = ()

    @field_validator("nesterov")
    @classmethod
    def _nesterov(cls, value: bool, info: ValidationInfo) -> bool:
        if {"momentum", "dampening"} <= info.data.keys():
            _torch_nesterov(value, momentum=info.data["momentum"], dampening=info.data["dampening"])
        return value

    @field_validator("param_groups")
    @classmethod
    def _groups(cls, groups: tuple[SgdGroup, ...], info: ValidationInfo) -> tuple[SgdGroup, ...]:
        if {"momentum", "dampening", "nesterov"} <= info.data.keys():
            for index, group in enumerate(groups):
                momentum = info.data["momentum"] if group.momentum is None else group.momentum
                dampening = info.data["dampening"] if group.dampening is None else group.dampening
                nesterov = info.data["nesterov"] if group.nesterov is None else group.nesterov
                _torch_nesterov(nesterov, momentum=momentum, dampening=dampening, at=f"/{index}/nesterov")
        return groups


class Adam(Part):
    """torch.optim.Adam; with `decoupled_weight_decay` it is AdamW. Bias-corrected; eps is added outside the root."""

    name: Literal["adam"]
    lr: LearningRate = 1e-3
    betas: tuple[Beta1, Beta2] = (0.9, 0.999)
    eps: Epsilon = 1e-8
    weight_decay: WeightDecay = 0.0
    amsgrad: Bool = False
    maximize: Bool = False
    decoupled_weight_decay: Bool = False
    param_groups: Annotated[tuple[AdamGroup, ...], Field(max_length=64)] = ()


Optimizer = Annotated[Sgd | Adam, Field(discriminator="name")]

# --- schedule ----------------------------------------------------------------------------------------


class Constant(Part):
    """The optimizer's lr, constant after a linear warm-up from 0 over `warmup_steps`."""

    name: Literal["constant"]
    warmup_steps: CountOrZero = 0


class LinearDecay(Part):
    """Decreases linearly from lr to lr x final_factor over the steps that follow the warm-up."""

    name: Literal["linear"]
    warmup_steps: CountOrZero = 0
    final_factor: Annotated[Float, Field(ge=0, le=1)] = 0.0


class Cosine(Part):
    """Decreases along half a cosine from lr to lr x final_factor over the steps that follow the warm-up."""

    name: Literal["cosine"]
    warmup_steps: CountOrZero = 0
    final_factor: Annotated[Float, Field(ge=0, le=1)] = 0.0


class StepDecay(Part):
    """Multiplies lr by gamma after every `step_size` steps after the warm-up (torch's StepLR, counted in steps)."""

    name: Literal["step"]
    warmup_steps: CountOrZero = 0
    step_size: Count
    gamma: Annotated[Float, Field(gt=0, le=1)] = 0.1


Schedule = Annotated[Constant | LinearDecay | Cosine | StepDecay, Field(discriminator="name")]

# --- training and resources --------------------------------------------------------------------------


class EarlyStopping(Part):
    """Stop when the metric has not improved by more than `min_delta` for `patience` evaluations in a row.

    The job has then succeeded, with `stopped_early` set; its final checkpoint is that of the step at which it stopped.
    """

    metric: Literal["val/loss", "val/accuracy"] = "val/loss"
    patience: Count = 5
    min_delta: NonNegative = 0.0


class DivergenceRule(Part):
    """Rules by which a run diverges although all its numbers are finite. NaN and infinities always end it."""

    loss_factor: Annotated[Float, Field(gt=1, le=LARGEST)] | None = None
    """Largest loss of a step, as a multiple of the first step's."""
    update_norm_factor: Annotated[Float, Field(gt=1, le=LARGEST)] | None = None
    """Largest L2 norm of a step's update, as a multiple of the first step's; each is divided by the schedule's factor,
    so that a warm-up does not count as a divergence. Costs a copy of the parameters per step.
    """
    patience_steps: Count = 10
    """How many steps in a row must be above the limit."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.loss_factor is None and self.update_norm_factor is None:
            raise refuse("give loss_factor, update_norm_factor or both")
        return self


class Training(Part):
    """Length, batches and recorded metrics of the training. Steps are optimizer updates."""

    epochs: Annotated[Int, Field(ge=1, le=1_000_000)] | None = None
    """Passes over the training data; 10 if neither epochs nor steps is given."""
    steps: Count | None = None
    """Optimizer updates, instead of epochs."""
    batch_size: Count | Literal["full"] = 32
    """Samples per step; 1: true stochastic, "full": batch gradient descent. An epoch's last batch may be smaller."""
    seed: Seed = 0
    """Seeds initial weights, batch order and dropout."""
    shuffle: Bool = True
    eval_every: Count | None = None
    """Steps between evaluations (default: one evaluation per epoch). The last step is always evaluated."""
    checkpoint_every: Count | None = None
    """Steps between checkpoints (default: only the checkpoint of the last step)."""
    log_every: Count = 1
    """Steps per recorded point of the training metrics; a point is the mean over the samples of these steps."""
    telemetry_every: Count | None = None
    """Steps between measurements of the optimizer, for each param group: the norms of gradient and update, the ratio of
    update to weights, quantiles of Adam's effective rate (default: no measurements)."""
    grad_clip_norm: Annotated[Float, Field(gt=0, le=LARGEST)] | None = None
    """Largest global L2 norm of the gradient, as torch.nn.utils.clip_grad_norm_."""
    early_stopping: EarlyStopping | None = None
    divergence: DivergenceRule | None = None
    threads: Annotated[Int, Field(ge=1, le=1_024)] | None = None
    """CPU threads of torch. If not given, the worker chooses when the job first starts: one for small steps."""

    @field_validator("steps")
    @classmethod
    def _one_length(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("epochs") is not None:
            raise refuse("give epochs or steps, not both")
        return value

    @model_validator(mode="after")
    def _default_length(self) -> Self:
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 10)
        return self


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Resources(Part):
    """Where the job may run and how much it may use."""

    device: Device = Device.AUTO
    queue: Slug | None = None
    """Name of the queue (default: "cuda" for device cuda, otherwise "default")."""
    priority: Annotated[Int, Field(ge=-100, le=100)] = 0
    """Jobs with a higher priority start first."""
    max_attempts: Annotated[Int, Field(ge=1, le=100)] = 3
    """Number of counted crashes after which the job fails."""
    max_runtime_seconds: Annotated[Int, Field(ge=1, le=366 * 86_400)] | None = None
    """Running time of one attempt after which the job fails (default: unlimited); a checkpoint is taken shortly
    before."""

    @model_validator(mode="after")
    def _default_queue(self) -> Self:
        if self.queue is None:
            object.__setattr__(self, "queue", "cuda" if self.device is Device.CUDA else "default")
        return self


class CheckpointRule(Part):
    """Which checkpoints are kept. Those of the last step, of a pause and of a stopping worker are always kept."""

    keep_last: Annotated[Int, Field(ge=1, le=10_000)] | None = 2
    """How many of the newest checkpoints of `training.checkpoint_every` are kept (default: 2); null keeps all."""


class JobSpec(Part):
    """A complete training job. `JobSpec.model_validate(...)` fills in all defaults."""

    version: Literal[1] = SPEC_VERSION
    """Version of this schema."""
    name: Title | None = None
    labels: Annotated[dict[Slug, Text], Field(max_length=64)] = {}
    dataset: Dataset
    model: Model
    optimizer: Optimizer
    schedule: Schedule = Constant(name="constant")
    training: Training = Training()
    checkpoints: CheckpointRule = CheckpointRule()
    resources: Resources = Resources()


class Resolved(Part):
    """What the service works out from the spec and the catalogue; device and threads when the job first starts."""

    dataset_sha256: str
    """SHA-256 of the dataset's identity: source hashes, split, normalisation, parameters."""
    input_shape: tuple[int, ...]
    """Shape of one sample, without the batch."""
    n_outputs: int
    """Classes, or regression targets."""
    loss: Literal["cross_entropy", "mse"]
    n_train: int
    n_validation: int
    n_parameters: int
    batch_size: int
    """The number of samples, also for "full"."""
    steps_per_epoch: int
    total_steps: int
    eval_every: int
    """The number of steps, also for one evaluation per epoch."""
    device: Literal["cpu", "cuda"] | None = None
    threads: int | None = None
    memory_bytes: int | None = None
    """Estimate of the peak resident memory of the job's trainer on a CPU, usually 0.9 to 1.5 times the actual value;
    null for device cuda, whose memory is not estimated."""
    model: Architecture | None = None
    """What is needed to use the weights without traind; null for jobs that an earlier version accepted."""


Json = dict[str, Any]
