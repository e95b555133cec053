"""Conversations as the text that a model was trained on: through its own chat template."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from pytest_kvquant.errors import CorpusError
from pytest_kvquant.inputs.conversation import ChatMessage, Conversation, ToolSchema

CHILD = Path(__file__).parent / "template_child.py"
SECONDS = 60
"""Wall time that a template may take for all conversations."""
LARGEST = 1 << 27
"""Bytes of its answer."""

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}\n{{ c.function | tojson }}{% endfor %}\n{% endfor %}"
)
"""For models that bring no template, or one that refuses every way of asking."""


class TemplateValues(TypedDict):
    """What a template is rendered with, beside what is the same for all conversations."""

    messages: list[ChatMessage]
    tools: list[ToolSchema] | None


class TemplateFailed(Exception):
    """The template raises, runs for too long or writes too much; the message says which."""


def write(
    conversations: Sequence[Conversation], template: str | None, *, bos: str, eos: str
) -> tuple[list[str], str]:
    """The texts of conversations, and a remark on how they were made; empty for the usual way.

    Templates differ in what they take: with tools, with the tools told in words, without a system
    message, and at last in a plain form of our own.

    Raises:
        CorpusError: Jinja2 is not installed.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise CorpusError(
            "The corpora 'chat' and 'tools' need Jinja2, which is not installed: "
            "pip install 'pytest-kvquant[report]'."
        )
    always = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": False}
    complaint = "the model brings no chat template"
    if template:
        ways = [_with_tools, _tools_in_words, _without_system]
        for way in ways:
            try:
                values = [way(one) for one in conversations]
                texts = _render(template, values, always)
            except TemplateFailed as error:
                complaint = f"its chat template fails ({error})"
                continue
            if way is _with_tools and any(one.tools for one in conversations):
                bare: list[TemplateValues] = [{**value, "tools": None} for value in values[:1]]
                if _render(template, bare, always)[0] == texts[0]:
                    continue  # the template does not show tools
            return texts, ""
    texts = _render(PLAIN, [_tools_in_words(one) for one in conversations], always)
    return texts, f"{complaint}: a plain form is used"


def _with_tools(one: Conversation) -> TemplateValues:
    return {"messages": list(one.messages), "tools": list(one.tools) or None}


def _tools_in_words(one: Conversation) -> TemplateValues:
    """Tools as JSON in the system message, calls and their results as what is said."""
    tools = "\n".join(json.dumps(tool["function"]) for tool in one.tools)
    messages: list[ChatMessage] = []
    for message in one.messages:
        content = message.get("content") or ""
        role = message["role"]
        if role == "system" and tools:
            content = f"{content}\nTools, one as JSON a line:\n{tools}"
        for call in message.get("tool_calls", ()):
            content += f"\n<tool_call>\n{json.dumps(call['function'])}\n</tool_call>"
        if role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        messages.append({"role": role, "content": content.strip()})
    return {"messages": messages, "tools": None}


def _without_system(one: Conversation) -> TemplateValues:
    """The system message as the beginning of the user's first."""
    messages = _tools_in_words(one)["messages"]
    if messages[0]["role"] == "system":
        joined = f"{messages[0]['content']}\n\n{messages[1]['content']}"
        first: ChatMessage = {**messages[1], "content": joined}
        messages = [first, *messages[2:]]
    return {"messages": messages, "tools": None}


def _render(
    template: str, values: Sequence[TemplateValues], always: Mapping[str, object]
) -> list[str]:
    request = json.dumps({"template": template, "values": list(values), "always": always})
    try:
        done = subprocess.run(
            [sys.executable, str(CHILD)],
            input=request.encode(),
            capture_output=True,
            timeout=SECONDS,
            env={},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TemplateFailed(f"it takes more than {SECONDS} s") from None
    if done.returncode or len(done.stdout) > LARGEST:
        raise TemplateFailed("it takes too much time or memory")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise TemplateFailed(answer["error"].splitlines()[0][:200])
    texts: list[str] = answer["texts"]
    return texts
