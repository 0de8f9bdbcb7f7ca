#!/usr/bin/env python3
"""tidy.py BUILD_DIR [--jobs N] [--all] [FOLDER...]: clang-tidy over the project's own sources.

The sources of a folder are checked as one translation unit: most of the time goes into matching the system's
headers, and that is then spent once a folder. So no two sources of a folder may share a name in an anonymous
namespace.

A folder is checked again only when a source, a header, .clang-tidy, clang-tidy or the compile command has
changed since it last passed. That is kept by content, without paths, in $XDG_CACHE_HOME/ipcfs/tidy (default
~/.cache), so that every clone on a machine shares it. --all ignores it. BUILD_DIR needs to be configured, not
built. Fails when a source has a finding, or when there is no source at all.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TIDY = "clang-tidy-16"
FOLDERS = ("src", "fuse", "client", "tests", "bench")
# Says nothing about what a source means.
IGNORED = re.compile(r"-O.*|-g.*|-fPIC|-fvisibility.*|-fno-builtin|-Dipcfs_c_EXPORTS|-M.*")
KEPT_DAYS = 30


def sources_of(entry):
    """The project's sources that a compile command is for: one, or those of a unit of several."""
    path = pathlib.Path(entry["directory"], entry["file"]).resolve()
    found = [path]
    if path.parent.name == "units":
        found = [(path.parent / name).resolve() for name in re.findall(r'^#include "([^"]+)"', path.read_text(), re.M)]
    for each in found:
        if each.is_relative_to(ROOT) and each.relative_to(ROOT).parts[0] in FOLDERS:
            yield each


def units(build):
    """(folder, sources, directory, flags) of each folder; flags are what any of its sources is compiled with."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        of_entry = list(sources_of(entry))
        if not of_entry:
            continue
        folder = str(of_entry[0].parent.relative_to(ROOT))
        sources, flags = found.setdefault((folder, entry["directory"]), (set(), {}))
        sources.update(of_entry)
        words = iter(shlex.split(entry["command"]))
        for word in words:
            if word in ("-o", "-c", "-MT", "-MF"):
                next(words)
            elif word == "-isystem":
                flags[word + next(words)] = None
            elif word.startswith("-") and not IGNORED.fullmatch(word):
                flags[word] = None
    return [(folder, sorted(sources), directory, list(flags))
            for (folder, directory), (sources, flags) in sorted(found.items())]


class Contents:
    """What a source is made of: its own text and the project's headers that it includes, however deep."""

    INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.M)

    def __init__(self):
        self.texts = {}

    def text(self, path):
        if path not in self.texts:
            data = path.read_bytes()
            self.texts[path] = (hashlib.sha256(data).digest(), self.INCLUDE.findall(data))
        return self.texts[path]

    def resolve(self, name, source, roots):
        for root in (source.parent, *roots):
            path = root / name
            if path.is_file():
                return path.resolve()
        return None

    def digest(self, sources, roots):
        seen, todo = {}, list(sources)
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen[path], names = self.text(path)
            for name in names:
                header = self.resolve(os.fsdecode(name), path, roots)
                if header and header.is_relative_to(ROOT):
                    todo.append(header)
        return b"".join(str(path.relative_to(ROOT)).encode() + seen[path] for path in sorted(seen))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("folders", nargs="*", help="only these, e.g. src/tree")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--all", action="store_true", help="also what has passed before")
    args = parser.parse_args()
    build = args.build.resolve()
    passed = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "ipcfs", "tidy")
    passed.mkdir(parents=True, exist_ok=True)
    for stamp in passed.iterdir():
        if time.time() - stamp.stat().st_mtime > KEPT_DAYS * 24 * 3600:
            stamp.unlink(missing_ok=True)

    # The system's headers change with their packages only.
    packages = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "lib*-dev", "libstdc++*", TIDY],
                              capture_output=True, text=True).stdout
    rules = (ROOT / ".clang-tidy").read_text() + packages + pathlib.Path(__file__).read_text()
    contents = Contents()

    def stamp_of(unit):
        folder, sources, _, flags = unit
        roots = [pathlib.Path(flag[2:]) for flag in flags if flag.startswith("-I")]
        digest = hashlib.sha256(rules.encode())
        digest.update("\0".join((folder, *flags)).replace(str(ROOT), "").encode())
        digest.update(contents.digest(sources, [root for root in roots if root.is_relative_to(ROOT)]))
        return passed / digest.hexdigest()

    chosen = [unit for unit in units(build) if not args.folders or unit[0] in args.folders]
    todo = []
    for unit in chosen:
        stamp = stamp_of(unit)
        if stamp.exists() and not args.all:
            stamp.touch()
        else:
            todo.append((unit, stamp))
    print(f"{sum(len(unit[1]) for unit in chosen)} sources in {len(chosen)} units, {len(todo)} units to check",
          flush=True)

    with tempfile.TemporaryDirectory() as place:
        def check(work):
            (folder, sources, directory, flags), stamp = work
            start = time.monotonic()
            unit = pathlib.Path(place, f"{folder.replace('/', '_')}_{stamp.name[:8]}.cpp")
            unit.write_text("".join(f'#include "{source}" // NOLINT(bugprone-suspicious-include)\n'
                                    for source in sources))
            run = subprocess.run([TIDY, "--quiet", f"--config-file={ROOT}/.clang-tidy", str(unit), "--", *flags],
                                 cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            seconds = time.monotonic() - start
            if run.returncode == 0:
                stamp.touch()
                print(f"{folder}: {len(sources)} sources, {seconds:.0f} s", flush=True)
            else:
                print(f"--- {folder}\n{run.stdout}{'' if run.stdout else run.stderr}", flush=True)
            return run.returncode == 0

        # The largest first, so that none is left alone at the end.
        todo.sort(key=lambda work: -len(work[0][1]))
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            bad = list(pool.map(check, todo)).count(False)
    print(f"{bad} of {len(chosen)} units have findings" if bad else "no findings")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
