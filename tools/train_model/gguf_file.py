"""To a GGUF file that llama.cpp loads, and back."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from tokenizers import Tokenizer

from .model import Decoder
from .recipe import Shape
from .tokenizer import END_OF_TEXT_ID, PRE_TOKENIZER, merges_of, restore_tokenizer, tokens_of

ARCHITECTURE = "qwen3"


class WeightType(Enum):
    """How the matrices are stored; the norms are always f32."""

    F32 = "f32"
    F16 = "f16"
    Q8_0 = "q8_0"

    @property
    def tensor_type(self) -> GGMLQuantizationType:
        """The ggml type of one matrix."""
        return GGMLQuantizationType[self.name]

    @property
    def file_type(self) -> LlamaFileType:
        """What ``general.file_type`` says of the whole file."""
        name = "ALL_F32" if self is WeightType.F32 else f"MOSTLY_{self.name}"
        return LlamaFileType[name]


def export(
    path: Path,
    name: str,
    model: Decoder,
    shape: Shape,
    tokenizer: Tokenizer,
    weights: WeightType = WeightType.Q8_0,
) -> None:
    """Write the model and its tokenizer to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    _add_shape(writer, name, shape)
    writer.add_file_type(weights.file_type)
    _add_tokenizer(writer, tokenizer)
    for key, tensor in model.state_dict().items():
        data = tensor.float().cpu().numpy()
        kind = weights.tensor_type if data.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(key, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: gguf.GGUFWriter, name: str, shape: Shape) -> None:
    writer.add_name(name)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_dim)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens = tokens_of(tokenizer)
    types = [TokenType.NORMAL] * len(tokens)
    types[END_OF_TEXT_ID] = TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_bos_token_id(END_OF_TEXT_ID)
    writer.add_eos_token_id(END_OF_TEXT_ID)
    writer.add_add_bos_token(False)


def load(path: Path) -> tuple[Decoder, Shape, Tokenizer]:
    """Read a file that ``export`` wrote; the weights come back as f32, rounded as stored."""
    reader = gguf.GGUFReader(path)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        if field is None:
            raise ValueError(f"{path}: no key {key}")
        return field.contents()

    if value("general.architecture") != ARCHITECTURE:
        raise ValueError(f"{path}: {value('general.architecture')}, not {ARCHITECTURE}")
    tokens = value("tokenizer.ggml.tokens")
    shape = Shape(
        vocab_size=len(tokens),
        n_layer=value("qwen3.block_count"),
        n_embd=value("qwen3.embedding_length"),
        n_head=value("qwen3.attention.head_count"),
        n_head_kv=value("qwen3.attention.head_count_kv"),
        n_ff=value("qwen3.feed_forward_length"),
        n_ctx=value("qwen3.context_length"),
        head_dim=value("qwen3.attention.key_length"),
        rope_base=value("qwen3.rope.freq_base"),
        norm_eps=value("qwen3.attention.layer_norm_rms_epsilon"),
    )
    model = Decoder(shape)
    model.load_state_dict(
        {
            tensor.name: torch.from_numpy(
                gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()
            )
            for tensor in reader.tensors
        }
    )
    return model.eval(), shape, restore_tokenizer(tokens, value("tokenizer.ggml.merges"))
