"""The Python package from the source tree, with the library that stands beside the program."""

import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT, TIMEOUT_SECONDS, program_path

LIBRARY = program_path().with_name("liblorafold.so")
os.environ.setdefault("LORAFOLD_LIBRARY", str(LIBRARY))
sys.path.insert(0, str(ROOT / "python"))

import peft  # noqa: E402
import torch  # noqa: E402

import models  # noqa: E402

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def environment(**more: str) -> dict[str, str]:
    paths = [str(ROOT / "python"), str(ROOT / "tests" / "python")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def python(code: str, *arguments: object, **more: str) -> str:
    """What a child prints that runs this code."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment(**more), check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_base(directory: Path, dtype: torch.dtype = torch.float32, family: str = "llama", **changes: object) -> Path:
    config = models.FAMILIES[family]()
    for name, value in changes.items():
        setattr(config, name, value)
    models.from_config(config, dtype).save_pretrained(directory)
    return directory


def train(model: torch.nn.Module, steps: int = 3, seed: int = 1) -> None:
    """A few steps on random tokens; every trainable parameter has moved then."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), lr=0.02)
    model.train()
    for _ in range(steps):
        tokens = torch.randint(1, 96, (2, 12), generator=generator)
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def trained(base: Path, dtype: torch.dtype = torch.float32, **lora: object) -> peft.PeftModel:
    torch.manual_seed(7)
    model = peft.get_peft_model(models.load(base, dtype), peft.LoraConfig(**(LORA | lora)))
    train(model)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    """As it is, in its own dtype."""
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 33).reshape(2, 16)).logits.float()


def check_same_answers(saved: Path, model: torch.nn.Module, base: Path) -> None:
    """The saved model answers like the live one, and not like its base."""
    ours, theirs, plain = logits(models.load(saved, torch.float32)), logits(model), logits(models.load(base, torch.float32))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
    rows = min(plain.shape[-1], ours.shape[-1])
    assert (ours[..., :rows] - plain[..., :rows]).abs().max() > 0.02 * plain.abs().max()


def tokenizer_of(tokens: int = 96, **more: object):
    """A tokenizer with this many words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({f"w{i}": i for i in range(tokens)}, unk_token="w0"))
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="w0", eos_token="w2", **more)
