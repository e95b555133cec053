"""The recipe of the embedded model: text in, a small Qwen3-architecture GGUF out."""
