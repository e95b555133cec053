"""Cache operations, one scenario a function, one operation a file.

A scenario records steps on a :class:`~pytest_kvquant.quality.scenarios.tape.Tape`; it is played on
``f16/f16`` and on every pair, with the oracle watching, and the logits that it labels are compared.
Files of this folder are found by themselves; other files are named with ``--kv-scenarios``.
"""
