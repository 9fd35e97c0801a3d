"""A PyYAML loader that stops at nodes and knows the scalars of YAML 1.2's core schema (yaml.org/spec/1.2.2, 10.3.2).

In pure Python on purpose: libyaml's composer overflows the stack on deep nesting. A module of its own because PyYAML
is imported only where a YAML file is read.
"""

from __future__ import annotations

import re
from typing import Any

from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner


class Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """Composes nodes; constructs nothing."""

    def __init__(self, stream: Any) -> None:
        Reader.__init__(self, stream)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
):
    first = [None if c == "\0" else c for c in _first]
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), first)
