"""Unsloth's own saving, in a process of its own because the package changes torch and transformers when it is imported.

usage: unsloth_save.py BASE ADAPTER OUT merged_16bit|merged_4bit|lora

Where all that Unsloth asks for is installed, `model.save_pretrained_merged` itself is called.  Else,
and for 4 bits, which it makes on a GPU only, the function of unsloth_zoo that this calls for a model
of PEFT; it has no "lora".
"""

import importlib.util
import os
import sys

os.environ |= {"UNSLOTH_FORCE_CPU": "1"}
MISSING = [name for name in ("unsloth", "triton", "trl", "datasets") if not importlib.util.find_spec(name)]
WHOLE = not MISSING
base, adapter, out, method = sys.argv[1:]
if method == "lora" and not WHOLE:
    print(f"unsloth_zoo has no 'lora', and Unsloth cannot be imported without {', '.join(MISSING)}; UNSLOTH_PYTHON may name a "
          "Python that has them")
    sys.exit(77)
if WHOLE and method != "merged_4bit":
    import unsloth  # noqa: F401  first: it says so itself
    from unsloth.save import patch_saving_functions
else:
    os.environ["UNSLOTH_IS_PRESENT"] = "1"
    from unsloth_zoo.saving_utils import merge_and_overwrite_lora

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: E402


def main() -> None:
    more = {}
    if method == "merged_4bit":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
        )
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", **more)
    if method == "merged_4bit":  # it writes into this as into a dict, which it is not in transformers 5
        model.config.quantization_config = model.config.quantization_config.to_dict()
    model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if WHOLE and method != "merged_4bit":
        torch.cpu.empty_cache = lambda: None  # asked for by the name of the device
        for one in (model, tokenizer):
            patch_saving_functions(one)
        model.save_pretrained_merged(out, tokenizer, save_method=method)
    else:
        merge_and_overwrite_lora(
            lambda name, *args, **kwargs: base, model, tokenizer=tokenizer, save_directory=out, save_method=method
        )


if __name__ == "__main__":
    main()
