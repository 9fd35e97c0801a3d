"""Imported once, by the fork server and nobody else: what every trainer needs, so that a child starts in milliseconds.

Imports only: no tensor work, no CUDA call, no thread, because each child is a copy of this process. It leaves the
worker's session and ignores the signals that stop a worker: a trainer ends by its pipes, never by Ctrl-C.
`numpy.ma` is what the first `numpy.unique` would otherwise import. `torch._dynamo` is not here: our
optimizers do without it, and one of torch's imports it for 1.5 s, which only an audit pays.
"""

import os
import signal

import numpy.ma
import safetensors.torch
import torch

import optim_core
import worker.child
import worker.training.run

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()

__all__ = ["numpy", "optim_core", "safetensors", "torch", "worker"]
