"""The one command for the first person with another machine."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest

from pytest_kvquant.cli.main import main
from pytest_kvquant.cli.selfcheck import CRASH, FAULTS, _matrix, private_words, without_private


def test_private_words_go_and_all_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    words = private_words("/tmp/kvquant-selfcheck-x")
    text = f"{Path.home()}/models of ada, canada, /tmp/kvquant-selfcheck-x/kv.json"
    assert without_private(text, words) == "~/models of <user>, canada, <scratch>/kv.json"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/opt/acme secret/llama/build/bin/libllama.so: llama.cpp 1", "<folder>/libllama.so: "
         "llama.cpp 1"),
        ("[/srv/acme/kv.toml] q8_0/q4_0 at 3 tok/s, https://github.com/a/b", "[<folder>/kv.toml] "
         "q8_0/q4_0 at 3 tok/s, https://github.com/a/b"),
        ("/usr/lib/libc.so /opt/homebrew/lib/libggml.dylib", "/usr/lib/libc.so "
         "/opt/homebrew/lib/libggml.dylib"),
    ],
)  # fmt: skip
def test_of_paths_anywhere_only_the_end_is_left(text: str, left: str) -> None:
    assert without_private({text: [text]}, {}) == {left: [left]}


@pytest.mark.slow
def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    ran = _matrix(tmp_path / "run", (), "--kv-pairs", "q8_0/q8_0", "--kv-speed", "off",
                  "--kv-ctx", "128", "--kv-chunks", "2", "-k", "measured", hook=CRASH)  # fmt: skip
    assert ran.code == 1
    verdicts = {cell["pair"]: cell["verdict"] for cell in ran.result["cells"]}
    assert verdicts == {"f16/f16": "pass", "q8_0/q8_0": FAULTS["a killed worker"][1]}


@pytest.mark.slow
def test_the_whole_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "back.json"
    assert main(["selfcheck", "--out", str(out)]) == 0, capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["ok"]
    assert found["missed"] == []
    text = out.read_text(encoding="utf-8")
    assert str(Path.home()) + "/" not in text
    assert str(tmp_path) not in text
