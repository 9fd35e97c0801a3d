"""Errors of running traind on one machine; their texts say what to do.

TraindError
└── LocalError              local
    ├── AlreadyRunning      already-running     another `traind up` holds the data folder
    ├── DataDirError        data-dir            the data folder can't be used
    ├── ServerMissing       server-missing      no program to run Redis or Postgres with
    ├── PortTaken           port-taken          somebody else listens there
    ├── DatabaseUnusable    database-unusable   the database can't be reached or migrated
    └── StartFailed         start-failed        a process did not come up; the end of its log is in the text
"""

from __future__ import annotations

from traind.errors import TraindError


class LocalError(TraindError):
    code = "local"


class AlreadyRunning(LocalError):
    code = "already-running"


class DataDirError(LocalError):
    code = "data-dir"


class ServerMissing(LocalError):
    code = "server-missing"


class PortTaken(LocalError):
    code = "port-taken"


class DatabaseUnusable(LocalError):
    code = "database-unusable"


class StartFailed(LocalError):
    code = "start-failed"
