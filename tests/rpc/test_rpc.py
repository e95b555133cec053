"""A model over RPC servers: measured, placed by server, and a lost server has a name and no hang.

``make rpc`` builds what these need; they are skipped where it is not.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.outer import SMALL, pytest_in

from rpc import build

PLACE = build.folder()
pytestmark = pytest.mark.skipif(
    PLACE is None, reason="no build with the RPC backend: `make rpc` makes one"
)


def free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])


class Servers:
    """Real servers on this machine."""

    def __init__(self, count: int) -> None:
        assert PLACE is not None
        program = build.server(PLACE)
        self.names, self.processes = [], []
        for _ in range(count):
            port = free_port()
            self.names.append(f"127.0.0.1:{port}")
            self.processes.append(
                subprocess.Popen(
                    [str(program), "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
                    env={**os.environ, "LD_LIBRARY_PATH": str(PLACE)},
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
        for name in self.names:
            self._wait(name)

    @staticmethod
    def _wait(name: str) -> None:
        host, _, port = name.rpartition(":")
        for _ in range(100):
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"{name} does not come up")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def options(self) -> tuple[str, ...]:
        return (f"--kv-lib={PLACE}", f"--kv-rpc={','.join(self.names)}", "--kv-pairs=q8_0/q8_0")


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with ExitStack() as stack:
        started = Servers(getattr(request, "param", 2))
        stack.callback(started.close)
        yield started


@pytest.mark.parametrize("servers", [2, 4], indirect=True)
def test_the_cache_lies_on_the_servers_and_figures_are_those_of_one_machine(
    servers: Servers, tmp_path: Path
) -> None:
    alone = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, f"--kv-lib={PLACE}", "--kv-pairs=q8_0/q8_0",
        "--kv-json=alone.json", f"--kv-store={tmp_path / 'a'}",
    )  # fmt: skip
    apart = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, *servers.options(), "--kv-json=apart.json",
        f"--kv-store={tmp_path / 'b'}",
    )  # fmt: skip
    assert (alone.code, apart.code) == (0, 0), apart.text
    (here, there) = (json.loads((tmp_path / name).read_text()) for name in
                     ("alone.json", "apart.json"))  # fmt: skip
    for one, other in zip(here["cells"], there["cells"], strict=True):
        held = other["placement"]["kv_buffers"]
        places = {name.partition("[")[2].rstrip("]") for name in held}
        assert places <= set(servers.names)  # four layers and the output: one may hold no cache
        assert len(places) >= 2
        assert sum(held.values()) == pytest.approx(
            sum(one["placement"]["kv_buffers"].values()), abs=0.05
        )
        assert other["quality"]["prefill"]["kl_mean"] == pytest.approx(
            one["quality"]["prefill"]["kl_mean"], rel=0.1, abs=1e-9
        )


def test_a_lost_server_has_a_name_and_no_hang(servers: Servers, tmp_path: Path) -> None:
    """It dies while the second cell is scored; the third is left, and says why."""
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import os, signal\n"
        "from pytest_kvquant.engine.child.context import Context\n"
        "init, honest = Context.__init__, Context.decode\n"
        "def made(self, *given, **named):\n"
        "    init(self, *given, **named)\n"
        "    self.quantized = named['type_k'] == 'q8_0' and named['ctx'] == 64\n"
        "def decode(self, tokens, *rest):\n"
        "    if self.quantized and len(tokens) > 32 and not os.path.exists('gone'):\n"
        "        open('gone', 'w').close()\n"
        f"        os.kill({servers.processes[1].pid}, signal.SIGKILL)\n"
        "    return honest(self, tokens, *rest)\n"
        "Context.__init__, Context.decode = made, decode\n"
    )
    (tmp_path / "kvquant.toml").write_text(f"[environment]\nKVQUANT_WORKER_HOOK = '{hook}'\n")
    ran = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, *servers.options()[:2], "--kv-pairs=q8_0/q8_0,q4_0/q4_0",
        "--kv-json=r.json", f"--kv-store={tmp_path / 's'}",
    )  # fmt: skip
    assert ran.code == 1, ran.text
    cells = json.loads((tmp_path / "r.json").read_text())["cells"]
    first, *lost = cells
    assert first["verdict"] not in ("server-lost", "crashed")
    for cell in lost:
        assert cell["verdict"] == "server-lost", cell["message"]
        assert servers.names[1] in cell["message"]


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ran = pytest_in(
        tmp_path, "--kv-matrix", *SMALL, f"--kv-lib={PLACE}", f"--kv-rpc=127.0.0.1:{free_port()}"
    )
    assert ran.code == 4, ran.text
    assert "does not answer; is it running?" in ran.text
    assert "Traceback" not in ran.text
