"""The admitted patterns mean to lorafold what they mean to Python's re.

Random patterns from a grammar that reaches in and out of the subset, and patterns
that people publish, are matched by both engines against the same names.  Every
admitted pattern must agree with re on every name; a refused one may be anything.

usage: test_patterns.py [seed]      (or under pytest)
"""
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = 20240817
PATTERN_COUNT = 30_000

# Keys and target_modules as they stand in published adapters and in PEFT's documentation.
REAL_PATTERNS = [
    "q_proj",
    "model.layers.0.self_attn.q_proj",
    r"model\.layers\.0\.self_attn\.q_proj",
    "^model.layers.0.self_attn.q_proj",
    "^layers.0.self_attn.q_proj",
    r".*\.q_proj",
    r".*\.(q_proj|v_proj)",
    r"q_proj|k_proj",
    r"(q|k|v|o)_proj",
    r".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$",
    r"^(?!.*(?:vision_tower|multi_modal_projector)).*(?:q_proj|v_proj|k_proj|o_proj)$",
    r"^(?!.*visual).*(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*",
    r"model.language_model.*\.(up_proj|k_proj|down_proj|v_proj|o_proj|gate_proj|q_proj)",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|up_proj|down_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)"
    r"\.(?:(?:k_proj|v_proj|q_proj|o_proj|gate_proj|up_proj|down_proj)))",
    r"model\.layers\.([0-9]|1[0-5])\.mlp\.(gate|up|down)_proj",
    r"model\.layers\.\d+\.self_attn\.[qkvo]_proj",
    r"layers\.[0-3]\.",
    r".*layers\.(1[0-9]|2[0-7])\..*_proj",
    r".*\.gate_up_proj",
    r"mlp\.experts\.\d+\.(w1|w2|w3)",
    r"transformer\.h\.\d{1,2}\.attn\.c_attn",
    r"h.0.attn.c_attn",
    r".*attn.*",
    r"[^.]*\.layers\.[^.]*\.self_attn\.q_proj",
    r"model.layers.{1,2}.self_attn.q_proj",
    r"model.layers.\d{,2}.self_attn.q_proj",
    r"(model\.)?layers\.0\.self_attn\.q_proj",
    "lm_head",
    "",
    ".*",
    "$",
    "^",
    "q_proj$",
]
REAL_NAMES = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.10.self_attn.q_proj",
    "model.layers.0.self_attn.k_proj",
    "model.layers.12.mlp.gate_proj",
    "model.layers.3.mlp.experts.7.w1",
    "model.layers.3.mlp.experts.gate_up_proj",
    "model.language_model.layers.0.self_attn.q_proj",
    "model.visual.blocks.0.attn.qkv",
    "model.vision_tower.encoder.layers.0.self_attn.q_proj",
    "language_model.model.layers.1.mlp.down_proj",
    "layers.0.self_attn.q_proj",
    "ers.0.self_attn.q_proj",
    "modelxlayers.0.self_attn.q_proj",
    "transformer.h.0.attn.c_attn",
    "transformer.h.11.attn.c_attn",
    "decoder.block.0.layer.0.SelfAttention.q",
    "lm_head",
    "q_proj",
    "xq_proj",
    "q_proj\n",
    "a.q_proj\n",
    "model.layers.0.self_attn.q_proj.",
    "",
    ".",
    "\n",
    "modèle.couches.0.q_proj",
    "模型.q_proj",
]

ATOMS = ["a", "b", "_", "0", "7", r"\.", ".", "ab", "q_proj", "-", " ", "=", ",", "#", "'", "/"]
CLASSES = [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\b"]
ODD = [
    r"\A", r"\B", r"\Z", r"\z", r"\n", r"\1", r"\x41", r"\Q", r"\E", r"\e", r"\h", r"\K", r"\R", r"\N",
    r"\p{L}", r"\u0041", r"\0", r"\07", r"\_", r"\-", r"\ ", r"\#", r"\/", r"\@", "é", "\n", "\t",
    "{", "}", "]", "{,", "{}", "{,}", "{2", "{a}", "{ 1}", "{1, 2}", "(?i)", "(?i:a)", "(?P<x>a)",
    "(?P=x)", "(?>a)", "(?|a)", "(?#c)", "(?<=a)", "(?<!a)", "(?(1)a|b)", "(*ACCEPT)", "(?R)",
    "(?1)", "(", ")", "[", "[]", "[]a]", "[^]", "[^]a]", "[[:alpha:]]", "[[a]", "[a&&b]", "[a--b]",
    "[a||b]", "[a~~b]", "[b-a]", r"[\d-a]", r"[a-\d]", r"[\b]", r"[\n]", "[a-c-e]", "[+--]", "\\",
    "(?", "(?:", "(?=", "*", "+", "?", "\x7f", "ß", "[é]", "[a-é]",
]
QUANTIFIERS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,}", "{0,2}", "{,2}", "{1,2}?", "{,1}?",
               "{0}", "{2,}?"]
ODD_QUANTIFIERS = ["*+", "++", "?+", "{1}+", "**", "{2}{2}", "{3,1}", "{1001}", "{,}", "{1,2"]


def random_set(rng):
    members = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.random()
        if kind < 0.4:
            members.append(rng.choice("ab_07.qxz+*?()|$ ,") if kind < 0.35 else rng.choice("^]-[\\"))
        elif kind < 0.6:
            low, high = sorted(rng.choice("aqz059AZ_.") for _ in range(2))
            members.append(f"{low}-{high}")
        elif kind < 0.8:
            members.append(rng.choice([r"\d", r"\w", r"\s", r"\D", r"\W", r"\S"]))
        elif kind < 0.9:
            members.append("\\" + rng.choice(".-]^[\\_ &|"))
        else:
            members.append("-")
    return "[" + rng.choice(["", "", "^"]) + "".join(members) + "]"


def random_pattern(rng, depth):
    pieces = []
    for _ in range(rng.randint(0 if depth < 3 else 1, 4)):
        kind = rng.random()
        if kind < 0.45 or depth == 0:
            piece = rng.choice(ATOMS)
        elif kind < 0.55:
            piece = rng.choice(CLASSES)
        elif kind < 0.65:
            piece = random_set(rng)
        elif kind < 0.69:
            piece = rng.choice(["^", "$"])
        elif kind < 0.71:
            piece = rng.choice(ODD)
        elif kind < 0.78:
            piece = "(" + rng.choice(["?=", "?!"]) + random_pattern(rng, depth - 1) + ")"
        else:
            piece = "(" + rng.choice(["", "?:"]) + random_pattern(rng, depth - 1) + ")"
        if rng.random() < 0.3:
            piece += rng.choice(QUANTIFIERS if rng.random() < 0.97 else ODD_QUANTIFIERS)
        pieces.append(piece)
    text = "".join(pieces)
    if rng.random() < 0.2:
        text += "|" + random_pattern(rng, max(depth - 1, 0))
    return text


def random_name(rng):
    pieces = ["a", "b", "_", "0", "7", ".", "ab", "q_proj", "-", " ", "z", "A", "aa", "0.", "="]
    if rng.random() < 0.05:
        pieces += ["\n", "é", "\t", "\u0663", "\x1f", "\u2028", "\r"]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 8)))


def build_probe(directory):
    """The compiled probe, or None with a reason where there is no compiler."""
    if "PATTERN_PROBE" in os.environ:
        return os.environ["PATTERN_PROBE"]
    probe = pathlib.Path(directory) / "pattern_probe"
    sources = ["tests/python/pattern_probe.c", "src/adapter/pattern.c",
               "src/adapter/pattern_syntax.c", "src/base/error.c", "src/base/text.c"]
    subprocess.run([os.environ.get("CC", "cc"), "-std=c17", "-D_GNU_SOURCE", "-O1", "-Isrc",
                    *sources, "-lpcre2-8", "-o", str(probe)], cwd=ROOT, check=True)
    return str(probe)


def ask(probe, cases):
    """Answers of the probe to [(anchor, pattern, names)]: [(answer, [answer per name])]."""
    records = []
    for anchor, pattern, names in cases:
        records.append(anchor + pattern)
        records += ["N" + name for name in names]
    data = b"".join(record.encode() + b"\0" for record in records)
    lines = subprocess.run([probe], input=data, stdout=subprocess.PIPE,
                           check=True).stdout.decode().split("\n")[:-1]
    assert len(lines) == len(records)
    answers = iter(lines)
    return [(next(answers), [next(answers) for _ in names]) for _, _, names in cases]


def python_matches(anchor, pattern, name):
    if anchor == "F":
        return re.fullmatch(pattern, name) is not None
    return re.match(rf"(.*\.)?({pattern})$", name) is not None


def compare(probe, cases):
    """Check all cases; returns how many patterns were admitted and how many names were decided."""
    admitted = decided = matched = 0
    for (anchor, pattern, names), (verdict, answers) in zip(cases, ask(probe, cases)):
        if verdict != "ok":
            assert verdict.startswith("refused "), verdict
            continue
        admitted += 1
        try:
            re.compile(pattern)
        except re.error as error:
            raise AssertionError(f"admitted {pattern!r}, but Python says {error}") from error
        for name, answer in zip(names, answers):
            if answer.startswith("refused"):
                continue
            expected = python_matches(anchor, pattern, name)
            assert answer == ("match" if expected else "no"), (anchor, pattern, name, answer)
            decided += 1
            matched += expected
    return admitted, decided, matched


def run_random(probe, seed):
    warnings.simplefilter("ignore", FutureWarning)
    rng = random.Random(seed)
    cases = []
    for _ in range(PATTERN_COUNT):
        pattern = random_pattern(rng, rng.randint(0, 3))
        names = [random_name(rng) for _ in range(6)] + [pattern.replace("\\", "")[:12]]
        names = [name for name in names if "\0" not in name]
        cases.append((rng.choice("FS"), pattern, names))
    admitted, decided, matched = compare(probe, cases)
    print(f"seed {seed}: {len(cases)} patterns, {admitted} admitted "
          f"({100 * admitted / len(cases):.1f} %), {decided} names decided, {matched} matched")
    assert admitted > len(cases) // 4
    assert matched > decided // 50


def run_real(probe):
    cases = [(anchor, pattern, REAL_NAMES) for pattern in REAL_PATTERNS for anchor in "FS"]
    for (_, pattern, _), (verdict, _) in zip(cases, ask(probe, cases)):
        assert verdict == "ok", (pattern, verdict)
    _, decided, matched = compare(probe, cases)
    print(f"{len(REAL_PATTERNS)} published patterns: {decided} names decided, {matched} matched")


def run_odd(probe):
    """Constructs that the engines read differently never get in, alone or with company."""
    odd = [text for text in ODD if text not in (r"\_", r"\-", r"\ ", r"\#", r"\/", r"\@")]
    cases = [(anchor, prefix + text + suffix, []) for text in odd + ["a" + q for q in ODD_QUANTIFIERS]
             for prefix in ("", "a") for suffix in ("", "b") for anchor in "FS"
             if not (prefix and text in "*+?") and not (suffix and text == "\\")]
    for (_, pattern, _), (verdict, _) in zip(cases, ask(probe, cases)):
        assert verdict.startswith("refused "), (pattern, verdict)


def test_patterns(seed=SEED):
    with tempfile.TemporaryDirectory() as directory:
        probe = build_probe(directory)
        run_real(probe)
        run_odd(probe)
        run_random(probe, seed)


if __name__ == "__main__":
    test_patterns(int(sys.argv[1]) if len(sys.argv) > 1 else SEED)
