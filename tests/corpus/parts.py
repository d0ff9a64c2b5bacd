"""The sound base and adapter that every broken input starts from, and what breaks them.

Standard library only.  A case is a function that gets a Case, whose folders hold a sound base of
two layers and a sound adapter, and breaks one thing.
"""
# SPDX-License-Identifier: Apache-2.0

import io
import json
import math
import os
import pathlib
import shutil
import struct
import zipfile

HIDDEN, INTERMEDIATE, VOCAB, KV_HIDDEN, RANK = 16, 40, 50, 8, 4

ELEMENT_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I8": 1, "I64": 8}
# 0.5 and a not-a-number, in the bits of each dtype.
ELEMENT = {"BF16": b"\0\x3f", "F16": b"\0\x38", "F32": b"\0\0\0\x3f", "F64": b"\0" * 6 + b"\xe0\x3f",
           "I8": b"\1", "I64": b"\1" + b"\0" * 7}
NOT_A_NUMBER = {"BF16": b"\xc0\x7f", "F16": b"\0\x7e", "F32": b"\0\0\xc0\x7f"}
INFINITE = {"BF16": b"\x80\x7f", "F32": b"\0\0\x80\x7f"}

CASES = []  # (name, exit code, words that the sentence must contain, function)


def case(name, code, *words):
    def register(function):
        CASES.append((name, code, words, function))
        return function
    return register


def raw_file(header, data=b"", length=None):
    """A safetensors file with any bytes as its header and any number as its length."""
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def sound_file(tensors):
    """`tensors`: name -> (dtype, shape), or (dtype, shape, its bytes)."""
    header = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, *given) in tensors.items():
        new = given[0] if given else ELEMENT[dtype] * math.prod(shape)
        header[name] = entry(dtype, shape, len(data), len(data) + len(new))
        data += new
    text = json.dumps(header, separators=(",", ":"))
    return raw_file(text + " " * (-len(text) % 8), data)


def base_tensors():
    h, i, v, k = HIDDEN, INTERMEDIATE, VOCAB, KV_HIDDEN
    tensors = {"model.embed_tokens.weight": ("BF16", [v, h])}
    for layer in range(2):
        for name, shape in (("input_layernorm", [h]), ("mlp.down_proj", [h, i]),
                            ("mlp.gate_proj", [i, h]), ("mlp.up_proj", [i, h]),
                            ("post_attention_layernorm", [h]), ("self_attn.k_proj", [k, h]),
                            ("self_attn.o_proj", [h, h]), ("self_attn.q_proj", [h, h]),
                            ("self_attn.v_proj", [k, h])):
            tensors[f"model.layers.{layer}.{name}.weight"] = ("BF16", shape)
    tensors["model.norm.weight"] = ("BF16", [h])
    tensors["lm_head.weight"] = ("BF16", [v, h])
    return tensors


def base_config():
    return {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "head_dim": 8,
            "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": 64, "model_type": "llama", "num_attention_heads": 2,
            "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-05,
            "tie_word_embeddings": False, "vocab_size": VOCAB}


def factors(module, rows, cols, rank=RANK, dtype="F32"):
    key = f"base_model.model.{module}"
    return {f"{key}.lora_A.weight": (dtype, [rank, cols]),
            f"{key}.lora_B.weight": (dtype, [rows, rank])}


def adapter_tensors():
    tensors = {}
    for layer in range(2):
        module = f"model.layers.{layer}.self_attn"
        tensors.update(factors(f"{module}.q_proj", HIDDEN, HIDDEN))
        tensors.update(factors(f"{module}.v_proj", KV_HIDDEN, HIDDEN))
    return tensors


def adapter_config(base):
    return {"base_model_name_or_path": str(base), "bias": "none", "fan_in_fan_out": False,
            "inference_mode": True, "init_lora_weights": True, "lora_alpha": 8,
            "lora_dropout": 0.0, "peft_type": "LORA", "r": RANK,
            "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "use_dora": False,
            "use_rslora": False}


class Case:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.base = self.folder / "base"
        self.adapter = self.folder / "adapter"
        self.out = self.folder / "out" / "merged"
        self.weights = self.base / "model.safetensors"
        self.index = self.base / "model.safetensors.index.json"
        self.factors = self.adapter / "adapter_model.safetensors"
        self.arguments = None  # instead of the usual ones
        self.extra = []        # behind the usual ones
        for path in (self.base, self.adapter, self.out.parent):
            path.mkdir(parents=True)
        self.write_base(base_tensors())
        self.write_factors(adapter_tensors())
        self.write_json(self.base / "config.json", base_config())
        self.write_json(self.adapter / "adapter_config.json", adapter_config(self.base))

    def write_json(self, path, value):
        path.write_text(json.dumps(value, indent=2) + "\n")

    def write_base(self, tensors):
        self.weights.write_bytes(sound_file(tensors))

    def write_factors(self, tensors):
        self.factors.write_bytes(sound_file(tensors))

    def replace_factors(self, data):
        """Bytes in the place of a torch file, and no safetensors file."""
        self.factors.unlink()
        (self.adapter / "adapter_model.bin").write_bytes(data)

    def raw_base(self, header, data=b"", length=None):
        self.weights.write_bytes(raw_file(header, data, length))

    def change_config(self, **changes):
        """Fields of adapter_config.json; a value of ... removes the field."""
        config = {**adapter_config(self.base), **changes}
        config = {key: value for key, value in config.items() if value is not ...}
        self.write_json(self.adapter / "adapter_config.json", config)

    def literal_config(self, field, literal):
        """A field of adapter_config.json whose value is written as it stands."""
        config = {**adapter_config(self.base), field: "@literal@"}
        text = json.dumps(config, indent=2).replace('"@literal@"', literal)
        (self.adapter / "adapter_config.json").write_text(text)

    def shards(self):
        """Turn the base into two shards; returns the weight_map, which write_index() writes."""
        tensors = base_tensors()
        weight_map = {}
        for number in (1, 2):
            name = f"model-0000{number}-of-00002.safetensors"
            part = {key: value for key, value in tensors.items()
                    if (".layers.0." in key) == (number == 1)}
            (self.base / name).write_bytes(sound_file(part))
            weight_map.update({key: name for key in part})
        self.weights.unlink()
        self.write_index(weight_map)
        return weight_map

    def write_index(self, weight_map):
        self.write_json(self.index, {"metadata": {"total_size": 1}, "weight_map": weight_map})

    def command(self):
        if self.arguments is not None:
            return [str(argument) for argument in self.arguments]
        return ["merge", str(self.base), "-a", str(self.adapter), "-o", str(self.out), "-q",
                *[str(argument) for argument in self.extra]]


def replace_with_directory(path):
    if path.is_dir():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()
    path.mkdir()


def replace_with_fifo(path):
    path.unlink()
    os.mkfifo(path)


def replace_with_link(path, target):
    path.unlink()
    path.symlink_to(target)


def replace_with_hole(path, size, start=b""):
    """A file of `size` bytes that takes no space but for its first ones."""
    path.write_bytes(start)
    os.truncate(path, size)


PICKLE = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01u."
TORCH_ZIP = b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0" + b"\0" * 64
def torch_file(pickle, storages=(), compression=zipfile.ZIP_STORED, **entries):
    """What torch.save() writes around a pickle; `entries` are further ones of the archive."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        archive.writestr("m/data.pkl", pickle)
        for key, storage in enumerate(storages):
            archive.writestr(f"m/data/{key}", storage)
        for name, text in {"version": "3\n", "byteorder": "little", **entries}.items():
            archive.writestr(f"m/{name}", text)
    return data.getvalue()


LFS_POINTER = (b"version https://git-lfs.github.com/spec/v1\n"
               b"oid sha256:" + b"0" * 64 + b"\nsize 12345\n")
