"""Broken adapters, adapters that do not fit their base, and commands that cannot be run."""
# SPDX-License-Identifier: Apache-2.0

import json
import shutil
import zipfile

from parts import (CASES, HIDDEN, INFINITE, KV_HIDDEN, LFS_POINTER, NOT_A_NUMBER, PICKLE, RANK,
                   TORCH_ZIP, adapter_config, adapter_tensors, base_tensors, case, factors, raw_file,
                   replace_with_directory, replace_with_fifo, replace_with_hole, replace_with_link,
                   sound_file, torch_file)

CONFIG = "adapter_config.json"
FILE = "adapter_model.safetensors"
MODULE = "model.layers.0.self_attn.q_proj"
KEY_A = f"base_model.model.{MODULE}.lora_A.weight"
KEY_B = f"base_model.model.{MODULE}.lora_B.weight"


# ---- adapter_config.json ----

def add_config_texts():
    sound = json.dumps(adapter_config("base"))
    texts = {
        "empty": b"",
        "not_json": b"r: 16\n",
        "array": b"[]",
        "null": b"null",
        "unfinished": sound.encode()[:-1],
        "behind_the_object": sound.encode() + b"{}",
        "byte_order_mark": b"\xef\xbb\xbf" + sound.encode(),
        "not_utf_8": sound.encode().replace(b"q_proj", b"q\xffproj"),
        "nul_in_a_name": sound.encode().replace(b"q_proj", b"q\\u0000proj"),
        "raw_nul": sound.encode().replace(b"q_proj", b"q\0proj"),
        "r_twice": sound.encode()[:-1] + b',"r":8}',
        "bomb_of_arrays": b'{"peft_type":"LORA","r":' + b"[" * 500000,
        "bomb_of_objects": b'{"a":' * 500000,
        "only_nul": b"\0" * 4096,
    }
    for name, data in texts.items():
        case(f"adapter_config_{name}", 3, CONFIG)(
            lambda c, data=data: (c.adapter / CONFIG).write_bytes(data))


def add_config_fields():
    fields = {
        "peft_type_missing": ("peft_type", ...),
        "peft_type_unknown": ("peft_type", "QUANTUM_LORA"),
        "peft_type_prompt_tuning": ("peft_type", "PROMPT_TUNING"),
        "peft_type_number": ("peft_type", 7),
        "peft_type_null": ("peft_type", None),
        "peft_type_ia3": ("peft_type", "IA3"),
        "peft_type_xlora": ("peft_type", "XLORA"),
        "r_0": ("r", 0),
        "r_negative": ("r", -16),
        "r_float": ("r", 4.5),
        "r_string": ("r", "4"),
        "r_null": ("r", None),
        "r_true": ("r", True),
        "r_list": ("r", [4]),
        "r_1e9": ("r", 10**9),
        "r_2_64": ("r", 2**64),
        "alpha_nan": ("lora_alpha", float("nan")),
        "alpha_infinite": ("lora_alpha", float("inf")),
        "alpha_minus_infinite": ("lora_alpha", float("-inf")),
        "alpha_string": ("lora_alpha", "8"),
        "alpha_null": ("lora_alpha", None),
        "alpha_list": ("lora_alpha", [8]),
        "alpha_true": ("lora_alpha", True),
        "rank_pattern_list": ("rank_pattern", ["q_proj"]),
        "rank_pattern_string": ("rank_pattern", "q_proj"),
        "rank_pattern_0": ("rank_pattern", {"q_proj": 0}),
        "rank_pattern_text": ("rank_pattern", {"q_proj": "4"}),
        "rank_pattern_float": ("rank_pattern", {"q_proj": 4.5}),
        "rank_pattern_not_a_pattern": ("rank_pattern", {"q_(proj": 4}),
        "alpha_pattern_list": ("alpha_pattern", [1]),
        "alpha_pattern_nan": ("alpha_pattern", {"q_proj": float("nan")}),
        "alpha_pattern_text": ("alpha_pattern", {"q_proj": "8"}),
        "alpha_pattern_not_a_pattern": ("alpha_pattern", {"q[proj": 8}),
        "target_modules_number": ("target_modules", 7),
        "target_modules_list_of_numbers": ("target_modules", [7]),
        "target_modules_object": ("target_modules", {"q_proj": True}),
        "target_modules_not_a_pattern": ("target_modules", "*q_proj"),
        "target_modules_open_group": ("target_modules", ".*(q_proj"),
        "use_rslora_text": ("use_rslora", "yes"),
        "fan_in_fan_out_number": ("fan_in_fan_out", 2),
        "use_dora_text": ("use_dora", "yes"),
        "lora_bias_number": ("lora_bias", 1),
        "bias_unknown": ("bias", "some"),
        "ensure_weight_tying_text": ("ensure_weight_tying", "true"),
        "modules_to_save_string": ("modules_to_save", "lm_head"),
        "modules_to_save_numbers": ("modules_to_save", [1]),
        "modules_to_save_empty_name": ("modules_to_save", [""]),
        "modules_to_save_too_many": ("modules_to_save", [f"n{i}" for i in range(5000)]),
        "token_indices_string": ("trainable_token_indices", "3"),
        "token_indices_negative": ("trainable_token_indices", [-1]),
        "token_indices_2_32": ("trainable_token_indices", [2**32]),
        "token_indices_2_64": ("trainable_token_indices", {"embed_tokens": [2**64]}),
        "token_indices_twice": ("trainable_token_indices", {"embed_tokens": [5, 6, 5]}),
        "token_indices_no_list": ("trainable_token_indices", {"embed_tokens": 5}),
        "target_parameters_string": ("target_parameters", "mlp.experts.gate_up_proj"),
        "target_parameters_numbers": ("target_parameters", [7]),
        "layer_replication_flat": ("layer_replication", [0, 2]),
        "layer_replication_backwards": ("layer_replication", [[2, 0]]),
        "layer_replication_negative": ("layer_replication", [[-1, 1]]),
        "layer_replication_bomb": ("layer_replication", [[0, 100000]] * 1000),
        "layer_replication_2_63": ("layer_replication", [[0, 2**63]]),
        "bdlora_true": ("use_bdlora", True),
        "bdlora_no_blocks": ("use_bdlora", {"nblocks": 0}),
        "bdlora_name_in_both": ("use_bdlora", {"nblocks": 2, "target_modules_bd_a": ["q_proj"],
                                               "target_modules_bd_b": ["q_proj"]}),
        "qalora": ("use_qalora", True),
        "kasa": ("kasa_config", {}),
        "alora": ("alora_invocation_tokens", [1, 2]),
        "arrow": ("arrow_config", {"top_k": 3}),
        "init_pissa": ("init_lora_weights", "pissa"),
        "init_lora_ga": ("init_lora_weights", "lora_ga"),
        "init_unknown": ("init_lora_weights", "future"),
        "layers_to_transform_text": ("layers_to_transform", "first"),
        "base_name_is_a_number": ("base_model_name_or_path", 7),
    }
    for name, (field, value) in fields.items():
        case(f"adapter_{name}", 3, CONFIG, field)(
            lambda c, field=field, value=value: c.change_config(**{field: value}))


@case("adapter_dora_with_a_bias_on_b", 3, CONFIG, "use_dora", "lora_bias")
def _(c):
    c.change_config(use_dora=True, lora_bias=True)


@case("adapter_dora_of_a_parameter", 3, CONFIG, "use_dora", "target_parameters")
def _(c):
    c.change_config(use_dora=True, target_parameters=["mlp.experts.gate_up_proj"])


@case("adapter_tokens_of_a_saved_module", 3, CONFIG, "trainable_token_indices", "embed_tokens")
def _(c):
    c.change_config(trainable_token_indices={"embed_tokens": [1]}, modules_to_save=["embed_tokens"])


@case("adapter_tokens_without_tokens", 3, CONFIG, "token_indices")
def _(c):
    c.change_config(peft_type="TRAINABLE_TOKENS", token_indices=[])


@case("adapter_alpha_1e999", 3, CONFIG, "lora_alpha")
def _(c):
    c.literal_config("lora_alpha", "1e999")


@case("adapter_r_of_100000_digits", 3, CONFIG)
def _(c):
    c.literal_config("r", "9" * 100000)


@case("adapter_config_missing", 3, CONFIG)
def _(c):
    (c.adapter / CONFIG).unlink()


@case("adapter_config_directory", 3, CONFIG)
def _(c):
    replace_with_directory(c.adapter / CONFIG)


@case("adapter_config_fifo", 3, CONFIG)
def _(c):
    replace_with_fifo(c.adapter / CONFIG)


@case("adapter_config_link_dangling", 3, CONFIG)
def _(c):
    replace_with_link(c.adapter / CONFIG, "gone.json")


@case("adapter_config_link_loop", 3, CONFIG)
def _(c):
    replace_with_link(c.adapter / CONFIG, CONFIG)


@case("adapter_config_over_the_limit", 3, CONFIG)
def _(c):
    replace_with_hole(c.adapter / CONFIG, 70 << 20)


@case("adapter_pattern_that_takes_for_ever", 3)
def _(c):
    c.change_config(target_modules="(.*.*)*(.*.*)*(.*.*)*(.*.*)*(.*.*)*q")


@case("adapter_is_an_empty_directory", 3, CONFIG)
def _(c):
    (c.adapter / CONFIG).unlink()
    c.factors.unlink()


@case("adapter_is_a_model", 3, CONFIG)
def _(c):
    c.arguments = ["merge", c.base, "-a", c.base, "-o", c.out, "-q"]


# ---- the weights file ----

def add_weight_files():
    files = {
        "empty": b"",
        "pickle": PICKLE,
        "torch_zip": TORCH_ZIP,
        "git_lfs_pointer": LFS_POINTER,
        "length_2_63": raw_file("{}", length=1 << 63),
        "header_cut": sound_file(adapter_tensors())[:100],
        "data_cut": sound_file(adapter_tensors())[:-4],
        "data_too_long": sound_file(adapter_tensors()) + b"\0",
        "not_json": raw_file("not json at all", b"\0" * 64),
        "name_with_nul": raw_file('{"a\\u0000.lora_A.weight":{"dtype":"F32","shape":[1],'
                                  '"data_offsets":[0,4]}}', b"\0" * 4),
    }
    for name, data in files.items():
        case(f"factors_{name}", 3, FILE)(lambda c, data=data: c.factors.write_bytes(data))


@case("factors_missing", 3, FILE)
def _(c):
    c.factors.unlink()


# ---- the weights file of torch.save() ----

TORCH_FILE = "adapter_model.bin"


def add_torch_files():
    zeros = b"\0" * 16
    tensor = (b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
              b"X\x01\0\0\0%sX\x03\0\0\0cpuK\x04tQK\0K\x04\x85K\x01\x85\x89}tR")
    sound = torch_file(b"\x80\x02}X\x01\0\0\0a" + tensor % b"0" + b"s.", [zeros])
    files = {
        "empty": b"",
        "pickle": PICKLE,
        "zip_cut": sound[:-30],
        "zip_without_end": TORCH_ZIP,
        "safetensors": sound_file(adapter_tensors()),
        "git_lfs_pointer": LFS_POINTER,
        "not_factors": sound,
        "runs_a_command": torch_file(b"\x80\x02}X\x01\0\0\0acposix\nsystem\n"
                                     b"X\x05\0\0\0false\x85Rs."),
        "storage_missing": torch_file(b"\x80\x02}X\x01\0\0\0a" + tensor % b"1" + b"s.", [zeros]),
        "storage_too_short": torch_file(b"\x80\x02}X\x01\0\0\0a" + tensor % b"0" + b"s.",
                                        [zeros[:8]]),
        "holds_a_list": torch_file(b"\x80\x02]."),
        "deep": torch_file(b"\x80\x02" + b"(" * 1000000 + b"t" * 1000000 + b"."),
        "memo_far": torch_file(b"\x80\x02}r\xff\xff\xff\xff."),
        "big_endian": torch_file(b"\x80\x02}.", byteorder="big"),
        "torchscript": torch_file(b"\x80\x02}.", **{"constants.pkl": b"\x80\x02)."}),
        "compressed": torch_file(b"\x80\x02}.", compression=zipfile.ZIP_DEFLATED),
    }
    for name, data in files.items():
        # The sentence about "not_factors" names the tensor, and no file.
        case(f"torch_{name}", 3, "'a'" if name == "not_factors" else TORCH_FILE)(
            lambda c, data=data: c.replace_factors(data))


@case("torch_link_dangling", 3, TORCH_FILE)
def _(c):
    c.factors.unlink()
    (c.adapter / TORCH_FILE).symlink_to("gone")


@case("adapters_below", 2, "'one', 'two'")
def _(c):
    for name in ("one", "two"):
        shutil.copytree(c.adapter, c.folder / "several" / name)
    c.arguments = ["merge", c.base, "-a", c.folder / "several", "-o", c.out, "-q"]


@case("factors_directory", 3, FILE)
def _(c):
    replace_with_directory(c.factors)


@case("factors_fifo", 3, FILE)
def _(c):
    replace_with_fifo(c.factors)


@case("factors_link_dangling", 3, FILE)
def _(c):
    replace_with_link(c.factors, "gone")


@case("factors_link_loop", 3, FILE)
def _(c):
    replace_with_link(c.factors, FILE)


# ---- factors ----

def changed(**changes):
    tensors = adapter_tensors()
    for key, value in changes.items():
        name = {"a": KEY_A, "b": KEY_B}[key]
        if value is ...:
            del tensors[name]
        else:
            tensors[name] = value
    return tensors


def add_factors():
    shapes = {
        "a_without_b": {"b": ...},
        "b_without_a": {"a": ...},
        "ranks_differ": {"a": ("F32", [RANK, HIDDEN]), "b": ("F32", [HIDDEN, 2 * RANK])},
        "rank_is_not_the_configured_one": {"a": ("F32", [2, HIDDEN]), "b": ("F32", [HIDDEN, 2])},
        "rank_0": {"a": ("F32", [0, HIDDEN]), "b": ("F32", [HIDDEN, 0])},
        "a_of_one_dimension": {"a": ("F32", [RANK * HIDDEN])},
        "a_of_no_dimension": {"a": ("F32", [])},
        "b_of_three_dimensions": {"b": ("F32", [HIDDEN, RANK, 1])},
        "a_of_integers": {"a": ("I8", [RANK, HIDDEN])},
        "b_of_f64": {"b": ("F64", [HIDDEN, RANK])},
    }
    for name, changes in shapes.items():
        case(f"factors_{name}", 3, MODULE)(
            lambda c, changes=changes: c.write_factors(changed(**changes)))


@case("factors_two_spellings_of_one", 3, MODULE, "two")
def _(c):
    again = KEY_A.replace("lora_A.", "lora_A.default.")
    c.write_factors({**adapter_tensors(), again: ("F32", [RANK, HIDDEN])})


@case("factors_none", 3, "adapter")
def _(c):
    c.write_factors({})


@case("factors_swapped", 3, MODULE)
def _(c):
    c.write_factors(changed(a=("F32", [HIDDEN, RANK]), b=("F32", [RANK, HIDDEN])))


@case("factors_nan", 3, "model.layers.0.self_attn.q_proj.weight")
def _(c):
    rest = b"\0" * (4 * (RANK * HIDDEN - 1))
    c.write_factors(changed(a=("F32", [RANK, HIDDEN], NOT_A_NUMBER["F32"] + rest)))


@case("factors_infinite", 3, "model.layers.0.self_attn.q_proj.weight")
def _(c):
    rest = b"\0" * (4 * (RANK * HIDDEN - 1))
    c.write_factors(changed(b=("F32", [HIDDEN, RANK], INFINITE["F32"] + rest)))


# ---- keys ----

def with_tensors(tensors):
    return {**adapter_tensors(), **{name: (dtype, shape) for name, dtype, shape in tensors}}


def add_keys():
    module = f"base_model.model.{MODULE}"
    layer = "base_model.model.model.layers.0"
    vector = "F32", [HIDDEN]
    cases = {
        "wrapped_and_plain": (3, "two", [(KEY_A.replace("layers", "_orig_mod.layers"), "F32", [RANK, HIDDEN])]),
        "prefix_missing_and_not": (3, "two", [(f"{MODULE}.lora_B.weight", "F32", [HIDDEN, RANK])]),
        "prefix_twice_and_once": (3, "two", [(f"base_model.model.{KEY_A}", "F32", [RANK, HIDDEN])]),
        "another_adapter": (3, "lora_A.second", [(f"{module}.lora_A.second.weight", "F32", [RANK, HIDDEN])]),
        "magnitude_without_dora": (3, "use_dora", [(f"{module}.lora_magnitude_vector", *vector)]),
        "bias_of_b_without_lora_bias": (3, "lora_bias", [(f"{module}.lora_B.bias", *vector)]),
        "kasa": (3, "KaSA", [(f"{module}.lora_diag", "F32", [RANK])]),
        "lone_magnitude": (3, "k_proj", [(f"{layer}.self_attn.k_proj.lora_magnitude_vector", *vector)]),
        "half_an_embedding": (3, "embed_tokens", [("base_model.model.e.embed_tokens.lora_embedding_A", "F32",
                                                   [RANK, HIDDEN])]),
        "embedding_and_linear_in_one": (3, MODULE, [(f"{module}.lora_embedding_B", "F32", [HIDDEN, RANK])]),
        "only_the_original": (3, "original_module", [(f"{layer}.norm.original_module.weight", *vector)]),
        "head_twice": (3, "both", [("base_model.model.lm_head.weight", *vector),
                                   ("base_model.model.module.lm_head.weight", *vector)]),
        "copy_of_another_shape": (3, MODULE, [(f"{module}.base_layer.weight", "F32", [HIDDEN, RANK])]),
        "copy_of_integers": (3, MODULE, [(f"{module}.base_layer.weight", "I8", [HIDDEN, HIDDEN])]),
        "no_module": (3, "spelled", [("base_model.model.lora_A.weight", "F32", [RANK, HIDDEN])]),
        "only_dots": (3, "spelled", [("." * 4000, *vector)]),
        "only_wrappers": (3, "spelled", [("_orig_mod." * 300 + "base_layer", *vector)]),
        "nothing_between_dots": (3, "spelled", [("base_model.model.a..lora_A.weight", "F32", [RANK, HIDDEN])]),
        "kohya": (3, "spelled", [("lora_unet_x.lora_down.weight", "F32", [RANK, HIDDEN])]),
        "saved_and_not_configured": (4, "modules_to_save", [("base_model.model.model.norm.weight", *vector)]),
        "bias_and_not_configured": (4, "bias", [(f"{module}.base_layer.bias", *vector)]),
        "tokens_and_not_configured": (4, "trainable_token_indices", [
            ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "F32", [1, HIDDEN])]),
        "parameter_and_not_configured": (4, "target_parameters", [
            (f"{layer}.mlp.experts.base_layer.lora_A.weight", "F32", [RANK, HIDDEN]),
            (f"{layer}.mlp.experts.base_layer.lora_B.weight", "F32", [HIDDEN, RANK])]),
        "nested_without_end": (4, "target_parameters", [
            ("base_model.model.x" + ".base_layer" * 300 + ".lora_A.weight", "F32", [RANK, HIDDEN]),
            ("base_model.model.x" + ".base_layer" * 300 + ".lora_B.weight", "F32", [HIDDEN, RANK])]),
    }
    for name, (code, word, tensors) in cases.items():
        case(f"keys_{name}", code, word)(
            lambda c, tensors=tensors: c.write_factors(with_tensors(tensors)))


@case("keys_kernel_in_b", 3, MODULE)
def _(c):
    c.write_factors(changed(a=("F32", [RANK, HIDDEN, 3]), b=("F32", [HIDDEN, RANK, 3])))


@case("keys_six_dimensions", 3, MODULE)
def _(c):
    c.write_factors(changed(a=("F32", [RANK, HIDDEN, 1, 1, 1, 1]), b=("F32", [HIDDEN, RANK, 1, 1, 1, 1])))


# ---- adapters that are sound and do not fit ----

def with_module(module, rows, cols):
    return {**adapter_tensors(), **factors(module, rows, cols)}


@case("mismatch_module_not_in_the_base", 4, "model.layers.9.self_attn.q_proj")
def _(c):
    c.write_factors(with_module("model.layers.9.self_attn.q_proj", HIDDEN, HIDDEN))


@case("mismatch_names_of_another_architecture", 4, "transformer.h.0.attn.q_proj")
def _(c):
    c.write_factors(factors("transformer.h.0.attn.q_proj", HIDDEN, HIDDEN))


@case("mismatch_rows", 4, MODULE)
def _(c):
    c.write_factors(changed(b=("F32", [HIDDEN + 1, RANK])))


@case("mismatch_columns", 4, MODULE)
def _(c):
    c.write_factors(changed(a=("F32", [RANK, HIDDEN - 1])))


@case("mismatch_columns_1", 4, MODULE)
def _(c):
    c.write_factors(changed(a=("F32", [RANK, 1])))


@case("mismatch_transposed", 4, "model.layers.0.self_attn.v_proj")
def _(c):
    c.write_factors(with_module("model.layers.0.self_attn.v_proj", HIDDEN, KV_HIDDEN))


@case("mismatch_wider_model", 4, "self_attn.q_proj")
def _(c):
    tensors = {}
    for layer in range(4):
        tensors.update(factors(f"model.layers.{layer}.self_attn.q_proj", 2 * HIDDEN, 2 * HIDDEN))
    c.write_factors(tensors)


@case("mismatch_deeper_model", 4, "model.layers.2.self_attn.q_proj")
def _(c):
    tensors = {}
    for layer in range(3):
        tensors.update(factors(f"model.layers.{layer}.self_attn.q_proj", HIDDEN, HIDDEN))
    c.write_factors(tensors)


@case("mismatch_target_of_one_dimension", 4, "model.norm")
def _(c):
    c.change_config(target_modules=["q_proj", "v_proj", "norm"])
    c.write_factors(with_module("model.norm", HIDDEN, HIDDEN))


@case("factors_for_a_target_of_integers", 3, MODULE)
def _(c):
    tensors = base_tensors()
    tensors[f"{MODULE}.weight"] = ("I8", [HIDDEN, HIDDEN])
    c.write_base(tensors)


@case("mismatch_module_that_is_not_targeted", 4, "model.layers.0.self_attn.o_proj")
def _(c):
    c.write_factors(with_module("model.layers.0.self_attn.o_proj", HIDDEN, HIDDEN))


@case("factors_and_a_tensor_that_is_none", 3, "base_model.model.what_is_this")
def _(c):
    c.write_factors({**adapter_tensors(), "base_model.model.what_is_this": ("F32", [3])})


@case("mismatch_prefix_twice", 4, f"model.{MODULE}")
def _(c):
    c.write_factors(with_module(f"model.{MODULE}", HIDDEN, HIDDEN))


@case("mismatch_second_adapter", 4, "model.layers.9.self_attn.q_proj")
def _(c):
    second = c.folder / "second"
    second.mkdir()
    (second / CONFIG).write_bytes((c.adapter / CONFIG).read_bytes())
    (second / FILE).write_bytes(
        sound_file(with_module("model.layers.9.self_attn.q_proj", HIDDEN, HIDDEN)))
    c.extra = ["-a", second]


# ---- commands ----

@case("usage_adapter_not_there", 2, "adapter-2")
def _(c):
    c.arguments = ["merge", c.base, "-a", c.folder / "adapter-2", "-o", c.out, "-q"]


@case("usage_no_adapter", 2, "adapter")
def _(c):
    c.arguments = ["merge", c.base, "-o", c.out, "-q"]


@case("usage_weight_is_not_a_number", 2, "nan")
def _(c):
    c.arguments = ["merge", c.base, "-a", f"{c.adapter}:nan", "-o", c.out, "-q"]


@case("usage_output_is_full", 2, "merged")
def _(c):
    c.out.mkdir()
    (c.out / "thesis.txt").write_text("do not lose me\n")


@case("usage_output_is_full_of_something_else", 2, "merged")
def _(c):
    c.out.mkdir()
    (c.out / "thesis.txt").write_text("do not lose me\n")
    c.extra = ["--overwrite"]


@case("usage_output_is_a_file", 2, "merged")
def _(c):
    c.out.write_text("a file\n")


@case("usage_output_has_no_parent", 2, "nowhere")
def _(c):
    c.out = c.folder / "nowhere" / "merged"


@case("usage_output_is_the_base", 2, "base")
def _(c):
    c.out = c.base
    c.extra = ["--overwrite"]


@case("usage_output_in_the_base", 2, "base")
def _(c):
    c.out = c.base / "merged"


@case("usage_output_above_the_base", 2)
def _(c):
    c.out = c.folder
    c.extra = ["--overwrite"]


@case("usage_output_in_the_base_through_a_link", 2)
def _(c):
    (c.folder / "door").symlink_to(c.base)
    c.out = c.folder / "door" / "merged"


@case("usage_output_is_the_adapter", 2, "adapter")
def _(c):
    c.out = c.adapter
    c.extra = ["--overwrite"]


@case("usage_memory_too_small", 2, "memory")
def _(c):
    c.extra = ["--memory", "1MiB"]


@case("usage_memory_no_size", 2, "lots")
def _(c):
    c.extra = ["--memory", "lots"]


@case("usage_shard_size_0", 2, "max-shard-size")
def _(c):
    c.extra = ["--max-shard-size", "0"]


@case("usage_dtype_unknown", 2, "f17")
def _(c):
    c.extra = ["--dtype", "f17"]


@case("usage_option_unknown", 2, "quantum")
def _(c):
    c.extra = ["--quantum"]


add_config_texts()
add_config_fields()
add_weight_files()
add_torch_files()
add_factors()
add_keys()

assert CASES
