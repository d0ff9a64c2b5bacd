#!/usr/bin/env python3
"""Install into a new prefix, and use what is there as docs/LIBRARY.md says, command by command.

usage: install.py CMAKE BUILD_DIR SOURCE_DIR LIBDIR
"""
# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Without the versions of the shared library and the modules of the helper.
INSTALLED = """
bin/lorafold bin/lorafold-hub include/lorafold.h LIB/liblorafold.a LIB/liblorafold.so
LIB/pkgconfig/lorafold.pc LIB/cmake/lorafold/lorafoldConfig.cmake
LIB/cmake/lorafold/lorafoldConfigVersion.cmake share/man/man1/lorafold.1
share/bash-completion/completions/lorafold share/zsh/site-functions/_lorafold
"""

CPLUSPLUS = """
#include <lorafold.h>
int main()
{
    lorafold_merge_options options;
    lorafold_merge_options_init(&options);
    return options.save_method != LORAFOLD_MERGED_16BIT || !lorafold_version()[0];
}
"""

CMAKE_PROJECT = """
cmake_minimum_required(VERSION 3.22)
project(example LANGUAGES C)
{words}
add_executable(example example.c)
target_link_libraries(example PRIVATE lorafold::lorafold)
"""

WARNINGS = "-Wall -Wextra -Wpedantic -Werror"


def run(*words, cwd, environment=None, shell=False):
    done = subprocess.run(words[0] if shell else words, capture_output=True, text=True, check=False, cwd=cwd,
                          env=environment, shell=shell)
    if done.returncode:
        raise SystemExit(f"install: {' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(condition, sentence):
    if not condition:
        raise SystemExit(f"install: {sentence}")


def check_files(prefix, source, library):
    wanted = set(INSTALLED.replace("LIB", library).split())
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_symlink() or path.is_file()}
    check(wanted <= files, f"not installed: {wanted - files}")
    rest = sorted(name for name in files - wanted if not name.startswith("share/lorafold/lorafold_hub/"))
    version = re.search(r"VERSION ([\d.]+)", (source / "CMakeLists.txt").read_text().split("project(")[1])[1]
    minor = version.rsplit(".", 1)[0]
    expected = [rf"{library}/cmake/lorafold/lorafoldConfig-\w+\.cmake",
                rf"{library}/liblorafold\.so\.{minor}", rf"{library}/liblorafold\.so\.{version}"]
    check(len(rest) == 3 and all(map(re.fullmatch, expected, rest)), f"also installed: {rest}")
    dynamic = run("readelf", "-d", prefix / library / "liblorafold.so", cwd=prefix)
    check(f"[liblorafold.so.{minor}]" in dynamic, f"the name of the library is not .so.{minor}:\n{dynamic}")
    shown = {line.split()[-1] for line in run("nm", "--extern-only", "--defined-only", prefix / library / "liblorafold.a",
                                              cwd=prefix).splitlines() if re.search(r" [A-Z] ", line)}
    declared = set(re.findall(r"LORAFOLD_API [^#(]*?(lorafold_\w+)\(", (prefix / "include/lorafold.h").read_text()))
    check(shown == declared, f"the archive shows {shown ^ declared}")
    for name in files:
        if not re.search(r"\.so|\.a$|bin/lorafold$", name):  # debug information has paths of the build
            check(str(prefix) not in (prefix / name).read_text(), f"'{name}' names its prefix")


def same_files(one, other):
    names = sorted(path.name for path in one.iterdir())
    return names == sorted(path.name for path in other.iterdir()) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names)


def commands_of(page):
    """The lines of the page that compile and run the example, in their order."""
    return re.findall(r"^(?:cc|\./example) .*", page.read_text(), re.M)


def use(prefix, source, place, cmake, library):
    shutil.copy(source / "docs/example.c", place)
    run(sys.executable, source / "tests/cli/tiny_model.py", place / "base", place / "adapter", cwd=place)
    run(prefix / "bin/lorafold", "merge", "base", "-a", "adapter", "-o", "wanted", cwd=place)
    plain = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    plain["PKG_CONFIG_PATH"] = str(prefix / library / "pkgconfig")
    loading = plain | {"LD_LIBRARY_PATH": str(prefix / library)}

    def merged(environment, command="./example BASE ADAPTER OUT"):
        shutil.rmtree(place / "OUT", ignore_errors=True)
        command = re.sub("BASE ADAPTER", "base adapter", command)
        run(command, cwd=place, environment=environment, shell=True)
        check(same_files(place / "wanted", place / "OUT"), "the example has not written what the program writes")

    compile_shared, use_it, compile_static = commands_of(source / "docs/LIBRARY.md")
    check(compile_shared.strip() in (place / "example.c").read_text(), "docs/example.c says another command")
    run(compile_shared, cwd=place, environment=plain, shell=True)
    merged(loading, use_it)
    run(f"{compile_shared} {WARNINGS} -std=c99", cwd=place, environment=plain, shell=True)
    merged(loading)
    check("liblorafold" in run("ldd", "example", cwd=place, environment=loading), "the example is not linked as it should be")

    run(compile_static, cwd=place, environment=plain, shell=True)
    check("liblorafold" not in run("ldd", "example", cwd=place), "a static example loads liblorafold.so")
    merged(plain)

    (place / "plus.cpp").write_text(CPLUSPLUS)
    run(f"c++ plus.cpp -o plus {WARNINGS} -std=c++11 $(pkg-config --cflags --libs lorafold)", cwd=place,
        environment=plain, shell=True)
    run("./plus", cwd=place, environment=loading)

    words = re.search(r"^find_package.*", (source / "docs/LIBRARY.md").read_text(), re.M)[0]
    (place / "CMakeLists.txt").write_text(CMAKE_PROJECT.format(words=words))
    run(cmake, "-S", ".", "-B", "made", f"-DCMAKE_PREFIX_PATH={prefix}", cwd=place, environment=plain)
    run(cmake, "--build", "made", cwd=place, environment=plain)
    merged(plain, "made/example BASE ADAPTER OUT")  # CMake says where the library is


def main():
    cmake, build, source, library = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4]
    if not shutil.which("cc") or not shutil.which("c++") or not shutil.which("pkg-config"):
        print("install: there is no compiler or no pkg-config")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        first, prefix, place = pathlib.Path(folder, "first"), pathlib.Path(folder, "prefix"), pathlib.Path(folder, "place")
        place.mkdir()
        run(cmake, "--install", build, "--prefix", first, cwd=folder)
        first.rename(prefix)  # the tree may be moved
        check_files(prefix, source, library)
        check(run(prefix / "bin/lorafold-hub", "--help", cwd=place).startswith("lorafold-hub"), "the helper does not start")
        use(prefix, source, place, cmake, library)
    print("install: all is there and works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
