"""pytest-kvquant: quality and speed gates for quantized KV caches in llama.cpp builds."""

__version__ = "0.1.0"
