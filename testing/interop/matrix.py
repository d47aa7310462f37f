#!/usr/bin/env python3
"""The cases of gRPC's interoperability tests, one implementation's client against another's server.

usage: matrix.py SERVER CLIENT [VARIANT...]      one pair; exits 1 if a case fails that nothing excuses
       matrix.py                                 every pair, and at the end the table

SERVER and CLIENT are of PEERS; a variant is tls, native (Troupe's own wire, at both ends), unix, nginx or haproxy (in
front of the server). Programs are found below the current folder, as among the runfiles.

Each cell is "ok", the feature that one side lacks (LACKS), or FAILED. A case that is excused is not run.
"""

import os
import shutil
import signal
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
    "node": {
        "server": ["node", "testing/interop/node_peer/peer.js", "server"],
        "client": ["node", "testing/interop/node_peer/peer.js", "client"],
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
    "rpc_soak",
    "channel_soak",
]

_COMPRESSED = [case for case in CASES if "_compressed_" in case]

# (peer, role) -> {case: the feature that it lacks}. Two peers' lacks join.
LACKS = {
    ("go", "server"): {case: "grpc-go: packing one message and not another" for case in _COMPRESSED},
    ("go", "client"): {case: "grpc-go: whether a message was packed" for case in _COMPRESSED},
    ("node", "server"): {case: "grpc-js: packing one message and not another" for case in _COMPRESSED},
    ("node", "client"): {case: "grpc-js: whether a message was packed" for case in _COMPRESSED},
    ("python", "server"): {case: "grpcio: whether a request was packed" for case in _COMPRESSED if "client" in case},
    ("python", "client"): {case: "grpcio: whether a message was packed" for case in _COMPRESSED},
}

# What stands between, with the same meaning.
LACKS_OF_VARIANTS = {
    "native": {case: "Troupe's own wire: packing" for case in _COMPRESSED},
    "haproxy": {
        "concurrent_large_unary": "HAProxy 2.6: its connection stands still while one stream has no window, and a server "
        "of Troupe takes 16 MiB of messages at a time, beyond 64 KiB of each"
    }
}

# Every pair that the table has: server, client, variants.
PAIRS = [
    ("troupe", "troupe"),
    ("troupe", "troupe", "tls"),
    ("troupe", "troupe", "unix"),
    ("troupe", "troupe", "native"),
    ("troupe", "troupe", "native", "tls"),
    ("cpp", "troupe"),
    ("cpp", "troupe", "tls"),
    ("troupe", "cpp"),
    ("troupe", "cpp", "tls"),
    ("troupe", "troupe", "nginx"),
    ("troupe", "cpp", "nginx"),
    ("troupe", "troupe", "haproxy"),
    ("troupe", "cpp", "haproxy"),
    ("go", "troupe"),
    ("go", "troupe", "tls"),
    ("troupe", "go"),
    ("troupe", "go", "tls"),
    ("python", "troupe"),
    ("troupe", "python"),
]

# Of the table only: npm's packages are not Debian's. tools/run interop installs them where npm is.
NODE_PAIRS = [
    ("node", "troupe"),
    ("node", "troupe", "tls"),
    ("troupe", "node"),
    ("troupe", "node", "tls"),
]

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

HAPROXY = """
global
  tune.bufsize 65536
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


def print_table(table):
    pairs = [name_of(pair[0], pair[1], pair[2:]) for pair in PAIRS]
    print("\ncolumns, client -> server:")
    for number, pair in enumerate(pairs, 1):
        print("  %2d %s" % (number, pair))
    print("\n%-28s %s" % ("", " ".join("%4d" % n for n in range(1, len(pairs) + 1))))
    for case in CASES:
        cells = []
        for pair in pairs:
            outcome = table.get(case, {}).get(pair, "FAILED")
            cells.append("ok" if outcome == "ok" else "-" if outcome.startswith("lacks: ") else "FAIL")
        print("%-28s %s" % (case, " ".join("%4s" % cell for cell in cells)))
    reasons = sorted({o for row in table.values() for o in row.values() if o.startswith("lacks: ")})
    print("\n-: one side lacks the feature\n" + "".join("  %s\n" % r[len("lacks: ") :] for r in reasons))


def has_node():
    try:
        load = ["node", "-e", "require('@grpc/grpc-js'); require('@grpc/proto-loader')"]
        return subprocess.run(load, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def main(arguments):
    if arguments:
        return 0 if try_pair(arguments[0], arguments[1], arguments[2:], {}) else 1
    table = {}
    if has_node():
        PAIRS.extend(NODE_PAIRS)
    else:
        print("without Node: its @grpc/grpc-js is not installed")
    good = [try_pair(pair[0], pair[1], pair[2:], table) for pair in PAIRS]
    print_table(table)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
