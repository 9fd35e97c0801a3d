"""Names that operators give to keys and projects: what people read in lists, so never empty and never unprintable."""

from __future__ import annotations

MAX_LENGTH = 200


def checked(name: str, what: str) -> str:
    """`name` without blanks around it. Raises ValueError, with `what` it names and what to do, if it cannot be one."""
    name = name.strip()
    if not name:
        raise ValueError(f"the name of a {what} must not be empty: say what or whom it is for")
    if not name.isprintable():
        raise ValueError(f"the name of a {what} must not hold line ends, control characters or broken UTF-8")
    if len(name) > MAX_LENGTH:
        raise ValueError(f"the name of a {what} has {len(name)} characters; at most {MAX_LENGTH} are allowed")
    return name
