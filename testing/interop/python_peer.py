#!/usr/bin/env python3
"""The other end, by Python's grpcio: server and client of the interoperability tests.

usage: python_peer.py server --port=0 [--use_tls --tls_cert_file=... --tls_key_file=...]
       python_peer.py client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]

A server says "listening on ADDRESS" and serves until its stdin ends. A client says a line for each case: its name and
"ok", or what went otherwise. Messages are made from the descriptors in TESTING_DESCRIPTORS: generated modules would lie
in a package "grpc", which is grpcio's.
"""

import concurrent.futures
import os
import sys
import time

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_DESCRIPTORS = os.environ.get("TESTING_DESCRIPTORS", "protos/grpc/testing/testing_proto-descriptor-set.proto.bin")
_REQUEST_SIZES = [27182, 8, 1828, 45904]
_RESPONSE_SIZES = [31415, 9, 2653, 58979]
_ECHO_INITIAL = "x-grpc-test-echo-initial"
_ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
_SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
_SERVICE = "/grpc.testing.TestService/"


def _load():
    files = descriptor_pb2.FileDescriptorSet()
    with open(_DESCRIPTORS, "rb") as file:
        files.ParseFromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for each in files.file:
        pool.Add(each)
    factory = message_factory.MessageFactory(pool)
    return pool, lambda name: factory.GetPrototype(pool.FindMessageTypeByName("grpc.testing." + name))


_POOL, message = _load()
Empty = message("Empty")
SimpleRequest = message("SimpleRequest")
SimpleResponse = message("SimpleResponse")
OutputRequest = message("StreamingOutputCallRequest")
OutputResponse = message("StreamingOutputCallResponse")
InputRequest = message("StreamingInputCallRequest")
InputResponse = message("StreamingInputCallResponse")
_METHODS = {
    "EmptyCall": ("unary_unary", Empty, Empty),
    "UnaryCall": ("unary_unary", SimpleRequest, SimpleResponse),
    "CacheableUnaryCall": ("unary_unary", SimpleRequest, SimpleResponse),
    "StreamingOutputCall": ("unary_stream", OutputRequest, OutputResponse),
    "StreamingInputCall": ("stream_unary", InputRequest, InputResponse),
    "FullDuplexCall": ("stream_stream", OutputRequest, OutputResponse),
    "HalfDuplexCall": ("stream_stream", OutputRequest, OutputResponse),
}


# --- The server -------------------------------------------------------------------------------------------------------


def _echo(context):
    for key, value in context.invocation_metadata():
        if key == _ECHO_INITIAL:
            context.send_initial_metadata([(key, value)])
        if key == _ECHO_TRAILING:
            context.set_trailing_metadata([(key, value)])


def _end(request, context):
    if request.response_status.code:
        code = next(c for c in grpc.StatusCode if c.value[0] == request.response_status.code)
        context.abort(code, request.response_status.message)


def _unary(request, context):
    _echo(context)
    _end(request, context)
    if request.response_compressed.value:
        context.set_compression(grpc.Compression.Gzip)
    response = SimpleResponse()
    response.payload.body = bytes(request.response_size)
    return response


def _empty(_, context):
    _echo(context)
    return Empty()


def _output(request, context):
    for wanted in request.response_parameters:
        if wanted.interval_us:
            time.sleep(wanted.interval_us / 1e6)  # NOLINT(troupe-sleep): the request asks for it
        if not wanted.compressed.value:
            context.disable_next_message_compression()
        response = OutputResponse()
        response.payload.body = bytes(wanted.size)
        yield response


def _streaming_output(request, context):
    _echo(context)
    _end(request, context)
    if any(wanted.compressed.value for wanted in request.response_parameters):
        context.set_compression(grpc.Compression.Gzip)
    yield from _output(request, context)


def _streaming_input(requests, context):
    _echo(context)
    return InputResponse(aggregated_payload_size=sum(len(request.payload.body) for request in requests))


def _duplex(requests, context):
    _echo(context)
    for request in requests:
        _end(request, context)
        yield from _output(request, context)


def _half_duplex(requests, context):
    yield from _duplex(iter(list(requests)), context)


def serve(flags):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
    behaviours = {
        "EmptyCall": _empty,
        "UnaryCall": _unary,
        "CacheableUnaryCall": _unary,
        "StreamingOutputCall": _streaming_output,
        "StreamingInputCall": _streaming_input,
        "FullDuplexCall": _duplex,
        "HalfDuplexCall": _half_duplex,
    }
    handlers = {
        name: getattr(grpc, kind + "_rpc_method_handler")(
            behaviours[name], request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )
        for name, (kind, request, response) in _METHODS.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.testing.TestService", handlers)])
    where = "127.0.0.1:" + flags.get("port", "0")
    if "use_tls" in flags:
        with open(flags["tls_key_file"], "rb") as key, open(flags["tls_cert_file"], "rb") as chain:
            port = server.add_secure_port(where, grpc.ssl_server_credentials([(key.read(), chain.read())]))
    else:
        port = server.add_insecure_port(where)
    server.start()
    print("listening on 127.0.0.1:%d" % port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()


# --- The client -------------------------------------------------------------------------------------------------------


class Wrong(Exception):
    """What went otherwise."""


def require(holds, what):
    if not holds:
        raise Wrong(what)


def require_end(call, code, text=None):
    """`call` gives the answer, or raises RpcError."""
    try:
        call()
        got, details = grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        got, details = error.code(), error.details()
    require(got is code, "ended with %s %r, want %s" % (got, details, code))
    require(text is None or details == text, "the message is %r, want %r" % (details, text))


class Client:
    """One channel with the methods of TestService."""

    def __init__(self, flags):
        self.flags = flags
        where = flags.get("server_uri") or "%s:%s" % (flags.get("server_host", "127.0.0.1"), flags["server_port"])
        options = [("grpc.use_local_subchannel_pool", 1)]
        if "use_tls" in flags:
            with open(flags["ca_file"], "rb") as roots:
                credentials = grpc.ssl_channel_credentials(roots.read())
            options.append(("grpc.ssl_target_name_override", flags["server_host_override"]))
            self.channel = grpc.secure_channel(where, credentials, options)
        else:
            self.channel = grpc.insecure_channel(where, options)
        for name, (kind, request, response) in _METHODS.items():
            setattr(self, name, self.method(_SERVICE + name, kind, request, response))

    def method(self, path, kind, request, response):
        make = getattr(self.channel, kind)
        return make(path, request_serializer=request.SerializeToString, response_deserializer=response.FromString)


def _large():
    request = SimpleRequest(response_size=314159)
    request.payload.body = bytes(271828)
    return request


def _question(request_size, response_size=None):
    request = OutputRequest()
    request.payload.body = bytes(request_size)
    if response_size is not None:
        request.response_parameters.add(size=response_size)
    return request


class Questions:
    """An iterator that a test feeds."""

    def __init__(self):
        import queue  # pylint: disable=import-outside-toplevel

        self._queue = queue.Queue()

    def __iter__(self):
        return iter(self._queue.get, None)

    def put(self, question):
        self._queue.put(question)


def empty_unary(client):
    require(client.EmptyCall(Empty()).ByteSize() == 0, "bytes in an empty answer")


def large_unary(client):
    require(client.UnaryCall(_large()).payload.body == bytes(314159), "a wrong payload")


def client_streaming(client):
    requests = []
    for size in _REQUEST_SIZES:
        requests.append(InputRequest())
        requests[-1].payload.body = bytes(size)
    require(client.StreamingInputCall(iter(requests)).aggregated_payload_size == 74922, "a wrong sum")


def server_streaming(client):
    request = OutputRequest()
    for size in _RESPONSE_SIZES:
        request.response_parameters.add(size=size)
    sizes = [len(response.payload.body) for response in client.StreamingOutputCall(request)]
    require(sizes == _RESPONSE_SIZES, "sizes %s" % sizes)


def ping_pong(client):
    questions = Questions()
    answers = client.FullDuplexCall(iter(questions))
    for request_size, response_size in zip(_REQUEST_SIZES, _RESPONSE_SIZES):
        questions.put(_question(request_size, response_size))
        require(len(next(answers).payload.body) == response_size, "a wrong size")
    questions.put(None)
    require(not list(answers), "too many messages")


def empty_stream(client):
    require(not list(client.FullDuplexCall(iter([]))), "a message")


def custom_metadata(client):
    metadata = [(_ECHO_INITIAL, "test_initial_metadata_value"), (_ECHO_TRAILING, b"\xab\xab\xab")]
    _, unary = client.UnaryCall.with_call(_large(), metadata=metadata)
    duplex = client.FullDuplexCall(iter([_question(271828, 314159)]), metadata=metadata)
    require([len(answer.payload.body) for answer in duplex] == [314159], "a wrong answer")
    for call in (unary, duplex):
        require(metadata[0] in [tuple(entry) for entry in call.initial_metadata()], "no initial metadata")
        require(metadata[1] in [tuple(entry) for entry in call.trailing_metadata()], "no trailing metadata")


def status_code_and_message(client):
    request = SimpleRequest()
    request.response_status.code, request.response_status.message = 2, "test status message"
    question = OutputRequest(response_status=request.response_status)
    text = request.response_status.message
    require_end(lambda: client.UnaryCall(request), grpc.StatusCode.UNKNOWN, text)
    require_end(lambda: list(client.FullDuplexCall(iter([question]))), grpc.StatusCode.UNKNOWN, text)


def special_status_message(client):
    request = SimpleRequest()
    request.response_status.code, request.response_status.message = 2, _SPECIAL
    require_end(lambda: client.UnaryCall(request), grpc.StatusCode.UNKNOWN, _SPECIAL)


def unimplemented_method(client):
    method = client.method(_SERVICE + "UnimplementedCall", "unary_unary", Empty, Empty)
    require_end(lambda: method(Empty()), grpc.StatusCode.UNIMPLEMENTED)


def unimplemented_service(client):
    method = client.method("/grpc.testing.UnimplementedService/UnimplementedCall", "unary_unary", Empty, Empty)
    require_end(lambda: method(Empty()), grpc.StatusCode.UNIMPLEMENTED)


def cancel_after_begin(client):
    call = client.StreamingInputCall.future(iter(Questions()))
    call.cancel()
    require(call.code() is grpc.StatusCode.CANCELLED, str(call.code()))


def cancel_after_first_response(client):
    questions = Questions()
    call = client.FullDuplexCall(iter(questions))
    questions.put(_question(27182, 31415))
    next(call)
    call.cancel()
    require(call.code() is grpc.StatusCode.CANCELLED, str(call.code()))
    questions.put(None)


def timeout_on_sleeping_server(client):
    questions = Questions()
    questions.put(_question(27182))
    require_end(lambda: list(client.FullDuplexCall(iter(questions), timeout=0.001)), grpc.StatusCode.DEADLINE_EXCEEDED)
    questions.put(None)


def concurrent_large_unary(client):
    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        for done in [threads.submit(large_unary, client) for _ in range(200)]:
            done.result()


def rpc_soak(client):
    for _ in range(10):
        large_unary(client)


def channel_soak(client):
    for _ in range(10):
        own = Client(client.flags)
        large_unary(own)
        own.channel.close()


def run_cases(flags):
    client = Client(flags)
    failures = 0
    for name in flags["test_case"].split(","):
        outcome = "ok"
        try:
            globals()[name](client)
        except Exception as error:  # pylint: disable=broad-except
            failures += 1
            outcome = repr(error).replace("\n", " ")
        print(name, outcome, flush=True)
    client.channel.close()
    return min(failures, 1)


def main(arguments):
    flags = dict((argument[2:].split("=", 1) + [""])[:2] for argument in arguments[1:])
    return serve(flags) if arguments[0] == "server" else run_cases(flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
