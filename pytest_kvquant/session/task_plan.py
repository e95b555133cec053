"""What a run measures on: rules, the shape of its batches, its chunks."""

from __future__ import annotations

import msgspec

from pytest_kvquant.config.settings import Settings
from pytest_kvquant.engine.batching import sequences_per_batch
from pytest_kvquant.engine.parent.engine import BatchShape, Engine
from pytest_kvquant.engine.sequences import from_start
from pytest_kvquant.inputs.corpus import cut_chunks
from pytest_kvquant.numerics.metrics import unigram_perplexity
from pytest_kvquant.numerics.rules import PROFILES, Rules
from pytest_kvquant.quality.task import Task
from pytest_kvquant.results.conditions import CorpusRecord
from pytest_kvquant.session.texts import TextOfRun, TextTask


def plan_rules(settings: Settings) -> Rules:
    """How many chunks are drawn, and how they are judged."""
    if settings.chunks is not None:
        return Rules(cap=settings.chunks, early=False)
    return PROFILES[settings.profile]


def plan_shape(settings: Settings, vocabulary: int, threads: int) -> BatchShape:
    """How chunks are batched.

    Args:
        threads: of llama.cpp, where none are asked for.
    """
    scored = settings.scored_tokens
    return BatchShape(
        ctx=settings.ctx,
        scored=scored,
        sequences=sequences_per_batch(
            ctx=settings.ctx, batch=settings.batch, scored=scored, vocabulary=vocabulary
        ),
        batch=settings.batch,
        ubatch=settings.ubatch,
        threads=settings.threads or threads,
    )


def plan_text(
    text: TextOfRun,
    settings: Settings,
    *,
    engine: Engine,
    model: str,
    shape: BatchShape,
    vocabulary: int,
    bos: int | None,
) -> TextTask:
    """Cut one text into the chunks that cells are measured on.

    Raises:
        CorpusError: it is too short.
    """
    rules, corpus = plan_rules(settings), text.corpus
    chunks, numbers = cut_chunks(
        text.tokens,
        ctx=settings.ctx,
        wanted=rules.cap,
        exact=settings.chunks is not None,
        order=settings.order,
        seed=settings.seed,
        name=corpus.name,
    )
    task = Task(
        engine=engine,
        model=model,
        gpu_layers=settings.gpu_layers,
        vocabulary=vocabulary,
        shape=shape,
        chunks=from_start(chunks, bos),
        rules=msgspec.structs.replace(rules, cap=len(chunks)),
    )
    record = CorpusRecord(
        path=str(corpus.path),
        name=corpus.name,
        fingerprint=corpus.fingerprint,
        tokens=len(text.tokens),
        chunks=tuple(numbers.tolist()),
        tokens_hash=task.tokens_hash,
        remark=corpus.remark,
        unigram_ppl=unigram_perplexity(text.tokens),
    )
    return TextTask(record, task)
