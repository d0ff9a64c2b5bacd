"""The package against lorafold.h, and what importing it costs."""

import ctypes
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
import lorafold
from conftest import ROOT
from lorafold import _library, _options

HEADER = ROOT / "include" / "lorafold.h"


def header_text() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)


def fields_in_header(name: str) -> list[str]:
    body = re.search(rf"struct {name} {{(.*?)\n}};", header_text(), re.DOTALL)[1]
    return [re.search(r"(\w+)(\[\d+\])?$", line.strip())[1] for line in body.split(";") if line.strip()]


def values_in_header(name: str) -> list[str]:
    """The names of an enumeration, whose values count from 0."""
    body = re.search(rf"enum {name} {{(.*?)}}", header_text(), re.DOTALL)[1]
    return [part.split("=")[0].strip() for part in body.split(",") if part.strip()]


@pytest.mark.parametrize("name", _library.STRUCTURES)
def test_fields_are_those_of_the_header(name: str):
    assert [field for field, *_ in _library.STRUCTURES[name]._fields_] == fields_in_header(name)


def test_layouts_are_those_of_the_compiler(tmp_path: Path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    lines = []
    expected = {}
    for name, structure in _library.STRUCTURES.items():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        expected[name] = ctypes.sizeof(structure)
        for field, *_ in structure._fields_:
            place = f"offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu\\n", {place.split("), ")[0]}) * 65536 + {place.split("), ")[1]});')
            one = getattr(structure, field)
            expected[f"{name}.{field}"] = one.offset * 65536 + one.size
    source = tmp_path / "layout.c"
    source.write_text("#include <lorafold.h>\n#include <stdio.h>\nint main(void) {\n" + "\n".join(lines) + "\n}\n")
    subprocess.run([compiler, f"-I{HEADER.parent}", source, "-o", tmp_path / "layout"], check=True)
    printed = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[0]: int(line.split()[1]) for line in printed.splitlines()} == expected


def test_enumerations_are_those_of_the_header():
    def names(enumeration: str, prefix: str) -> list[str]:
        return [one.removeprefix(prefix).lower().replace("_", "-") for one in values_in_header(enumeration)]

    def ours(values: dict[str, int]) -> list[str]:
        return list(dict(sorted({number: name for name, number in reversed(values.items())}.items())).values())

    assert ours(_options.NAMED["dtype"][1]) == names("lorafold_dtype", "LORAFOLD_DTYPE_")
    assert ours(_options.NAMED["quant_type"][1]) == names("lorafold_quant_type", "LORAFOLD_")
    assert ours(_options.NAMED["base_numerics"][1]) == names("lorafold_base_numerics", "LORAFOLD_NUMERICS_")
    assert ours(_options.NAMED["clone"][1]) == names("lorafold_clone", "LORAFOLD_CLONE_")
    assert ours(_options.NAMED["tied"][1]) == names("lorafold_tied", "LORAFOLD_TIED_")
    assert ours(_options.NAMED["lora_b_layout"][1]) == names("lorafold_b_layout", "LORAFOLD_B_")
    methods = [one.replace("_", "-") for one in ours(_options.SAVE_METHODS)]
    assert methods == names("lorafold_save_method", "LORAFOLD_")
    assert list(_library.LEVELS) == names("lorafold_level", "LORAFOLD_")
    assert list(_library.LIMITS) == names("lorafold_limit", "LORAFOLD_LIMIT_")
    assert [_library.TEXT, _library.JSON] == [0, 1] and names("lorafold_format", "LORAFOLD_") == ["text", "json"]
    assert len(values_in_header("lorafold_status")) == 7


def test_functions_are_declared_in_the_header():
    declared = set(re.findall(r"^LORAFOLD_API [^(]*\blorafold_(\w+)\(", header_text(), re.MULTILINE))
    assert set(_library.FUNCTIONS) <= declared
    # Not bound: a measurement that the program makes, and what its options and tables need of batches.
    program = {"bench", "bench_options_init", "batch_add_directory", "batch_add_jobs", "batch_describe"}
    assert declared - set(_library.FUNCTIONS) == program | {"batch_count", "batch_output", "batch_report"}


def test_every_field_of_the_options_can_be_set():
    """Whoever adds an option to lorafold.h adds its name in Python."""
    fixed = {"base", "adapters", "adapter_count", "output", "message", "progress", "context", "threads", "skip", "skip_count",
             "hub", "push_to", "no_local", "plan_only", "cancel", "gpu_memory_bytes", "gpu_memory_fraction"}
    named = {field for field, _ in _options.NAMED.values()} | set(_options.SIZES.values())
    fields = {name for name, *_ in _library.MergeOptionsStruct._fields_}
    assert fields == fixed | named | _options.TEXTS | _options.FLAGS
    options = set(_options.NAMED) | set(_options.SIZES) | _options.TEXTS | _options.FLAGS
    options |= {"threads", "skip", "gpu_memory", *_options.HUB, *_options.PUSH}
    assert options == set(_options.MergeOptions.__annotations__)
    assert [name for name in sorted(options) if not re.search(rf"\b{name}\b.*:", _options.MergeOptions.__doc__)] == []


def test_versions_agree(tmp_path: Path):
    assert lorafold.__version__ == _library.library().lorafold_version().decode()
    assert f"VERSION {lorafold.__version__} LANGUAGES" in (ROOT / "CMakeLists.txt").read_text()


def test_a_missing_library_is_an_import_error(tmp_path: Path):
    code = "import lorafold\ntry: lorafold.inspect('.')\nexcept ImportError as error: print(error)"
    said = help.python(code, LORAFOLD_LIBRARY=str(tmp_path / "none.so"))
    assert "cannot be loaded" in said and str(tmp_path / "none.so") in said


IMPORT = """
import sys, time
before = set(sys.modules)
start = time.perf_counter()
import lorafold
seconds = time.perf_counter() - start
lorafold.merge, lorafold.save_pretrained_merged  # loads the package's own modules
import json
print(json.dumps({"seconds": seconds, "modules": sorted({name.split(".")[0] for name in set(sys.modules) - before})}))
"""


def test_import_is_quick_and_loads_nothing_large():
    runs = [json.loads(help.python(IMPORT)) for _ in range(3)]
    assert min(run["seconds"] for run in runs) < 0.1
    assert not {"torch", "transformers", "peft", "numpy", "huggingface_hub", "tqdm"} & set(runs[0]["modules"])


def test_all_names_are_there():
    assert set(lorafold.__all__) <= set(dir(lorafold))
    assert all(getattr(lorafold, name).__doc__ for name in lorafold.__all__)
    with pytest.raises(AttributeError):
        lorafold.unheard_of


def test_types_are_strict():
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    words = [sys.executable, "-m", "mypy", "--cache-dir=/dev/null"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
