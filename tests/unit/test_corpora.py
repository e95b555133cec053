"""Corpora by name: made from seeds and templates, bounded, and told where they are not usual."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pytest_kvquant.checks import registry
from pytest_kvquant.config.resolver import resolve
from pytest_kvquant.config.words import CORPUS_NAMES
from pytest_kvquant.errors import SettingsError
from pytest_kvquant.inputs import chat_template, conversation
from pytest_kvquant.inputs.code_corpus import LEAST, standard_library
from pytest_kvquant.inputs.corpus_names import NAMES, Speaker, check_words, made
from pytest_kvquant.inputs.disturbance import DISTURBANCES

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
WITH_TOOLS = "{% if tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}" + CHATML


def written(template: str | None, conversations=None) -> tuple[str, str]:
    made_up = conversations or conversation.tool_uses(0, 4000)
    texts, remark = chat_template.write(made_up, template, bos="", eos="</s>")
    return "".join(texts), remark


def test_the_names_are_the_same_everywhere() -> None:
    assert CORPUS_NAMES == NAMES


def test_a_seed_makes_the_same_conversations_and_another_does_not() -> None:
    for make in (conversation.chats, conversation.tool_uses):
        assert make(3, 20_000) == make(3, 20_000) != make(4, 20_000)


def test_conversations_have_the_size_that_was_asked_for_and_do_not_repeat() -> None:
    for make in (conversation.chats, conversation.tool_uses):
        texts = [json.dumps([one.messages, one.tools]) for one in make(0, 200_000)]
        assert 200_000 <= sum(map(len, texts)) < 210_000
        assert len(set(texts)) == len(texts)


def test_sums_are_right() -> None:
    rng = random.Random(5)
    for _ in range(50):
        question, answer = conversation._sum(rng)
        boxes, each, gone = (int(word) for word in question.split() if word.isdigit())
        assert answer.endswith(f"**{boxes * each - gone}**")


def test_tool_calls_have_a_schema_an_answer_and_a_diff_that_changes_something() -> None:
    for one in conversation.tool_uses(1, 30_000):
        known = {tool["function"]["name"] for tool in one.tools}
        calls = [call for message in one.messages for call in message.get("tool_calls", ())]
        answers = [message for message in one.messages if message["role"] == "tool"]
        assert {call["function"]["name"] for call in calls} <= known
        assert [call["id"] for call in calls] == [answer["tool_call_id"] for answer in answers]
        (diff,) = (c["function"]["arguments"]["diff"] for c in calls if "diff" in str(c))
        assert "\n+" in diff
        assert "\n-" in diff


def test_a_template_with_tools_shows_them_and_one_without_has_them_in_words() -> None:
    shown, remark = written(WITH_TOOLS)
    assert shown.startswith("[TOOLS]")
    assert remark == ""
    told, remark = written(CHATML)
    assert "[TOOLS]" not in told
    assert '"name": "apply_patch"' in told
    assert remark == ""


def test_a_template_that_refuses_a_system_message_gets_none() -> None:
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + CHATML
    )
    text, remark = written(refusing)
    assert "<|im_start|>system" not in text
    assert conversation.TONES[0] in text or conversation.TONES[1] in text
    assert remark == ""


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "brings no chat template"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
         "writes more than"),
        ("{% for", "TemplateSyntaxError"),
        ("{{ raise_exception('never') }}", "TemplateRefused: never"),
        ("{% set a = 'x' * 10000000000 %}{{ a }}", "MemoryError"),
    ],
    ids=["none", "escape", "endless", "syntax", "refuses", "memory"],
)  # fmt: skip
def test_a_template_that_fails_leaves_a_plain_form_and_says_why(
    template: str | None, why: str
) -> None:
    text, remark = written(template)
    assert text.startswith("<|system|>")
    assert why in remark
    assert remark.endswith("a plain form is used")


def test_a_template_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_WORD", "hidden")
    text, _ = written("{{ self }}{{ namespace }}{{ joiner.__init__ }}" + CHATML)
    assert "hidden" not in text


def test_code_is_the_standard_library_with_its_version() -> None:
    name, text = standard_library(0)
    assert name.startswith("code (Python 3.")
    assert len(text) >= LEAST
    assert text == standard_library(100_000)[1]
    found = made("code", size=0, seed=0, speaker=Speaker(None))
    assert (found.special, found.remark) == (False, "")


def test_text_from_a_template_has_special_tokens() -> None:
    found = made("chat", size=5000, seed=0, speaker=Speaker(CHATML))
    assert found.special
    assert found.fingerprint != made("chat", size=5000, seed=1, speaker=Speaker(CHATML)).fingerprint


def test_disturbed_text_is_the_same_text_but_for_a_few_signs() -> None:
    text = "The quick brown fox jumps over several lazy dogs near the river bank. " * 40
    for change in DISTURBANCES.values():
        once = change(text, random.Random(0))
        assert once == change(text, random.Random(0)) != text
        assert abs(len(once) - len(text)) < 0.05 * len(text)
        assert len(once.split()) == len(text.split())


def test_names_and_files_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "a,b.txt").write_text("words")
    typed = {"corpus": f"code,{tmp_path}/x.txt,self"}
    assert resolve(typed, config=None, root=tmp_path, budgets=registry.budget_units()).corpus == (
        "code", f"{tmp_path}/x.txt", "self",
    )  # fmt: skip
    whole = {"corpus": str(tmp_path / "a,b.txt")}
    assert resolve(whole, config=None, root=tmp_path, budgets=registry.budget_units()).corpus == (
        str(tmp_path / "a,b.txt"),
    )
    (tmp_path / "kvquant.toml").write_text('corpus = ["prose", "sub/x.txt"]')
    found = resolve({}, config=None, root=tmp_path, budgets=registry.budget_units()).corpus
    assert found == ("prose", str(tmp_path / "sub/x.txt"))
    (tmp_path / "kvquant.toml").write_text('corpus = "tools"')
    assert resolve({}, config=None, root=tmp_path, budgets=registry.budget_units()).corpus == (
        "tools",
    )


def test_a_corpus_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="names 'a' twice"):
        check_words(("x/a.txt", "y/a.txt"))
