"""Settings: command line over file over defaults, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.config.file import TABLES
from pytest_kvquant.config.options import FLAG, INT, INTS, LIST, NUMBER, OPTIONS, PATHS, Option
from pytest_kvquant.config.overrides import FloorOverride
from pytest_kvquant.config.resolver import find_root, resolve
from pytest_kvquant.config.settings import Settings
from pytest_kvquant.errors import SettingsError

WORDS = {
    "model": "m.gguf", "corpus": "c.txt", "lib": "build", "types": "f16,q8_0",
    "pairs": "q8_0/q4_0", "skip": "q4_0/*", "ctx": "256", "profile": "quick", "chunks": "4",
    "scored": "100", "order": "sequential", "seed": "7", "threads": "3", "gpu-layers": "5",
    "batch": "1024", "ubatch": "128", "timeout": "12.5", "store": "refs", "store-limit": "1.5",
    "json": "r.json", "speed": "off", "healthy": "off", "llama": "-fa off", "rpc": "a:1,b:2",
}  # fmt: skip
"""One word per option that differs from its default."""


def word(option: Option) -> str:
    if option.kind == FLAG:
        return "on"
    if option.name in WORDS:
        return WORDS[option.name]
    if option.choices:
        return option.choices[0]
    return {INT: "3", NUMBER: "2.5", LIST: "a,b", INTS: "1,2"}.get(option.kind, "text")


def toml(option: Option) -> str:
    text = word(option)
    if option.kind == FLAG:
        return f"{option.name} = true"
    if option.kind == LIST:
        return f"{option.name} = {text.split(',')}"
    if option.kind == INTS:
        return f"{option.name} = [{text}]"
    return (
        f"{option.name} = {text}" if option.kind in (INT, NUMBER) else f"{option.name} = '{text}'"
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settled(folder: Path, *, config: Path | None = None, **typed: str) -> Settings:
    return resolve(typed, config=config, root=folder, budgets=registry.budget_units())


class TestRoot:
    def test_the_nearest_folder_with_a_configuration(self, tmp_path: Path) -> None:
        deep = tmp_path / "project" / "tests" / "unit"
        deep.mkdir(parents=True)
        (tmp_path / "project" / "pyproject.toml").write_text("")
        assert find_root(deep) == tmp_path / "project"
        (deep / "kvquant.toml").write_text("")
        assert find_root(deep) == deep

    def test_without_any_it_is_where_one_stands(self, tmp_path: Path) -> None:
        assert find_root(tmp_path) == tmp_path


class TestPrecedence:
    def test_without_anything_the_defaults_hold(self, folder: Path) -> None:
        assert settled(folder) == Settings()

    def test_file_beats_default(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_text("ctx = 128\n")
        assert settled(folder).ctx == 128
        assert settled(folder).batch == Settings().batch

    def test_command_line_beats_file(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_text("ctx = 128\nseed = 5\n")
        found = settled(folder, ctx="64")
        assert (found.ctx, found.seed) == (64, 5)

    def test_command_line_beats_default(self, folder: Path) -> None:
        assert settled(folder, ctx="64").ctx == 64

    def test_kvquant_toml_beats_pyproject(self, folder: Path) -> None:
        (folder / "pyproject.toml").write_text("[tool.kvquant]\nctx = 128\nseed = 5\n")
        assert settled(folder).ctx == 128
        (folder / "kvquant.toml").write_text("ctx = 96\n")
        assert (settled(folder).ctx, settled(folder).seed) == (96, 0)

    def test_a_named_file_beats_the_ones_that_are_found(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_text("ctx = 128\n")
        (folder / "nightly.toml").write_text("ctx = 96\n")
        assert settled(folder, config=folder / "nightly.toml").ctx == 96

    def test_other_peoples_pyproject_means_nothing(self, folder: Path) -> None:
        (folder / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
        assert settled(folder) == Settings()

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    def test_every_option_has_its_toml_twin(self, option: Option, folder: Path) -> None:
        variant = f"\n[variants.{word(option)}]\n" if option.name == "variant" else ""
        (folder / "kvquant.toml").write_text(variant)
        typed = settled(folder, **{option.field: word(option)})
        (folder / "kvquant.toml").write_text(toml(option) + variant)
        written = settled(folder)
        value = getattr(typed, option.field)
        assert value != getattr(Settings(), option.field)
        if isinstance(value, Path):
            value = folder / value
        if option.kind == PATHS or option.metavar.startswith("PATH,"):
            value = tuple(str(folder / one) for one in value)
        assert getattr(written, option.field) == value

    def test_every_setting_is_an_option_or_a_table(self) -> None:
        assert set(Settings.__struct_fields__) == (
            {option.field for option in OPTIONS} | {*TABLES, "setup"} - {"context"}
        )

    def test_settings_are_frozen(self, folder: Path) -> None:
        with pytest.raises(AttributeError):
            settled(folder).ctx = 3  # type: ignore[misc]


class TestPaths:
    def test_in_the_file_they_are_relative_to_it(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "ci.toml").write_text("model = 'm.gguf'\nlib = '/opt/llama'\n")
        found = settled(folder, config=Path("sub/ci.toml"))
        assert found.model is not None
        assert found.model.resolve() == folder / "sub" / "m.gguf"
        assert found.lib == Path("/opt/llama")

    def test_on_the_command_line_they_are_relative_to_the_folder_one_is_in(
        self, folder: Path
    ) -> None:
        found = settled(folder / "elsewhere", model="m.gguf")
        assert found.model is not None
        assert found.model.absolute() == folder / "m.gguf"

    def test_a_tilde_is_the_home_folder(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_text("store = '~/refs'\n")
        found = settled(folder, model="~/m.gguf")
        assert found.model == Path.home() / "m.gguf"
        assert found.store == Path.home() / "refs"


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "nearest"),
        [("modle = 'x'", "model"), ("gpu_layers = 3", "gpu-layers"), ("contxt = 3", "context"),
         ("budget = 3", "budgets"), ("zzz = 1", "")],
    )  # fmt: skip
    def test_an_unknown_key_names_the_nearest(self, text: str, nearest: str, folder: Path) -> None:
        (folder / "kvquant.toml").write_text(text)
        key = text.split(maxsplit=1)[0]
        with pytest.raises(
            SettingsError,
            match=rf"kvquant\.toml, line 1: unknown key '{key}'; did you mean '{nearest}",
        ) as caught:
            settled(folder)
        assert str(folder) in str(caught.value)

    def test_a_key_of_an_earlier_version_is_told_its_name(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_text('[floors]\n"*/*" = { fall = 0.3 }\n')
        with pytest.raises(SettingsError, match=r"'fall' .* is called 'slowdown' now"):
            settled(folder)

    def test_every_key_of_a_floor_is_taken(self, folder: Path) -> None:
        for name in FloorOverride.__struct_fields__:
            value = 100 if name == "context" else 0.3
            (folder / "kvquant.toml").write_text(f'[floors]\n"*/*" = {{ {name} = {value} }}\n')
            assert getattr(settled(folder).floors["*/*"], name) == value

    def test_an_unknown_key_of_a_budget_names_the_nearest(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_text("[budgets.'q8_0/*']\nkl_maen = 0.1\n")
        with pytest.raises(SettingsError, match=r"unknown key 'kl_maen'.* did you mean 'kl_mean'"):
            settled(folder)

    @pytest.mark.parametrize(
        ("typed", "said"),
        [
            ({"ctx": "0"}, "--kv-ctx must be above zero"),
            ({"ctx": "4"}, "--kv-ctx must be at least 8"),
            ({"ctx": "many"}, "--kv-ctx many: not a number"),
            ({"ctx": "1e3"}, "--kv-ctx 1e3: not a number"),
            ({"ctx": str(1 << 40)}, "--kv-ctx"),
            ({"batch": str(1 << 40)}, "--kv-batch"),
            ({"threads": str(1 << 40)}, "--kv-threads"),
            ({"gpu_layers": str(1 << 40)}, "--kv-gpu-layers"),
            ({"chunks": "0"}, "--kv-chunks must be above zero"),
            ({"chunks": "-3"}, "--kv-chunks must be above zero"),
            ({"scored": "512"}, "--kv-scored must lie between 1 and --kv-ctx − 1 = 511"),
            ({"scored": "0"}, "--kv-scored must lie between 1"),
            ({"seed": "-1"}, "--kv-seed must not be negative"),
            ({"threads": "0"}, "--kv-threads must be above zero"),
            ({"gpu_layers": "-2"}, "--kv-gpu-layers must be -1"),
            ({"batch": "128", "ubatch": "256"}, "--kv-ubatch must not exceed --kv-batch 128"),
            ({"timeout": "0"}, "--kv-timeout must be above zero"),
            ({"timeout": "nan"}, "--kv-timeout"),
            ({"timeout": "inf"}, "--kv-timeout"),
            ({"store_limit": "-1"}, "--kv-store-limit must be above zero"),
            ({"store_limit": "inf"}, "--kv-store-limit"),
            ({"order": "random"}, "order"),
        ],
        ids=str,
    )
    def test_a_value_that_cannot_be_meant(
        self, typed: dict[str, str], said: str, folder: Path
    ) -> None:
        with pytest.raises(SettingsError) as caught:
            settled(folder, **typed)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("ctx = '512'", "ctx"),
            ("ctx = true", "ctx"),
            ("ctx = 512.5", "ctx"),
            ("types = 'f16,q8_0'", "types"),
            ("types = [1]", "types"),
            ("model = 3", "model"),
            ("strict = 'yes'", "strict"),
            ("timeout = inf", "--kv-timeout"),
            ("budgets = 3", "budgets"),
            ("[budgets]\n'q8_0/*' = 0.1", "budgets"),
            ("[budgets.'q8_0/*']\nkl_mean = -1", "kl_mean"),
            ("[budgets.'q8_0/*']\nkl_mean = nan", "kl_mean"),
            ("[budgets.'q8_0/*']\nkl_tail = 1.5", "kl_tail"),
            ("[budgets.'q8_0/*']\ntop1_flips = 1.5", "top1_flips"),
            ("[environment]\nTURBO_FLASH = 1", "environment"),
            ("ctx = ", "not valid TOML"),
        ],
    )
    def test_a_file_that_cannot_be_meant(self, text: str, said: str, folder: Path) -> None:
        (folder / "kvquant.toml").write_text(text)
        with pytest.raises(SettingsError) as caught:
            settled(folder)
        assert said in str(caught.value)
        assert "kvquant.toml" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_pyproject_without_any_table(self, folder: Path) -> None:
        (folder / "pyproject.toml").write_text("tool = 3")
        assert settled(folder) == Settings()

    def test_a_pyproject_whose_table_is_none(self, folder: Path) -> None:
        (folder / "pyproject.toml").write_text("[tool]\nkvquant = 3")
        with pytest.raises(SettingsError, match=r"pyproject\.toml"):
            settled(folder)

    def test_a_file_that_is_not_there(self, folder: Path) -> None:
        with pytest.raises(SettingsError, match=r"--kv-config absent\.toml: there is no such file"):
            settled(folder, config=Path("absent.toml"))

    def test_a_file_that_is_not_text(self, folder: Path) -> None:
        (folder / "kvquant.toml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SettingsError, match="not valid TOML"):
            settled(folder)

    @pytest.mark.skipif(os.name != "posix", reason="needs /proc-like unreadable files")
    def test_a_file_that_cannot_be_read(self, folder: Path) -> None:
        """Root reads everything but this."""
        unreadable = Path("/proc/self/mem")
        if not unreadable.is_file():
            pytest.skip("no /proc here")
        with pytest.raises(SettingsError, match="/proc/self/mem"):
            settled(folder, config=unreadable)


def test_lists_ignore_spaces_and_empty_places(tmp_path: Path) -> None:
    assert resolve(
        {"types": " f16, ,q8_0,"}, config=None, root=tmp_path, budgets=registry.budget_units()
    ).types == ("f16", "q8_0")


@pytest.mark.parametrize(("ctx", "scored"), [(512, 255), (8, 3), (9, 4), (65536, 32767)])
def test_half_a_chunk_is_scored_by_default(ctx: int, scored: int) -> None:
    """``llama-perplexity``: rows n_ctx/2 to n_ctx − 2."""
    assert msgspec.structs.replace(Settings(), ctx=ctx).scored_tokens == scored


def test_no_option_stands_in_two_groups_of_the_help() -> None:
    from pytest_kvquant.config.options import GROUPS

    grouped = [name for names in GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= {option.name for option in OPTIONS}


def test_paths_of_the_file_are_relative_to_it_and_programs_are_found(tmp_path: Path) -> None:
    (tmp_path / "kvquant.toml").write_text(
        'python = "sh"\nreference-python = "venv/bin/python"\nscenarios = ["a.py"]\n'
    )
    found = resolve({}, config=None, root=tmp_path, budgets=registry.budget_units())
    assert str(found.python).endswith("/sh")
    assert found.python.is_absolute()
    assert found.reference_python == tmp_path / "venv/bin/python"
    assert found.scenarios == (str(tmp_path / "a.py"),)
