"""From a declaration to a GGUF file; the same declaration always gives the same bytes."""

from __future__ import annotations

import zlib
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from pytest_kvquant.zoo import blocks
from pytest_kvquant.zoo.declaration import Member, Tensor, Value
from pytest_kvquant.zoo.gguf_writer import GgufWriter
from pytest_kvquant.zoo.vocabulary import END, bytes_only

OWN_NAMESPACES = ("general.", "tokenizer.", "split.", "xielu.")


def write(path: Path, member: Member) -> Path:
    """Write ``member`` to ``path``.

    Raises:
        OSError: the file cannot be written.
    """
    writer = gguf.GGUFWriter(path, member.architecture)
    # llama.cpp goes by some families' names when it reads a vocabulary
    writer.add_name(f"zoo {member.head_k}/{member.head_v}, group {member.group}")
    for key, value in member.header.items():
        add_value(writer, full_key(member.architecture, key), value)
    add_vocabulary(writer, blocks.VOCABULARY, bos=member.bos)
    for tensor in member.tensors:
        writer.add_tensor(tensor.name, values(tensor, member.seed))
    finish(writer)
    return path


def finish(writer: GgufWriter) -> None:
    """Write everything that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def full_key(architecture: str, key: str) -> str:
    """With the architecture in front, where the key has no namespace of its own."""
    return key if key.startswith(OWN_NAMESPACES) else f"{architecture}.{key}"


def add_value(writer: GgufWriter, key: str, value: Value) -> None:
    """Add a key in the GGUF type that llama.cpp reads it as: counts are unsigned."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def add_vocabulary(writer: GgufWriter, size: int, *, bos: bool = False) -> None:
    """Add the keys of a byte-level tokenizer."""
    vocabulary = bytes_only(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(END)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(bos)


def values(tensor: Tensor, seed: int) -> npt.NDArray[np.float16] | npt.NDArray[np.float32]:
    """The weights, by name and seed alone: other tensors of the model do not move them."""
    generator = np.random.default_rng((seed, zlib.crc32(tensor.name.encode())))
    drawn = generator.standard_normal(tensor.shape, np.float32)
    weights = drawn * np.float32(tensor.std) + np.float32(tensor.mean)
    return weights.astype(np.float16) if tensor.half else weights
