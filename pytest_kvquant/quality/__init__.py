"""Evidence of quality: prefill, decode, shapes, restore, greedy text, cache contents."""
