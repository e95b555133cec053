"""The one place that says ``Any``: names for what no type describes, by where it comes from."""

from __future__ import annotations

from typing import Any, TypeAlias

Native: TypeAlias = Any
"""A function, a struct or a pointer of a C library, as ctypes or the bindings give it."""

Traced: TypeAlias = Any
"""An argument of a compiled loop, which numba types when it compiles."""

Parsed: TypeAlias = Any
"""A value that JSON, TOML or a GGUF header carried, and that nothing has checked yet."""

Foreign: TypeAlias = Any
"""An object of a library that has no types: pytest-benchmark's fixture, a writer of gguf."""

Hint: TypeAlias = Any
"""A type as a value, as :func:`typing.get_type_hints` gives it."""
