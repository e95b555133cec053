"""What --kv-model may say, and the models that other programs have put on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.lying import HONEST, packed, string
from support.splitting import split

from pytest_kvquant.cli.main import main
from pytest_kvquant.errors import ModelError
from pytest_kvquant.inputs.choice import chosen
from pytest_kvquant.inputs.found_models import found_models
from pytest_kvquant.inputs.model import read_model
from pytest_kvquant.zoo.members import by_name
from pytest_kvquant.zoo.writer import write

PROJECTOR = packed(
    HONEST._replace(keys=(string("general.architecture", b"clip"), *HONEST.keys[1:]))
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return write(folder / "llama.gguf", by_name("llama-112"))


def test_a_folder_with_one_model_beside_its_projector(model: Path) -> None:
    (model.parent / "mmproj.gguf").write_bytes(PROJECTOR)
    assert chosen(model.parent) == model
    assert read_model(model.parent).path == str(model)


def test_several_models_are_named(model: Path) -> None:
    write(model.with_name("other.gguf"), by_name("llama-112"))
    with pytest.raises(ModelError, match=r"holds 2 models \(llama\.gguf, other\.gguf\); name one"):
        chosen(model.parent)
    assert chosen(model.parent / "oth*.gguf") == model.with_name("other.gguf")
    with pytest.raises(ModelError, match=r"pattern .* matches no GGUF model"):
        chosen(model.parent / "q*.gguf")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no GGUF model"):
        chosen(tmp_path)


def test_a_folder_of_shards_is_one_model(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    shards = split(model, folder, 3)
    assert chosen(folder) == shards[0]


@pytest.fixture
def machine(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    places = (
        home / ".cache/huggingface/hub/models--org--repo/snapshots/abc/sub/m-Q4_K_M.gguf",
        home / ".lmstudio/models/pub/repo/m.gguf",
        home / ".ollama/models/blobs/sha256-12",
    )
    for place in places:
        place.parent.mkdir(parents=True)
        place.write_bytes(model.read_bytes())
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library/llama3.2/1b"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:12"}
    manifest.write_text(json.dumps({"layers": [{"mediaType": "x"}, layer]}))
    (manifest.parent / "damaged").write_text("{")
    for name in ("HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


def test_models_of_other_programs(machine: Path) -> None:
    assert [one.name for one in found_models({}, machine)] == [
        "hf:org/repo/sub/m-Q4_K_M.gguf",
        "lmstudio:pub/repo/m.gguf",
        "ollama:llama3.2:1b",
    ]
    moved = found_models({"OLLAMA_MODELS": str(machine / "nowhere")}, machine)
    assert len(moved) == 2


@pytest.mark.parametrize(
    "name",
    ["hf:org/repo/sub/m-Q4_K_M.gguf", "hf:org/repo", "hf:org/repo:Q4_K_M", "ollama:llama3.2:1b",
     "lmstudio:pub/repo/m.gguf"],
)  # fmt: skip
def test_they_are_taken_by_name(name: str, machine: Path) -> None:
    assert read_model(Path(name)).architecture == "llama"
    assert str(machine) in str(chosen(Path(name)))


def test_what_is_not_here_is_not_downloaded(machine: Path) -> None:
    with pytest.raises(ModelError, match="is not on this machine, and nothing is downloaded"):
        chosen(Path("hf:org/other"))


def test_the_command_lists_them_with_geometry(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "✓ ollama:llama3.2:1b" in printed
    assert "2 of 2 layers with a cache, 4 query and 2 KV heads of 112, 1,792 bytes" in printed
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["head_k"] for row in rows] == [112, 112, 112]
