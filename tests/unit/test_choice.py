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
    for name in ("HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS", "XDG_CACHE_HOME"):
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


def put(model: Path, *places: Path) -> None:
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(model.read_bytes())


def test_a_name_that_another_begins_with_is_no_other_s(machine: Path, model: Path) -> None:
    hub, manifests = machine / ".cache/huggingface/hub", machine / ".ollama/models/manifests"
    longer = hub / "models--org--repo-128K/snapshots/abc/m-Q4_K_M.gguf"
    put(model, longer, machine / ".lmstudio/models/pub/repo-2/m.gguf")
    other = manifests / "registry.ollama.ai/library/llama3.2-vision/11b"
    other.parent.mkdir(parents=True)
    other.write_text((manifests / "registry.ollama.ai/library/llama3.2/1b").read_text())
    for name in ("hf:org/repo", "hf:org/repo:q4_k_m", "lmstudio:pub/repo", "ollama:llama3.2"):
        assert chosen(Path(name)) != longer
    assert chosen(Path("hf:org/repo-128K")) == longer
    with pytest.raises(ModelError, match=r"ollama:llama3\.2:12 is not on this machine"):
        chosen(Path("ollama:llama3.2:12"))  # the blob is called sha256-12


def test_several_of_one_name_are_told_by_what_can_be_typed(machine: Path, model: Path) -> None:
    hub = machine / ".cache/huggingface/hub/models--org--repo"
    put(model, hub / "snapshots/abc/more/m-Q4_K_M.gguf")
    with pytest.raises(ModelError, match=r"\(hf:org/repo/more/m-Q4_K_M\.gguf, hf:org/repo/sub/"):
        chosen(Path("hf:org/repo"))
    put(model, model.parent / "a/m.gguf", model.parent / "b/m.gguf")
    with pytest.raises(ModelError, match=r"/a/m\.gguf, .*/b/m\.gguf"):
        chosen(model.parent / "*" / "m.gguf")


def test_of_two_revisions_that_of_the_main_branch_counts(machine: Path, model: Path) -> None:
    hub = machine / ".cache/huggingface/hub/models--org--repo"
    older = hub / "snapshots/aaa/sub/m-Q4_K_M.gguf"
    put(model, older)
    assert chosen(Path("hf:org/repo")) != older
    (hub / "refs").mkdir()
    (hub / "refs/main").write_text("aaa\n")
    assert chosen(Path("hf:org/repo")) == older


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "LLAMA_CACHE", ""])
def test_llama_cpp_s_own_cache(
    variable: str, machine: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("LLAMA_CACHE", "")  # as good as not set
    root = machine / ".cache/llama.cpp"
    if variable:
        monkeypatch.setenv(variable, str(machine / "elsewhere"))
        root = machine / "elsewhere" / ("llama.cpp" if variable.startswith("XDG") else "")
    file = root / "org_repo_m-Q4_0.gguf"
    put(model, file, root / "org_repo-2_m-Q4_0.gguf")
    for name in ("org_repo_m-Q4_0.gguf", "org/repo", "org/repo:Q4_0"):
        assert chosen(Path(f"llama.cpp:{name}")) == file


def test_hugging_face_s_cache_moves_with_all_caches(machine: Path, model: Path) -> None:
    put(model, machine / "all/huggingface/hub/models--a--b/snapshots/1/m.gguf")
    found = found_models({"XDG_CACHE_HOME": str(machine / "all"), "HF_HOME": ""}, machine)
    assert found[0].name == "hf:a/b/m.gguf"


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
