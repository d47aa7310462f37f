// What the native codec costs for a small unary call, without a session, a transport or a handler.
//
//   bazel run --config=clang --config=O2 //testing/benchmarks:native_codec_benchmark
#include <string>

#include "benchmark/benchmark.h"
#include "google/protobuf/wrappers.pb.h"
#include "troupe/base/byte_queue.h"
#include "troupe/wire/codec.h"
#include "troupe/wire/native/codec.h"

namespace troupe {
namespace {

struct Nobody final : CallEvents {
  void OnInitialMetadata(Metadata) override {}
  void OnMessage(absl::Span<const char>, size_t) override {}
  void OnHalfClose() override {}
  void OnEnd(absl::Status, Metadata) override {}
  void OnReset(absl::Status) override {}
  void OnSendRoom() override {}
};

struct End final : CodecEvents {
  explicit End(bool client) : codec({.client = client}, *this) {}
  const void* FindMethod(absl::string_view) override { return this; }
  CallEvents* OnCall(IncomingCall& call) override {
    last = call.id;
    if (reply != nullptr) codec.SendReply(call.id, reply, absl::OkStatus(), nullptr);
    return &nobody;
  }
  void OnGoAway(CallId, absl::Status) override {}
  void OnPong(uint64_t) override {}
  void OnCallRoom() override {}

  const google::protobuf::MessageLite* reply = nullptr;
  CallId last = 0;
  Nobody nobody;
  NativeCodec codec;
};

google::protobuf::BytesValue Message(size_t size) {
  google::protobuf::BytesValue message;
  message.set_value(std::string(size, 'x'));
  return message;
}

void Join(End& a, End& b) {
  for (auto [from, to] : {std::pair<End*, End*>{&a, &b}, {&b, &a}}) {
    const std::string bytes = from->codec.output().ToString();
    from->codec.output().Clear();
    if (!to->codec.Receive(absl::MakeConstSpan(bytes)).ok()) std::abort();
  }
}

// Bytes of `calls` calls in a row, as a client pipelines them.
void Start(End& client, const google::protobuf::MessageLite& message, int calls) {
  OutgoingCall call;
  call.path = "/kv.v1.KeyValue/Get";
  call.message = &message;
  for (int i = 0; i < calls; ++i) {
    if (!client.codec.StartCall(call, client.nobody).ok()) std::abort();
  }
}

void Carry(End& from, End& to, std::string& space) {
  ByteQueue& output = from.codec.output();
  space.resize(output.size());
  output.CopyTo(space.data(), space.size());
  output.Clear();
  if (!to.codec.Receive(absl::MakeConstSpan(space)).ok()) std::abort();
}

// Both ends of a call: started, received, answered, ended; `range(0)` bytes each way, `range(1)` calls in a row.
void BM_UnaryBothEnds(benchmark::State& state) {
  End client(true), server(false);
  Join(client, server);
  const auto message = Message(state.range(0));
  server.reply = &message;
  std::string space;
  const int calls = static_cast<int>(state.range(1));
  for (auto _ : state) {
    Start(client, message, calls);
    Carry(client, server, space);
    Carry(server, client, space);
  }
  state.SetItemsProcessed(state.iterations() * calls);
}
BENCHMARK(BM_UnaryBothEnds)->Args({8, 1})->Args({8, 100})->Args({1000, 1})->Args({1000, 100});

// The server's half: 100 calls received, each answered in place. The other half is not timed.
void BM_UnaryServer(benchmark::State& state) {
  End client(true), server(false);
  Join(client, server);
  const auto message = Message(state.range(0));
  server.reply = &message;
  std::string space;
  constexpr int kCalls = 100;
  for (auto _ : state) {
    state.PauseTiming();
    Start(client, message, kCalls);
    ByteQueue& output = client.codec.output();
    space.resize(output.size());
    output.CopyTo(space.data(), space.size());
    output.Clear();
    state.ResumeTiming();
    if (!server.codec.Receive(absl::MakeConstSpan(space)).ok()) std::abort();
    state.PauseTiming();
    Carry(server, client, space);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * kCalls);
}
BENCHMARK(BM_UnaryServer)->Arg(8)->Arg(1000);

// The client's half: 100 calls started.
void BM_UnaryClientStart(benchmark::State& state) {
  End client(true), server(false);
  Join(client, server);
  const auto message = Message(state.range(0));
  server.reply = &message;
  std::string space;
  constexpr int kCalls = 100;
  for (auto _ : state) {
    Start(client, message, kCalls);
    state.PauseTiming();
    Carry(client, server, space);
    Carry(server, client, space);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * kCalls);
}
BENCHMARK(BM_UnaryClientStart)->Arg(8)->Arg(1000);

// A stream of messages one way, read at once.
void BM_Stream(benchmark::State& state) {
  struct Reader final : CodecEvents, CallEvents {
    Reader() : codec({}, *this) {}
    const void* FindMethod(absl::string_view) override { return this; }
    CallEvents* OnCall(IncomingCall& call) override {
      id = call.id;
      return this;
    }
    void OnGoAway(CallId, absl::Status) override {}
    void OnPong(uint64_t) override {}
    void OnCallRoom() override {}
    void OnInitialMetadata(Metadata) override {}
    void OnMessage(absl::Span<const char>, size_t charged) override { codec.Consumed(id, charged); }
    void OnHalfClose() override {}
    void OnEnd(absl::Status, Metadata) override {}
    void OnReset(absl::Status) override {}
    void OnSendRoom() override {}
    CallId id = 0;
    NativeCodec codec;
  } server;
  End client(true);
  OutgoingCall call;
  call.path = "/kv.v1.KeyValue/Load";
  const CallId id = client.codec.StartCall(call, client.nobody).value();
  const auto message = Message(state.range(0));
  std::string space;
  const auto carry = [&space](NativeCodec& from, NativeCodec& to) {
    space.resize(from.output().size());
    from.output().CopyTo(space.data(), space.size());
    from.output().Clear();
    if (!to.Receive(absl::MakeConstSpan(space)).ok()) std::abort();
  };
  carry(server.codec, client.codec);
  for (auto _ : state) {
    if (!client.codec.SendMessage(id, message).ok()) std::abort();
    do {
      carry(client.codec, server.codec);
      carry(server.codec, client.codec);
    } while (!client.codec.output().empty());
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Stream)->Arg(8)->Arg(10000)->Arg(1000000);

}  // namespace
}  // namespace troupe
