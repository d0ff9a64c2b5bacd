"""Unsloth's own merge, in a process of its own because the package changes torch and transformers when it is imported.

usage: unsloth_save.py BASE ADAPTER OUT merged_16bit|merged_4bit

`merge_and_overwrite_lora` is what `model.save_pretrained_merged` of Unsloth calls for a model of PEFT.
"""

import os
import sys

os.environ |= {"UNSLOTH_FORCE_CPU": "1", "UNSLOTH_IS_PRESENT": "1"}

from unsloth_zoo.saving_utils import merge_and_overwrite_lora  # noqa: E402  first: it says so itself

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: E402


def main() -> None:
    base, adapter, out, method = sys.argv[1:]
    more = {}
    if method == "merged_4bit":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", **more)
    if method == "merged_4bit":  # it writes into this as into a dict, which it is not in transformers 5
        model.config.quantization_config = model.config.quantization_config.to_dict()
    merge_and_overwrite_lora(
        lambda name, *args, **kwargs: base, PeftModel.from_pretrained(model, adapter),
        tokenizer=AutoTokenizer.from_pretrained(base), save_directory=out, save_method=method,
    )  # fmt: skip


if __name__ == "__main__":
    main()
