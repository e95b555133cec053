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
        ("--mlock=maybe", "--mlock=maybe: a switch is one of true, on, 1, enabled, false"),
        ("--mlock=", "--mlock=: a switch is one of"),
        ("--lora=", "--lora needs a value"),
        ("-ts ,", "-ts needs a value"),
    ],
)
def test_what_cannot_be_meant_is_one_line(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_words(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["true", "1", "on", "Enabled"])
def test_a_switch_means_what_its_value_says(word: str) -> None:
    assert parse_words(f"--mlock={word} --swa-full={word}") == {"mlock": True, "swa-full": True}
    assert parse_words(f"--no-mmap={word} -nkvo={word}") == {"mmap": False, "kv-offload": False}


@pytest.mark.parametrize("word", ["false", "0", "off", "DISABLED"])
def test_a_switch_can_be_put_off_by_its_value(word: str) -> None:
    assert parse_words(f"--mlock={word} --swa-full={word}") == {"mlock": False, "swa-full": False}
    assert parse_words(f"--no-mmap={word} -nkvo={word}") == {"mmap": True, "kv-offload": True}


def test_what_is_said_twice_counts_as_llama_cpp_counts_it() -> None:
    """Lists of things add up, shares of devices do not; the last word counts."""
    assert parse_words("-ts 3,1 -ts 1,1 -ot a=CPU -ot b=CPU -kvu -no-kvu -mg 0 -mg 1") == {
        "tensor-split": [1.0, 1.0], "override-tensor": ["a=CPU", "b=CPU"], "kv-unified": False,
        "main-gpu": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[model]\nn-cpu-moe = 3.7", "that takes a whole number"),
        ("[model]\ntensor-split = [true, 1]", "that takes numbers with commas"),
        ('[model]\nmlock = "off"', "that takes true or false"),
        ("[context]\nflash-attn = true", "it is one of on, off, auto"),
    ],
)
def test_no_value_of_a_table_is_bent_into_another(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text(line)
    with pytest.raises(SettingsError) as caught:
        resolve({}, config=None, root=tmp_path, budgets=registry.budget_units())
    assert said in str(caught.value)


def test_servers_as_typed_beat_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text('rpc = ["a:1"]\nllama = "--rpc b:1 -mg 1"\n')
    for typed, servers in (
        ({}, ["a:1"]), ({"llama": "--rpc c:1"}, ["c:1"]), ({"rpc": "d:1"}, ["d:1"]),
        ({"llama": "--rpc c:1", "rpc": "d:1"}, ["d:1"]),
    ):  # fmt: skip
        found = resolve(typed, config=None, root=tmp_path, budgets=registry.budget_units())
        assert found.setup["rpc"] == servers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--override-kv a=4", "a=4: write key=type:value"),
        ("--override-kv a=int:x", "a=int:x: an int is a whole number of 64 bits"),
        (f"--override-kv a=int:{1 << 63}", "an int is a whole number of 64 bits"),
        ("--override-kv a=float:nan", "a float is a number"),
        ("--override-kv a=bool:yes", "a bool is true or false"),
        (f"--override-kv a=str:{'x' * 128}", "a str has at most 127 bytes"),
        (f"--override-kv {'é' * 64}=int:1", "a key has at most 127 bytes"),
        ("--rope-scale 0", "rope-scale = 0: it must be above zero"),
        ("--rope-scale nan", "nan is not a number that llama.cpp can take"),
        ("--rope-freq-base -1", "it must not be negative"),
        ("--yarn-ext-factor 1e39", "1e+39 is not a number that llama.cpp can take"),
        ("--yarn-orig-ctx -1", "a whole number from 0"),
        ("-mg 4294967296", "a whole number from 0 to 2147483647"),
        ("-np 0", "a whole number from 1"),
        ("-tb 0", "a whole number from 1"),
        ("-ncmoe 1000000000", "a whole number from 0 to 10000"),
        ("-ts 0,0", "one share has to be above zero"),
        ("-ts 1,-1", "it must not be negative"),
        ("-ot exps", "exps: write pattern=buffer type"),
        ("-ot '(a=CPU'", "(a is no regular expression"),
        ("--lora a.gguf:inf", "inf is not a scale"),
        ("--control-vector :0.5", "write FILE or FILE:SCALE"),
        ("--rpc nowhere", "nowhere: write HOST:PORT"),
        ("--rpc a:99999", "a:99999: write HOST:PORT"),
    ],
)
def test_values_that_no_library_can_mean_do_not_reach_a_worker(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_words(text)
    assert said in str(caught.value)


def test_values_at_their_ends_do() -> None:
    parse_words(
        f"--override-kv a.b=int:-{1 << 63} --override-kv c=str: --override-kv d=bool:false "
        "--override-kv e=float:1e-5 --rope-scale 0.5 --rope-freq-scale 0 --yarn-ext-factor -1 "
        r"-ts 0,1 -ncmoe 0 --lora a:b.gguf,c.gguf:-0.5 -ot 'blk\\.\\d+=CUDA0,[[:digit:]]=CPU'"
    )


def test_servers_of_their_own_option_are_looked_at_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="rpc: nowhere: write HOST:PORT"):
        resolve({"rpc": "nowhere"}, config=None, root=tmp_path, budgets=registry.budget_units())


@pytest.mark.parametrize("name", ["depths", "decode", "pp", "ceiling_max"])
def test_no_count_is_larger_than_llama_cpp_s(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"must be below 2\^31"):
        resolve(
            {name: str(1 << 31)}, config=None, root=tmp_path, budgets=registry.budget_units()
        )  # fmt: skip


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
