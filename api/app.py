"""The HTTP application: routes, errors, the access layer and the OpenAPI document, put together.

`create_app(settings)` is called by `api.__main__` and by tests. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from api import errors, openapi
from api.access import Access
from api.endpoints import catalog, checkpoints, checks, deletion, health, jobs, metrics, verbs, workers
from api.query import known_query
from api.service import Service
from jobs.settings import Settings

DESCRIPTION = """\
Submit training jobs, follow them, and compare optimizers.

Every path under /v1 needs an API key: `Authorization: Bearer td_…`. Errors are RFC 9457 problem documents with a
stable `code`, the JSON pointer of the bad field and a `request_id`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The application for `settings`, whose servers' URLs must be set. Raises ValueError if they are not."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.engine.dispose()

    app = FastAPI(
        title="traind",
        summary="The training service that knows its optimizers.",
        description=DESCRIPTION,
        version=version("traind"),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.service = service
    for endpoints in (jobs, verbs, metrics, checkpoints, deletion, checks, workers, catalog, health):
        checked = [] if endpoints is health else [Depends(known_query)]
        app.include_router(endpoints.router, dependencies=checked)
    errors.install(app)
    openapi.install(app)
    app.add_middleware(Access)
    return app
