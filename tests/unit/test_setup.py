"""Options of llama.cpp by its own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.config.resolver import resolve
from pytest_kvquant.config.setup import SETUP_OPTIONS, as_words, parse_words
from pytest_kvquant.errors import SettingsError


def test_words_of_llama_cpp_s_command_line() -> None:
    found = parse_words(
        "-sm row -ts 3,1 --main-gpu 1 -ot 'exps=CPU' -ot blk.0=CPU --n-cpu-moe 4 --no-mmap --mlock "
        "-fa off -nkvo --no-op-offload -kvu --swa-full -np 4 -tb 8 --rope-scaling yarn "
        "--rope-scale=4 --yarn-orig-ctx 32768 --override-kv a.b=int:3 --numa distribute "
        "--lora x.gguf:0.5"
    )
    assert found == {
        "split-mode": "row", "tensor-split": [3.0, 1.0], "main-gpu": 1,
        "override-tensor": ["exps=CPU", "blk.0=CPU"], "n-cpu-moe": 4, "mmap": False, "mlock": True,
        "flash-attn": "off", "kv-offload": False, "op-offload": False, "kv-unified": True,
        "swa-full": True, "parallel": 4, "threads-batch": 8, "rope-scaling": "yarn",
        "rope-scale": 4.0, "yarn-orig-ctx": 32768, "override-kv": ["a.b=int:3"],
        "numa": "distribute", "lora": ["x.gguf:0.5"],
    }  # fmt: skip
    assert as_words(found)["tensor-split"] == "3.0,1.0"
    assert as_words(found)["mmap"] == "false"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-c 4096", "-c is set by the plugin itself: use --kv-ctx"),
        ("-ctk q8_0", "use --kv-types"),
        ("--flash-atn on", "did you mean --flash-attn?"),
        ("-fa", "-fa needs a value"),
        ("-fa perhaps", "it is one of on, off, auto"),
        ("-mg one", "that takes a whole number"),
        ("-ts a,b", "that takes numbers with commas"),
        ("'", "No closing quotation"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_words(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_and_words_together(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text(
        '[model]\npath = "m.gguf"\nsplit-mode = "row"\nmmap = false\nlora = ["a.gguf:0.5"]\n'
        '[context]\nflash-attn = "auto"\nrope-scale = 2\n'
    )
    typed = {"llama": "-sm layer -tb 3", "rpc": "a:1,b:2"}
    found = resolve(typed, config=None, root=tmp_path, budgets=registry.budget_units())
    assert found.model == tmp_path / "m.gguf"
    assert found.setup == {
        "split-mode": "layer", "mmap": False, "lora": [str(tmp_path / "a.gguf:0.5")],
        "flash-attn": "auto", "rope-scale": 2.0, "threads-batch": 3, "rpc": ["a:1", "b:2"],
    }  # fmt: skip


def test_a_key_that_is_not_known_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text("[context]\nflash-attention = true\n")
    with pytest.raises(SettingsError, match=r"'flash-attention' in \[context\]; did you mean 'fl"):
        resolve({}, config=None, root=tmp_path, budgets=registry.budget_units())


def test_every_option_has_one_name_and_no_spelling_twice() -> None:
    spellings = [
        spelling
        for one in SETUP_OPTIONS
        for spelling in (f"--{one.name}", *one.aliases, *one.negative)
    ]
    assert len(set(spellings)) == len(spellings)
