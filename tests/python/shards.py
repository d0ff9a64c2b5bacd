"""safetensors files as raw bytes: any dtype, any name, any layout, without a library that has opinions."""

import json
from dataclasses import dataclass
from pathlib import Path

ELEMENT_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2,
    "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}


@dataclass(frozen=True)
class Raw:
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def read_header(path: Path) -> tuple[dict, int]:
    """The header without its metadata, and where the data begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def read_shard(path: Path) -> dict[str, Raw]:
    header, start = read_header(path)
    blob = path.read_bytes()
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = Raw(entry["dtype"], tuple(entry["shape"]), blob[start + begin : start + end])
    return tensors


def read_model(directory: Path) -> dict[str, Raw]:
    """All tensors of a model directory, by its index if it has one; each name must be in one shard."""
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        return read_shard(directory / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    tensors: dict[str, Raw] = {}
    for shard in sorted(set(weight_map.values())):
        part = read_shard(directory / shard)
        assert set(part) == {name for name, where in weight_map.items() if where == shard}
        tensors |= part
    return tensors


def write_shard(path: Path, tensors: dict[str, Raw], pad: int = 0) -> None:
    """Tensors in the order given; `pad` spaces are added to the header to move the data."""
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, raw in tensors.items():
        count = 1
        for extent in raw.shape:
            count *= extent
        assert len(raw.data) == count * ELEMENT_BYTES[raw.dtype], name
        end = offset + len(raw.data)
        header[name] = {"dtype": raw.dtype, "shape": list(raw.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode() + b" " * pad
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for raw in tensors.values():
            file.write(raw.data)


def write_sharded(directory: Path, shards: list[dict[str, Raw]], pad: int = 0) -> None:
    weight_map, total = {}, 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(directory / name, tensors, pad + number)
        weight_map |= {tensor: name for tensor in tensors}
        total += sum(len(raw.data) for raw in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def check_index(directory: Path) -> None:
    """The index of an output names every tensor where it is, and its total_size is true."""
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    tensors = read_model(directory)
    assert set(index["weight_map"]) == set(tensors)
    assert index["metadata"]["total_size"] == sum(len(raw.data) for raw in tensors.values())
    files = {path.name for path in directory.glob("*.safetensors")}
    assert files == set(index["weight_map"].values())
