"""How llama.cpp is set up beyond what this plugin sets itself, under llama.cpp's own names.

The same names in three places: words of llama.cpp's command line (``--kv-llama``), keys of
``[model]`` and ``[context]`` of the configuration file, entries of the record.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from pytest_kvquant.config.complaints import unknown
from pytest_kvquant.config.setup_rules import why_not
from pytest_kvquant.errors import SettingsError

Kind = Literal["flag", "int", "number", "word", "numbers", "words"]


class SetupOption(NamedTuple):
    """One option of llama.cpp."""

    table: Literal["model", "context"]
    name: str
    """Its long name on llama.cpp's command line, without dashes."""
    kind: Kind
    what: str
    aliases: tuple[str, ...] = ()
    """Other spellings there, with dashes."""
    negative: tuple[str, ...] = ()
    """Spellings that switch it off."""
    choices: tuple[str, ...] = ()


SETUP_OPTIONS: tuple[SetupOption, ...] = (
    SetupOption("model", "tensor-split", "numbers", "share of each device", ("-ts",)),
    SetupOption("model", "main-gpu", "int", "device of a model that is not split", ("-mg",)),
    SetupOption("model", "split-mode", "word", "how the model is split", ("-sm",),
                choices=("none", "layer", "row", "tensor")),
    SetupOption("model", "override-tensor", "words", "tensors by pattern to a buffer type, as "
                r"exps=CPU", ("-ot",)),
    SetupOption("model", "cpu-moe", "flag", "experts of all layers on the CPU", ("-cmoe",)),
    SetupOption("model", "n-cpu-moe", "int", "experts of the first layers on the CPU",
                ("-ncmoe",)),
    SetupOption("model", "mmap", "flag", "map the file", (), ("--no-mmap",)),
    SetupOption("model", "mlock", "flag", "keep the model in memory"),
    SetupOption("model", "override-kv", "words", "header fields, as key=int:4"),
    SetupOption("model", "lora", "words", "LoRA adapters, as FILE or FILE:SCALE",
                ("--lora-scaled",)),
    SetupOption("model", "control-vector", "words", "control vectors, as FILE or FILE:SCALE",
                ("--control-vector-scaled",)),
    SetupOption("model", "rpc", "words", "RPC servers, as HOST:PORT"),
    SetupOption("model", "numa", "word", "NUMA strategy",
                choices=("distribute", "isolate", "numactl")),
    SetupOption("context", "flash-attn", "word", "flash attention", ("-fa",),
                choices=("on", "off", "auto")),
    SetupOption("context", "kv-offload", "flag", "KV cache on the device", ("-kvo",),
                ("--no-kv-offload", "-nkvo")),
    SetupOption("context", "op-offload", "flag", "host tensors' operations on the device", (),
                ("--no-op-offload",)),
    SetupOption("context", "kv-unified", "flag", "one buffer for all sequences", ("-kvu",),
                ("--no-kv-unified", "-no-kvu")),
    SetupOption("context", "swa-full", "flag", "window layers keep all tokens"),
    SetupOption("context", "parallel", "int", "sequences that a context can hold at least",
                ("-np",)),
    SetupOption("context", "threads-batch", "int", "threads for more than one token", ("-tb",)),
    SetupOption("context", "rope-scaling", "word", "RoPE scaling",
                choices=("none", "linear", "yarn", "longrope")),
    SetupOption("context", "rope-scale", "number", "factor by which RoPE stretches the context"),
    SetupOption("context", "rope-freq-base", "number", "base frequency of RoPE"),
    SetupOption("context", "rope-freq-scale", "number", "scale of RoPE's frequencies"),
    SetupOption("context", "yarn-orig-ctx", "int", "context that the model was trained for"),
    SetupOption("context", "yarn-ext-factor", "number", "YaRN extrapolation mix"),
    SetupOption("context", "yarn-attn-factor", "number", "YaRN attention scale"),
    SetupOption("context", "yarn-beta-slow", "number", "YaRN high correction dimension"),
    SetupOption("context", "yarn-beta-fast", "number", "YaRN low correction dimension"),
)  # fmt: skip

OURS = {
    "-m": "model", "--model": "model", "-c": "ctx", "--ctx-size": "ctx", "-b": "batch",
    "--batch-size": "batch", "-ub": "ubatch", "--ubatch-size": "ubatch", "-t": "threads",
    "--threads": "threads", "-ngl": "gpu-layers", "--gpu-layers": "gpu-layers",
    "--n-gpu-layers": "gpu-layers", "-dev": "devices", "--device": "devices",
    "-ctk": "types", "--cache-type-k": "types", "-ctv": "types", "--cache-type-v": "types",
    "-s": "seed", "--seed": "seed",
}  # fmt: skip
"""Options of llama.cpp that the plugin has options of its own for."""

ON, OFF = ("true", "on", "1", "enabled"), ("false", "off", "0", "disabled")
"""Values of a switch."""

FILES = ("lora", "control-vector")

SetupValue: TypeAlias = bool | int | float | str | list[float | str]
Setup: TypeAlias = dict[str, SetupValue]
"""Name of an option to its value: what is not there keeps llama.cpp's default."""


def parse_words(text: str) -> Setup:
    """Read words of llama.cpp's command line.

    Raises:
        SettingsError: an option that is not known, or that the plugin sets itself; no value.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"--kv-llama {text}: {error}.") from None
    found: dict[str, object] = {}
    lists: dict[str, list[str]] = {}
    while words:
        spelling, equals, value = words.pop(0).partition("=")
        option = _spelled(spelling)
        if option.kind == "flag":
            on = _switched(spelling, value) if equals else True
            found[option.name] = on is not (spelling in option.negative)
            continue
        value = value if equals or not words else words.pop(0)
        if not value.strip(", "):
            raise SettingsError(f"--kv-llama: {spelling} needs a value.")
        if option.kind == "words":  # adds up where it is said again
            lists.setdefault(option.name, []).extend(part for part in value.split(",") if part)
        else:
            found[option.name] = value
    given = {**found, **lists}
    return {name: checked(name, value) for name, value in given.items()}


def _switched(spelling: str, value: str) -> bool:
    """What the value of a switch means, in the words that llama.cpp knows."""
    for on, words in ((True, ON), (False, OFF)):
        if value.lower() in words:
            return on
    raise SettingsError(
        f"--kv-llama: {spelling}={value}: a switch is one of {', '.join((*ON, *OFF))}, or stands "
        "without a value."
    )


def parse_table(table: str, values: Mapping[str, object], path: Path) -> Setup:
    """Read ``[model]`` or ``[context]``.

    Raises:
        SettingsError: a key that is not known, or a value that cannot be meant.
    """
    known = [one.name for one in SETUP_OPTIONS if one.table == table]
    found: Setup = {}
    for key, value in values.items():
        if key not in known:
            raise unknown(key, known, path, f" in [{table}]", (table,))
        found[key] = checked(key, value)
    return found


def checked(name: str, value: object) -> SetupValue:
    """The value of an option, if it can be meant.

    Raises:
        SettingsError: it cannot.
    """
    return _checked(_named(name), value)


def as_words(setup: Setup) -> dict[str, str]:
    """A set-up for people and for keys: each value as text, sorted by name."""
    return {
        name: ",".join(map(str, value))
        if isinstance(value, list)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
        for name, value in sorted(setup.items())
    }


def _spelled(spelling: str) -> SetupOption:
    if spelling in OURS:
        raise SettingsError(
            f"--kv-llama: {spelling} is set by the plugin itself: use --kv-{OURS[spelling]}."
        )
    for one in SETUP_OPTIONS:
        if spelling in (f"--{one.name}", *one.aliases, *one.negative):
            return one
    all_known = [f"--{one.name}" for one in SETUP_OPTIONS]
    nearest = difflib.get_close_matches(spelling, all_known, n=1, cutoff=0.0)[0]
    raise SettingsError(
        f"--kv-llama: {spelling} is no option of a context or a model that can be set here; did "
        f"you mean {nearest}?"
    )


def _named(name: str) -> SetupOption:
    return next(one for one in SETUP_OPTIONS if one.name == name)


def _checked(option: SetupOption, value: object) -> SetupValue:
    try:
        found = _converted(option, value)
    except (TypeError, ValueError):
        raise SettingsError(
            f"{option.name} = {value!r}: {option.what}; that takes {_TAKES[option.kind]}."
        ) from None
    if option.choices and found not in option.choices:
        raise SettingsError(f"{option.name} = {value!r}: it is one of {', '.join(option.choices)}.")
    if wrong := why_not(option.name, option.kind, found):
        shown = "" if isinstance(found, list) else f" = {value}"
        raise SettingsError(f"{option.name}{shown}: {wrong}.")
    return found


_TAKES = {"flag": "true or false", "int": "a whole number", "number": "a number",
          "word": "a word", "numbers": "numbers with commas",
          "words": "words with commas"}  # fmt: skip


def _converted(option: SetupOption, value: object) -> SetupValue:
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise TypeError
        return value
    if option.kind in ("numbers", "words"):
        items = value if isinstance(value, list) else str(value).split(",")
        if any(isinstance(item, bool) for item in items):
            raise TypeError
        return [float(item) if option.kind == "numbers" else str(item) for item in items]
    if isinstance(value, bool) and option.choices:
        return str(value).lower()  # is none of them, and is told which are
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if option.kind == "int" and isinstance(value, float):
        raise TypeError
    kinds: dict[str, type[int | float | str]] = {"int": int, "number": float, "word": str}
    return kinds[option.kind](value)
