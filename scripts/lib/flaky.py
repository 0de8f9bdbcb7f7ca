#!/usr/bin/env python3
"""flaky.py TEST_DIR: what failed in a ctest run, run again.

Reads TEST_DIR/junit.xml and runs each test that failed there alone, three times. A test that passes all three
is flaky: it is marked so in the file, and its name goes to standard output as `FLAKY NAME`. What ctest prints
goes to standard error. Fails when a test failed again, or when so many failed that no chance explains it.
"""
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

MOST = 8


def passes(directory, name):
    print(f"==> again, alone: {name}", file=sys.stderr, flush=True)
    run = subprocess.run(["ctest", "--test-dir", str(directory), "-R", f"^{re.escape(name)}$", "--repeat",
                          "until-fail:3", "--output-on-failure", "--no-tests=error", "--timeout", "600"],
                         stdout=sys.stderr, stdin=subprocess.DEVNULL)
    return run.returncode == 0


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    directory = pathlib.Path(sys.argv[1])
    report = directory / "junit.xml"
    tree = ElementTree.parse(report)
    failed = [case for case in tree.iter("testcase") if case.get("status") == "fail"]
    if not failed or len(failed) > MOST:
        return 1
    flaky = [case for case in failed if passes(directory, case.get("name"))]
    for case in flaky:
        case.set("status", "flaky")
        for failure in case.findall("failure"):
            failure.tag = "flakyFailure"
        print("FLAKY", case.get("name"))
    suite = tree.getroot()
    suite.set("failures", str(len(failed) - len(flaky)))
    tree.write(report, encoding="utf-8", xml_declaration=True)
    return 0 if len(flaky) == len(failed) else 1


if __name__ == "__main__":
    sys.exit(main())
