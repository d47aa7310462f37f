#!/usr/bin/env python3
"""The cases of gRPC's interoperability tests, one implementation's client against another's server.

usage: matrix.py SERVER,CLIENT[,VARIANT...] ...

Of several pairs it prints a table at the end. Exits 1 if a case fails that nothing excuses. SERVER and CLIENT are of
PEERS; a variant is tls, native (Troupe's own wire, at both ends), unix, nginx or haproxy (in front of the server).
Programs are found below the current folder, as among the runfiles.

Each cell is "ok", the feature that one side lacks (LACKS), or FAILED. A case that is excused is not run.
"""

import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile

# What every program of a peer is called by. Each understands: server --port=0 [--use_tls --tls_cert_file= --tls_key_file=],
# says "listening on HOST:PORT" and ends with its stdin or by SIGTERM; client --server_port= --test_case=A,B [--use_tls
# --ca_file= --server_host_override=], says a line for each case: its name, and "ok" or what went otherwise.
PEERS = {
    "troupe": {
        "server": ["services/interop/interop_server"],
        "client": ["services/interop/interop_client"],
    },
    "cpp": {
        "server": ["testing/interop/cpp_peer", "server"],
        "client": ["testing/interop/cpp_peer", "client"],
    },
    "python": {
        "server": ["/usr/bin/python3", "testing/interop/python_peer.py", "server"],
        "client": ["/usr/bin/python3", "testing/interop/python_peer.py", "client"],
    },
    "go": {
        "server": ["testing/interop/go_peer/go_peer", "server"],
        "client": ["testing/interop/go_peer/go_peer", "client"],
    },
    "grpc-js": {
        "server": ["node", "testing/interop/node_peer/grpc_js.js", "server"],
        "client": ["node", "testing/interop/node_peer/grpc_js.js", "client"],
    },
    "connect-node": {
        "server": ["node", "testing/interop/node_peer/connect_node.js", "server"],
        "client": ["node", "testing/interop/node_peer/connect_node.js", "client"],
    },
    # `buf curl`, which asks the server's reflection for what it calls.
    "buf": {
        "client": ["/usr/bin/python3", "testing/interop/buf_peer.py", "client"],
    },
}

CASES = [
    "empty_unary",
    "large_unary",
    "client_compressed_unary",
    "server_compressed_unary",
    "client_streaming",
    "client_compressed_streaming",
    "server_streaming",
    "server_compressed_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "concurrent_large_unary",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
]

_COMPRESSED = [case for case in CASES if "_compressed_" in case]
_LOAD = [case for case in CASES if case.startswith("orca_")]

# (peer, role) -> {case: the feature that it lacks}. Two peers' lacks join.
LACKS = {
    ("go", "server"): {case: "grpc-go: packing one message and not another" for case in _COMPRESSED},
    ("go", "client"): {case: "grpc-go: whether a message was packed" for case in _COMPRESSED},
    ("grpc-js", "server"): {case: "grpc-js: packing one message and not another" for case in _COMPRESSED},
    ("grpc-js", "client"): {case: "grpc-js: whether a message was packed" for case in _COMPRESSED},
    ("connect-node", "server"): {case: "connect-node: packing one message and not another" for case in _COMPRESSED},
    ("connect-node", "client"): {case: "connect-node: whether a message was packed" for case in _COMPRESSED},
    ("buf", "client"): {
        **{case: "buf curl: whether a message was packed" for case in _COMPRESSED},
        "cancel_after_begin": "buf curl: cancelling a call",
        "cancel_after_first_response": "buf curl: cancelling a call",
        "timeout_on_sleeping_server": "buf curl: a deadline of the call, and not of asking for reflection as well",
        "concurrent_large_unary": "buf curl: several calls on a connection",
        "rpc_soak": "buf curl: several calls on a connection",
    },
    ("python", "server"): {case: "grpcio: whether a request was packed" for case in _COMPRESSED if "client" in case},
    ("python", "client"): {case: "grpcio: whether a message was packed" for case in _COMPRESSED},
}

for _peer, _roles, _what in [
    ("cpp", ["server", "client"], "gRPC C++ as Debian builds it: load reports"),
    ("go", ["server", "client"], "grpc-go 1.33: load reports"),
    ("python", ["server", "client"], "grpcio 1.51: load reports"),
    ("grpc-js", ["client"], "grpc-js: load reports outside of balancing policies"),
    ("connect-node", ["server", "client"], "connect-node: load reports"),
    ("buf", ["client"], "buf curl: load reports"),
]:
    for _role in _roles:
        LACKS.setdefault((_peer, _role), {}).update({case: _what for case in _LOAD})

LACKS["grpc-js", "server"]["orca_oob"] = "grpc-js: memory in load reports beside the calls"

# What stands between, with the same meaning.
LACKS_OF_VARIANTS = {
    "native": {case: "Troupe's own wire: packing" for case in _COMPRESSED},
}

HOST_NAME = "foo.test.google.fr"

NGINX = """
daemon off;
user root;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream troupe {{ server {server}; keepalive 1; keepalive_requests 1000000; }}
  server {{
    listen unix:{folder}/front http2;
    keepalive_requests 1000000;
    grpc_buffer_size 1m;
    location / {{ grpc_pass grpc://troupe; }}
  }}
}}
"""

# While one stream can go no further, HAProxy reads nothing more of its client's connection once that stream's buffer is
# full. A server of ours lets so many messages begin at a time, so a buffer has to hold a whole one.
HAPROXY = """
global
  tune.bufsize 524288
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend front
  bind unix@{folder}/front proto h2
  default_backend back
backend back
  server troupe {server} proto h2
"""


class Failure(Exception):
    """The pair cannot be tried."""


class Program:
    """A program that runs until the with block ends."""

    def __init__(self, argv, **options):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def make_certificates(folder):
    """A root, and a leaf for HOST_NAME: ca.pem, server.pem, server.key."""
    run = lambda *argv: subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test root")
    run("req", *key[:-2], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=" + HOST_NAME)
    with open(os.path.join(folder, "names"), "w", encoding="ascii") as names:
        names.write("subjectAltName=DNS:" + HOST_NAME)
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "names", "-out", "server.pem")


def proxy_command(name, folder, server):
    """The command of a proxy that listens on FOLDER/front."""
    path = os.path.join(folder, "proxy.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write({"nginx": NGINX, "haproxy": HAPROXY}[name].format(folder=folder, server=server))
    program = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise Failure(name + " is not installed: tools/setup")
    return [program, "-p", folder, "-e", "stderr", "-c", path] if name == "nginx" else [program, "-db", "-f", path]


def wait_for_socket(path, program):
    """Until a proxy listens: it says so in no other way."""
    import socket  # pylint: disable=import-outside-toplevel
    import time  # pylint: disable=import-outside-toplevel

    for _ in range(6000):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        if program.process.poll() is not None:
            break
        time.sleep(0.01)  # NOLINT(troupe-sleep): a proxy gives no other sign
    raise Failure("the proxy does not listen")


def run_pair(server, client, variants):
    """Yields (case, outcome) for each case: "ok", "lacks: ...", or what went wrong."""
    lacks = {**LACKS.get((server, "server"), {}), **LACKS.get((client, "client"), {})}
    for variant in variants:
        lacks.update(LACKS_OF_VARIANTS.get(variant, {}))
    wanted = [case for case in CASES if case not in lacks]
    with tempfile.TemporaryDirectory(prefix="i", dir="/tmp") as folder:
        serve, call = [*PEERS[server]["server"]], [*PEERS[client]["client"]]
        serve += ["--listen=unix:%s/socket" % folder] if "unix" in variants else ["--port=0"]
        if "native" in variants:
            call.append("--native_wire")
        if "tls" in variants:
            make_certificates(folder)
            serve += ["--use_tls", "--tls_cert_file=%s/server.pem" % folder, "--tls_key_file=%s/server.key" % folder]
            call += ["--use_tls", "--ca_file=%s/ca.pem" % folder, "--server_host_override=" + HOST_NAME]
        with Program(serve, stdout=subprocess.PIPE) as running:
            line = running.process.stdout.readline()
            if not line.startswith("listening on "):
                raise Failure("the server of %s did not start: %r" % (server, line))
            address = line[len("listening on ") :].strip()
            proxy = next((v for v in variants if v in ("nginx", "haproxy")), None)
            if proxy is None:
                outcomes = run_client(call, address, wanted)
            else:
                with Program(proxy_command(proxy, folder, address)) as proxy_program:
                    wait_for_socket(folder + "/front", proxy_program)
                    outcomes = run_client(call, "unix:%s/front" % folder, wanted)
    for case in CASES:
        yield case, "lacks: " + lacks[case] if case in lacks else outcomes.get(case, "no word of it")


def run_client(call, address, cases):
    if address.startswith("unix:"):
        call = call + ["--server_uri=" + address]
    else:
        host, port = address.rsplit(":", 1)
        call = call + ["--server_host=" + host, "--server_port=" + port]
    done = subprocess.run(call + ["--test_case=" + ",".join(cases)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def name_of(server, client, variants):
    return "%s -> %s%s" % (client, server, "".join(" " + v for v in variants))


def try_pair(server, client, variants, table):
    """Prints the cells of a pair, notes them in the table; says whether all is well."""
    good = True
    try:
        for case, outcome in run_pair(server, client, variants):
            table.setdefault(case, {})[name_of(server, client, variants)] = outcome
            fine = outcome == "ok" or outcome.startswith("lacks: ")
            good = good and fine
            print("%-40s %-28s %s" % (name_of(server, client, variants), case, outcome if fine else "FAILED: " + outcome))
    except Failure as failure:
        good = False
        print("%-40s FAILED: %s" % (name_of(server, client, variants), failure))
    sys.stdout.flush()
    return good


def print_table(pairs, table):
    names = [name_of(pair[0], pair[1], pair[2:]) for pair in pairs]
    print("\ncolumns, client -> server:")
    for number, name in enumerate(names, 1):
        print("  %2d %s" % (number, name))
    print("\n%-28s %s" % ("", " ".join("%4d" % n for n in range(1, len(names) + 1))))
    reasons = []  # in the order in which the table meets them
    for case in CASES:
        cells = []
        for name in names:
            outcome = table.get(case, {}).get(name, "FAILED")
            if outcome.startswith("lacks: "):
                reason = outcome[len("lacks: ") :]
                if reason not in reasons:
                    reasons.append(reason)
                cells.append("-" + string.ascii_lowercase[reasons.index(reason)])
            else:
                cells.append("ok" if outcome == "ok" else "FAIL")
        print("%-28s %s" % (case, " ".join("%4s" % cell for cell in cells)))
    print("\nwhat one side lacks")
    for letter, reason in zip(string.ascii_lowercase, reasons):
        print("  -%s %s" % (letter, reason))


def main(arguments):
    pairs = [tuple(argument.split(",")) for argument in arguments]
    # Where Bazel puts what npm has installed (npm.bzl).
    os.environ.setdefault("NODE_PATH", os.path.abspath("../troupe_npm/node_modules"))
    table = {}
    good = [try_pair(pair[0], pair[1], pair[2:], table) for pair in pairs]
    if len(pairs) > 1:
        print_table(pairs, table)
    return 0 if pairs and all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
