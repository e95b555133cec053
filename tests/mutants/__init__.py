"""Real edits of llama.cpp's CPU kernels, one build, switched at run time; ``make mutants``."""
