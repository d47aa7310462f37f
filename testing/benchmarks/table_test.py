#!/usr/bin/env python3
"""Tests of table.py: what is done with the numbers. The numbers themselves are tools/run bench's."""

import os
import stat
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import table  # noqa: E402

_COST = table.Metric("ns", "CPU, ns", 1)
_SPEED = table.Metric("per_s", "per second", 0, more_is_better=True)


class RatioTest(unittest.TestCase):
    def test_a_cost_that_is_half_the_peers_is_twice_as_good(self):
        self.assertEqual(table.ratio(_COST, [{"ns": 10}], [{"ns": 20}]), (2, 2, 2))

    def test_half_the_peers_speed_is_half_as_good(self):
        self.assertEqual(table.ratio(_SPEED, [{"per_s": 100}], [{"per_s": 200}]), (0.5, 0.5, 0.5))

    def test_is_taken_within_each_repetition(self):
        # The machine was ten times slower in the second one: medians of each peer would say 11/5.5.
        ours = [{"ns": 1}, {"ns": 10}, {"ns": 1}]
        theirs = [{"ns": 3}, {"ns": 20}, {"ns": 4}]
        self.assertEqual(table.ratio(_COST, ours, theirs), (3, 2, 4))


class InterleavingTest(unittest.TestCase):
    def test_every_other_repetition_goes_backwards(self):
        order = []

        def measure(peer):
            order.append(peer)
            return {"ns": len(order)}

        results = table.measure_interleaved(table.Row("", [_COST], measure), ["a", "b"], 3)
        self.assertEqual(order, ["a", "b", "b", "a", "a", "b"])
        self.assertEqual(results, {"a": [{"ns": 1}, {"ns": 4}, {"ns": 5}], "b": [{"ns": 2}, {"ns": 3}, {"ns": 6}]})


class LinesTest(unittest.TestCase):
    def test_name_the_case_the_metric_each_median_and_each_ratio(self):
        row = table.Row("timer", [_COST, _SPEED], None)
        results = {
            "troupe": [{"ns": 1.26, "per_s": 1e6}],
            "asio": [{"ns": 5.04, "per_s": 5e5}],
        }
        self.assertEqual(table.lines_of(row, ["troupe", "asio"], results), [
            "| timer | CPU, ns | 1.3 | 5.0 | 4.00 (4.00-4.00) |",
            "| timer | per second | 1,000,000 | 500,000 | 2.00 (2.00-2.00) |",
        ])


class ProgramsTest(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)

    def write(self, name, script):
        path = os.path.join(self._folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(path, stat.S_IRWXU)
        return path

    def test_output_becomes_numbers(self):
        self.assertEqual(table.run(self.write("p", 'echo "per_s $1"; echo p50_us 1e-3'), 7), {"per_s": 7, "p50_us": 1e-3})

    def test_a_program_that_fails_has_no_result(self):
        with self.assertRaises(subprocess.CalledProcessError):
            table.run(self.write("p", "echo per_s 7; exit 3"))

    def test_a_server_is_started_once_and_killed_at_the_end(self):
        self.write("server", "echo port 7400; exec cat /dev/zero >/dev/null")
        with table.Servers(self._folder.name) as servers:
            port, pid = servers.address("server")
            self.assertEqual(port, 7400)
            self.assertEqual(servers.address("server"), (7400, pid))
            os.kill(pid, 0)
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    def test_a_server_that_was_ended_is_started_anew(self):
        self.write("server", "echo port 7400; exec cat /dev/zero >/dev/null")
        with table.Servers(self._folder.name) as servers:
            _, first = servers.address("server")
            servers.end("server")
            with self.assertRaises(ProcessLookupError):
                os.kill(first, 0)
            self.assertNotEqual(servers.address("server")[1], first)

    def test_a_server_without_a_port_is_no_server(self):
        self.write("server", "exit 1")
        with self.assertRaises(KeyError), table.Servers(self._folder.name) as servers:
            servers.address("server")


if __name__ == "__main__":
    unittest.main()
