#!/usr/bin/env python3
"""Measures Troupe beside its peers and prints a table of ratios.

usage: table.py [--repetitions N] [--seconds S] [PATTERN ...]

PATTERN, a part of a row's name, chooses rows. Every repetition runs all peers of a case one after the other, the next
one in the opposite order, so that what else the machine does meets all of them; what is printed is medians. A ratio is
taken within a repetition and is above 1 where Troupe is the better one: cheaper, or faster.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# Loaded machines are slow, but nothing here takes this long.
_PROGRAM_SECONDS_MAX = 60

# (case of loop_*.cc, row)
_LOOP_CASES = [
    ("post_chain", "callback that posts the next"),
    ("post_batch", "callbacks posted together"),
    ("timer_fired", "timer scheduled and fired"),
    ("timer_cancelled", "timer scheduled and cancelled"),
    ("threadsafe_burst", "callbacks posted by another thread"),
    ("threadsafe_round_trip", "round trip between two threads"),
    ("task_await", "await of a coroutine"),
    ("task_spawn", "task spawned and awaited"),
    ("task_woken", "task woken by a callback"),
    ("tasks_woken_together", "task spawned and woken, 100,000 at once"),
    ("timers_fired_million", "timer scheduled and fired, a million at once"),
    ("timers_cancelled_million", "timer scheduled and cancelled, a million at once"),
]
_BYTES_CONNECTIONS = 16
_BYTES_SIZES = [(64, "64 B"), (16 << 10, "16 KiB")]
_CALLS_IN_FLIGHT = [1, 128]
# (bytes, name, calls in flight), and the same of streams
_GRPC_CALLS = [(8, "8 B", 1), (8, "8 B", 16), (8, "8 B", 128), (1 << 10, "1 KiB", 16), (64 << 10, "64 KiB", 16)]
_GRPC_STREAMS = [(8, "8 B", 1), (8, "8 B", 16), (64 << 10, "64 KiB", 1)]
_TLS_CALLS = [(8, "8 B", 1), (8, "8 B", 128), (64 << 10, "64 KiB", 16)]
_IDLE_CONNECTIONS = 10_000


class Metric:
    """One number of a program's output: name there, unit, digits after the point; is more better?"""

    def __init__(self, key, title, digits, more_is_better=False):
        self.key = key
        self.title = title
        self.digits = digits
        self.more_is_better = more_is_better


_SERVER_CPU = Metric("server_us", "server CPU, us", 2)
_PER_SECOND = Metric("per_s", "per second", 0, more_is_better=True)
_LATENCIES = [Metric("p50_us", "p50, us", 1), Metric("p99_us", "p99, us", 1)]


class Section:
    """Rows that compare the same peers. Troupe is the first of `peers`."""

    def __init__(self, title, peers, rows):
        self.title = title
        self.peers = peers
        self.rows = rows


class Row:
    """A case: `measure(peer)` runs it once and gives {key: number}."""

    def __init__(self, name, metrics, measure):
        self.name = name
        self.metrics = metrics
        self.measure = measure


def parse(output):
    """{"NAME": number} of lines "NAME NUMBER"."""
    return {name: float(value) for name, value in (line.split() for line in output.splitlines())}


def run(program, *args):
    done = subprocess.run([program, *map(str, args)], stdout=subprocess.PIPE, timeout=_PROGRAM_SECONDS_MAX, check=True)
    return parse(done.stdout.decode())


def system_program(name):
    """Of the system."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        sys.exit(name + " is not installed: tools/setup")
    return found


def cpu_seconds(process):
    """Of all threads of a process."""
    return time.clock_gettime((~process << 3) | 2)


def make_certificates(folder):
    """A root, and a leaf for localhost: ca.pem, server.pem, server.key."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    leaf = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-CA", "ca.pem", "-CAkey", "ca.key"]
    for argv in (
        make + ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=benchmarks"],
        make + ["-keyout", "server.key", "-out", "server.pem"] + leaf,
    ):
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)


class Servers:
    """Server programs, started when first asked for. Ends them when the `with` block ends."""

    def __init__(self, folder):
        self._folder = folder
        self._running = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, _ in self._running.values():
            process.kill()
        for process, _ in self._running.values():
            process.wait()
            process.stdout.close()

    def address(self, name, *args):
        """(port, process id)"""
        if (name, *args) not in self._running:
            process = subprocess.Popen([os.path.join(self._folder, name), *args], stdout=subprocess.PIPE)
            self._running[(name, *args)] = (process, None)
            port = int(parse(process.stdout.readline().decode())["port"])
            self._running[(name, *args)] = (process, port)
        process, port = self._running[(name, *args)]
        return port, process.pid

    def nghttpd(self, folder):
        """(port, process id) of nghttpd, which serves the files of a folder. It takes no free port by itself."""
        if "nghttpd" not in self._running:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            command = [system_program("nghttpd"), "--no-tls", "--address=127.0.0.1", "--htdocs=" + folder, str(port)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            self._running["nghttpd"] = (process, port)
            listens = False
            while not listens and process.poll() is None:
                with socket.socket() as probe:
                    listens = probe.connect_ex(("127.0.0.1", port)) == 0
        process, port = self._running["nghttpd"]
        return port, process.pid

    def end(self, name, *args):
        """The next one that asks gets a new process, on another port."""
        process, _ = self._running.pop((name, *args))
        process.kill()
        process.wait()
        process.stdout.close()


def sections(folder, scratch, servers, seconds):
    def loop_row(case, name):
        def measure(peer):
            return run(os.path.join(folder, "loop_" + peer), case)

        return Row(name, [Metric("cpu_ns", "CPU, ns", 1)], measure)

    def bytes_row(size, name):
        def measure(peer):
            port, server = servers.address("bytes_" + peer)
            return run(os.path.join(folder, "bytes_load"), port, server, size, _BYTES_CONNECTIONS, seconds)

        return Row(f"{name} messages, {_BYTES_CONNECTIONS} connections", [_SERVER_CPU, _PER_SECOND], measure)

    def rpc_row(in_flight, prefix=""):
        def measure(peer):
            port, server = servers.address("rpc_" + peer, "server")
            role = "client" if peer == "grpc" else prefix + "client"
            return run(os.path.join(folder, "rpc_" + peer), role, port, server, in_flight, seconds)

        metrics = [
            _SERVER_CPU,
            Metric("client_us", "client CPU, us", 2),
            _PER_SECOND,
            *_LATENCIES,
        ]
        return Row(f"{in_flight} in flight", metrics, measure)

    # Troupe's client of gRPC's wire, and servers of either: what is compared is the servers.
    def grpc_server(peer, *tls):
        if peer == "troupe":
            return servers.address("rpc_troupe", "server", *tls)
        return servers.address("rpc_grpc", "server", peer, *tls)

    def grpc_row(role, size, name, in_flight, *tls):
        def measure(peer):
            port, server = grpc_server(peer, *tls)
            return run(os.path.join(folder, "rpc_troupe"), role, port, server, in_flight, seconds, size, *tls)

        return Row(f"{name}, {in_flight} in flight", [_SERVER_CPU, _PER_SECOND, *_LATENCIES], measure)

    # A client that is neither's.
    def h2load_row(in_flight):
        def measure(peer):
            with open(os.path.join(scratch, "request"), "wb") as request:
                request.write(b"\0\0\0\0\x0a" + b"\x0a\x08" + b"8 bytes.")  # what gRPC puts around an EchoRequest
            port, server = servers.nghttpd(scratch) if peer == "nghttpd" else grpc_server(peer)
            path = "request" if peer == "nghttpd" else "echo.v1.Echo/Echo"
            before = cpu_seconds(server)
            command = [system_program("h2load"), "--clients=1", f"--max-concurrent-streams={in_flight}"]
            command += [f"--duration={max(1, round(seconds))}", "--data=" + os.path.join(scratch, "request")]
            command += ["--header=content-type: application/grpc", "--header=te: trailers"]
            command.append(f"http://127.0.0.1:{port}/{path}")
            done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_PROGRAM_SECONDS_MAX, check=True)
            used = cpu_seconds(server) - before
            said = done.stdout.decode()
            good = int(re.search(r"(\d+) 2xx", said).group(1))
            per_second = float(re.search(r"([\d.]+) req/s", said).group(1))
            return {"server_us": used * 1e6 / good, "per_s": per_second}

        return Row(f"{in_flight} in flight", [_SERVER_CPU, _PER_SECOND], measure)

    def idle_row(name, server_program, server_args, load, prefix=""):
        # A server of its own for each measurement: one that has had connections keeps memory for the next.
        def measure(peer):
            port, server = servers.address(server_program + peer, *server_args)
            try:
                role = "idle" if peer == "grpc" else prefix + "idle"
                return run(os.path.join(folder, load(peer)), role, port, server, _IDLE_CONNECTIONS)
            finally:
                servers.end(server_program + peer, *server_args)

        return Row(name, [Metric("bytes_each", "server memory, B", 0)], measure)

    return [
        Section("Loop: CPU of one operation", ["troupe", "asio"], [loop_row(*case) for case in _LOOP_CASES]),
        Section("Byte echo over TCP: each message and its answer", ["troupe", "epoll", "asio"],
                [bytes_row(*size) for size in _BYTES_SIZES]),
        Section("Unary calls of 8 bytes over TCP, one connection", ["troupe", "grpc"],
                [rpc_row(in_flight) for in_flight in _CALLS_IN_FLIGHT]),
        Section("Unary calls of 8 bytes over TCP and gRPC's wire, one connection", ["troupe", "grpc"],
                [rpc_row(in_flight, "grpc-") for in_flight in _CALLS_IN_FLIGHT]),
        Section("Servers on gRPC's wire, one client for all: unary calls", ["troupe", "callback", "async", "sync"],
                [grpc_row("grpc-client", *case) for case in _GRPC_CALLS]),
        Section("Servers on gRPC's wire, one client for all: streamed messages", ["troupe", "callback"],
                [grpc_row("grpc-stream", *case) for case in _GRPC_STREAMS]),
        Section("Servers on gRPC's wire with TLS, one client for all: unary calls", ["troupe", "callback"],
                [grpc_row("grpc-client", *case, scratch) for case in _TLS_CALLS]),
        Section("Servers on gRPC's wire, h2load: unary calls of 8 bytes, and nghttpd's files of that size",
                ["troupe", "callback", "nghttpd"], [h2load_row(in_flight) for in_flight in _CALLS_IN_FLIGHT]),
        Section(f"Each of {_IDLE_CONNECTIONS:,} idle connections", ["troupe", "asio"],
                [idle_row("bytes", "bytes_", [], lambda _: "bytes_load")]),
        Section(f"Each of {_IDLE_CONNECTIONS:,} idle connections that made a call", ["troupe", "grpc"],
                [
                    idle_row("native", "rpc_", ["server"], lambda peer: "rpc_" + peer),
                    idle_row("gRPC", "rpc_", ["server"], lambda peer: "rpc_" + peer, "grpc-"),
                ]),
    ]


def measure_interleaved(row, peers, repetitions):
    """{peer: [results of each repetition]}"""
    results = {peer: [] for peer in peers}
    for repetition in range(repetitions):
        for peer in peers if repetition % 2 == 0 else reversed(peers):
            results[peer].append(row.measure(peer))
    return results


def ratio(metric, ours, theirs):
    """How many times better we are, as (median, least, most) of the repetitions."""
    ratios = []
    for our_result, their_result in zip(ours, theirs):
        a, b = our_result[metric.key], their_result[metric.key]
        ratios.append(a / b if metric.more_is_better else b / a)
    return statistics.median(ratios), min(ratios), max(ratios)


def lines_of(row, peers, results):
    """The rows of the table, one for each metric."""
    lines = []
    for metric in row.metrics:
        cells = [row.name, metric.title]
        for peer in peers:
            cells.append(f"{statistics.median(r[metric.key] for r in results[peer]):,.{metric.digits}f}")
        for peer in peers[1:]:
            median, least, most = ratio(metric, results[peers[0]], results[peer])
            cells.append(f"{median:.2f} ({least:.2f}-{most:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def header_of(section):
    cells = ["", "", *section.peers, *(f"vs {peer} (min-max)" for peer in section.peers[1:])]
    return ["| " + " | ".join(cells) + " |", "|---|---|" + "---:|" * (len(cells) - 2)]


def machine():
    """Processor, count of processors, and how busy they are with other things."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} at the start"


def main(argv):
    parser = argparse.ArgumentParser(prog="tools/run bench", description="Measures Troupe beside its peers.")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.8, help="of load per measurement of a server")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="parts of the names of rows; default: all")
    options = parser.parse_args(argv[1:])
    if options.repetitions < 1 or not 0 < options.seconds < _PROGRAM_SECONDS_MAX / 2:
        parser.error("that is not a measurement")

    print(f"{machine()}; medians of {options.repetitions}. Above 1: Troupe is better.")
    folder = os.path.dirname(os.path.abspath(argv[0]))
    found = False
    with tempfile.TemporaryDirectory(prefix="bench") as scratch, Servers(folder) as servers:
        make_certificates(scratch)
        for section in sections(folder, scratch, servers, options.seconds):
            names = [f"{section.title}: {row.name}" for row in section.rows]
            rows = [
                row for row, name in zip(section.rows, names)
                if not options.patterns or any(pattern.lower() in name.lower() for pattern in options.patterns)
            ]
            if not rows:
                continue
            found = True
            print(f"\n{section.title}\n\n" + "\n".join(header_of(section)), flush=True)
            for row in rows:
                results = measure_interleaved(row, section.peers, options.repetitions)
                print("\n".join(lines_of(row, section.peers, results)), flush=True)
    if not found:
        parser.error("no row has such a name")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
