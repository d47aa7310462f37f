#!/usr/bin/env python3
"""Counts the tests of several Bazel runs from their build events.

usage: totals.py FOLDER

FOLDER holds a file "runs" with a line "NAME EXIT_CODE SECONDS" for each run, in order, and for each a file NAME.json,
written by --build_event_json_file. Prints what failed, a table of the runs, and last "N passed, N failed". Exits 1 if
anything failed.
"""

import json
import os
import re
import sys

_BROKEN_PACKAGE = re.compile(r"package contains errors: ([\w./-]+)")

# A run in which Bazel failed but no target did (a BUILD file that does not load, a crash) counts as one failure, which
# is called by its exit code. https://bazel.build/run/scripts#exit-codes
_EXIT_CODES = {
    1: "the build failed",
    2: "bad command line",
    4: "no test was found",
    8: "interrupted",
    36: "the environment failed",
    37: "Bazel crashed or ran out of memory",
}


def read_events(path):
    """Yields the events of a file; a last line cut short by a killed Bazel is left out."""
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return


def count(events):
    """Returns (labels of the tests that passed, {label: how it failed}).

    A test has a summary. A target that did not build has none: it is completed, or aborted, without success. A BUILD
    file that does not load is only told of in what Bazel prints.
    """
    passed = set()
    failed = {}
    for event in events:
        identity = event.get("id", {})
        if "testSummary" in identity:
            label = identity["testSummary"]["label"]
            status = event.get("testSummary", {}).get("overallStatus", "NO_STATUS")
            if status in ("PASSED", "FLAKY"):
                passed.add(label)
            else:
                failed[label] = status
        elif "targetCompleted" in identity:
            label = identity["targetCompleted"]["label"]
            reason = event.get("aborted", {}).get("reason")
            if not event.get("completed", {}).get("success") and reason != "SKIPPED":
                failed.setdefault(label, reason or "FAILED_TO_BUILD")
        elif "pattern" in identity and "aborted" in event:
            failed[" ".join(identity["pattern"]["pattern"])] = event["aborted"].get("reason", "ABORTED")
        elif "progress" in event:
            for package in _BROKEN_PACKAGE.findall(event["progress"].get("stderr", "")):
                failed["//" + package] = "LOADING_FAILURE"
    return passed - failed.keys(), failed


def report(folder, out):
    """Writes the report to out. Returns how many failed."""
    with open(os.path.join(folder, "runs"), encoding="utf-8") as lines:
        runs = [line.split() for line in lines]
    rows = []
    total_passed = total_failed = 0
    for name, code, seconds in runs:
        passed, failed = count(read_events(os.path.join(folder, name + ".json")))
        if int(code) != 0 and not failed:
            failed = {"bazel": _EXIT_CODES.get(int(code), "exit code " + code)}
        for label, status in sorted(failed.items()):
            out.write("FAILED in %s: %s (%s)\n" % (name, label, status))
        rows.append((name, len(passed), len(failed), int(seconds)))
        total_passed += len(passed)
        total_failed += len(failed)
    width = max([len(row[0]) for row in rows], default=0)
    for name, passed, failed, seconds in rows:
        out.write("%-*s %5d passed %4d failed %6.1f min\n" % (width, name, passed, failed, seconds / 60))
    out.write("%d passed, %d failed\n" % (total_passed, total_failed))
    return total_failed


if __name__ == "__main__":
    sys.exit(1 if report(sys.argv[1], sys.stdout) else 0)
