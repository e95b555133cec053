"""The worker's environment: cleaned of every toggle that changes results, then set on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pytest_kvquant.errors import SettingsError

TOGGLES = ("LLAMA_", "GGML_", "TURBO_", "MTL_", "METAL_", "AGX_")
"""Prefixes of variables that llama.cpp builds and Apple's Metal read: debug layers, shader
validation, device wrappers, capture and the driver's own switches change results and speed."""

PATIENCE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "3000"}
"""Threads of the library sleep soon while they wait, unless the user says otherwise: the parent
compares on the same cores while the worker decodes, and threads that spin make both many times
slower on a busy machine. Threads that sleep at once make one-token steps ten times slower on a
quiet one. Measured with two threads on two cores, milliseconds a token, quiet and beside another
such worker, by turns that a thread spins (GNU's runtime only): 1,000: 0.45, 2.5; 2,000: 0.32, 4.3;
3,000: 0.33, 6.0; 10,000: 0.32, 19. Logits do not depend on it. Timings do, for f16 and the cell
alike."""

PATIENCE_OF_THE_USER = {*PATIENCE, "KMP_BLOCKTIME"}
"""One of these in ``[environment]`` or in the shell, and the plugin sets none of its own."""

SINGLE = {"OPENBLAS_NUM_THREADS": "1"}
"""NumPy's products in a worker take one thread: the worker has its own where it needs them, and the
cores are llama.cpp's (whose OpenBLAS backend sets its threads itself)."""

BRIEF = {"GGML_NO_BACKTRACE": "1"}
"""An assertion ends with its own words. ggml would call a debugger, whose pages bury them."""


WORKER_HOOK = "KVQUANT_WORKER_HOOK"
"""Names a Python file that workers run before anything else. It can change every figure: it counts
where the configuration sets it, and never from the shell."""

BINDINGS = "LLAMA_CPP_LIB_PATH"
"""Where the bindings are pointed at a library. Not a toggle: the run takes its library from there,
unless ``--kv-lib`` names another, and tells its workers in its own way."""

PLACES = ("GGML_METAL_PATH_RESOURCES",)
"""Not toggles but places: a build whose Metal kernels are not built in cannot start without. What
lies there is part of the build's hash."""


class Environment(NamedTuple):
    """What a worker starts with, and how it came about."""

    variables: dict[str, str]
    dropped: dict[str, str]
    """Toggles that stood in the shell and were left out."""
    added: dict[str, str]
    """What the configuration set, and the plugin for its own needs."""

    @property
    def hook(self) -> str:
        """SHA-256 of the file that workers run first, 16 hex digits; empty where there is none.

        Raises:
            SettingsError: it cannot be read.
        """
        if not (path := self.added.get(WORKER_HOOK)):
            return ""
        try:
            return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise SettingsError(
                f"[environment] {WORKER_HOOK} = {path} cannot be read ({error.strerror}): it names "
                "a Python file that every worker runs first. Mend the path, or leave it out."
            ) from None


def hook_in_words(environment: Environment, digest: str) -> str:
    """What a run says of the file that its workers run first."""
    return (
        f"every worker runs {environment.added[WORKER_HOOK]} first ({WORKER_HOOK}, SHA-256 "
        f"{digest}): figures are those of an engine that was changed on purpose"
    )


def scrub(shell: Mapping[str, str], configured: Mapping[str, str]) -> Environment:
    """The shell's variables without the toggles, with those that are set on purpose."""
    dropped = {
        name: value
        for name, value in sorted(shell.items())
        if name.startswith((*TOGGLES, WORKER_HOOK)) and name not in (*PLACES, BINDINGS)
    }
    kept = {name: value for name, value in shell.items() if name not in {*dropped, BINDINGS}}
    patience = {} if PATIENCE_OF_THE_USER & {*kept, *configured} else PATIENCE
    added = {**BRIEF, **SINGLE, **patience, **configured}
    return Environment({**kept, **added}, dropped, added)
