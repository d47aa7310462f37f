#!/usr/bin/env python3
"""Troupe does what asyncio does: every scenario gives the same trace on both.

usage: differential_test.py TROUPE_SIDE FILE...            the scenarios of files
       differential_test.py TROUPE_SIDE --random SEED N    N random ones, from SEED on
"""

import difflib
import re
import subprocess
import sys

import asyncio_side
import random_scenarios
import scenario


def troupe_traces(binary, polling, scenarios):
    """{name: trace} of all scenarios on Troupe."""
    text = "".join("=== %s\n%s\n" % (each.name, each.text) for each in scenarios)
    ran = subprocess.run([binary, polling], input=text, capture_output=True, text=True, timeout=240)
    if ran.returncode != 0:
        sys.exit("%s failed with %d after\n%s%s" % (binary, ran.returncode, ran.stdout[-3000:], ran.stderr[-6000:]))
    traces = {}
    for chunk in ran.stdout.split("=== ")[1:]:
        name, _, trace = chunk.partition("\n")
        traces[name] = trace.splitlines()
    return traces


def compare(each, python, troupe):
    """What is wrong, as lines; nothing if all is well."""
    if each.differs:
        wrong = []
        if troupe != each.expected:
            wrong += ["does not do what it is to do: " + each.differs]
            wrong += difflib.unified_diff(each.expected, troupe, "expected", "troupe", lineterm="", n=100)
        if python == troupe:
            wrong += ["does not differ from asyncio any more"]
        return wrong
    if python == troupe:
        return []
    return list(difflib.unified_diff(python, troupe, "asyncio", "troupe", lineterm="", n=100))


def comparable(python, troupe):
    """Traces of a random scenario, without what is known to differ: asyncio takes errors for heard that it has looked
    at itself (in wait until the first failure, in a shield whose outer is gone); and its own defects."""
    if any(line.endswith("report: defect") for line in python):
        return [], []
    return [[line for line in trace if not line.startswith("unretrieved")] for trace in (python, troupe)]


def main(arguments):
    asyncio_side.be_quiet()
    binary, *rest = arguments[1:]
    if rest[0] == "--random":
        seeds = range(int(rest[1]), int(rest[1]) + int(rest[2]))
        scenarios = scenario.parse("".join(random_scenarios.generate(seed) for seed in seeds))
    else:
        scenarios = []
        for file in rest:
            with open(file, encoding="utf-8") as text:
                scenarios += scenario.parse(text.read())
    names = [each.name for each in scenarios]
    assert len(set(names)) == len(names), "a name stands twice"

    # Batches that share a poll differ from others in nothing but when they hear of descriptors and signals.
    polled = re.compile(r"^(connect|sockets) |\bkill ", re.MULTILINE)
    without_polls = [each for each in scenarios if not polled.search(each.text)]
    traces = {
        "strict": troupe_traces(binary, "strict", scenarios),
        "shared": troupe_traces(binary, "shared", without_polls),
    }
    failed = 0
    for each in scenarios:
        python = asyncio_side.run(each)
        for polling, troupe in traces.items():
            if polling == "shared" and each not in without_polls:
                continue
            traced = python, troupe.get(each.name, ["nothing"])
            if rest[0] == "--random":
                traced = comparable(*traced)
            if wrong := compare(each, *traced):
                failed += 1
                print("=== %s (%s polling)\n%s\n%s\n" % (each.name, polling, each.text, "\n".join(wrong)))
                break
    print("%d scenarios, %d failed" % (len(scenarios), failed))
    return 1 if failed or not scenarios else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
