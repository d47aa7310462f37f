#!/usr/bin/env python3
"""A client of the interoperability tests by `buf curl`, which knows no .proto: it asks the server's reflection.

    buf_peer.py client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]

Says a line for each case: its name and "ok", or what went otherwise. Each call is a process of its own. The program is
npm's, below NODE_PATH.
"""

import base64
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

FLAGS = dict((argument[2:].split("=", 1) + [""])[:2] for argument in sys.argv[2:])
SERVICE = "grpc.testing.TestService"
REQUEST_SIZES = [27182, 8, 1828, 45904]
RESPONSE_SIZES = [31415, 9, 2653, 58979]
ECHO_INITIAL = "X-Grpc-Test-Echo-Initial"
ECHO_TRAILING = "X-Grpc-Test-Echo-Trailing-Bin"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


class Failure(Exception):
    """What went otherwise."""


def require(holds, what):
    if not holds:
        raise Failure(what)


def command(method, *options, service=SERVICE):
    tls = "use_tls" in FLAGS
    # The package of this machine's processor.
    programs = glob.glob(os.path.join(os.environ["NODE_PATH"], "@bufbuild/buf-*/bin/buf"))
    require(programs, "buf is not installed")
    argv = [programs[0], "curl", "--protocol=grpc", *options]
    if tls:
        argv += ["--cacert=" + FLAGS["ca_file"], "--servername=" + FLAGS["server_host_override"]]
    else:
        argv.append("--http2-prior-knowledge")
    host = FLAGS.get("server_host", "127.0.0.1") + ":" + FLAGS["server_port"]
    return argv + ["%s://%s/%s/%s" % ("https" if tls else "http", host, service, method)]


def parse(text):
    """The JSON documents that stand one behind the other."""
    decoder, documents, text = json.JSONDecoder(), [], text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        documents.append(document)
        text = text[end:].lstrip()
    return documents


def curl(method, *requests, options=(), **where):
    """(messages, error, stderr): the error as JSON, None if the call was OK."""
    data = "\n".join(json.dumps(request) for request in requests)
    done = subprocess.run(command(method, *options, "--data=@-", **where), input=data, capture_output=True, text=True,
                          check=False)
    error = None
    if done.returncode != 0:
        # Of a verbose run the last lines.
        found = re.search(r"^\{.*?^\}", done.stderr, re.MULTILINE | re.DOTALL)
        require(found is not None, "no status: " + done.stderr)
        error = json.loads(found.group())
    return parse(done.stdout), error, done.stderr


def zeros(size):
    return {"body": base64.b64encode(bytes(size)).decode("ascii")}


LARGE = {"responseSize": 314159, "payload": zeros(271828)}


def question(request_size, *sizes):
    return {"payload": zeros(request_size), "responseParameters": [{"size": size} for size in sizes]}


def require_sizes(messages, sizes):
    got = [len(base64.b64decode(message["payload"]["body"])) for message in messages]
    require(got == sizes, "sizes %s, want %s" % (got, sizes))


def require_error(error, code, message=None):
    require(error is not None and error["code"] == code, "ended with %s, want %s" % (error, code))
    require(message is None or error["message"] == message, "the message is %r" % error.get("message"))


def empty_unary():
    messages, error, _ = curl("EmptyCall", {})
    require(error is None and messages == [{}], "got %s, %s" % (messages, error))


def large_unary():
    messages, error, _ = curl("UnaryCall", LARGE)
    require(error is None, error)
    require_sizes(messages, [314159])


def client_streaming():
    messages, error, _ = curl("StreamingInputCall", *({"payload": zeros(size)} for size in REQUEST_SIZES))
    require(error is None and messages == [{"aggregatedPayloadSize": 74922}], "got %s, %s" % (messages, error))


def server_streaming():
    messages, error, _ = curl("StreamingOutputCall", question(0, *RESPONSE_SIZES))
    require(error is None, error)
    require_sizes(messages, RESPONSE_SIZES)


def ping_pong():
    with subprocess.Popen(command("FullDuplexCall", "--data=@-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as running:
        for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES):
            running.stdin.write(json.dumps(question(request_size, response_size)))
            running.stdin.flush()
            # A document is printed over several lines; the last one closes it.
            lines = []
            while not lines or lines[-1] not in ("}\n", ""):
                lines.append(running.stdout.readline())
            require_sizes(parse("".join(lines)), [response_size])
        running.stdin.close()
        require(running.stdout.read().strip() == "" and running.wait() == 0, "no good end")


def empty_stream():
    messages, error, _ = curl("FullDuplexCall")
    require(error is None and messages == [], "got %s, %s" % (messages, error))


def custom_metadata():
    options = ("--verbose", "--header=%s: test_initial_metadata_value" % ECHO_INITIAL, "--header=%s: q6ur" % ECHO_TRAILING)
    for method, request in ("UnaryCall", LARGE), ("FullDuplexCall", question(271828, 314159)):
        messages, error, said = curl(method, request, options=options)
        require(error is None, error)
        require_sizes(messages, [314159])
        received = [line.split(") ", 1)[1] for line in said.splitlines() if line.startswith("buf: < (#") and ") " in line]
        for line in ECHO_INITIAL + ": test_initial_metadata_value", ECHO_TRAILING + ": q6ur":
            require(line in received, "%s: no %s" % (method, line))


def status_code_and_message():
    status = {"responseStatus": {"code": 2, "message": "test status message"}}
    for method in "UnaryCall", "FullDuplexCall":
        require_error(curl(method, status)[1], "unknown", "test status message")


def special_status_message():
    require_error(curl("UnaryCall", {"responseStatus": {"code": 2, "message": SPECIAL}})[1], "unknown", SPECIAL)


def unimplemented_method():
    require_error(curl("UnimplementedCall", {})[1], "unimplemented")


def unimplemented_service():
    require_error(curl("UnimplementedCall", {}, service="grpc.testing.UnimplementedService")[1], "unimplemented")


def channel_soak():
    for _ in range(10):
        large_unary()


def main():
    failed = False
    # It keeps a cache there.
    with tempfile.TemporaryDirectory(prefix="buf") as home:
        os.environ["HOME"] = os.environ["BUF_CACHE_DIR"] = home
        for name in FLAGS["test_case"].split(","):
            outcome = "ok"
            try:
                globals()[name]()
            except (Failure, KeyError, ValueError) as failure:
                failed, outcome = True, repr(failure)
            print(name, outcome)
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
