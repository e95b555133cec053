"""Split a GGUF file as llama.cpp's own tool does: keys in the first file, tensors in all."""

from __future__ import annotations

from pathlib import Path

import gguf

from pytest_kvquant.inputs.shards import name_of


def split(model: Path, folder: Path, count: int) -> list[Path]:
    """Write ``model`` as ``count`` files to ``folder``."""
    reader = gguf.GGUFReader(model)
    share = -(-len(reader.tensors) // count)
    paths = []
    for number in range(count):
        path = folder / name_of(model.stem, number + 1, count)
        architecture = reader.fields["general.architecture"].contents()
        writer = gguf.GGUFWriter(path, architecture if number == 0 else "")
        if number:
            writer.kv_data[0].pop("general.architecture", None)
        else:
            _copy_keys(reader, writer)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number * share : (number + 1) * share]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def _copy_keys(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=sub)
