// The other end, by Node's @grpc/grpc-js: server and client of the interoperability tests.
//
//   node grpc_js.js server --port=0 [--use_tls --tls_cert_file=... --tls_key_file=...]
//   node grpc_js.js client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]
//
// A server says "listening on ADDRESS" and serves until its stdin ends. What a client says: common.js.
"use strict";

const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const { ECHO_INITIAL, ECHO_TRAILING, flags, main, output, payload, wanted } = require("./common.js");

// From the source: what is loaded from descriptors keeps the names of fields.
const definition = loader.loadSync("grpc/testing/test.proto", { includeDirs: ["protos"], defaults: true, oneofs: true });
const { TestService, UnimplementedService } = grpc.loadPackageDefinition(definition).grpc.testing;

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

const failure = ({ code, message }, metadata) => ({ code, details: message, metadata });

// Says what a report says, with the call's status.
function recordLoad(call, report) {
  const recorder = call.getMetricsRecorder();
  recorder.recordCPUUtilizationMetric(report.cpuUtilization);
  recorder.recordMemoryUtilizationMetric(report.memoryUtilization);
  for (const [name, value] of Object.entries(report.requestCost)) recorder.recordRequestCostMetric(name, value);
  for (const [name, value] of Object.entries(report.utilization)) recorder.recordUtilizationMetric(name, value);
}

function unary(call, done) {
  const trailers = echo(call);
  if (call.request.orcaPerQueryReport) recordLoad(call, call.request.orcaPerQueryReport);
  const status = wanted(call.request);
  if (status !== null) return done(failure(status, trailers));
  return done(null, { payload: payload(call.request.responseSize) }, trailers);
}

const sender = (call) => (message) =>
  call.write(message) ? undefined : new Promise((room) => call.once("drain", room));

async function streamingOutput(call) {
  const trailers = echo(call);
  const status = wanted(call.request);
  if (status !== null) return call.emit("error", failure(status, trailers));
  await output(call.request, sender(call));
  return call.end(trailers);
}

function streamingInput(call, done) {
  const trailers = echo(call);
  let sum = 0;
  call.on("data", (request) => (sum += request.payload.body.length));
  call.on("end", () => done(null, { aggregatedPayloadSize: sum }, trailers));
}

function duplex(call) {
  const trailers = echo(call);
  let last = Promise.resolve();
  call.on("data", (request) => {
    last = last.then(() => {
      const status = wanted(request);
      return status !== null ? call.emit("error", failure(status, trailers)) : output(request, sender(call));
    });
  });
  call.on("end", () => last.then(() => call.end(trailers)));
}

function serve() {
  const server = new grpc.Server({ "grpc.max_receive_message_length": -1, "grpc.server_call_metric_recording": 1 });
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

const metadataOf = (fields = {}) => {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(fields)) metadata.add(key, value);
  return metadata;
};

// A promise of what becomes of a call, once `call` has been made to tell it. "status" comes last but one: the callback
// of a call with one response follows it.
function outcomeOf(call, outcome) {
  outcome.initial = () => undefined;
  call.on("metadata", (initial) => (outcome.initial = (key) => initial.get(key)[0]));
  call.on("error", () => {});
  return new Promise((done) => {
    call.on("status", ({ code, details, metadata }) => {
      Object.assign(outcome, { code, details, trailing: (key) => metadata.get(key)[0] });
      setImmediate(() => done(outcome));
    });
  });
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
    this.known = new TestService(where, credentials, options);
    this.unknown = new UnimplementedService(where, credentials, options);
  }

  close() {
    this.known.close();
    this.unknown.close();
  }

  unary(method, request, { metadata, unknownService } = {}) {
    const outcome = {};
    const stub = unknownService ? this.unknown : this.known;
    const call = stub[method](request, metadataOf(metadata), (_, response) => (outcome.response = response));
    return outcomeOf(call, outcome);
  }

  stream(method, { metadata, timeoutMs, onMessage = () => {} } = {}) {
    const outcome = { messages: [] };
    const add = (message) => onMessage(outcome.messages.push(message));
    const { path, requestStream, responseStream } = TestService.service[method[0].toUpperCase() + method.slice(1)];
    if (!requestStream && !responseStream) throw new Error(`${path} is no stream`);
    const options = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
    const rest = [metadataOf(metadata), options];
    if (!responseStream) rest.push((error, response) => error || add(response));
    if (requestStream) {
      const call = this.known[method](...rest);
      if (responseStream) call.on("data", add);
      const ended = outcomeOf(call, outcome);
      return { write: (request) => call.write(request), end: () => call.end(), cancel: () => call.cancel(), ended };
    }
    // Begins with its only request.
    const begun = {};
    begun.ended = new Promise((done) => {
      begun.write = (request) => {
        const call = this.known[method](request, ...rest);
        call.on("data", add);
        outcomeOf(call, outcome).then(done);
      };
    });
    begun.end = () => {};
    return begun;
  }
}

main(serve, Client);
