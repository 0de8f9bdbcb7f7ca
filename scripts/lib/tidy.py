#!/usr/bin/env python3
"""tidy.py BUILD_DIR [--jobs N] [--all]: clang-tidy over the project's own sources.

A source is checked again only when it, a header it includes, .clang-tidy or the compile command has
changed since it last passed: that is kept by content under BUILD_DIR/../tidy. The headers are those
that the compiler reported to ninja, so BUILD_DIR must have been built. --all forgets what is kept.
Fails when a source has a finding, or when there is no source at all.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TIDY = "clang-tidy-16"
FOLDERS = ("src", "fuse", "client", "tests", "bench")


def own_commands(build):
    """The compile commands of the project's sources, one each, without the compiler cache."""
    chosen = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if not source.is_relative_to(ROOT) or source.relative_to(ROOT).parts[0] not in FOLDERS:
            continue
        words = shlex.split(entry["command"])
        if os.path.basename(words[0]) == "ccache":
            words = words[1:]
        chosen.setdefault(source, {"directory": entry["directory"], "file": str(source), "arguments": words})
    return chosen


def dependencies(build):
    """object -> files it was made from, as the compiler told ninja."""
    found, current = {}, None
    out = subprocess.run(["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True)
    for line in out.stdout.splitlines():
        if line.startswith("    ") and current is not None:
            current.append(line.strip())
        elif ": #deps" in line:
            current = found.setdefault(line.split(": #deps")[0], [])
    return found


def content(path, known={}):
    if path not in known:
        try:
            known[path] = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
        except OSError:
            known[path] = "absent"
    return known[path]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    build = args.build.resolve()
    passed = build.parent / "tidy"
    if args.all:
        shutil.rmtree(passed, ignore_errors=True)
    passed.mkdir(parents=True, exist_ok=True)

    version = subprocess.run([TIDY, "--version"], capture_output=True, text=True, check=True).stdout
    rules = version + (ROOT / ".clang-tidy").read_text()
    commands = own_commands(build)
    made_from = dependencies(build)

    def key(source):
        entry = commands[source]
        words = entry["arguments"]
        target = words[words.index("-o") + 1]
        digest = hashlib.sha256(rules.encode())
        digest.update("\0".join(words).replace(str(ROOT), "").encode())
        for path in sorted({str(source), *made_from.get(target, [])}):
            full = os.path.join(entry["directory"], path)
            # The system's headers change with their packages only: their names do.
            digest.update((path if full.startswith("/usr/") else content(full)).encode())
        return digest.hexdigest()

    todo = [(s, k) for s, k in ((s, key(s)) for s in sorted(commands)) if not (passed / k).exists()]
    print(f"{len(commands)} sources, {len(todo)} to check", flush=True)

    with tempfile.TemporaryDirectory() as database:
        pathlib.Path(database, "compile_commands.json").write_text(json.dumps(list(commands.values())))

        def check(work):
            source, stamp = work
            run = subprocess.run([TIDY, "--quiet", "-p", database, str(source)],
                                 capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if run.returncode == 0:
                (passed / stamp).touch()
            else:
                print(f"--- {source.relative_to(ROOT)}\n{run.stdout}{run.stderr if not run.stdout else ''}", flush=True)
            return run.returncode == 0

        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            bad = list(pool.map(check, todo)).count(False)
    print(f"{bad} of {len(commands)} sources have findings" if bad else "no findings")
    return 1 if bad or not commands else 0


if __name__ == "__main__":
    sys.exit(main())
