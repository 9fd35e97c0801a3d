"""Datasets, models and optimizers that a spec can name, with the JSON schemas of their parameters."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from api.auth import require
from api.openapi import problems
from api.schemas import CatalogueEntry, Datasets, Models, Optimizers
from jobs.catalog import datasets, models, optimizers
from jobs.catalog.entries import Entry

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[Depends(require("read"))], responses=problems())


@router.get("/datasets", operation_id="list_datasets", summary="Datasets a spec can name")
def list_datasets() -> Datasets:
    return Datasets(datasets=_entries(datasets.describe()))


@router.get("/models", operation_id="list_models", summary="Models a spec can name")
def list_models() -> Models:
    return Models(models=_entries(models.describe()))


@router.get("/optimizers", operation_id="list_optimizers", summary="Optimizers a spec can name")
def list_optimizers() -> Optimizers:
    return Optimizers(optimizers=_entries(optimizers.describe()))


def _entries(entries: list[Entry]) -> list[CatalogueEntry]:
    return [CatalogueEntry(name=e.name, description=e.description, parameters=e.parameters) for e in entries]
