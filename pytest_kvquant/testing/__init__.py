"""For authors of gates and of forks: try a gate without a model, and a run with a planted fault.

Three things. :func:`subject` makes up a measured cell from figures per chunk, and :func:`decide`
decides a gate or a check on it: no engine, no model. :class:`Project` is a folder with a
configuration and tests, in which ``pytest --kv-matrix`` runs in a process of its own.
:data:`FAULTS` are faults that its workers can be given, on the model that the package brings:
gates have to find them.
"""

from __future__ import annotations

from pytest_kvquant.testing.faults import FAULTS
from pytest_kvquant.testing.made_up import chunks, decide, declaration, subject
from pytest_kvquant.testing.project import QUICK, Project, Ran

__all__ = [
    "FAULTS",
    "QUICK",
    "Project",
    "Ran",
    "chunks",
    "decide",
    "declaration",
    "subject",
]
