"""Who asks: the API key of a request becomes a Principal with a project and scopes.

`Reader` and `Writer` are what endpoints declare. A key belongs to one project; rows of another do not exist for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.access import tell
from api.errors import InsufficientScope, InvalidKey, Unauthenticated
from api.service import Service, ServiceDep
from jobs.keys import Principal, authenticate

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="api_key",
    bearerFormat="td_…",
    description="An API key of one project: its scope is read, write (may also read) or admin. `traind up` makes one.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def require(scope: str) -> Callable[[Request, ServiceDep, Credentials], Awaitable[Principal]]:
    """A dependency that gives the Principal. Raises Unauthenticated, InvalidKey or InsufficientScope."""

    async def dependency(request: Request, service: ServiceDep, credentials: Credentials) -> Principal:
        if credentials is None:
            raise Unauthenticated
        key = credentials.credentials
        principal = service.keys.get(key)
        if principal is None:
            principal = await run_in_threadpool(_verify, service, key)
        tell(request, key_id=principal.key_id)
        if not principal.may(scope):
            raise InsufficientScope(scope)
        return principal

    return dependency


def _verify(service: Service, key: str) -> Principal:
    with service.engine.begin() as connection:
        principal = authenticate(connection, key)
    if principal is None:
        raise InvalidKey
    service.keys.put(key, principal)
    return principal


Reader = Annotated[Principal, Depends(require("read"))]
Writer = Annotated[Principal, Depends(require("write"))]
