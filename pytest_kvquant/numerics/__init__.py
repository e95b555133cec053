"""Pure arithmetic: logits to figures, figures to verdicts. No pytest, no llama.cpp, no files."""
