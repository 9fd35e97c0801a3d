"""The catalogue: static facts about datasets, models and optimizers, and what they make of a spec.

No torch, no numpy, no data: the api judges a spec with it before anything runs, the trainer builds from it. A test
compares it with torch.

    resolve      spec -> Resolved, or InvalidSpec with a JSON pointer per bad field
    datasets     shapes, sizes, classes, hashes
    models       every model as a list of layers; shapes and parameter names
    architecture a model as data that torch alone can use, for `resolved` and each file of weights
    optimizers   which parameters belong to which param group, with which options
"""

from jobs.catalog.resolution import resolve

__all__ = ["resolve"]
