"""Child side: the worker's messages that ask the cache what it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pytest_kvquant.engine.child import emulate, probe, probe_kl, probe_run
from pytest_kvquant.engine.child.codec import Codecs
from pytest_kvquant.engine.child.context import Context, LoadedModel
from pytest_kvquant.engine.child.library import LoadedLibrary
from pytest_kvquant.engine.messages.model import Done
from pytest_kvquant.engine.messages.probe import (
    CellEmulated,
    EmulateCell,
    Probe,
    Probed,
    ProbeReference,
    SideFigures,
)
from pytest_kvquant.engine.protocol import Channel, Message


class ProbeMessages:
    """Mixed into the worker; a cell must be open."""

    channel: Channel
    library: LoadedLibrary
    codecs: Codecs
    model: LoadedModel
    context: Context | None

    def on_probe_reference(self, message: Message) -> None:
        """Run the payload's tokens through ``f16/f16`` and leave what it stores in a folder."""
        assert self.context is not None
        asked = message.read(ProbeReference)
        tokens = np.frombuffer(message.payload, np.int32)
        for singles in asked.singles:
            made = probe_run.run(self.context, tokens, singles)
            made.save(Path(asked.folder), singles)
        self.channel.tell(Done())

    def on_probe(self, message: Message) -> None:
        """Run the same through the cell and compare."""
        assert self.context is not None
        asked, tokens = message.read(Probe), np.frombuffer(message.payload, np.int32)
        runs: list[tuple[probe_run.Run, probe_run.Run, int]] = []
        logits: dict[str, float] = {}
        for singles in asked.singles:
            prompt = len(tokens) - singles
            reference = probe_run.Run.load(Path(asked.folder), singles)
            made = probe_run.run(self.context, tokens, singles)
            logits |= probe_kl.kl_by_path(made.logits, reference.logits, prompt, singles)
            runs.append((made._replace(logits=made.logits[:0]), reference, prompt))
        problem, figures = None, list[SideFigures]()
        try:
            figures += probe.compare(runs, self.library.types, self.codecs, asked.widths)
        except probe_run.Unreadable as error:
            problem = str(error)
        self.channel.tell(Probed(figures=figures, logits=logits, problem=problem))

    def on_emulate_cell(self, message: Message) -> None:
        """Play a healthy cell on the open ``f16/f16`` one."""
        assert self.context is not None
        asked = message.read(EmulateCell)
        tokens = np.frombuffer(message.payload, np.int32)
        reference = probe_run.Run.load(Path(asked.folder), 0)
        sides = {(row[0], row[1], row[2]): emulate.CacheSide(*row[3:]) for row in asked.sides}
        propagation, kl = emulate.emulate(
            self.context, tokens, reference, self.codecs, self.library.types, sides
        )
        self.channel.tell(CellEmulated(propagation=propagation, kl=kl))
