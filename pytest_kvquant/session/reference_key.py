"""Everything that stored f16 logits depend on, the tokens aside: what is equal may be reused."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from pytest_kvquant.engine.parent.engine import BatchShape
from pytest_kvquant.machine.environment import Environment
from pytest_kvquant.machine.versions import driver_version, os_version
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.numerics.untyped import Parsed
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
    setup: dict[str, Parsed]
    """Options of llama.cpp in words."""
    os_version: str
    driver: str

    @classmethod
    def here(cls, **conditions: Parsed) -> ReferenceConditions:
        """On this machine; the other fields by name."""
        gpu = bool(conditions["library"].gpus_in_use(conditions["gpu_layers"]))
        return cls(os_version=os_version(), driver=driver_version(gpu=gpu), **conditions)

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
