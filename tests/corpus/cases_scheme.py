"""Broken quantised bases: companions, states, scales, configurations, and schemes that are not decoded."""
# SPDX-License-Identifier: Apache-2.0

import json
import math
import struct

from parts import HIDDEN, base_config, base_tensors, case

STEM = "model.layers.0.self_attn.q_proj"
Q = f"{STEM}.weight"
BITS = {"U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "BF16": 16, "F16": 16, "F32": 32, "I32": 32,
        "U32": 32, "I64": 64, "I16": 16}
ONE = struct.pack("<f", 1.0)
NOT_A_NUMBER = b"\0\0\xc0\x7f"
SIZE = HIDDEN * HIDDEN


def tensor(dtype, shape, data=None):
    """Zeros, if nothing is given."""
    return dtype, shape, data if data is not None else b"\0" * (BITS[dtype] // 8 * math.prod(shape))


def write(c, parts, config=None, extra=None):
    """The sound base with one weight in other parts, named by what stands behind the module."""
    tensors = base_tensors()
    del tensors[Q]
    tensors.update({STEM + end: part for end, part in parts.items()})
    c.write_base(tensors)
    if config is not None:
        c.write_json(c.base / "config.json", base_config() | {"quantization_config": config})
    if extra is not None:
        (c.base / "hf_quant_config.json").write_text(extra)


def add(name, sound, words, config=None, extra=None, **changes):
    """Keys of `changes` are ends with '.' as '__dot__'; a part of None is left out."""
    parts = sound | {key.replace("__dot__", "."): part for key, part in changes.items()}
    parts = {end: part for end, part in parts.items() if part is not None}
    case(f"scheme_{name}", 3, *words)(lambda c: write(c, parts, config, extra))


# ---- bitsandbytes ----


def state(**changes):
    fields = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [HIDDEN, HIDDEN]} | changes
    text = json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()
    return tensor("U8", [len(text)], text)


def nested_state(**changes):
    return state(**({"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5} | changes))


STATE = "__dot__weight__dot__quant_state__dot__bitsandbytes__nf4"
NF4 = {".weight": tensor("U8", [SIZE // 2, 1]), ".weight.absmax": tensor("F32", [SIZE // 64]),
       ".weight.quant_map": tensor("F32", [16]), ".weight.quant_state.bitsandbytes__nf4": state()}
NESTED = NF4 | {".weight.absmax": tensor("U8", [SIZE // 64]), ".weight.nested_absmax": tensor("F32", [1]),
                ".weight.nested_quant_map": tensor("F32", [256]),
                ".weight.quant_state.bitsandbytes__nf4": nested_state()}

for end in (".weight.absmax", ".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map"):
    add(f"nf4_without_{end.rsplit('.')[-1]}", NESTED, [Q, end, "missing"], **{end: None})
add("nf4_without_state", NESTED, ["companion"], **{STATE: None})
add("nf4_without_codes", NESTED, ["missing"], **{".weight": None})
add("nf4_absmax_bf16", NF4, [Q, "forward pass"], **{".weight.absmax": tensor("BF16", [1, SIZE // 64])})
add("nf4_absmax_short", NF4, [Q, "absmax", "[3]", "[4]"], **{".weight.absmax": tensor("F32", [3])})
add("nf4_one_row", NF4, [Q, "transposed"], **{".weight": tensor("U8", [1, SIZE // 2])})
add("nf4_codes_cut", NF4, [Q, "127 bytes"], **{".weight": tensor("U8", [SIZE // 2 - 1, 1])})
STATES = {
    "empty": (tensor("U8", [0]), STATE[-3:]),
    "not_json": (tensor("U8", [4], b"{{{{"), Q),
    "array": (tensor("U8", [2], b"[]"), "object"),
    "twice": (tensor("U8", [26], b'{"blocksize":1,"shape":[],"blocksize":2}'[:26]), Q),
    "type": (state(quant_type="int4"), "quant_type"),
    "other_type": (state(quant_type="fp4"), "another quant_type"),
    "blocksize_0": (state(blocksize=0), "blocksize"),
    "blocksize_other": (state(blocksize=128), "absmax"),
    "blocksize_huge": (state(blocksize=1e300), "blocksize"),
    "dtype": (state(dtype="float64"), "dtype"),
    "shape_null": (state(shape=None), "shape"),
    "shape_negative": (state(shape=[-16, -16]), "shape"),
    "shape_huge": (state(shape=[2**53, 2**53]), "overflows"),
    "field": (state(more=1), "more"),
    "nested_fields": (nested_state(), "nested"),
}
for name, (value, word) in STATES.items():
    add(f"nf4_state_{name}", NF4, [Q, word], **{STATE: value})
add("nf4_nested_bf16", NESTED, [Q, "forward pass"], **{STATE: nested_state(nested_dtype="bfloat16")})
add("nf4_nested_offset_nan", NESTED, [Q, "nested_offset"], **{STATE: nested_state(nested_offset=math.nan)})
add("nf4_nested_offset_huge", NESTED, [Q, "nested_offset"], **{STATE: nested_state(nested_offset=1e39)})

INT8 = {".weight": tensor("I8", [HIDDEN, HIDDEN]), ".SCB": tensor("F32", [HIDDEN])}
add("int8_scb_short", INT8, [Q, ".SCB"], **{".SCB": tensor("F32", [HIDDEN - 1])})
add("int8_format", INT8, [Q, "weight_format"], **{".weight_format": tensor("U8", [], b"\2")})

# ---- 8 bits ----

FP8 = {".weight": tensor("F8_E4M3", [HIDDEN, HIDDEN]), ".weight_scale_inv": tensor("F32", [2, 2])}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [8, 8]}
add("fp8_scale_misshapen", FP8, [Q, "[3, 2]"], BLOCKS, **{".weight_scale_inv": tensor("F32", [3, 2])})
add("fp8_scale_dtype", FP8, [Q, "I32"], BLOCKS, **{".weight_scale_inv": tensor("I32", [2, 2])})
add("fp8_scale_nan", FP8, [Q, "nan"], BLOCKS, **{".weight_scale_inv": tensor("F32", [], NOT_A_NUMBER)})
add("fp8_scale_missing", FP8, [Q, "F8_E4M3"], BLOCKS, **{".weight_scale_inv": None})
add("fp8_weight_missing", FP8, ["companion"], BLOCKS, **{".weight": None})
add("fp8_block_0", FP8, ["weight_block_size"], BLOCKS | {"weight_block_size": [0, 8]})
add("fp8_block_of_three", FP8, ["weight_block_size"], BLOCKS | {"weight_block_size": [8, 8, 8]})
add("fp8_e5m2", FP8, [Q, "F8_E5M2"], BLOCKS, **{".weight": tensor("F8_E5M2", [HIDDEN, HIDDEN])})
add("w8a8_zero_points", {".weight": INT8[".weight"], ".weight_scale": tensor("BF16", [HIDDEN, 1])},
    [Q, "zero points"], **{".weight_zero_point": tensor("I8", [3, 1])})

# ---- 4 bits ----

NVFP4 = {".weight": tensor("U8", [HIDDEN, HIDDEN // 2]), ".weight_scale": tensor("F8_E4M3", [HIDDEN, 1]),
         ".weight_scale_2": tensor("F32", [], ONE)}
MODELOPT = {"quant_method": "modelopt"}
add("nvfp4_swizzled", NVFP4, [Q, "swizzled"], MODELOPT, **{".weight_scale": tensor("F8_E4M3", [128, 4])})
add("nvfp4_whole_missing", NVFP4, [Q, "weight_scale_2"], MODELOPT, **{".weight_scale_2": None})
add("nvfp4_whole_zero", NVFP4, [Q, "0"], MODELOPT, **{".weight_scale_2": tensor("F32", [])})
add("nvfp4_whole_nan", NVFP4, [Q, "nan"], MODELOPT, **{".weight_scale_2": tensor("F32", [], NOT_A_NUMBER)})
add("nvfp4_smoothed", NVFP4, [Q, "pre_quant_scale"], MODELOPT, **{".pre_quant_scale": tensor("BF16", [HIDDEN])})

PACKED = {".weight_packed": tensor("I32", [HIDDEN, 2]), ".weight_scale": tensor("BF16", [HIDDEN, 1]),
          ".weight_shape": tensor("I64", [2], struct.pack("<2q", HIDDEN, HIDDEN))}
INT4 = {"quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": None}}}}
add("packed_shape_missing", PACKED, ["weight_shape", "missing"], INT4, **{".weight_shape": None})
add("packed_shape_negative", PACKED, [STEM], INT4,
    **{".weight_shape": tensor("I64", [2], struct.pack("<2q", HIDDEN, -1))})
add("packed_shape_other", PACKED, [STEM, "rows"], INT4,
    **{".weight_shape": tensor("I64", [2], struct.pack("<2q", 8, 32))})
add("packed_g_idx", PACKED, ["weight_g_idx"], INT4, **{".weight_g_idx": tensor("I32", [HIDDEN])})

GPTQ = {".qweight": tensor("I32", [2, HIDDEN]), ".qzeros": tensor("I32", [1, 2]), ".scales": tensor("F16", [1, HIDDEN]),
        ".g_idx": tensor("I32", [HIDDEN])}
CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": -1}
add("gptq_without_config", GPTQ, [f"{STEM}.qweight", "GPTQ"])
add("gptq_without_zeros", GPTQ, [f"{STEM}.qzeros", "missing"], CONFIG, **{".qzeros": None})
add("gptq_bits", GPTQ, [f"{STEM}.qweight", "8 bits"], CONFIG | {"bits": 8})
add("gptq_bits_word", GPTQ, ["bits"], CONFIG | {"bits": "4"})
add("gptq_marlin", GPTQ, ["marlin"], CONFIG | {"checkpoint_format": "marlin"})
add("awq_gemv", {".qweight": tensor("I32", [HIDDEN, 2]), ".qzeros": GPTQ[".qzeros"], ".scales": GPTQ[".scales"]},
    ["gemv"], {"quant_method": "awq", "version": "gemv"})

# ---- zero points and biases that are numbers ----


def number(value, dtype="I32"):
    return tensor(dtype, [], struct.pack("<i" if dtype == "I32" else "<B", value))


def word(text):
    return tensor("U8", [len(text)], text.encode())


def shape_of(*sizes):
    return tensor("I64", [len(sizes)], struct.pack(f"<{len(sizes)}q", *sizes))


HQQ = {".W_q": tensor("U8", [HIDDEN // 2, HIDDEN]), ".scale": tensor("F16", [HIDDEN, 1]),
       ".zero": tensor("F16", [HIDDEN, 1]), ".nbits": number(4), ".group_size": number(HIDDEN), ".axis": number(1),
       ".view_as_float": number(0, "U8"), ".quant_scale": number(0, "U8"), ".quant_zero": number(0, "U8"),
       ".packing": word("4bit_u8"), ".compute_dtype": word("torch.float16"), ".shape": shape_of(HIDDEN, HIDDEN)}
W_Q = f"{STEM}.W_q"
for end in (".scale", ".zero", ".nbits", ".packing", ".shape"):
    add(f"hqq_without_{end[1:]}", HQQ, [W_Q, end, "missing"], **{end: None})
add("hqq_without_codes", HQQ, ["companion", "missing"], **{".W_q": None})
add("hqq_scales_along_other_axis", HQQ, [W_Q, ".scale", "[16, 1]", "[1, 16]"], **{".axis": number(0)})
add("hqq_axis_2", HQQ, [W_Q, "axis 2"], **{".axis": number(2)})
add("hqq_3_bits", HQQ, [W_Q, "3 bits"], **{".nbits": number(3)})
add("hqq_group_0", HQQ, [W_Q, "groups of 0"], **{".group_size": number(0)})
add("hqq_group_negative", HQQ, [W_Q, "groups"], **{".group_size": number(-1)})
add("hqq_numbers_of_two", HQQ, [W_Q, "one number"], **{".nbits": tensor("I32", [2])})
add("hqq_numbers_of_none", HQQ, [W_Q, "one number"], **{".nbits": tensor("I32", [0])})
add("hqq_packing_empty", HQQ, [W_Q, "packing"], **{".packing": word("")})
add("hqq_packing_long", HQQ, [W_Q, "packing"], **{".packing": word("4bit_u8" * 9)})
add("hqq_shape_huge", HQQ, [W_Q, "overflows"], **{".shape": shape_of(2**62, 2**62)})
add("hqq_shape_negative", HQQ, [W_Q], **{".shape": shape_of(-HIDDEN, -HIDDEN)})
add("hqq_shape_empty", HQQ, [W_Q], **{".shape": shape_of(0, 0)})
add("hqq_codes_short", HQQ, [W_Q, "codes"], **{".W_q": tensor("U8", [HIDDEN // 2 - 1, HIDDEN])})
add("hqq_as_float", HQQ, [W_Q, "F32"], **{".W_q": tensor("F32", [HIDDEN // 2, HIDDEN // 4])})
add("hqq_zero_nan", HQQ, [Q, "finite"], **{".zero": tensor("F16", [HIDDEN, 1], b"\0\x7e" * HIDDEN)})

MLX = {".weight": tensor("U32", [HIDDEN, 2]), ".scales": tensor("F16", [HIDDEN, 1]),
       ".biases": tensor("F16", [HIDDEN, 1])}
MLX_SIZES = {"bits": 4, "group_size": HIDDEN}
add("mlx_without_config", MLX, [Q, "MLX"])
add("mlx_without_biases", MLX, [Q, "MLX", "affine"], MLX_SIZES, **{".biases": None})
add("mlx_without_codes", MLX, ["companion"], MLX_SIZES, **{".weight": None})
add("mlx_bits_0", MLX, ["bits"], MLX_SIZES | {"bits": 0})
add("mlx_bits_7", MLX, [Q, "MLX"], MLX_SIZES | {"bits": 7})
add("mlx_group_huge", MLX, [Q, "MLX"], MLX_SIZES | {"group_size": 2**31 - 1})
add("mlx_scales_flat", MLX, [Q, "[16, 1]"], MLX_SIZES, **{".scales": tensor("F16", [HIDDEN])})
add("mlx_biases_dtype", MLX, [Q, "F32"], MLX_SIZES, **{".biases": tensor("F32", [HIDDEN, 1])})
add("mlx_bias_nan", MLX, [Q, "finite"], MLX_SIZES, **{".biases": tensor("F16", [HIDDEN, 1], b"\0\x7e" * HIDDEN)})

# ---- numbers that are none, in scales and in codes, found when they are decoded ----


def with_last(part, number):
    """The part with `number` as its last element, and ones before it."""
    dtype, shape, data = part
    one = {1: b"\x38", 2: b"\x00\x3c", 4: ONE}[len(number)]
    count = len(data) // len(number)
    return tensor(dtype, shape, one * (count - 1) + number)


INFINITY, HALF_NAN = struct.pack("<f", math.inf), b"\0\x7e"
INT8_ROWS = {".weight": INT8[".weight"], ".weight_scale": tensor("F32", [HIDDEN, 1])}
AWQ = {".qweight": tensor("I32", [HIDDEN, 2]), ".qzeros": GPTQ[".qzeros"], ".scales": GPTQ[".scales"]}
TORCHAO = {"._weight_qdata": tensor("I8", [HIDDEN, HIDDEN]), "._weight_scale": tensor("F32", [HIDDEN, 1])}
NOT_FINITE = {
    "nf4_absmax": (NF4, None, ".weight.absmax", NOT_A_NUMBER),
    "nf4_absmax_inf": (NF4, None, ".weight.absmax", INFINITY),
    "nf4_nested_absmax": (NESTED, None, ".weight.nested_absmax", NOT_A_NUMBER),
    "nf4_nested_map": (NESTED | {".weight.absmax": tensor("U8", [4], b"\xff" * 4)}, None, ".weight.nested_quant_map",
                       NOT_A_NUMBER),
    "int8_scb": (INT8, None, ".SCB", INFINITY),
    "int8_rows": (INT8_ROWS, None, ".weight_scale", NOT_A_NUMBER),
    "fp8_block": (FP8, BLOCKS, ".weight_scale_inv", NOT_A_NUMBER),
    "fp8_code": (FP8, BLOCKS, ".weight", b"\x7f"),
    "fp8_e8m0": (FP8 | {".weight_scale_inv": tensor("F8_E8M0", [2, 2])}, BLOCKS, ".weight_scale_inv", b"\xff"),
    "nvfp4_block": (NVFP4, MODELOPT, ".weight_scale", b"\x7f"),
    "packed": (PACKED | {".weight_scale": tensor("F32", [HIDDEN, 1])}, INT4, ".weight_scale", INFINITY),
    "gptq": (GPTQ, CONFIG, ".scales", HALF_NAN),
    "awq": (AWQ, {"quant_method": "awq"}, ".scales", HALF_NAN),
    "hqq": (HQQ, None, ".scale", HALF_NAN),
    "mlx": (MLX, MLX_SIZES, ".scales", HALF_NAN),
    "torchao": (TORCHAO, {"quant_method": "torchao"}, "._weight_scale", NOT_A_NUMBER),
}
for name, (parts, config, end, number) in NOT_FINITE.items():
    add(f"not_finite_{name}", parts, [Q, "finite"], config, **{end: with_last(parts[end], number)})

# ---- not decoded ----

WEIGHT = tensor("I8", [HIDDEN, HIDDEN])
add("aqlm", {".codes": WEIGHT, ".codebooks": tensor("F16", [4])}, ["AQLM"])
add("eetq", {".weight": WEIGHT, ".weight_scales": tensor("F16", [4])}, ["EETQ"])
add("unknown", {".weight": WEIGHT}, [Q, "newest"], {"quant_method": "newest"})
add("config_number", {".weight": WEIGHT}, ["quantization_config"], 4)
add("extra_damaged", NVFP4, ["hf_quant_config.json"], MODELOPT, '{"quantization": ')

# ---- sound, so that the one broken thing is what refuses the others ----

SOUND = {"nf4": (NF4, None), "nf4_nested": (NESTED, None), "int8": (INT8, None), "fp8": (FP8, BLOCKS),
         "nvfp4": (NVFP4, MODELOPT), "packed": (PACKED, INT4), "gptq": (GPTQ, CONFIG), "hqq": (HQQ, None), "mlx": (MLX, MLX_SIZES)}
for name, (parts, config) in SOUND.items():
    case(f"scheme_sound_{name}", 0)(lambda c, parts=parts, config=config: write(c, parts, config))
