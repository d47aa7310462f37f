// The other end, by Node's @grpc/grpc-js: server and client of the interoperability tests.
//
//   node peer.js server --port=0 [--use_tls --tls_cert_file=... --tls_key_file=...]
//   node peer.js client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]
//
// A server says "listening on ADDRESS" and serves until its stdin ends. A client says a line for each case: its name and
// "ok", or what went otherwise. Messages are made from the descriptors in TESTING_DESCRIPTORS.
"use strict";

const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const flags = Object.fromEntries(
  process.argv.slice(3).map((argument) => {
    const [name, ...value] = argument.replace(/^--/, "").split("=");
    return [name, value.join("=")];
  }),
);
const descriptors =
  process.env.TESTING_DESCRIPTORS || "protos/grpc/testing/testing_proto-descriptor-set.proto.bin";
const definition = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(descriptors), {
  keepCase: true,
  defaults: true,
  oneofs: true,
});
const { TestService, UnimplementedService } = grpc.loadPackageDefinition(definition).grpc.testing;

const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const ECHO_INITIAL = "x-grpc-test-echo-initial";
const ECHO_TRAILING = "x-grpc-test-echo-trailing-bin";
const BINARY = Buffer.from([0xab, 0xab, 0xab]);
const SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n";

const payload = (size) => ({ body: Buffer.alloc(size) });

// ---------------------------------------------------------------- the server

// Gives the trailers.
function echo(call) {
  const initial = call.metadata.get(ECHO_INITIAL);
  if (initial.length > 0) {
    const metadata = new grpc.Metadata();
    for (const value of initial) metadata.add(ECHO_INITIAL, value);
    call.sendMetadata(metadata);
  }
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(ECHO_TRAILING)) trailers.add(ECHO_TRAILING, value);
  return trailers;
}

const wanted = (request) =>
  request.response_status && request.response_status.code
    ? { code: request.response_status.code, details: request.response_status.message }
    : null;

function unary(call, done) {
  const trailers = echo(call);
  const status = wanted(call.request);
  if (status !== null) return done({ ...status, metadata: trailers });
  return done(null, { payload: payload(call.request.response_size) }, trailers);
}

async function output(request, call) {
  for (const each of request.response_parameters) {
    if (each.interval_us > 0) await new Promise((wake) => setTimeout(wake, each.interval_us / 1000));
    if (!call.write({ payload: payload(each.size) })) await new Promise((room) => call.once("drain", room));
  }
}

async function streamingOutput(call) {
  const trailers = echo(call);
  const status = wanted(call.request);
  if (status !== null) return call.emit("error", { ...status, metadata: trailers });
  await output(call.request, call);
  return call.end(trailers);
}

function streamingInput(call, done) {
  const trailers = echo(call);
  let sum = 0;
  call.on("data", (request) => (sum += request.payload.body.length));
  call.on("end", () => done(null, { aggregated_payload_size: sum }, trailers));
}

function duplex(call) {
  const trailers = echo(call);
  let last = Promise.resolve();
  call.on("data", (request) => {
    last = last.then(() => {
      const status = wanted(request);
      return status !== null ? call.emit("error", { ...status, metadata: trailers }) : output(request, call);
    });
  });
  call.on("end", () => last.then(() => call.end(trailers)));
}

function serve() {
  const server = new grpc.Server({ "grpc.max_receive_message_length": -1 });
  server.addService(TestService.service, {
    EmptyCall: (call, done) => done(null, {}, echo(call)),
    UnaryCall: unary,
    CacheableUnaryCall: unary,
    StreamingOutputCall: streamingOutput,
    StreamingInputCall: streamingInput,
    FullDuplexCall: duplex,
  });
  const credentials =
    "use_tls" in flags
      ? grpc.ServerCredentials.createSsl(null, [
          { private_key: fs.readFileSync(flags.tls_key_file), cert_chain: fs.readFileSync(flags.tls_cert_file) },
        ])
      : grpc.ServerCredentials.createInsecure();
  server.bindAsync(`127.0.0.1:${flags.port || 0}`, credentials, (error, port) => {
    if (error) throw error;
    console.log(`listening on 127.0.0.1:${port}`);
  });
  process.stdin.on("end", () => server.forceShutdown());
  process.stdin.resume();
}

// ---------------------------------------------------------------- the client

function require_(holds, what) {
  if (!holds) throw new Error(what);
}

class Client {
  constructor() {
    const where = flags.server_uri || `${flags.server_host || "127.0.0.1"}:${flags.server_port}`;
    const options = { "grpc.use_local_subchannel_pool": 1 };
    let credentials = grpc.credentials.createInsecure();
    if ("use_tls" in flags) {
      credentials = grpc.credentials.createSsl(fs.readFileSync(flags.ca_file));
      options["grpc.ssl_target_name_override"] = flags.server_host_override;
    }
    this.stub = new TestService(where, credentials, options);
    this.nobody = new UnimplementedService(where, credentials, options);
  }

  close() {
    this.stub.close();
    this.nobody.close();
  }

  // {response, error, initial, status}
  unary(method, request, metadata = new grpc.Metadata(), stub = this.stub) {
    return new Promise((done) => {
      const outcome = {};
      const call = stub[method](request, metadata, (error, response) => Object.assign(outcome, { error, response }));
      call.on("metadata", (initial) => (outcome.initial = initial));
      call.on("status", (status) => setImmediate(() => done(Object.assign(outcome, { status }))));
    });
  }
}

// All that a stream brings: {messages, initial, status}. `said(count)` is called behind each message.
function listen(call, said = () => {}) {
  return new Promise((done) => {
    const outcome = { messages: [] };
    call.on("data", (message) => {
      outcome.messages.push(message);
      said(outcome.messages.length);
    });
    call.on("metadata", (initial) => (outcome.initial = initial));
    call.on("error", () => {});
    call.on("status", (status) => setImmediate(() => done(Object.assign(outcome, { status }))));
  });
}

function requireEnd(status, code, details) {
  require_(status.code === code, `ended with ${status.code} ${status.details}, want ${code}`);
  if (details !== undefined) require_(status.details === details, `the message is ${JSON.stringify(status.details)}`);
}

function requireSizes(messages, sizes) {
  const got = messages.map((message) => message.payload.body.length);
  require_(JSON.stringify(got) === JSON.stringify(sizes), `sizes ${got}, want ${sizes}`);
}

const large = () => ({ response_size: 314159, payload: payload(271828) });
const question = (requestSize, ...sizes) => ({
  payload: payload(requestSize),
  response_parameters: sizes.map((size) => ({ size })),
});

async function largeUnary(client) {
  const { status, response } = await client.unary("UnaryCall", large());
  requireEnd(status, 0);
  require_(response.payload.body.equals(Buffer.alloc(314159)), "a wrong payload");
}

const CASES = {
  async empty_unary(client) {
    requireEnd((await client.unary("EmptyCall", {})).status, 0);
  },
  large_unary: largeUnary,
  async client_streaming(client) {
    const sum = await new Promise((done, failed) => {
      const call = client.stub.StreamingInputCall((error, response) => (error ? failed(error) : done(response)));
      for (const size of REQUEST_SIZES) call.write({ payload: payload(size) });
      call.end();
    });
    require_(sum.aggregated_payload_size === 74922, "a wrong sum");
  },
  async server_streaming(client) {
    const { messages, status } = await listen(client.stub.StreamingOutputCall(question(0, ...RESPONSE_SIZES)));
    requireEnd(status, 0);
    requireSizes(messages, RESPONSE_SIZES);
  },
  async ping_pong(client) {
    const call = client.stub.FullDuplexCall();
    const ask = (i) => (i < 4 ? call.write(question(REQUEST_SIZES[i], RESPONSE_SIZES[i])) : call.end());
    ask(0);
    const { messages, status } = await listen(call, ask);
    requireEnd(status, 0);
    requireSizes(messages, RESPONSE_SIZES);
  },
  async empty_stream(client) {
    const call = client.stub.FullDuplexCall();
    call.end();
    const { messages, status } = await listen(call);
    requireEnd(status, 0);
    requireSizes(messages, []);
  },
  async custom_metadata(client) {
    const metadata = new grpc.Metadata();
    metadata.add(ECHO_INITIAL, "test_initial_metadata_value");
    metadata.add(ECHO_TRAILING, BINARY);
    const one = await client.unary("UnaryCall", large(), metadata);
    const call = client.stub.FullDuplexCall(metadata);
    call.write(question(271828, 314159));
    call.end();
    const other = await listen(call);
    requireSizes(other.messages, [314159]);
    for (const { initial, status } of [one, other]) {
      requireEnd(status, 0);
      require_(initial.get(ECHO_INITIAL)[0] === "test_initial_metadata_value", "no initial metadata");
      require_(BINARY.equals(status.metadata.get(ECHO_TRAILING)[0]), "no trailing metadata");
    }
  },
  async status_code_and_message(client) {
    const response_status = { code: 2, message: "test status message" };
    requireEnd((await client.unary("UnaryCall", { response_status })).status, 2, response_status.message);
    const call = client.stub.FullDuplexCall();
    call.write({ response_status });
    call.end();
    requireEnd((await listen(call)).status, 2, response_status.message);
  },
  async special_status_message(client) {
    const response_status = { code: 2, message: SPECIAL };
    requireEnd((await client.unary("UnaryCall", { response_status })).status, 2, SPECIAL);
  },
  async unimplemented_method(client) {
    requireEnd((await client.unary("UnimplementedCall", {})).status, 12);
  },
  async unimplemented_service(client) {
    requireEnd((await client.unary("UnimplementedCall", {}, new grpc.Metadata(), client.nobody)).status, 12);
  },
  async cancel_after_begin(client) {
    const error = await new Promise((done) => client.stub.StreamingInputCall(done).cancel());
    requireEnd(error, 1);
  },
  async cancel_after_first_response(client) {
    const call = client.stub.FullDuplexCall();
    call.write(question(27182, 31415));
    requireEnd((await listen(call, () => call.cancel())).status, 1);
  },
  async timeout_on_sleeping_server(client) {
    const call = client.stub.FullDuplexCall(new grpc.Metadata(), { deadline: Date.now() + 1 });
    call.write(question(27182));
    requireEnd((await listen(call)).status, 4);
  },
  async concurrent_large_unary(client) {
    await Promise.all(Array.from({ length: 100 }, () => largeUnary(client)));
  },
  async rpc_soak(client) {
    for (let i = 0; i < 10; ++i) await largeUnary(client);
  },
  async channel_soak() {
    for (let i = 0; i < 10; ++i) {
      const own = new Client();
      await largeUnary(own);
      own.close();
    }
  },
};

async function runCases() {
  const client = new Client();
  for (const name of flags.test_case.split(",")) {
    let outcome = "ok";
    try {
      await CASES[name](client);
    } catch (error) {
      outcome = String(error).replace(/\n/g, " ");
      process.exitCode = 1;
    }
    console.log(`${name} ${outcome}`);
  }
  client.close();
  // Channels of grpc-js keep the loop alive for a while after they are closed.
  process.stdout.write("", () => process.exit());
}

if (process.argv[2] === "server") {
  serve();
} else {
  runCases();
}
