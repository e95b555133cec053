"""Child side: an eval callback that says which nodes of a graph it wants, and is shown them.

The scheduler computes up to each wanted node, waits, and shows it; what is not wanted runs as
without a callback. A callback belongs to a context from its making on.
"""

from __future__ import annotations

import ctypes

from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.child.nodes import Ggml, Node, RawTensor, TensorPointer


class Callback:
    """An eval callback: subclasses say which nodes they want and what they do with them."""

    def __init__(self, library: LoadedLibrary) -> None:
        self.ggml = Ggml(library)
        self.error: Exception | None = None
        self._kept: object = None

    def attach(self, params: ctypes.Structure) -> None:
        """Put the callback into context parameters; it must outlive the context."""
        kind = dict((entry[0], entry[1]) for entry in params._fields_)["cb_eval"]
        self._kept = kind(self._called)
        params.cb_eval = self._kept

    def check(self) -> None:
        """Raise what happened inside a callback, which has nobody to raise it to."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def wants(self, tensor: RawTensor) -> bool:
        """Whether a node is to be shown."""
        raise NotImplementedError

    def shown(self, node: Node) -> None:
        """A wanted node has been computed."""
        raise NotImplementedError

    def _called(self, pointer: int, ask: bool, _data: object) -> bool:
        try:
            if ask:
                return self.error is None and self.wants(RawTensor.from_address(pointer))
            if self.error is None:
                self.shown(Node(self.ggml, ctypes.cast(pointer, TensorPointer)))
        except Exception as error:
            self.error = error
            return not ask
        return True
