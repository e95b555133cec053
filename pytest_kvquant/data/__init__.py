"""What comes with the package: the embedded model, its text, tables of limits and of bindings."""

from pathlib import Path

DATA = Path(__file__).parent
EMBEDDED_MODEL = DATA / "kvq-mini-6m.q8_0.gguf"
EMBEDDED_CORPUS = DATA / "corpus.txt"
