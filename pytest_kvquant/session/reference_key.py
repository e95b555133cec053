"""Everything that stored f16 logits depend on, the tokens aside: what is equal may be reused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.machine.environment import Environment
from pytest_kvquant.machine.versions import driver_version, os_version
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.results.library import Library


class ReferenceConditions(NamedTuple):
    """What the logits of any pair on any text of a run depend on."""

    model: str
    """Fingerprint."""
    order: str
    seed: int
    gpu_layers: int
    shape: BatchShape
    library: Library
    """The build that computes them, with the device that it uses. Shader sources that are compiled
    at run time count for its hash."""
    environment: Environment
    setup: Mapping[str, str]
    """Options of llama.cpp in words."""
    os_version: str
    driver: str

    @classmethod
    def here(
        cls,
        *,
        model: str,
        order: str,
        seed: int,
        gpu_layers: int,
        shape: BatchShape,
        library: Library,
        environment: Environment,
        setup: Mapping[str, str],
    ) -> ReferenceConditions:
        """On this machine."""
        driver = driver_version(gpu=bool(library.gpus_in_use(gpu_layers)))
        return cls(
            model, order, seed, gpu_layers, shape, library, environment, setup, os_version(), driver
        )

    def key(self, pair: Pair, text: str) -> dict[str, object]:
        """The key of a pair's logits, plain data.

        Args:
            text: fingerprint of the text.
        """
        return {
            **({} if pair == REFERENCE else {"pair": str(pair)}),
            "model": self.model,
            "corpus": [text, self.order, self.seed],
            "gpu_layers": self.gpu_layers,
            "shape": msgspec.to_builtins(self.shape),
            "library": self.library.hash,
            "device": self.library.chip,
            "environment": self.environment.added,
            "system": self.os_version,
            **({"driver": self.driver} if self.driver else {}),
            **({"hook": self.environment.hook} if self.environment.hook else {}),
            **({"setup": self.setup} if self.setup else {}),
        }
