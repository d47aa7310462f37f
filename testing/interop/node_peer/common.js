// What Node's peers share: flags, the cases of the interoperability tests, and the program around them. A peer gives
// serve(), which makes a server and says where it listens, and Client:
//
//   client.unary(method, request, {metadata, unknownService})   -> {code, details, response, initial, trailing}
//   client.stream(method, {metadata, timeoutMs, onMessage})     -> {write(request), end(), cancel(), ended}
//   client.close()
//
// Methods and fields are named in camelCase. `metadata` is an object of strings and Buffers; initial(key) and
// trailing(key) give a text and a Buffer, or undefined. `ended` is a promise of what unary() gives, with `messages`.
"use strict";

const flags = Object.fromEntries(
  process.argv.slice(3).map((argument) => {
    const [name, ...value] = argument.replace(/^--/, "").split("=");
    return [name, value.join("=")];
  }),
);

const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const ECHO_INITIAL = "x-grpc-test-echo-initial";
const ECHO_TRAILING = "x-grpc-test-echo-trailing-bin";
const BINARY = Buffer.from([0xab, 0xab, 0xab]);
const SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n";

const payload = (size) => ({ body: Buffer.alloc(size) });

// ---------------------------------------------------------------- for servers

// The status that a request asks for, or null.
const wanted = (request) => (request.responseStatus && request.responseStatus.code ? request.responseStatus : null);

// Calls send(message) for each response that a request asks for, and waits for it.
async function output(request, send) {
  for (const each of request.responseParameters) {
    if (each.intervalUs > 0) await new Promise((wake) => setTimeout(wake, each.intervalUs / 1000));
    await send({ payload: payload(each.size) });
  }
}

// ---------------------------------------------------------------- the cases

function check(holds, what) {
  if (!holds) throw new Error(what);
}

function checkEnd({ code, details }, wantedCode, wantedDetails) {
  check(code === wantedCode, `ended with ${code} ${details}, want ${wantedCode}`);
  if (wantedDetails !== undefined) check(details === wantedDetails, `the message is ${JSON.stringify(details)}`);
}

function checkSizes(messages, sizes) {
  const got = messages.map((message) => message.payload.body.length);
  check(JSON.stringify(got) === JSON.stringify(sizes), `sizes ${got}, want ${sizes}`);
}

const large = () => ({ responseSize: 314159, payload: payload(271828) });
const question = (requestSize, ...sizes) => ({
  payload: payload(requestSize),
  responseParameters: sizes.map((size) => ({ size })),
});

async function largeUnary(client) {
  const outcome = await client.unary("unaryCall", large());
  checkEnd(outcome, 0);
  check(Buffer.alloc(314159).equals(outcome.response.payload.body), "a wrong payload");
}

// A stream of all requests at once.
function ask(client, method, requests, options) {
  const call = client.stream(method, options);
  for (const request of requests) call.write(request);
  call.end();
  return call.ended;
}

const CASES = {
  async empty_unary(client) {
    checkEnd(await client.unary("emptyCall", {}), 0);
  },
  large_unary: largeUnary,
  async client_streaming(client) {
    const requests = REQUEST_SIZES.map((size) => ({ payload: payload(size) }));
    const outcome = await ask(client, "streamingInputCall", requests);
    checkEnd(outcome, 0);
    check(outcome.messages.length === 1 && outcome.messages[0].aggregatedPayloadSize === 74922, "a wrong sum");
  },
  async server_streaming(client) {
    const outcome = await ask(client, "streamingOutputCall", [question(0, ...RESPONSE_SIZES)]);
    checkEnd(outcome, 0);
    checkSizes(outcome.messages, RESPONSE_SIZES);
  },
  async ping_pong(client) {
    const next = (i) => (i < 4 ? call.write(question(REQUEST_SIZES[i], RESPONSE_SIZES[i])) : call.end());
    const call = client.stream("fullDuplexCall", { onMessage: next });
    next(0);
    const outcome = await call.ended;
    checkEnd(outcome, 0);
    checkSizes(outcome.messages, RESPONSE_SIZES);
  },
  async empty_stream(client) {
    const outcome = await ask(client, "fullDuplexCall", []);
    checkEnd(outcome, 0);
    checkSizes(outcome.messages, []);
  },
  async custom_metadata(client) {
    const metadata = { [ECHO_INITIAL]: "test_initial_metadata_value", [ECHO_TRAILING]: BINARY };
    const one = await client.unary("unaryCall", large(), { metadata });
    const other = await ask(client, "fullDuplexCall", [question(271828, 314159)], { metadata });
    checkSizes(other.messages, [314159]);
    for (const outcome of [one, other]) {
      checkEnd(outcome, 0);
      check(outcome.initial(ECHO_INITIAL) === "test_initial_metadata_value", "no initial metadata");
      check(BINARY.equals(outcome.trailing(ECHO_TRAILING) || Buffer.alloc(0)), "no trailing metadata");
    }
  },
  async status_code_and_message(client) {
    const responseStatus = { code: 2, message: "test status message" };
    checkEnd(await client.unary("unaryCall", { responseStatus }), 2, responseStatus.message);
    checkEnd(await ask(client, "fullDuplexCall", [{ responseStatus }]), 2, responseStatus.message);
  },
  async special_status_message(client) {
    const responseStatus = { code: 2, message: SPECIAL };
    checkEnd(await client.unary("unaryCall", { responseStatus }), 2, SPECIAL);
  },
  async unimplemented_method(client) {
    checkEnd(await client.unary("unimplementedCall", {}), 12);
  },
  async unimplemented_service(client) {
    checkEnd(await client.unary("unimplementedCall", {}, { unknownService: true }), 12);
  },
  async cancel_after_begin(client) {
    const call = client.stream("streamingInputCall");
    call.cancel();
    checkEnd(await call.ended, 1);
  },
  async cancel_after_first_response(client) {
    const call = client.stream("fullDuplexCall", { onMessage: () => call.cancel() });
    call.write(question(27182, 31415));
    checkEnd(await call.ended, 1);
  },
  async timeout_on_sleeping_server(client) {
    const call = client.stream("fullDuplexCall", { timeoutMs: 1 });
    call.write(question(27182));
    checkEnd(await call.ended, 4);
  },
  async concurrent_large_unary(client) {
    await Promise.all(Array.from({ length: 100 }, () => largeUnary(client)));
  },
  async rpc_soak(client) {
    for (let i = 0; i < 10; ++i) await largeUnary(client);
  },
  async channel_soak(client) {
    for (let i = 0; i < 10; ++i) {
      const own = new client.constructor();
      await largeUnary(own);
      own.close();
    }
  },
};

// Says a line for each case: its name and "ok", or what went otherwise.
async function runCases(Client) {
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
  // Channels may keep the loop alive for a while after they are closed.
  process.stdout.write("", () => process.exit());
}

function main(serve, Client) {
  if (process.argv[2] === "server") {
    serve();
  } else {
    runCases(Client);
  }
}

module.exports = { ECHO_INITIAL, ECHO_TRAILING, flags, main, output, payload, wanted };
