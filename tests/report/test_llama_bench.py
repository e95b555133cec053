"""``kvquant llama-bench``: the shape of the real program's output."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import run
from support.tinygguf import Tiny, write

from pytest_kvquant.cli.main import main
from pytest_kvquant.config.setup import as_words, parse_words
from pytest_kvquant.matrix import REFERENCE, Pair
from pytest_kvquant.report.conditions_apart import conditions, differences
from pytest_kvquant.report.llama_bench import EXPERTS, as_llama_bench, entry
from pytest_kvquant.results.file import encode
from pytest_kvquant.results.result import Result

GOLDEN = Path(__file__).parents[1] / "golden" / "llama_bench" / "fork-9079.json"
PAIR = Pair("q8_0", "q4_0")

KEYS = {
    "build_commit", "test_time", "avg_ts", "cpu_info", "gpu_info", "backends", "n_gpu_layers",
    "n_cpu_moe", "tensor_buft_overrides", "model_filename", "model_type", "n_batch", "n_ubatch",
    "embeddings", "cpu_mask", "cpu_strict", "poll", "n_threads", "type_k", "type_v",
    "no_kv_offload", "split_mode", "main_gpu", "tensor_split", "flash_attn", "n_prompt", "n_gen",
    "n_depth", "fit_target", "fit_min_ctx",
}  # fmt: skip
"""What every version of ``compare-llama-bench.py`` insists on."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Two pairs of a small model, timed at two depths."""
    folder = tmp_path_factory.mktemp("speed")
    write(folder / "small.gguf", Tiny(n_layer=1, n_embd=32, n_head=1, n_head_kv=1, head_dim=32,
                                      n_ff=32, n_vocab=300))  # fmt: skip
    session = run.start(
        folder, model=folder / "small.gguf", pairs=(str(PAIR),), profile="quick", depths=(0, 64),
        pp=16, tg=4, sample=0.001, rounds=6, threads=1,
    )  # fmt: skip
    for pair in (REFERENCE, PAIR):
        session.speed.measure(pair)
    return session.result()


@pytest.fixture(scope="module")
def entries(result: Result, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return exported(result, tmp_path_factory.mktemp("export") / "r.json")


def exported(result: Result, path: Path) -> list[dict[str, Any]]:
    """What the command prints for a result."""
    path.write_bytes(encode(result))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["llama-bench", str(path)]) == 0
    found: list[dict[str, Any]] = json.loads(printed.getvalue())
    return found


def shape(value: object) -> object:
    """The JSON type of a value, of its items for a list."""
    return {shape(item) for item in value} if isinstance(value, list) else type(value)


def test_an_entry_has_the_fields_of_the_real_program(entries: list[dict[str, Any]]) -> None:
    real = json.loads(GOLDEN.read_text(encoding="utf-8"))[0]
    for one in entries:
        assert set(one) - set(real) == {"load_mode", "lazy_mode", "repack"}, "names of later builds"
        assert {name: shape(one[name]) for name in real} == {
            name: shape(real[name]) for name in real
        }


def test_an_entry_has_what_scripts_insist_on(entries: list[dict[str, Any]]) -> None:
    assert all(set(one) >= KEYS | {"use_mmap", "load_mode"} for one in entries)


def test_what_nobody_sets_is_what_the_real_program_says(entries: list[dict[str, Any]]) -> None:
    real = json.loads(GOLDEN.read_text(encoding="utf-8"))[0]
    own = {"n_gpu_layers", "n_prompt", "n_gen", "n_depth", "n_threads", "type_k", "type_v"}
    of_the_build = {"build_commit", "build_number", "cpu_info", "backends", "gpu_info"}
    same = KEYS - own - of_the_build - {"test_time", "avg_ts", "model_filename", "model_type"}
    assert {name: entries[0][name] for name in same} == {name: real[name] for name in same}


def test_what_was_set_stands_as_the_real_program_writes_it(
    result: Result, entries: list[dict[str, Any]]
) -> None:
    words = (
        "-nkvo --no-op-offload -sm row -mg 1 -ts 3,1,0 -ncmoe 2 -ot 'exps=CPU' -ot ffn=CPU -cmoe "
        "--no-mmap --mlock -kvu"
    )
    given = as_words(parse_words(words))
    made = msgspec.structs.replace(
        result, settings=msgspec.structs.replace(result.settings, setup=given)
    )
    found = json.loads(as_llama_bench(made.speed, made.settings.setup))[0]
    changed = {name: value for name, value in found.items() if value != entries[0][name]}
    assert changed == {
        "no_kv_offload": True, "no_op_offload": 1, "split_mode": "row", "main_gpu": 1,
        "tensor_split": "3.00/1.00", "n_cpu_moe": 2, "use_mmap": False, "load_mode": "mlock",
        "tensor_buft_overrides": f"exps=CPU;ffn=CPU;{EXPERTS}",
    }  # fmt: skip


def test_two_results_of_different_options_are_told_apart(result: Result) -> None:
    settings = msgspec.structs.replace(result.settings, setup={"kv-offload": "false"})
    other = msgspec.structs.replace(result, settings=settings)
    assert list(differences(conditions(result, other))) == [
        "options of llama.cpp: none → kv-offload=false"
    ]


def test_flash_attention_that_was_off_is_not_said_to_be_on(tmp_path: Path) -> None:
    write(tmp_path / "small.gguf", Tiny(n_layer=1, n_embd=32, n_head=1, n_head_kv=1, head_dim=32,
                                        n_ff=32, n_vocab=300))  # fmt: skip
    session = run.start(
        tmp_path, model=tmp_path / "small.gguf", pairs=(str(REFERENCE),), profile="quick",
        depths=(0,), pp=16, tg=0, sample=0.001, rounds=6, threads=1,
        setup=parse_words("-fa off -nkvo"),
    )  # fmt: skip
    session.speed.measure(REFERENCE)
    (one,) = exported(session.result(), tmp_path / "r.json")
    assert (one["flash_attn"], one["no_kv_offload"]) == (False, True)


def test_there_is_an_entry_for_every_test_of_every_pair(
    entries: list[dict[str, Any]], result: Result
) -> None:
    found = [(one["type_k"], one["type_v"], one["n_prompt"], one["n_gen"], one["n_depth"])
             for one in entries]  # fmt: skip
    assert found == [
        (k, v, prompt, generate, depth)
        for k, v in (REFERENCE, PAIR)
        for depth in (0, 64)
        for prompt, generate in ((16, 0), (0, 4))
    ]
    assert entries[0]["cpu_info"] == result.environment.library.processors
    assert entries[0]["backends"] == result.environment.library.accelerators


@pytest.mark.parametrize(
    ("said", "written"), [("0c1e570-dirty", "0c1e570"), ("69d8e4be4", "69d8e4be4"), ("", "unknown")]
)
def test_a_commit_is_named_as_llama_bench_does(result: Result, said: str, written: str) -> None:
    test = msgspec.structs.replace(result.speed[0].tests[0], build_commit=said)
    assert entry(test, {})["build_commit"] == written


def test_backends_have_the_names_of_their_registries(result: Result) -> None:
    library = result.environment.library
    assert "CPU" in library.backends
    built = msgspec.structs.replace(library, backends=("CUDA", "BLAS", "CPU"))
    assert built.accelerators == "CUDA,BLAS"
    assert msgspec.structs.replace(library, backends=("CPU",)).accelerators == "CPU"


def test_a_result_without_speeds_is_refused(
    result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_bytes(encode(msgspec.structs.replace(result, speed=())))
    assert main(["llama-bench", str(tmp_path / "r.json")]) == 2
    assert "holds no speeds; run pytest with --kv-speed on" in capsys.readouterr().err
