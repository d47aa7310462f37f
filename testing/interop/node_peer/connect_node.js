// The other end, by Node's @connectrpc/connect-node, with gRPC as its protocol: server and client of the
// interoperability tests.
//
//   node connect_node.js server --port=0 [--use_tls --tls_cert_file=... --tls_key_file=...]
//   node connect_node.js client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]
//
// A server says "listening on ADDRESS" and serves until its stdin ends. What a client says: common.js.
"use strict";

const fs = require("fs");
const http2 = require("http2");
const { createFileRegistry, fromBinary } = require("@bufbuild/protobuf");
const { FileDescriptorSetSchema } = require("@bufbuild/protobuf/wkt");
const { Code, ConnectError, createClient } = require("@connectrpc/connect");
const { Http2SessionManager, connectNodeAdapter, createGrpcTransport } = require("@connectrpc/connect-node");
const { ECHO_INITIAL, ECHO_TRAILING, flags, main, output, payload, wanted } = require("./common.js");

// Nothing is generated.
const descriptors = fs.readFileSync("protos/grpc/testing/testing_proto-descriptor-set.proto.bin");
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const TestService = registry.getService("grpc.testing.TestService");
const UnimplementedService = registry.getService("grpc.testing.UnimplementedService");

// Node's own bound, 10 MB for all streams of a session, ends what goes over it.
const maxSessionMemory = 1000;

// ---------------------------------------------------------------- the server

function echo(context) {
  for (const [key, to] of [
    [ECHO_INITIAL, context.responseHeader],
    [ECHO_TRAILING, context.responseTrailer],
  ]) {
    const value = context.requestHeader.get(key);
    if (value !== null) to.set(key, value);
  }
}

function failIfWanted(request) {
  const status = wanted(request);
  if (status !== null) throw new ConnectError(status.message, status.code);
}

async function unary(request, context) {
  echo(context);
  failIfWanted(request);
  return { payload: payload(request.responseSize) };
}

// What output() sends, as a generator has it.
async function* outputs(request) {
  const messages = [];
  for (const each of request.responseParameters) {
    await output({ responseParameters: [each] }, (message) => messages.push(message));
    yield messages.pop();
  }
}

async function* streamingOutput(request, context) {
  echo(context);
  failIfWanted(request);
  yield* outputs(request);
}

async function streamingInput(requests, context) {
  echo(context);
  let sum = 0;
  for await (const request of requests) sum += request.payload.body.length;
  return { aggregatedPayloadSize: sum };
}

async function* duplex(requests, context) {
  echo(context);
  for await (const request of requests) {
    failIfWanted(request);
    yield* outputs(request);
  }
}

function serve() {
  const routes = (router) =>
    router.service(TestService, {
      emptyCall: async (_, context) => echo(context) || {},
      unaryCall: unary,
      cacheableUnaryCall: unary,
      streamingOutputCall: streamingOutput,
      streamingInputCall: streamingInput,
      fullDuplexCall: duplex,
    });
  const handler = connectNodeAdapter({ routes, connect: false, grpcWeb: false });
  const server =
    "use_tls" in flags
      ? http2.createSecureServer(
          { maxSessionMemory, key: fs.readFileSync(flags.tls_key_file), cert: fs.readFileSync(flags.tls_cert_file) },
          handler,
        )
      : http2.createServer({ maxSessionMemory }, handler);
  server.listen(Number(flags.port || 0), "127.0.0.1", () =>
    console.log(`listening on 127.0.0.1:${server.address().port}`),
  );
  process.stdin.on("end", () => process.exit());
  process.stdin.resume();
}

// ---------------------------------------------------------------- the client

// What a caller pushes, as an iterable.
class Pushed {
  constructor() {
    this.items = [];
    this.over = false;
    this.wake = () => {};
  }
  push(item) {
    this.items.push(item);
    this.wake();
  }
  end() {
    this.over = true;
    this.wake();
  }
  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.items.length > 0) yield this.items.shift();
      if (this.over) return;
      await new Promise((wake) => (this.wake = wake));
    }
  }
}

const headersOf = (fields = {}) => {
  const headers = new Headers();
  for (const [key, value] of Object.entries(fields)) {
    headers.append(key, Buffer.isBuffer(value) ? value.toString("base64") : value);
  }
  return headers;
};

class Client {
  constructor() {
    const tls = "use_tls" in flags;
    const baseUrl = `${tls ? "https" : "http"}://${flags.server_host || "127.0.0.1"}:${flags.server_port}`;
    const nodeOptions = { maxSessionMemory };
    if (tls) Object.assign(nodeOptions, { ca: fs.readFileSync(flags.ca_file), servername: flags.server_host_override });
    this.session = new Http2SessionManager(baseUrl, {}, nodeOptions);
    const transport = createGrpcTransport({ baseUrl, sessionManager: this.session });
    this.known = createClient(TestService, transport);
    this.unknown = createClient(UnimplementedService, transport);
  }

  close() {
    this.session.abort();
  }

  // Calls `make(options)`; fills `outcome` with what comes of it.
  async run(outcome, { metadata, ...options }, make) {
    Object.assign(outcome, { code: 0, details: "", initial: () => undefined, trailing: () => undefined });
    try {
      await make({
        ...options,
        headers: headersOf(metadata),
        onHeader: (headers) => (outcome.initial = (key) => headers.get(key) || undefined),
        onTrailer: (trailers) => (outcome.trailing = (key) => Buffer.from(trailers.get(key) || "", "base64")),
      });
    } catch (error) {
      const { code, rawMessage } = ConnectError.from(error, Code.Unknown);
      Object.assign(outcome, { code, details: rawMessage });
    }
    return outcome;
  }

  unary(method, request, { metadata, unknownService } = {}) {
    const stub = unknownService ? this.unknown : this.known;
    const outcome = {};
    return this.run(outcome, { metadata }, async (options) => {
      outcome.response = await stub[method](request, options);
    });
  }

  stream(method, { metadata, timeoutMs, onMessage = () => {} } = {}) {
    const { methodKind } = TestService.method[method];
    const requests = new Pushed();
    const stopping = new AbortController();
    const outcome = { messages: [] };
    const ended = this.run(outcome, { metadata, timeoutMs, signal: stopping.signal }, async (options) => {
      const add = (message) => onMessage(outcome.messages.push(message));
      if (methodKind === "client_streaming") return add(await this.known[method](requests, options));
      // Of a method with one request: the first one.
      const request = methodKind === "bidi_streaming" ? requests : (await requests[Symbol.asyncIterator]().next()).value;
      for await (const message of this.known[method](request, options)) add(message);
      return undefined;
    });
    return {
      write: (request) => requests.push(request),
      end: () => requests.end(),
      cancel: () => stopping.abort(),
      ended,
    };
  }
}

main(serve, Client);
