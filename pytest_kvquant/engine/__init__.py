"""Everything that touches llama.cpp: the worker process and the parent's side of it."""
