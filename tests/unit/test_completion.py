"""What the shell completes of ``kvquant``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_kvquant.cli.completion import SHELLS
from pytest_kvquant.cli.main import main
from tools.pages import command_parsers

pytest.importorskip("shtab")


def _script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert not ended.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_completed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback for all commands, as one had its values in a dict."""
    script = _script(shell, capsys)
    assert [name for name in command_parsers() if name not in script] == []


@pytest.mark.parametrize(
    ("typed", "completes"),
    [
        (("hist",), "history"),
        (("ci", "pre"), "pre-push"),
        (("history", "--met"), "--metric"),
        (("history", "--metric", "top"), "top1"),
        (("report", "--table", "lat"), "latex"),
    ],
)
def test_bash_completes_commands_options_and_values(
    typed: tuple[str, ...], completes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    script = tmp_path / "completion.bash"
    script.write_text(_script("bash", capsys))
    ask = (
        f"source {script}; name=$(complete -p kvquant | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        f"COMP_WORDS=(kvquant {' '.join(typed)}); COMP_CWORD={len(typed)}; "
        '$name kvquant "${COMP_WORDS[-1]}" ""; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
    assert completes in done.stdout.splitlines(), done.stdout + done.stderr
