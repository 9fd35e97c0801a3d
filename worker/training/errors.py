"""Why a training run cannot go on. A divergence is not among them: it is an outcome.

TraindError
└── TrainingError               training-error
    ├── DatasetUnavailable      dataset-unavailable      (retryable) nowhere found, or not to be read, on this machine
    ├── DatasetCorrupt          dataset-corrupt          (retryable) found here, but not what it should be
    ├── CheckpointCorrupt       checkpoint-corrupt       torn, or changed since it was written
    ├── CheckpointUnreadable    checkpoint-unreadable    (retryable) this machine cannot read its file
    ├── CheckpointUnfit         checkpoint-unfit         whole, but of another model
    ├── ScratchFull             scratch-full             (retryable) no room for a checkpoint's files
    ├── ScratchUnusable         scratch-unusable         (retryable) the scratch folder is gone, read-only or broken
    ├── DeviceUnavailable       device-unavailable       (retryable) cuda asked for, no GPU here
    └── OutOfMemory             out-of-memory
"""

from __future__ import annotations

from traind.errors import TraindError


class TrainingError(TraindError):
    code = "training-error"


class DatasetUnavailable(TrainingError):
    code = "dataset-unavailable"
    retryable = True


class DatasetCorrupt(TrainingError):
    code = "dataset-corrupt"
    retryable = True


class CheckpointCorrupt(TrainingError):
    code = "checkpoint-corrupt"


class CheckpointUnreadable(TrainingError):
    code = "checkpoint-unreadable"
    retryable = True


class CheckpointUnfit(TrainingError):
    code = "checkpoint-unfit"


class ScratchFull(TrainingError):
    code = "scratch-full"
    retryable = True


class ScratchUnusable(TrainingError):
    code = "scratch-unusable"
    retryable = True


class DeviceUnavailable(TrainingError):
    code = "device-unavailable"
    retryable = True


class OutOfMemory(TrainingError):
    code = "out-of-memory"
