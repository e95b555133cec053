"""The command line: ``python -m tools.train_model {train,verify}``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .gguf_file import WeightType, export
from .model import Decoder
from .recipe import RECIPES
from .tokenizer import encode_stream, read_documents, train_tokenizer
from .train import train
from .verify import verify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    return _train(options) if options.command == "train" else _verify(options)


def _train(options: argparse.Namespace) -> int:
    torch.manual_seed(options.seed)
    recipe = RECIPES[options.recipe]
    documents = read_documents(options.corpus)
    tokenizer = train_tokenizer(documents, recipe.shape.vocab_size)
    stream = encode_stream(tokenizer, documents)
    model = Decoder(recipe.shape, recipe.schedule.dropout).to(options.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(documents):,} documents, {stream.numel():,} tokens; {size:,} parameters")
    train(model, stream, recipe.schedule, seed=options.seed)
    export(options.out, options.recipe, model, recipe.shape, tokenizer, options.weights)
    print(f"wrote {options.out} ({options.out.stat().st_size:,} bytes)")
    return 0


def _verify(options: argparse.Namespace) -> int:
    text = options.text.read_text(encoding="utf-8")
    agreement = verify(options.model, text, options.tokens)
    print(agreement)
    return 0 if agreement.good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.train_model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("train", help="text in, GGUF out")
    command.add_argument(
        "--corpus",
        type=Path,
        required=True,
        help="UTF-8 text, plain or .xz; documents separated by a line with one NUL",
    )
    command.add_argument("--out", type=Path, required=True, help="the GGUF file to write")
    command.add_argument("--recipe", choices=RECIPES, default="kvq-mini")
    command.add_argument(
        "--weights",
        type=WeightType,
        default=WeightType.Q8_0,
        metavar="{f32,f16,q8_0}",
        help="type of the matrices (default: q8_0)",
    )
    command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    command.add_argument("--seed", type=int, default=0)

    command = commands.add_parser("verify", help="compare a GGUF's logits with llama.cpp's")
    command.add_argument("model", type=Path)
    command.add_argument("--text", type=Path, required=True, help="UTF-8 text to compare on")
    command.add_argument("--tokens", type=int, default=512, help="how many (default: 512)")

    for command in commands.choices.values():
        command.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
