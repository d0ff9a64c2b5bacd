"""Broken bases: safetensors headers, indexes, files and links, configurations."""
# SPDX-License-Identifier: Apache-2.0

import json

from parts import (CASES, HIDDEN, INFINITE, LFS_POINTER, NOT_A_NUMBER, PICKLE, TORCH_ZIP, base_config,
                   base_tensors, case, entry, raw_file, replace_with_directory, replace_with_fifo,
                   replace_with_hole, replace_with_link, sound_file)

FILE = "model.safetensors"
Q = "model.layers.0.self_attn.q_proj.weight"
OTHER = "model.layers.1.self_attn.q_proj.weight"


# ---- files that are no safetensors files at all ----

def add_whole_files():
    files = {
        "empty": b"",
        "three_bytes": b"\x08\0\0",
        "seven_bytes": b"\x08" + b"\0" * 6,
        "length_0": b"\0" * 8,
        "length_0_with_data": b"\0" * 64,
        "length_1": raw_file("{"),
        "length_2_63": raw_file("{}", length=1 << 63),
        "length_2_64_less_1": raw_file("{}", length=(1 << 64) - 1),
        "length_2_64_less_8": raw_file("{}", length=(1 << 64) - 8),
        "length_one_past_the_end": raw_file("{}", length=3),
        "length_cuts_the_header": raw_file(json.dumps({"a": entry("F32", [1], 0, 4)}), b"\0" * 4,
                                           length=20),
        "cut_in_the_header": sound_file(base_tensors())[:200],
        "pickle": PICKLE,
        "torch_zip": TORCH_ZIP,
        "git_lfs_pointer": LFS_POINTER,
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "gguf": b"GGUF\3\0\0\0" + b"\0" * 100,
    }
    for name, data in files.items():
        case(f"base_file_{name}", 3, FILE)(lambda c, data=data: c.weights.write_bytes(data))


# ---- headers ----

def one(value, name='"a"'):
    return f"{{{name}:{value}}}"


TENSOR = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


def tensor(dtype='"F32"', shape="[2]", offsets="[0,8]"):
    return one(f'{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}')


def two(first, second, shapes=("[2]", "[2]")):
    return (f'{{"first":{{"dtype":"F32","shape":{shapes[0]},"data_offsets":{first}}},'
            f'"second":{{"dtype":"F32","shape":{shapes[1]},"data_offsets":{second}}}}}')


# name: (header, bytes of data, a word beside the file's name)
HEADERS = {
    "not_json": ("hello, i am not json....", 8, "JSON"),
    "array": (f"[{TENSOR}]", 8, ""),
    "string": ('"abcdefgh"', 8, ""),
    "number": ("12345678", 8, ""),
    "white_space": (" " * 64, 8, "JSON"),
    "not_utf_8": (b'{"a\xff\xfe":' + TENSOR.encode() + b"}", 8, "JSON"),
    "utf_8_overlong": (b'{"a\xc0\x80":' + TENSOR.encode() + b"}", 8, "JSON"),
    "utf_8_surrogate": (b'{"a\xed\xa0\x80":' + TENSOR.encode() + b"}", 8, "JSON"),
    "byte_order_mark": (b"\xef\xbb\xbf" + one(TENSOR).encode(), 8, "JSON"),
    "raw_nul_in_name": (b'{"a\0b":' + TENSOR.encode() + b"}", 8, "JSON"),
    "escaped_nul_in_name": (one(TENSOR, r'"a\u0000b"'), 8, "NUL"),
    "newline_in_name": (one(TENSOR, '"a\nb"'), 8, "JSON"),
    "lone_surrogate_in_name": (one(TENSOR, r'"a\ud800"'), 8, "JSON"),
    "unfinished_escape": (one(TENSOR, r'"a\u00"'), 8, "JSON"),
    "name_of_5000_bytes": (one(TENSOR, '"' + "n" * 5000 + '"'), 8, "4096"),
    "name_of_4_megabytes": (one(TENSOR, '"' + "n" * 4000000 + '"'), 8, "4096"),
    "text_behind_the_object": (one(TENSOR) + "x", 8, "JSON"),
    "second_object": (one(TENSOR) + "{}", 8, "JSON"),
    "nul_padding": (one(TENSOR).encode() + b"\0" * 7, 8, "JSON"),
    "unfinished_object": (one(TENSOR)[:-1], 8, "JSON"),
    "trailing_comma": (one(TENSOR)[:-1] + ",}", 8, "JSON"),
    "single_quotes": (one(TENSOR).replace('"', "'"), 8, "JSON"),
    "bomb_of_arrays": ("[" * 1000000, 8, ""),
    "bomb_in_a_shape": (tensor(shape="[" * 200000 + "]" * 200000), 8, "a"),
    "bomb_in_metadata": (one('{"x":' * 100000 + "1" + "}" * 100000, '"__metadata__"'), 0,
                         "__metadata__"),
    "tensor_is_null": (one("null"), 8, "a"),
    "tensor_is_a_number": (one("7"), 8, "a"),
    "tensor_is_empty": (one("{}"), 8, "a"),
    "no_dtype": (one('{"shape":[2],"data_offsets":[0,8]}'), 8, "dtype"),
    "no_shape": (one('{"dtype":"F32","data_offsets":[0,8]}'), 8, "shape"),
    "no_offsets": (one('{"dtype":"F32","shape":[2]}'), 8, "data_offsets"),
    "dtype_unknown": (tensor(dtype='"F17"'), 8, "F17"),
    "dtype_lower_case": (tensor(dtype='"f32"'), 8, "f32"),
    "dtype_is_a_number": (tensor(dtype="32"), 8, "dtype"),
    "dtype_is_null": (tensor(dtype="null"), 8, "dtype"),
    "dtype_twice": (one('{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}'), 8,
                    "dtype"),
    "shape_is_a_string": (tensor(shape='"2"'), 8, "shape"),
    "shape_is_a_number": (tensor(shape="2"), 8, "shape"),
    "shape_is_an_object": (tensor(shape='{"0":2}'), 8, "shape"),
    "shape_has_a_string": (tensor(shape='["2"]'), 8, "shape"),
    "shape_negative": (tensor(shape="[-2]"), 8, "shape"),
    "shape_minus_zero": (tensor(shape="[2,-0]"), 8, "shape"),
    "shape_float": (tensor(shape="[2.0]"), 8, "shape"),
    "shape_exponent": (tensor(shape="[2e0]"), 8, "shape"),
    "shape_leading_zero": (tensor(shape="[02]"), 8, "JSON"),
    "shape_2_64": (tensor(shape="[18446744073709551616]"), 8, "shape"),
    "shape_of_100000_digits": (tensor(shape="[" + "9" * 100000 + "]"), 8, "shape"),
    "shape_true": (tensor(shape="[true]"), 8, "shape"),
    "shape_product_overflows": (tensor(shape="[1099511627776,1099511627776]"), 8, "2^64"),
    "shape_product_wraps_to_2": (tensor(shape="[9223372036854775809,2]"), 8, "2^64"),
    "shape_bits_overflow": (tensor(shape="[4611686018427387904]"), 8, "2^64"),
    "shape_of_17_dimensions": (tensor(shape="[2" + ",1" * 16 + "]"), 8, "16"),
    "shape_too_small_for_data": (tensor(shape="[1]"), 8, "shape"),
    "shape_too_large_for_data": (tensor(shape="[3]"), 8, "shape"),
    "half_a_byte": (tensor(dtype='"F4"', shape="[3]", offsets="[0,2]"), 2, "bytes"),
    "offsets_is_a_string": (tensor(offsets='"0,8"'), 8, "data_offsets"),
    "offsets_one": (tensor(offsets="[8]"), 8, "data_offsets"),
    "offsets_three": (tensor(offsets="[0,4,8]"), 8, "data_offsets"),
    "offsets_none": (tensor(offsets="[]"), 8, "data_offsets"),
    "offsets_negative": (tensor(offsets="[-8,0]"), 8, "data_offsets"),
    "offsets_float": (tensor(offsets="[0,8.0]"), 8, "data_offsets"),
    "offsets_reversed": (tensor(offsets="[8,0]"), 8, "data_offsets"),
    "offsets_2_64": (tensor(offsets="[0,18446744073709551624]"), 8, "data_offsets"),
    "offsets_huge": (tensor(offsets="[0,18446744073709551608]"), 8, "a"),
    "offsets_begin_late": (tensor(offsets="[4,12]"), 12, "hole"),
    "offsets_overlap": (two("[0,8]", "[4,12]"), 12, "overlap"),
    "offsets_same_bytes": (two("[0,8]", "[0,8]"), 8, "overlap"),
    "offsets_inside_another": (two("[0,16]", "[4,12]", ("[4]", "[2]")), 16, "overlap"),
    "offsets_hole": (two("[0,8]", "[12,20]"), 20, "hole"),
    "empty_tensor_inside_another": (two("[0,8]", "[4,4]", ("[2]", "[0]")), 8, "second"),
    "data_cut": (tensor(), 7, "truncated"),
    "data_missing": (tensor(), 0, "truncated"),
    "data_too_long": (tensor(), 9, "behind"),
    "name_twice": ('{"a":' + TENSOR + ',"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}', 16,
                   "twice"),
    "name_twice_same": ('{"a":' + TENSOR + ',"a":' + TENSOR + "}", 8, "a"),
    "name_twice_by_escape": (r'{"a":' + TENSOR
                             + r',"\u0061":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}', 16,
                             "twice"),
    "metadata_is_a_string": ('{"__metadata__":"pt","a":' + TENSOR + "}", 8, "__metadata__"),
    "metadata_is_an_array": ('{"__metadata__":["pt"],"a":' + TENSOR + "}", 8, "__metadata__"),
    "metadata_has_a_number": ('{"__metadata__":{"n":1},"a":' + TENSOR + "}", 8, "__metadata__"),
    "metadata_twice": ('{"__metadata__":{},"__metadata__":{},"a":' + TENSOR + "}", 8,
                       "__metadata__"),
}


def add_headers():
    for name, (header, data_bytes, word) in HEADERS.items():
        case(f"header_{name}", 3, FILE, word)(
            lambda c, header=header, n=data_bytes: c.raw_base(header, b"\0" * n))


@case("header_over_the_limit", 3, FILE, "100000000")
def _(c):
    replace_with_hole(c.weights, 100000200, raw_file(b"{", length=100000001))


@case("header_of_50_megabytes_of_nul", 3, FILE)
def _(c):
    replace_with_hole(c.weights, 50000008, raw_file(b"", length=50000000))


@case("header_of_a_petabyte_tensor", 3, FILE, "truncated")
def _(c):
    c.raw_base(tensor(shape="[250000000000000]", offsets="[0,1000000000000000]"), b"\0" * 8)


# ---- where a file should be ----

@case("base_is_a_directory_in_place_of_the_file", 3, FILE)
def _(c):
    replace_with_directory(c.weights)


@case("base_fifo", 3, FILE)
def _(c):
    replace_with_fifo(c.weights)


@case("base_link_dangling", 3, FILE)
def _(c):
    replace_with_link(c.weights, "../blobs/gone")


@case("base_link_to_itself", 3, FILE)
def _(c):
    replace_with_link(c.weights, FILE)


@case("base_links_in_a_circle", 3, FILE)
def _(c):
    replace_with_link(c.weights, "round")
    (c.base / "round").symlink_to(FILE)


@case("base_link_to_a_device", 3, FILE)
def _(c):
    replace_with_link(c.weights, "/dev/zero")


@case("base_not_there", 2, "base")
def _(c):
    c.arguments = ["merge", c.folder / "base-2", "-a", c.adapter, "-o", c.out, "-q"]


@case("base_is_a_text_file", 3, "notes.txt")
def _(c):
    (c.base / "notes.txt").write_text("not a model\n")
    c.arguments = ["merge", c.base / "notes.txt", "-a", c.adapter, "-o", c.out, "-q"]


@case("base_without_weights", 3, "base")
def _(c):
    c.weights.unlink()


@case("base_is_an_empty_directory", 3, "base")
def _(c):
    c.weights.unlink()
    (c.base / "config.json").unlink()


@case("base_is_an_adapter", 3, "adapter")
def _(c):
    c.arguments = ["merge", c.adapter, "-a", c.adapter, "-o", c.out, "-q"]


@case("base_pickle_only", 3, "pytorch_model.bin")
def _(c):
    c.weights.unlink()
    (c.base / "pytorch_model.bin").write_bytes(TORCH_ZIP)


@case("base_two_files_without_an_index", 3, "part-1.safetensors")
def _(c):
    (c.base / "part-1.safetensors").write_bytes(sound_file({"a": ("F32", [2])}))
    c.weights.rename(c.base / "part-2.safetensors")


# ---- the index ----

def index_case(name, *words):
    """A case whose function gets the weight_map of a base in two shards and returns a new one."""
    def register(function):
        def run(c):
            c.write_index(function(c.shards()))
        case(f"index_{name}", 3, *words)(run)
        return function
    return register


def add_index_texts():
    texts = {
        "empty": b"",
        "not_json": b"weight_map",
        "array": b"[]",
        "null": b"null",
        "no_weight_map": b'{"metadata":{}}',
        "weight_map_null": b'{"weight_map":null}',
        "weight_map_array": b'{"weight_map":[]}',
        "weight_map_string": b'{"weight_map":"model-00001-of-00002.safetensors"}',
        "weight_map_twice": b'{"weight_map":{"a":"b"},"weight_map":{"a":"b"}}',
        "weight_map_empty": b'{"metadata":{"total_size":0},"weight_map":{}}',
        "not_utf_8": b'{"weight_map":{"a\xff":"model-00001-of-00002.safetensors"}}',
        "bomb": b'{"weight_map":' * 100000,
        "behind_the_object": b'{"weight_map":{"a":"model-00001-of-00002.safetensors"}} x',
        "byte_order_mark": b'\xef\xbb\xbf{"weight_map":{"a":"model-00001-of-00002.safetensors"}}',
    }
    for name, data in texts.items():
        def run(c, data=data):
            c.shards()
            c.index.write_bytes(data)
        case(f"index_{name}", 3, "model.safetensors.index.json")(run)


def add_shard_names():
    names = {
        "parent": "../base/model-00001-of-00002.safetensors",
        "parent_inside": "x/../model-00001-of-00002.safetensors",
        "absolute": "/etc/passwd",
        "dot": ".",
        "dot_dot": "..",
        "empty_name": "",
        "backslash": "..\\model-00001-of-00002.safetensors",
        "nul": "model-00001-of-00002.safetensors\0.bin",
        "newline": "model-00001-of-00002\n.safetensors",
        "name_of_300_bytes": "n" * 300,
        "number_as_name": 7,
        "list_as_name": ["model-00001-of-00002.safetensors"],
        "null_as_name": None,
    }
    for name, value in names.items():
        index_case(f"shard_{name}", "index.json")(lambda m, value=value: {**m, Q: value})


@index_case("names_a_missing_shard", "model-00003-of-00003.safetensors")
def _(weight_map):
    return {**weight_map, Q: "model-00003-of-00003.safetensors"}


@index_case("names_the_wrong_shard", Q)
def _(weight_map):
    return {**weight_map, Q: weight_map[OTHER]}


@index_case("names_a_tensor_that_no_shard_has", "model.nowhere.weight")
def _(weight_map):
    return {**weight_map, "model.nowhere.weight": weight_map[Q]}


@index_case("leaves_a_tensor_out", Q)
def _(weight_map):
    return {key: value for key, value in weight_map.items() if key != Q}


@case("index_names_a_tensor_twice", 3, "index.json", Q)
def _(c):
    weight_map = c.shards()
    text = json.dumps({"weight_map": {**weight_map, "@": weight_map[Q]}})
    c.index.write_text(text.replace('"@"', f'"{Q}"'))


@case("tensor_in_two_shards", 3, Q)
def _(c):
    weight_map = c.shards()
    tensors = {key: value for key, value in base_tensors().items() if ".layers.0." not in key}
    tensors[Q] = ("BF16", [HIDDEN, HIDDEN])
    (c.base / weight_map[OTHER]).write_bytes(sound_file(tensors))


@case("index_is_a_directory", 3, "index.json")
def _(c):
    c.shards()
    replace_with_directory(c.index)


@case("index_link_dangling", 3, "index.json")
def _(c):
    c.shards()
    replace_with_link(c.index, "nowhere.json")


@case("index_over_the_limit", 3, "index.json")
def _(c):
    c.shards()
    replace_with_hole(c.index, 1 << 30)


def add_broken_shards():
    def broken(name, function):
        def run(c):
            c.shards()
            function(c.base / "model-00002-of-00002.safetensors")
        case(f"shard_{name}", 3, "model-00002-of-00002.safetensors")(run)

    broken("missing", lambda path: path.unlink())
    broken("empty", lambda path: path.write_bytes(b""))
    broken("cut", lambda path: path.write_bytes(path.read_bytes()[:-1]))
    broken("too_long", lambda path: path.write_bytes(path.read_bytes() + b"\0"))
    broken("directory", replace_with_directory)
    broken("fifo", replace_with_fifo)
    broken("link_dangling", lambda path: replace_with_link(path, "gone"))
    broken("link_loop", lambda path: replace_with_link(path, path.name))
    broken("pickle", lambda path: path.write_bytes(PICKLE))


# ---- config.json ----

def add_configs():
    texts = {
        "empty": b"",
        "not_json": b"model_type: llama\n",
        "array": b"[]",
        "string": b'"llama"',
        "unfinished": b'{"model_type": "llama"',
        "bomb": b'{"a":' * 100000,
        "not_utf_8": b'{"model_type": "ll\xffama"}',
        "twice": b'{"model_type":"llama","model_type":"gemma"}',
        "behind_the_object": json.dumps(base_config()).encode() + b"}",
    }
    for name, data in texts.items():
        case(f"config_{name}", 3, "config.json")(
            lambda c, data=data: (c.base / "config.json").write_bytes(data))


@case("config_over_the_limit", 3, "config.json")
def _(c):
    replace_with_hole(c.base / "config.json", 70 << 20)


@case("config_fifo", 3, "config.json")
def _(c):
    replace_with_fifo(c.base / "config.json")


@case("config_link_loop", 3, "config.json")
def _(c):
    replace_with_link(c.base / "config.json", "config.json")


# ---- values: found during the work ----

def base_with(dtype, element):
    tensors = base_tensors()
    tensors[OTHER] = (dtype, [HIDDEN, HIDDEN],
                      element + b"\0" * (len(element) * (HIDDEN * HIDDEN - 1)))
    return tensors


@case("value_nan_in_a_target", 3, OTHER)
def _(c):
    c.write_base(base_with("BF16", NOT_A_NUMBER["BF16"]))


@case("value_infinite_in_a_target", 3, OTHER)
def _(c):
    c.write_base(base_with("F32", INFINITE["F32"]))


@case("value_overflows_f16", 3, OTHER)
def _(c):
    c.write_base(base_with("F32", b"\0\0\x80\x4f"))  # 2^32
    c.extra = ["--dtype", "f16"]


@case("value_nan_that_is_converted", 3, "model.norm.weight")
def _(c):
    tensors = base_tensors()
    tensors["model.norm.weight"] = ("F32", [1], NOT_A_NUMBER["F32"])
    c.write_base(tensors)
    c.extra = ["--dtype", "bf16"]


add_whole_files()
add_headers()
add_index_texts()
add_shard_names()
add_broken_shards()
add_configs()

assert CASES
