"""Every scheme of a base that can be made here, by name."""

import torch

from quantised import (
    AWQ,
    Scheme,
    awq,
    block_config,
    bnb4,
    bnb8,
    ct,
    ct_config,
    fp4_deepseek,
    fp8,
    gptq,
    gptq_config,
    nvfp4_modelopt,
)
from quantised_numbers import HQQ, hqq, mlx, mlx_config

E8M0 = torch.float8_e8m0fnu
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}


def ct_scheme(format_name: str, summary: str, **weights: object) -> Scheme:
    return Scheme(ct(format_name, **weights), ct_config(format_name, **weights), summary, "compressed_tensors")


def bnb_scheme(kind: str, nested: bool, blocksize: int, storage: torch.dtype = torch.uint8) -> Scheme:
    return Scheme(bnb4(kind, nested, blocksize, storage), BNB, f"bitsandbytes {kind}", "bitsandbytes")


def gptq_scheme(bits: int, group_size: int, act_order: bool, less_one: bool) -> Scheme:
    config = gptq_config(bits, group_size, less_one)
    return Scheme(gptq(bits, group_size, act_order, less_one), config, "GPTQ")


def mlx_scheme(bits: int, group_size: int, dtype: torch.dtype = torch.bfloat16) -> Scheme:
    return Scheme(mlx(bits, group_size, dtype), mlx_config(bits, group_size), "MLX", config_key="quantization")


ROWS = "FP8 with scales of rows or tensors"
BLOCKS = "FP8 in blocks"
MODELOPT = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}}
NVFP4_ARGS = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
MXFP4_ARGS = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}
INT4 = {"num_bits": 4, "strategy": "group", "group_size": 32}

SCHEMES = {
    "nf4": bnb_scheme("nf4", False, 64),
    "nf4_nested": bnb_scheme("nf4", True, 64),
    "nf4_nested_wide": bnb_scheme("nf4", True, 128),
    "fp4": bnb_scheme("fp4", False, 256),
    "fp4_nested": bnb_scheme("fp4", True, 64),
    "nf4_bf16_storage": bnb_scheme("nf4", True, 64, torch.bfloat16),
    "nf4_f16_storage": bnb_scheme("nf4", False, 64, torch.float16),
    "nf4_f32_storage": bnb_scheme("nf4", True, 64, torch.float32),
    "int8_rows_bnb": Scheme(
        bnb8, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes int8", "bitsandbytes"
    ),
    "fp8_blocks": Scheme(fp8((32, 32), torch.float32, ".weight_scale_inv"), block_config(32, 32), BLOCKS),
    "fp8_blocks_bf16": Scheme(fp8((32, 32), torch.bfloat16, ".weight_scale_inv"), block_config(32, 32), BLOCKS),
    "fp8_blocks_e8m0": Scheme(fp8((32, 32), E8M0, ".weight_scale_inv"), block_config(32, 32), BLOCKS),
    "fp8_blocks_u8": Scheme(fp8((32, 32), torch.uint8, ".weight_scale_inv"), block_config(32, 32), BLOCKS),
    "fp8_blocks_ragged": Scheme(fp8((24, 40), torch.float32, ".weight_scale_inv"), block_config(24, 40), BLOCKS),
    "fp8_blocks_usual": Scheme(
        fp8((128, 128), torch.float32, ".weight_scale_inv"), {"quant_method": "fp8"}, ROWS
    ),
    "fp8_tensor_static": Scheme(
        fp8((0, 0), torch.float32, ".weight_scale_inv", [], **{".activation_scale": torch.tensor(0.5)}),
        {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}, ROWS,
    ),
    "fp8_rows_fbgemm": Scheme(fp8((1, 0), torch.float32, ".weight_scale"), {"quant_method": "fbgemm_fp8"}, ROWS),
    "fp8_modelopt": Scheme(
        fp8((0, 0), torch.float32, ".weight_scale", [], **{".input_scale": torch.tensor(0.5)}),
        None, ROWS, None, MODELOPT,
    ),
    "mxfp8": Scheme(fp8((1, 32), torch.uint8, ".weight_scale"), {"quant_method": "modelopt"}, BLOCKS),
    "nvfp4_modelopt": Scheme(nvfp4_modelopt, {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4"),
    "fp4_deepseek": Scheme(fp4_deepseek, {"quant_method": "fp8"}, "MXFP4"),
    "ct_fp8_tensor": ct_scheme("float-quantized", ROWS, type="float", strategy="tensor"),
    "ct_fp8_channel": ct_scheme("float-quantized", ROWS, type="float", strategy="channel"),
    "ct_fp8_group": ct_scheme("float-quantized", BLOCKS, type="float", strategy="group", group_size=16),
    "ct_fp8_block": ct_scheme("float-quantized", BLOCKS, type="float", strategy="block", block_structure=[24, 40]),
    "ct_int8_channel": ct_scheme("int-quantized", "integers of 8 bits"),
    "ct_int8_tensor": ct_scheme("int-quantized", "integers of 8 bits", strategy="tensor"),
    "ct_int8_zero_points": ct_scheme("int-quantized", "integers of 8 bits", symmetric=False),
    "ct_w4a16": ct_scheme("pack-quantized", "packed integers", **INT4),
    "ct_w4a16_zero_points": ct_scheme("pack-quantized", "packed integers", **INT4, symmetric=False),
    "ct_w4a16_channel": ct_scheme("pack-quantized", "packed integers", num_bits=4),
    "ct_w4a16_tensor": ct_scheme("pack-quantized", "packed integers", num_bits=4, strategy="tensor"),
    "ct_w3a16": ct_scheme("pack-quantized", "packed integers", num_bits=3, strategy="group", group_size=32),
    "ct_w2a16": ct_scheme("pack-quantized", "packed integers", num_bits=2, strategy="group", group_size=16),
    "ct_w8a16": ct_scheme("pack-quantized", "packed integers", num_bits=8, strategy="group", group_size=64),
    "ct_w8a16_zero_points": ct_scheme("pack-quantized", "packed integers", num_bits=8, symmetric=False),
    "ct_nvfp4": ct_scheme("nvfp4-pack-quantized", "NVFP4", **NVFP4_ARGS),
    "ct_mxfp4": ct_scheme("mxfp4-pack-quantized", "MXFP4", **MXFP4_ARGS),
    "ct_mxfp8": ct_scheme("mxfp8-quantized", BLOCKS, type="float", strategy="group", group_size=32),
    "gptq_4": gptq_scheme(4, 32, False, True),
    "gptq_4_act_order": gptq_scheme(4, 32, True, True),
    "gptq_2": gptq_scheme(2, 16, False, True),
    "gptq_3": gptq_scheme(3, 32, True, True),
    "gptq_8": gptq_scheme(8, 64, False, True),
    "gptq_v2_4": gptq_scheme(4, 32, True, False),
    "gptq_v2_3": gptq_scheme(3, 32, False, False),
    "awq": Scheme(awq(32), AWQ, "AWQ"),
    "hqq_4": Scheme(hqq(4, 32), HQQ, "HQQ"),
    "hqq_4_f16": Scheme(hqq(4, 64, torch.float16), HQQ, "HQQ"),
    "hqq_4_f32": Scheme(hqq(4, 32, torch.float32), HQQ, "HQQ"),
    "hqq_8": Scheme(hqq(8, 64), HQQ, "HQQ"),
    "hqq_1": Scheme(hqq(1, 16), HQQ, "HQQ"),
    "hqq_2": Scheme(hqq(2, 16), HQQ, "HQQ"),
    "hqq_3": Scheme(hqq(3, 32), HQQ, "HQQ"),
    "hqq_3_f16": Scheme(hqq(3, 64, torch.float16), HQQ, "HQQ"),
    "hqq_5": Scheme(hqq(5, 32), HQQ, "HQQ"),
    "hqq_6": Scheme(hqq(6, 64), HQQ, "HQQ"),
    "hqq_4_across_rows": Scheme(hqq(4, 128, torch.float16), HQQ, "HQQ"),
    "hqq_4_axis_0": Scheme(hqq(4, 64, axis=0), HQQ, "HQQ"),
    "hqq_4_axis_0_f32": Scheme(hqq(4, 32, torch.float32, axis=0), HQQ, "HQQ"),
    "hqq_8_axis_0": Scheme(hqq(8, 64, axis=0), HQQ, "HQQ"),
    "hqq_3_axis_0": Scheme(hqq(3, 64, torch.float16, axis=0), HQQ, "HQQ"),
    "hqq_1_axis_0": Scheme(hqq(1, 16, axis=0), HQQ, "HQQ"),
    "mlx_4": mlx_scheme(4, 64),
    "mlx_4_f16": mlx_scheme(4, 32, torch.float16),
    "mlx_4_f32": mlx_scheme(4, 32, torch.float32),
    "mlx_2": mlx_scheme(2, 32),
    "mlx_3": mlx_scheme(3, 64),
    "mlx_5": mlx_scheme(5, 32),
    "mlx_6": mlx_scheme(6, 64, torch.float16),
    "mlx_8": mlx_scheme(8, 32),
}  # fmt: skip
