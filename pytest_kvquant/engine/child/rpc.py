"""Child side: RPC servers of llama.cpp, whose devices become those of the library."""

from __future__ import annotations

import ctypes

from pytest_kvquant.engine.child.library import BadLibrary, LoadedLibrary
from pytest_kvquant.engine.servers import answers


class LostServer(BadLibrary):
    """An RPC server does not answer."""


def add_servers(library: LoadedLibrary, servers: list[str]) -> None:
    """Connect to RPC servers; each one's devices are then among those of this library.

    Raises:
        BadLibrary: this build has no RPC backend.
        LostServer: a server does not answer.
    """
    pointer = ctypes.c_void_p
    by_name = library.function("ggml_backend_reg_by_name", pointer, ctypes.c_char_p)
    registry = by_name(b"RPC")
    if not registry:
        raise BadLibrary(
            f"{library.path} has no RPC backend: build llama.cpp with -DGGML_RPC=ON, or leave "
            "--kv-rpc out."
        )
    look_up = library.function(
        "ggml_backend_reg_get_proc_address", pointer, pointer, ctypes.c_char_p
    )
    address = look_up(registry, b"ggml_backend_rpc_add_server")
    if not address:
        raise BadLibrary(f"{library.path} has an RPC backend that takes no servers.")
    add = ctypes.CFUNCTYPE(pointer, ctypes.c_char_p)(address)
    register = library.function("ggml_backend_register", None, pointer)
    for server in servers:
        if not answers(server) or not (found := add(server.encode())):
            raise LostServer(f"The RPC server {server} does not answer; is it running?")
        register(found)
