"""Conversations from a seeded generator: turns of people and an assistant, tool calls in JSON,
results, diffs. Made here, so that no text has to be shipped and every model gets the same.
"""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Callable
from typing import NamedTuple, NotRequired, TypedDict


class CalledFunction(TypedDict):
    """What an assistant calls."""

    name: str
    arguments: dict[str, str]


class ToolCall(TypedDict):
    """A call of an assistant's message."""

    id: str
    type: str
    function: CalledFunction


class ChatMessage(TypedDict):
    """A message as chat templates take it."""

    role: str
    content: str
    tool_calls: NotRequired[list[ToolCall]]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]


class ToolSchema(TypedDict):
    """A function that may be called, as JSON schema describes it."""

    type: str
    function: dict[str, object]


class Conversation(NamedTuple):
    """Messages as chat templates take them, and the tools that may be called."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolSchema, ...] = ()


NAMES = ("Mara", "Jonas", "Priya", "Tomás", "Aiko", "Lena", "Samir", "Ruth", "Viktor", "Noor")
PLACES = ("Lisbon", "Oslo", "Nagoya", "Quito", "Leeds", "Tartu", "Perth", "Graz", "Halifax")
GOODS = ("screws", "notebooks", "oranges", "cables", "tiles", "lamps", "seeds", "bottles", "maps")
VERBS = ("count", "filter", "merge", "parse", "scale", "sort", "split", "trim", "rank", "round")
NOUNS = ("orders", "lines", "users", "prices", "events", "samples", "blocks", "rows", "scores")
FILES = ("store", "report", "client", "cache", "router", "parser", "budget", "index", "session")
REASONS = (
    "the last value was left out",
    "an empty list raised an error",
    "the result changed with the order of the input",
    "negative numbers were counted twice",
    "the limit was compared with < instead of <=",
)
TONES = ("You are a helpful assistant.", "You answer briefly and exactly.",
         "You are a careful engineer. Explain each step before you take it.")  # fmt: skip


def chats(seed: int, size: int) -> list[Conversation]:
    """Conversations without tools, of about ``size`` characters in all."""
    return _until(size, random.Random(seed), _chat)


def tool_uses(seed: int, size: int) -> list[Conversation]:
    """Conversations in which an assistant calls tools, of about ``size`` characters in all."""
    return _until(size, random.Random(seed), _tool_use)


def _until(
    size: int, rng: random.Random, make: Callable[[random.Random], Conversation]
) -> list[Conversation]:
    found: list[Conversation] = []
    length = 0
    while length < size:
        found.append(make(rng))
        length += len(json.dumps([found[-1].messages, found[-1].tools]))
    return found


def _chat(rng: random.Random) -> Conversation:
    messages = [_says("system", rng.choice(TONES))] if rng.random() < 0.6 else []
    for _ in range(rng.randint(2, 5)):
        question, answer = rng.choice((_sum, _code, _list, _plan, _rewrite))(rng)
        messages += [_says("user", question), _says("assistant", answer)]
    return Conversation(tuple(messages))


def _says(role: str, content: str) -> ChatMessage:
    return {"role": role, "content": content}


def _sum(rng: random.Random) -> tuple[str, str]:
    name, good = rng.choice(NAMES), rng.choice(GOODS)
    boxes, each, gone = rng.randint(3, 40), rng.randint(6, 90), rng.randint(1, 60)
    total = boxes * each
    question = (
        f"{name} has {boxes} boxes with {each} {good} each and gives {gone} {good} away. "
        f"How many {good} are left?"
    )
    return question, (
        f"{boxes} boxes with {each} {good} each are {boxes} × {each} = {total} {good}. Without the "
        f"{gone} that are given away, {total} − {gone} = {total - gone} {good} are left.\n\n"
        f"**{total - gone}**"
    )


def _code(rng: random.Random) -> tuple[str, str]:
    name = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    limit = rng.randint(2, 500)
    body = _function(rng, name, limit)
    question = f"Write a Python function `{name}` that keeps values up to {limit}, each once."
    return question, (
        f"```python\n{body}```\n\n`{name}` walks over the values once. Those above {limit} are "
        "left out, and a set remembers what was seen, so that each is kept only the first time. "
        f"For `[{limit}, {limit + 1}, {limit}]` it returns `[{limit}]`."
    )


def _function(rng: random.Random, name: str, limit: int) -> str:
    item = rng.choice(("value", "item", "number", "entry"))
    return (
        f"def {name}(values, limit={limit}):\n"
        f'    """Values up to ``limit``, each once, in order."""\n'
        f"    seen = set()\n    kept = []\n    for {item} in values:\n"
        f"        if {item} > limit or {item} in seen:\n            continue\n"
        f"        seen.add({item})\n        kept.append({item})\n    return kept\n"
    )


def _list(rng: random.Random) -> tuple[str, str]:
    place = rng.choice(PLACES)
    goods = rng.sample(GOODS, 4)
    stock = {good: rng.randint(0, 900) for good in goods}
    rows = "\n".join(f"| {good} | {count} |" for good, count in stock.items())
    least = min(stock, key=lambda good: stock[good])
    question = (
        f"Our store in {place} has "
        + ", ".join(f"{count} {good}" for good, count in stock.items())
        + ". Make a table, and tell me what to order first."
    )
    return question, (
        f"| goods | in stock |\n|---|---|\n{rows}\n\nOrder **{least}** first: there are only "
        f"{stock[least]} left in {place}, the least of the four. In all there are "
        f"{sum(stock.values())} pieces."
    )


def _plan(rng: random.Random) -> tuple[str, str]:
    people = rng.sample(NAMES, 3)
    hour = rng.randint(8, 14)
    question = (
        f"{people[0]}, {people[1]} and {people[2]} meet in {rng.choice(PLACES)} at {hour}:00 for "
        f"{rng.choice((45, 60, 90))} minutes each with me, one after another. When am I done?"
    )
    minutes = int(question.rsplit(" for ", 1)[1].split(maxsplit=1)[0])
    lines, start = [], hour * 60
    for number, name in enumerate(people, 1):
        end = start + minutes
        lines.append(f"{number}. {name}: {_clock(start)} to {_clock(end)}")
        start = end
    return question, "\n".join(lines) + f"\n\nYou are done at {_clock(start)}."


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _rewrite(rng: random.Random) -> tuple[str, str]:
    name, place, noun = rng.choice(NAMES), rng.choice(PLACES), rng.choice(NOUNS)
    count = rng.randint(12, 4000)
    text = (
        f"On Monday {name} looked through {count} {noun} in the office in {place}. It was found "
        f"that {rng.choice(REASONS)}, and that this had been so since the spring. A correction was "
        "made by the team on the same day, and nobody outside had to be told."
    )
    fault = text.split("found that ")[1].split(", and", maxsplit=1)[0]
    return f"Make this shorter and say who did what:\n\n{text}", (
        f"On Monday {name} checked {count} {noun} in {place} and found a fault that had been there "
        f"since the spring: {fault}. The team corrected it the same day; nobody outside was "
        "affected."
    )


def _tool(name: str, what: str, **arguments: str) -> ToolSchema:
    properties = {key: {"type": "string", "description": text} for key, text in arguments.items()}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": what,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(arguments),
            },
        },
    }


TOOLS = (
    _tool("search", "Search the repository for a pattern.", pattern="regular expression",
          folder="where to look"),
    _tool("read_file", "Read a file of the repository.", path="path from the root"),
    _tool("apply_patch", "Apply a unified diff.", diff="the diff"),
    _tool("run_tests", "Run the tests of a file.", path="path from the root"),
    _tool("weather", "Weather of a place on a day.", place="name", day="ISO 8601"),
)  # fmt: skip


def _tool_use(rng: random.Random) -> Conversation:
    name, file = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}", rng.choice(FILES)
    path, limit = f"src/{file}.py", rng.randint(2, 500)
    before = _function(rng, name, limit)
    after = before.replace("> limit", ">= limit").replace(f"limit={limit}", f"limit={limit + 1}")
    header, *rest = after.splitlines(keepends=True)
    after = "".join([header, *rest[:1], "    values = list(values)\n", *rest[1:]])
    diff = "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True),
            f"a/{path}", f"b/{path}",
        )
    )  # fmt: skip
    line, passed = rng.randint(3, 300), rng.randint(4, 90)
    calls: list[tuple[str, str, dict[str, str], str]] = [
        (f"I look for `{name}` first.", "search", {"pattern": f"def {name}", "folder": "src"},
         f"{path}:{line}:def {name}(values, limit={limit}):"),
        (f"It is in `{path}`.", "read_file", {"path": path}, before),
        ("The comparison lets the limit itself through. I change that.", "apply_patch",
         {"diff": diff}, f"patched {path}"),
        ("Now the tests.", "run_tests", {"path": f"tests/test_{file}.py"},
         json.dumps({"passed": passed, "failed": 0, "seconds": rng.randint(1, 400) / 100})),
    ]  # fmt: skip
    messages: list[ChatMessage] = [
        _says("system", rng.choice(TONES)),
        _says("user", f"In `{name}`, {rng.choice(REASONS)}. Please mend it and run the tests."),
    ]
    for number, (words, tool, arguments, result) in enumerate(calls):
        call: ToolCall = {"id": f"call{number:05d}", "type": "function",
                "function": {"name": tool, "arguments": arguments}}  # fmt: skip
        messages.append({"role": "assistant", "content": words, "tool_calls": [call]})
        messages.append(
            {"role": "tool", "name": tool, "tool_call_id": call["id"], "content": result}
        )
    messages.append(
        _says(
            "assistant",
            f"`{name}` in `{path}` now leaves the limit of {limit + 1} out and takes any iterable. "
            f"All {passed} tests of `tests/test_{file}.py` pass.",
        )
    )
    return Conversation(tuple(messages), TOOLS)
