"""Frozen, validated settings and the one resolver: command line > file > defaults."""

from __future__ import annotations

import difflib
import math
import shutil
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from pytest_kvquant.config.options import FLAG, INT, INTS, LIST, NUMBER, OPTIONS, PATHS, Option
from pytest_kvquant.config.setup import FILES, parse_table, parse_words
from pytest_kvquant.errors import SettingsError

CONFIG_NAME = "kvquant.toml"
TABLES = ("budgets", "drift", "floors", "environment", "expect", "context")
"""Keys of the configuration file that are tables, not twins of an option."""


_SHARES = ("kl_tail", "top1_flips", "recall")
"""Budgets that are shares of tokens."""

_INT32 = ("ctx", "batch", "ubatch", "threads", "chunks", "gpu_layers", "recall")
"""What llama.cpp takes as an int32."""


class BudgetOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``[budgets."K/V"]`` may say; a figure left out keeps its default."""

    kl_mean: float | None = None
    """Most mean KL, nats per token."""
    kl_tail: float | None = None
    """Most share of tokens with a KL over ``kl_tail_over``."""
    kl_tail_over: float | None = None
    """Nats above which a token counts for the tail."""
    ln_ppl: float | None = None
    """Most |ln PPL ratio|; two-sided."""
    top1_flips: float | None = None
    """Most share of decisive flips of the argmax."""
    decode_kl_mean: float | None = None
    """Most mean KL by the decode path, nats per token."""
    trajectory: float | None = None
    """Least share of a greedy continuation that agrees with f16's."""
    recall: float | None = None
    """Least share of what f16 gains from having read a passage before, at every distance."""
    robustness: float | None = None
    """Most mean KL on disturbed text over that on the same text as it is."""
    more: dict[str, float] = {}
    """Of gates that bring their own budget, by key."""

    def __post_init__(self) -> None:
        own = {name: getattr(self, name) for name in BUDGET_KEYS}
        for name, value in (own | self.more).items():
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"budget {name} = {value} must be a number from 0 up")
            if value is not None and name in _SHARES and value > 1:
                raise ValueError(f"budget {name} = {value} is a share: it must not exceed 1")


BUDGET_KEYS = tuple(name for name in BudgetOverride.__struct_fields__ if name != "more")


class FloorOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``[floors."K/V @ dN"]`` may say; a figure left out keeps its default."""

    pp: float | None = None
    """Least prefill speed over that of f16/f16."""
    tg: float | None = None
    """Least decode speed over that of f16/f16."""
    slowdown: float | None = None
    """Most that the ratio may fall from one depth to the next, as a share of it."""
    stored: float | None = None
    """Least share of the stored speed of the same hardware."""
    cliff: float | None = None
    """A ratio under this in each of the first rounds is a cliff."""
    kept: float | None = None
    """Least share of the ratio that was stored on the same hardware."""
    compression: float | None = None
    """Least bytes per token of f16/f16 over those of the pair."""
    context: int | None = None
    """Least context that has to work, tokens."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"floor {name} = {value} must be a number above 0")
        if self.slowdown is not None and self.slowdown >= 1:
            raise ValueError(f"floor slowdown = {self.slowdown} is a share: it must be below 1")


MIXED = "mixed"
"""Held by a cache whose layers differ."""


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``[expect."K/V"]`` may say: known behaviour that must then really happen."""

    substituted: str | None = None
    """The pair, as ``K/V``, that the library makes of this one; ``mixed``: layers differ."""
    cliff: Literal["pp", "tg", "both"] | None = None
    """The paths on which this pair is known to be off the fast path."""
    off_device: bool | str | None = None
    """Whether its attention is known to run on the CPU though a GPU holds the cache: on any GPU, or
    on those whose name matches (``"MTL*"``). Its speed is then told, and not judged."""
    fails: tuple[str, ...] = ()
    """What is known to fail: a check (``attention``), a gate (``kl_mean``), an operation
    (``operations.shift_head``), or the verdict of a cell that cannot be measured (``crashed``)."""
    device: str | None = None
    """Pattern of devices (``MTL*``) on which that is so; ``None``: on all."""

    def __post_init__(self) -> None:
        if self.substituted in (None, MIXED):
            return
        k, _, v = self.substituted.partition("/")
        if not k or not v or "/" in v:
            raise ValueError(
                f"expect substituted = '{self.substituted}' must be a pair, as q8_0/turbo3, or "
                f"'{MIXED}' where layers differ"
            )


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything a run depends on. Field names are the options' names with underscores."""

    model: Path | None = None
    corpus: tuple[str, ...] = ()
    lib: Path | None = None
    python: Path | None = None
    reference_lib: Path | None = None
    reference_python: Path | None = None
    reference_devices: tuple[str, ...] = ()
    reference_logits: Path | None = None
    compare_cells: bool = False
    types: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    shard: str | None = None
    ctx: int = 512
    chunks: int | None = None
    scored: int | None = None
    order: Literal["sequential", "shuffled"] = "shuffled"
    seed: int = 0
    threads: int | None = None
    gpu_layers: int = -1
    batch: int = 2048
    ubatch: int = 512
    timeout: float = 600.0
    decode: int = 128
    trajectory: int = 16
    recall: int | None = None
    robustness: bool = False
    profile: Literal["quick", "pr", "nightly"] = "pr"
    fail_fast: bool = False
    strict: bool = False
    fresh: bool = False
    store: Path | None = None
    store_limit: float = 20.0
    baselines: Path | None = None
    json: Path | None = None
    report: Path | None = None
    summary: Path | None = None
    live: bool = False
    table: Literal["article", "article:csv", "article:latex"] | None = None
    evidence: Path | None = None
    probe: Literal["off", "fail", "always"] = "always"
    isolation: Literal["fork", "warm", "fresh"] | None = None
    speed: Literal["on", "off"] = "on"
    disturbed: Literal["repeat", "ignore"] = "repeat"
    """What becomes of speeds while other programs use the device: taken again, and undecided where
    that stays so; or nothing."""
    depths: tuple[int, ...] | None = None
    pp: int | None = None
    tg: int | None = None
    rounds: int | None = None
    sample: float | None = None
    speed_baseline: Path | None = None
    coverage: Literal["off", "minimal", "standard", "full"] | None = None
    scenarios: tuple[str, ...] = ()
    zoo: str | None = None
    ceiling: bool = False
    ceiling_max: int | None = None
    ceiling_memory: float | None = None
    memory_limit: float | None = None
    budgets: dict[str, BudgetOverride] = {}
    drift: dict[str, BudgetOverride] = {}
    """Budgets between two builds, ``[drift."K/V"]``."""
    floors: dict[str, FloorOverride] = {}
    environment: dict[str, str] = {}
    expect: dict[str, Expect] = {}
    llama: str = ""
    rpc: tuple[str, ...] = ()
    setup: dict[str, Any] = {}
    """Options of llama.cpp by name, from ``--kv-llama``, ``--kv-rpc``, ``[model]``,
    ``[context]``."""

    def __post_init__(self) -> None:
        for name in ("ctx", "batch", "ubatch", "timeout", "store_limit"):
            _require(getattr(self, name) > 0, name, "must be above zero")
        for name in ("timeout", "store_limit"):
            _require(math.isfinite(getattr(self, name)), name, "must be a finite number")
        for name in _INT32:
            _require((getattr(self, name) or 0) < 1 << 31, name, "must be below 2^31")
        _require(self.chunks is None or self.chunks > 0, "chunks", "must be above zero")
        _require(self.ctx >= 8, "ctx", "must be at least 8 tokens")
        for name in ("rounds", "sample", "ceiling_max", "ceiling_memory", "memory_limit"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, name, "must be above zero")
        for name in ("pp", "tg", "decode", "trajectory", "recall"):
            _require((getattr(self, name) or 0) >= 0, name, "must not be negative")
        if self.depths is not None:
            _require(bool(self.depths), "depths", "needs at least one depth")
            _require(min(self.depths, default=0) >= 0, "depths", "must not be negative")
        _require(self.threads is None or self.threads > 0, "threads", "must be above zero")
        _require(self.gpu_layers >= -1, "gpu-layers", "must be -1 (all) or a number of layers")
        _require(self.seed >= 0, "seed", "must not be negative")
        _require(self.ubatch <= self.batch, "ubatch", f"must not exceed --kv-batch {self.batch}")
        if self.reference_logits is not None:
            for name in ("reference_lib", "corpus", "scored"):
                _require(
                    not getattr(self, name),
                    "reference_logits",
                    f"brings its own tokens and reference: leave --kv-{name.replace('_', '-')} out",
                )
        if self.scored is not None:
            _require(
                0 < self.scored < self.ctx,
                "scored",
                f"must lie between 1 and --kv-ctx − 1 = {self.ctx - 1}: "
                "the last token of a chunk has no successor",
            )

    @property
    def coverage_level(self) -> str:
        """How much of the kernels is examined: as asked for, or by the profile."""
        by_profile = {"quick": "minimal", "pr": "standard", "nightly": "full"}
        return self.coverage or by_profile[self.profile]

    @property
    def scored_tokens(self) -> int:
        """Scored tokens per chunk: the second half, as ``llama-perplexity`` scores it."""
        return self.scored if self.scored is not None else self.ctx - 1 - self.ctx // 2


def find_root(start: Path) -> Path:
    """The project's folder: ``start`` or the nearest above it with a configuration, else ``start``.

    Not pytest's ``rootdir``: that is found before plugins are known, so that the path after
    ``--kv-model`` counts as one of the tests, and the model's folder as the project's.
    """
    for folder in (start, *start.parents):
        if (folder / CONFIG_NAME).is_file() or (folder / "pyproject.toml").is_file():
            return folder
        # What lies above a repository, or above the home folder, is another's business.
        if (folder / ".git").exists() or folder == Path.home():
            break
    return start


def resolve(
    command_line: Mapping[str, str | None],
    *,
    config: Path | None,
    root: Path,
    more_budgets: Collection[str] = (),
) -> Settings:
    """Settings of a run: defaults, overlaid by the file, overlaid by the command line.

    Args:
        command_line: option field name to the word typed, ``None`` where nothing was.
        config: ``--kv-config``; without it ``kvquant.toml``, then ``[tool.kvquant]`` of
            ``pyproject.toml``, is looked for in ``root``.
        root: the project's folder.
        more_budgets: keys that tables of budgets may have beside :data:`BUDGET_KEYS`.

    Raises:
        SettingsError: unknown key (the nearest valid one is named), wrong type, bad value.
    """
    path, values = _read_file(config, root)
    if path is not None:
        values = _from_file(values, path, more_budgets)
    for option in OPTIONS:
        word = command_line.get(option.field)
        if word is not None:
            values[option.field] = _parse_word(option, word)
    _set_up(values)
    try:
        return msgspec.convert(values, Settings, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        where = f" (in {path})" if path is not None else ""
        raise SettingsError(f"kvquant settings{where}: {error}.") from None


def _set_up(values: dict[str, Any]) -> None:
    """Put the options of llama.cpp together: tables of the file, then words as typed."""
    setup: dict[str, Any] = {**values.pop("context", {}), **values.get("setup", {})}
    if isinstance(text := values.get("llama"), str):
        setup |= parse_words(text)
    if rpc := values.get("rpc"):
        setup["rpc"] = list(rpc)
    if setup:
        values["setup"] = setup


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise ValueError(f"--kv-{name.replace('_', '-')} {rule}")


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"a path is written as a string, not as {value!r}")


def _read_file(config: Path | None, root: Path) -> tuple[Path | None, dict[str, Any]]:
    if config is not None:
        if not config.is_file():
            raise SettingsError(f"--kv-config {config}: there is no such file.")
        return config, _load_toml(config)
    if (found := root / CONFIG_NAME).is_file():
        return found, _load_toml(found)
    if (found := root / "pyproject.toml").is_file():
        tool = _load_toml(found).get("tool", {})
        if isinstance(tool, dict) and "kvquant" in tool:
            if not isinstance(tool["kvquant"], dict):
                raise SettingsError(f"{found}: tool.kvquant must be a table.")
            return found, tool["kvquant"]
    return None, {}


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None


def _from_file(
    table: Mapping[str, Any], path: Path, more_budgets: Collection[str]
) -> dict[str, Any]:
    """Keys as the file spells them (``gpu-layers``) to field names; paths relative to the file."""
    by_key = {option.name: option for option in OPTIONS}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "model" and isinstance(value, dict):
            _read_model_table(value, path, values)
        elif key == "context" and isinstance(value, dict):
            values[key] = parse_table(key, value, str(path))
        elif key in TABLES:
            if key in ("budgets", "drift") and isinstance(value, dict):
                value = _budget_tables(key, value, path, more_budgets)  # noqa: PLW2901
            _refuse_renamed(key, value, path)
            values[key] = value
        elif key in by_key:
            values[by_key[key].field] = _anchor(by_key[key], value, path.parent)
        else:
            raise _unknown(key, [*by_key, *TABLES], path)
    return values


def _read_model_table(table: Mapping[str, Any], path: Path, values: dict[str, Any]) -> None:
    """``[model]``: ``path`` is the model, the rest are options of llama.cpp."""
    own = dict(table)
    if (file := own.pop("path", None)) is not None:
        values["model"] = str(path.parent / Path(str(file)).expanduser())
    setup = parse_table("model", own, str(path))
    for name in FILES:
        if name in setup:
            setup[name] = [str(path.parent / Path(word).expanduser()) for word in setup[name]]
    values["setup"] = setup


def _budget_tables(
    name: str, tables: Mapping[str, Any], path: Path, more: Collection[str]
) -> dict[str, Any]:
    """Tables of budgets, with the keys of gates that bring their own set apart."""
    found: dict[str, Any] = {}
    for pattern, table in tables.items():
        if not isinstance(table, dict):
            found[pattern] = table
            continue
        for key in table:
            if key not in (*BUDGET_KEYS, *more):
                raise _unknown(key, (*BUDGET_KEYS, *more), path, f' in [{name}."{pattern}"]')
        own = {key: value for key, value in table.items() if key in BUDGET_KEYS}
        others = {key: value for key, value in table.items() if key not in BUDGET_KEYS}
        found[pattern] = {**own, "more": others} if others else own
    return found


RENAMED = {("floors", "fall"): "slowdown"}
"""Keys of tables that an earlier version read under another name."""


def _refuse_renamed(name: str, tables: object, path: Path) -> None:
    for pattern, table in tables.items() if isinstance(tables, dict) else ():
        for key in table if isinstance(table, dict) else ():
            if newer := RENAMED.get((name, key)):
                raise SettingsError(
                    f"{path}: '{key}' in [{name}.\"{pattern}\"] is called '{newer}' now; the value "
                    "means the same."
                )


def _unknown(key: str, known: Sequence[str], path: Path, where: str = "") -> SettingsError:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    return SettingsError(f"{path}: unknown key '{key}'{where}; did you mean '{nearest}'?")


CORPUS_NAMES = ("prose", "code", "chat", "tools", "self")
"""What may stand for a text in ``corpus`` beside the path of a file."""


def _anchored_word(word: str, folder: Path) -> str:
    return word if word in CORPUS_NAMES else str(folder / Path(word).expanduser())


def _paths(word: str) -> list[str]:
    """Names and paths from a comma list; a file whose own name has a comma is one path."""
    if Path(word).expanduser().is_file():
        return [str(Path(word).expanduser())]
    words = [item for part in word.split(",") if (item := part.strip())]
    return [item if item in CORPUS_NAMES else str(Path(item).expanduser()) for item in words]


def _anchor(option: Option, value: object, folder: Path) -> object:
    """A path of the file, relative to its folder; the bare name of a program is found as a shell
    finds it."""
    if isinstance(value, list) and option.metavar.startswith(("PATH", "DIR")):
        return [_anchor(option._replace(metavar="PATH"), one, folder) for one in value]
    if option.kind == PATHS and isinstance(value, str | list):
        words = [value] if isinstance(value, str) else value
        return [_anchored_word(word, folder) if isinstance(word, str) else word for word in words]
    if option.metavar in {"PATH", "DIR"} and isinstance(value, str):
        bare = option.name.endswith("python") and Path(value).name == value
        if bare and not (folder / value).exists() and (found := shutil.which(value)):
            return found
        return str(folder / Path(value).expanduser())
    return value


_NUMERIC: Mapping[str, Callable[[str], object]] = {
    INT: int,
    INTS: lambda word: [int(item) for item in word.split(",") if item.strip()],
    NUMBER: float,
}


def _parse_word(option: Option, word: str) -> object:
    if option.kind in _NUMERIC:
        try:
            return _NUMERIC[option.kind](word)
        except ValueError:
            raise SettingsError(f"{option.flag} {word}: not a number.") from None
    if option.kind == FLAG:
        return True
    if option.kind == PATHS:
        return _paths(word)
    if option.kind == LIST:
        return [item for part in word.split(",") if (item := part.strip())]
    if option.metavar in {"PATH", "DIR"}:
        return str(Path(word).expanduser())
    return word
