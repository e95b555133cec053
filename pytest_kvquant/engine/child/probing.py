"""Child side: the worker's messages that ask the cache what it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child import emulate, probe, probe_kl, probe_run
from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.protocol import Channel, Message


class ProbeMessages:
    """Mixed into the worker; a cell must be open."""

    channel: Channel
    library: LoadedLibrary
    codecs: Codecs
    model: LoadedModel
    context: Context | None

    def on_probe_reference(self, message: Message) -> None:
        """Run the payload's tokens through ``f16/f16`` and leave what it stores in a folder.

        Fields: ``folder``; ``singles``, for each run how many of the tokens come one at a time.
        """
        assert self.context is not None
        tokens = np.frombuffer(message.payload, np.int32)
        for singles in message.fields["singles"]:
            made = probe_run.run(self.context, tokens, singles)
            made.save(Path(message.fields["folder"]), singles)
        self.channel.send("probe_reference")

    def on_probe(self, message: Message) -> None:
        """Run the same through the cell and compare; fields as before, and ``widths`` of heads."""
        assert self.context is not None
        fields, tokens = message.fields, np.frombuffer(message.payload, np.int32)
        runs: list[tuple[probe_run.Run, probe_run.Run, int]] = []
        logits: dict[str, float] = {}
        for singles in fields["singles"]:
            prompt = len(tokens) - singles
            reference = probe_run.Run.load(Path(fields["folder"]), singles)
            made = probe_run.run(self.context, tokens, singles)
            logits |= probe_kl.kl_by_path(made.logits, reference.logits, prompt, singles)
            runs.append((made._replace(logits=made.logits[:0]), reference, prompt))
        problem, figures = None, []
        try:
            widths = fields["widths"]
            compared = probe.compare(runs, self.library.types, self.codecs, widths)
            figures = [one._asdict() for one in compared]
        except probe_run.Unreadable as error:
            problem = str(error)
        self.channel.send("probe", figures=figures, logits=logits, problem=problem)

    def on_emulate_cell(self, message: Message) -> None:
        """Play a healthy cell on the open ``f16/f16`` one.

        Fields: ``folder``; ``sides``, a row per layer and side: cache, place, side, then type,
        rotation, elements of a head.
        """
        assert self.context is not None
        tokens = np.frombuffer(message.payload, np.int32)
        reference = probe_run.Run.load(Path(message.fields["folder"]), 0)
        sides = {tuple(row[:3]): emulate.CacheSide(*row[3:]) for row in message.fields["sides"]}
        propagation, kl = emulate.emulate(
            self.context, tokens, reference, self.codecs, self.library.types, sides
        )
        propagated = [one._asdict() for one in propagation]
        self.channel.send("emulate_cell", propagation=propagated, kl=kl)
