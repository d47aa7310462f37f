// The other end, by gRPC C++: server and client of the interoperability tests, by its synchronous API.
//
//   cpp_peer server --port=0 [--use_tls --tls_cert_file=... --tls_key_file=...]
//   cpp_peer client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]
//
// A server says "listening on ADDRESS" and serves until its stdin ends, or with --forever until it is killed. A client says a
// line for each case: its name and "ok", or what went otherwise.
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/channel_arguments.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "grpc/testing/test.grpc.pb.h"

// What gRPC's own tests ask: whether a message came packed. Exported and not declared.
uint32_t grpc_call_test_only_get_message_flags(grpc_call* call);

namespace grpc::testing {

constexpr uint32_t kPackedFlag = 0x40000000u;  // that it was, before it was unpacked

// Friends of the contexts, under the names that gRPC reserves for them.
class InteropServerContextInspector {
 public:
  static bool Packed(const grpc::ServerContext& context) {
    return (grpc_call_test_only_get_message_flags(context.call_.call) & kPackedFlag) != 0;
  }
};
class InteropClientContextInspector {
 public:
  static bool Packed(const grpc::ClientContext& context) {
    return (grpc_call_test_only_get_message_flags(context.call_) & kPackedFlag) != 0;
  }
};

namespace {

constexpr int kRequestSizes[] = {27182, 8, 1828, 45904};
constexpr int kResponseSizes[] = {31415, 9, 2653, 58979};
constexpr char kEchoInitial[] = "x-grpc-test-echo-initial";
constexpr char kEchoTrailing[] = "x-grpc-test-echo-trailing-bin";
const std::string kBinary = "\xab\xab\xab";
const std::string kSpecial =
    "\t\ntest with whitespace\r\nand Unicode BMP \xE2\x98\xBA and non-BMP \xF0\x9F\x98\x88\t\n";

std::map<std::string, std::string> flags;

std::string FlagOr(const std::string& name, const std::string& otherwise) {
  const auto found = flags.find(name);
  return found == flags.end() ? otherwise : found->second;
}

std::string FileOf(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// ---------------------------------------------------------------- the server

class TestServiceImpl final : public TestService::Service {
  static void Echo(grpc::ServerContext& context) {
    for (const auto& [key, value] : context.client_metadata()) {
      const std::string text(value.data(), value.size());
      if (key == kEchoInitial) context.AddInitialMetadata(kEchoInitial, text);
      if (key == kEchoTrailing) context.AddTrailingMetadata(kEchoTrailing, text);
    }
  }
  template <class Request>
  static grpc::Status Wanted(const Request& request) {
    return {static_cast<grpc::StatusCode>(request.response_status().code()), request.response_status().message()};
  }
  template <class Request>
  static bool PackedAsExpected(const grpc::ServerContext& context, const Request& request) {
    return !request.expect_compressed().value() || InteropServerContextInspector::Packed(context);
  }
  grpc::Status EmptyCall(grpc::ServerContext* context, const Empty*, Empty*) override {
    Echo(*context);
    return grpc::Status::OK;
  }
  grpc::Status UnaryCall(grpc::ServerContext* context, const SimpleRequest* request, SimpleResponse* response) override {
    Echo(*context);
    if (!PackedAsExpected(*context, *request)) return {grpc::StatusCode::INVALID_ARGUMENT, "not packed"};
    if (request->response_compressed().value()) context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    response->mutable_payload()->set_body(std::string(static_cast<size_t>(request->response_size()), '\0'));
    return Wanted(*request);
  }
  grpc::Status CacheableUnaryCall(grpc::ServerContext* context, const SimpleRequest* request,
                                  SimpleResponse* response) override {
    return UnaryCall(context, request, response);
  }
  // As long as a request asks for, or until the caller has gone.
  static void Pause(const grpc::ServerContext& context, int microseconds) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
    while (std::chrono::steady_clock::now() < until && !context.IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // NOLINT(troupe-sleep): the request asks for it
    }
  }
  template <class Stream>
  static void Write(const grpc::ServerContext& context, const StreamingOutputCallRequest& request, Stream& stream) {
    StreamingOutputCallResponse response;
    for (const ResponseParameters& wanted : request.response_parameters()) {
      response.mutable_payload()->set_body(std::string(static_cast<size_t>(wanted.size()), '\0'));
      grpc::WriteOptions options;
      if (!wanted.compressed().value()) options.set_no_compression();
      Pause(context, wanted.interval_us());
      if (!stream.Write(response, options)) return;
    }
  }
  grpc::Status StreamingOutputCall(grpc::ServerContext* context, const StreamingOutputCallRequest* request,
                                   grpc::ServerWriter<StreamingOutputCallResponse>* writer) override {
    Echo(*context);
    for (const ResponseParameters& wanted : request->response_parameters()) {
      if (wanted.compressed().value()) context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }
    if (request->has_response_status()) return Wanted(*request);
    Write(*context, *request, *writer);
    return grpc::Status::OK;
  }
  grpc::Status StreamingInputCall(grpc::ServerContext* context, grpc::ServerReader<StreamingInputCallRequest>* reader,
                                  StreamingInputCallResponse* response) override {
    Echo(*context);
    StreamingInputCallRequest request;
    int sum = 0;
    while (reader->Read(&request)) {
      if (!PackedAsExpected(*context, request)) return {grpc::StatusCode::INVALID_ARGUMENT, "not packed"};
      sum += static_cast<int>(request.payload().body().size());
    }
    response->set_aggregated_payload_size(sum);
    return grpc::Status::OK;
  }
  grpc::Status FullDuplexCall(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream) override {
    Echo(*context);
    StreamingOutputCallRequest request;
    while (stream->Read(&request)) {
      if (request.has_response_status()) return Wanted(request);
      Write(*context, request, *stream);
    }
    return grpc::Status::OK;
  }
  grpc::Status HalfDuplexCall(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<StreamingOutputCallResponse, StreamingOutputCallRequest>* stream) override {
    Echo(*context);
    std::vector<StreamingOutputCallRequest> requests(1);
    while (stream->Read(&requests.back())) requests.emplace_back();
    for (const StreamingOutputCallRequest& request : requests) Write(*context, request, *stream);
    return grpc::Status::OK;
  }
};

int Serve() {
  TestServiceImpl service;
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (flags.count("use_tls") > 0) {
    grpc::SslServerCredentialsOptions options;
    options.pem_key_cert_pairs.push_back({FileOf(flags["tls_key_file"]), FileOf(flags["tls_cert_file"])});
    credentials = grpc::SslServerCredentials(options);
  }
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:" + FlagOr("port", "0"), credentials, &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::cout << "listening on 127.0.0.1:" << port << std::endl;
  if (flags.count("forever") > 0) server->Wait();
  while (std::cin.get() != std::char_traits<char>::eof()) continue;
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

// ---------------------------------------------------------------- the client

std::shared_ptr<grpc::Channel> NewChannel() {
  grpc::ChannelArguments arguments;
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (flags.count("use_tls") > 0) {
    credentials = grpc::SslCredentials({FileOf(flags["ca_file"]), "", ""});
    arguments.SetSslTargetNameOverride(flags["server_host_override"]);
  }
  // One connection for each channel, not one for all of the process.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const std::string where =
      FlagOr("server_uri", FlagOr("server_host", "127.0.0.1") + ":" + FlagOr("server_port", "8080"));
  return grpc::CreateCustomChannel(where, credentials, arguments);
}

// What went otherwise is thrown.
void Require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

void RequireEnd(const grpc::Status& status, grpc::StatusCode code) {
  Require(status.error_code() == code, "ended with " + std::to_string(status.error_code()) + ": " +
                                           status.error_message() + ", want " + std::to_string(code));
}

void RequireZeros(const Payload& payload, int size) {
  Require(payload.body() == std::string(static_cast<size_t>(size), '\0'),
          "a payload of " + std::to_string(payload.body().size()) + " bytes, want " + std::to_string(size) + " zeros");
}

Payload PayloadOf(int size) {
  Payload payload;
  payload.set_body(std::string(static_cast<size_t>(size), '\0'));
  return payload;
}

SimpleRequest Large() {
  SimpleRequest request;
  request.set_response_size(314159);
  *request.mutable_payload() = PayloadOf(271828);
  return request;
}

StreamingOutputCallRequest Question(int request_size, int response_size) {
  StreamingOutputCallRequest request;
  *request.mutable_payload() = PayloadOf(request_size);
  if (response_size >= 0) request.add_response_parameters()->set_size(response_size);
  return request;
}

void LargeUnary(TestService::Stub& stub) {
  grpc::ClientContext context;
  SimpleResponse response;
  RequireEnd(stub.UnaryCall(&context, Large(), &response), grpc::StatusCode::OK);
  RequireZeros(response.payload(), 314159);
}

void RequireEchoes(const grpc::ClientContext& context) {
  const auto initial = context.GetServerInitialMetadata().find(kEchoInitial);
  Require(initial != context.GetServerInitialMetadata().end() && initial->second == "test_initial_metadata_value",
          "the initial metadata did not come back");
  const auto trailing = context.GetServerTrailingMetadata().find(kEchoTrailing);
  Require(trailing != context.GetServerTrailingMetadata().end() &&
              std::string(trailing->second.data(), trailing->second.size()) == kBinary,
          "the trailing metadata did not come back");
}

using Case = std::function<void(TestService::Stub& stub, grpc::Channel& channel)>;

void Soak(bool new_channels, TestService::Stub& stub) {
  for (int i = 0; i < 10; ++i) {
    if (!new_channels) {
      LargeUnary(stub);
      continue;
    }
    const std::unique_ptr<TestService::Stub> own = TestService::NewStub(NewChannel());
    LargeUnary(*own);
  }
}

void ClientCompressedUnary(TestService::Stub& stub) {
  const auto call = [&stub](bool said, bool packed) {
    grpc::ClientContext context;
    if (packed) context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
    SimpleRequest request = Large();
    request.mutable_expect_compressed()->set_value(said);
    SimpleResponse response;
    const grpc::Status end = stub.UnaryCall(&context, request, &response);
    if (end.ok()) RequireZeros(response.payload(), 314159);
    return end;
  };
  RequireEnd(call(true, false), grpc::StatusCode::INVALID_ARGUMENT);
  RequireEnd(call(true, true), grpc::StatusCode::OK);
  RequireEnd(call(false, false), grpc::StatusCode::OK);
}

void ServerCompressedUnary(TestService::Stub& stub) {
  for (const bool packed : {true, false}) {
    grpc::ClientContext context;
    SimpleRequest request = Large();
    request.mutable_response_compressed()->set_value(packed);
    SimpleResponse response;
    RequireEnd(stub.UnaryCall(&context, request, &response), grpc::StatusCode::OK);
    RequireZeros(response.payload(), 314159);
    Require(InteropClientContextInspector::Packed(context) == packed, packed ? "not packed" : "packed");
  }
}

void ClientCompressedStreaming(TestService::Stub& stub) {
  StreamingInputCallRequest first, second;
  *first.mutable_payload() = PayloadOf(27182);
  first.mutable_expect_compressed()->set_value(true);
  *second.mutable_payload() = PayloadOf(45904);
  second.mutable_expect_compressed()->set_value(false);
  StreamingInputCallResponse sum;
  {
    grpc::ClientContext probe;
    const auto writer = stub.StreamingInputCall(&probe, &sum);
    writer->Write(first);
    writer->WritesDone();
    RequireEnd(writer->Finish(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  const auto writer = stub.StreamingInputCall(&context, &sum);
  writer->Write(first);
  writer->Write(second, grpc::WriteOptions().set_no_compression());
  writer->WritesDone();
  RequireEnd(writer->Finish(), grpc::StatusCode::OK);
  Require(sum.aggregated_payload_size() == 73086, "the sum is " + std::to_string(sum.aggregated_payload_size()));
}

void ServerCompressedStreaming(TestService::Stub& stub) {
  grpc::ClientContext context;
  StreamingOutputCallRequest request;
  for (const bool packed : {true, false}) {
    ResponseParameters& wanted = *request.add_response_parameters();
    wanted.set_size(packed ? 31415 : 92653);
    wanted.mutable_compressed()->set_value(packed);
  }
  const auto reader = stub.StreamingOutputCall(&context, request);
  StreamingOutputCallResponse response;
  for (const bool packed : {true, false}) {
    Require(reader->Read(&response), "too few messages");
    RequireZeros(response.payload(), packed ? 31415 : 92653);
    Require(InteropClientContextInspector::Packed(context) == packed, packed ? "not packed" : "packed");
  }
  Require(!reader->Read(&response), "too many messages");
  RequireEnd(reader->Finish(), grpc::StatusCode::OK);
}

const std::map<std::string, Case>& Cases() {
  static const auto& cases = *new std::map<std::string, Case>{
      {"empty_unary",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         Empty response;
         RequireEnd(stub.EmptyCall(&context, Empty(), &response), grpc::StatusCode::OK);
         Require(response.ByteSizeLong() == 0, "bytes in an empty answer");
       }},
      {"large_unary", [](TestService::Stub& stub, grpc::Channel&) { LargeUnary(stub); }},
      {"client_streaming",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         StreamingInputCallResponse response;
         const auto writer = stub.StreamingInputCall(&context, &response);
         StreamingInputCallRequest request;
         for (const int size : kRequestSizes) {
           *request.mutable_payload() = PayloadOf(size);
           Require(writer->Write(request), "the stream ended");
         }
         writer->WritesDone();
         RequireEnd(writer->Finish(), grpc::StatusCode::OK);
         Require(response.aggregated_payload_size() == 74922, "a wrong sum");
       }},
      {"server_streaming",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         StreamingOutputCallRequest request;
         for (const int size : kResponseSizes) request.add_response_parameters()->set_size(size);
         const auto reader = stub.StreamingOutputCall(&context, request);
         StreamingOutputCallResponse response;
         for (const int size : kResponseSizes) {
           Require(reader->Read(&response), "too few messages");
           RequireZeros(response.payload(), size);
         }
         Require(!reader->Read(&response), "too many messages");
         RequireEnd(reader->Finish(), grpc::StatusCode::OK);
       }},
      {"ping_pong",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         const auto stream = stub.FullDuplexCall(&context);
         StreamingOutputCallResponse response;
         for (size_t i = 0; i < std::size(kRequestSizes); ++i) {
           Require(stream->Write(Question(kRequestSizes[i], kResponseSizes[i])), "the stream ended");
           Require(stream->Read(&response), "no answer");
           RequireZeros(response.payload(), kResponseSizes[i]);
         }
         stream->WritesDone();
         Require(!stream->Read(&response), "too many messages");
         RequireEnd(stream->Finish(), grpc::StatusCode::OK);
       }},
      {"empty_stream",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         const auto stream = stub.FullDuplexCall(&context);
         stream->WritesDone();
         StreamingOutputCallResponse response;
         Require(!stream->Read(&response), "a message");
         RequireEnd(stream->Finish(), grpc::StatusCode::OK);
       }},
      {"custom_metadata",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext unary, duplex;
         for (grpc::ClientContext* context : {&unary, &duplex}) {
           context->AddMetadata(kEchoInitial, "test_initial_metadata_value");
           context->AddMetadata(kEchoTrailing, kBinary);
         }
         SimpleResponse response;
         RequireEnd(stub.UnaryCall(&unary, Large(), &response), grpc::StatusCode::OK);
         RequireEchoes(unary);
         const auto stream = stub.FullDuplexCall(&duplex);
         stream->Write(Question(271828, 314159));
         stream->WritesDone();
         StreamingOutputCallResponse answer;
         Require(stream->Read(&answer), "no answer");
         RequireZeros(answer.payload(), 314159);
         Require(!stream->Read(&answer), "too many messages");
         RequireEnd(stream->Finish(), grpc::StatusCode::OK);
         RequireEchoes(duplex);
       }},
      {"status_code_and_message",
       [](TestService::Stub& stub, grpc::Channel&) {
         SimpleRequest request;
         request.mutable_response_status()->set_code(2);
         request.mutable_response_status()->set_message("test status message");
         grpc::ClientContext unary, duplex;
         SimpleResponse response;
         grpc::Status end = stub.UnaryCall(&unary, request, &response);
         RequireEnd(end, grpc::StatusCode::UNKNOWN);
         Require(end.error_message() == "test status message", end.error_message());
         const auto stream = stub.FullDuplexCall(&duplex);
         StreamingOutputCallRequest question;
         *question.mutable_response_status() = request.response_status();
         stream->Write(question);
         stream->WritesDone();
         StreamingOutputCallResponse answer;
         Require(!stream->Read(&answer), "a message");
         end = stream->Finish();
         RequireEnd(end, grpc::StatusCode::UNKNOWN);
         Require(end.error_message() == "test status message", end.error_message());
       }},
      {"special_status_message",
       [](TestService::Stub& stub, grpc::Channel&) {
         SimpleRequest request;
         request.mutable_response_status()->set_code(2);
         request.mutable_response_status()->set_message(kSpecial);
         grpc::ClientContext context;
         SimpleResponse response;
         const grpc::Status end = stub.UnaryCall(&context, request, &response);
         RequireEnd(end, grpc::StatusCode::UNKNOWN);
         Require(end.error_message() == kSpecial, end.error_message());
       }},
      {"unimplemented_method",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         Empty response;
         RequireEnd(stub.UnimplementedCall(&context, Empty(), &response), grpc::StatusCode::UNIMPLEMENTED);
       }},
      {"cancel_after_begin",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         StreamingInputCallResponse response;
         const auto writer = stub.StreamingInputCall(&context, &response);
         context.TryCancel();
         RequireEnd(writer->Finish(), grpc::StatusCode::CANCELLED);
       }},
      {"cancel_after_first_response",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         const auto stream = stub.FullDuplexCall(&context);
         stream->Write(Question(27182, 31415));
         StreamingOutputCallResponse response;
         Require(stream->Read(&response), "no answer");
         context.TryCancel();
         RequireEnd(stream->Finish(), grpc::StatusCode::CANCELLED);
       }},
      {"timeout_on_sleeping_server",
       [](TestService::Stub& stub, grpc::Channel&) {
         grpc::ClientContext context;
         context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
         const auto stream = stub.FullDuplexCall(&context);
         stream->Write(Question(27182, -1));
         StreamingOutputCallResponse response;
         Require(!stream->Read(&response), "a message");
         RequireEnd(stream->Finish(), grpc::StatusCode::DEADLINE_EXCEEDED);
       }},
      {"concurrent_large_unary",
       [](TestService::Stub& stub, grpc::Channel&) {
         std::vector<std::thread> threads;
         std::atomic<int> ended = 0;
         for (int i = 0; i < 20; ++i) {
           threads.emplace_back([&stub, &ended] {
             try {
               for (int j = 0; j < 50; ++j) LargeUnary(stub);
               ++ended;
             } catch (const std::runtime_error& wrong) {
               std::cerr << wrong.what() << std::endl;
             }
           });
         }
         for (std::thread& thread : threads) thread.join();
         Require(ended == 20, "calls failed");
       }},
      {"unimplemented_service",
       [](TestService::Stub&, grpc::Channel& channel) {
         const std::shared_ptr<grpc::Channel> same(&channel, [](grpc::Channel*) {});
         const std::unique_ptr<UnimplementedService::Stub> nobody = UnimplementedService::NewStub(same);
         grpc::ClientContext context;
         Empty response;
         RequireEnd(nobody->UnimplementedCall(&context, Empty(), &response), grpc::StatusCode::UNIMPLEMENTED);
       }},
      {"rpc_soak", [](TestService::Stub& stub, grpc::Channel&) { Soak(false, stub); }},
      {"channel_soak", [](TestService::Stub& stub, grpc::Channel&) { Soak(true, stub); }},
      {"client_compressed_unary", [](TestService::Stub& stub, grpc::Channel&) { ClientCompressedUnary(stub); }},
      {"server_compressed_unary", [](TestService::Stub& stub, grpc::Channel&) { ServerCompressedUnary(stub); }},
      {"client_compressed_streaming", [](TestService::Stub& stub, grpc::Channel&) { ClientCompressedStreaming(stub); }},
      {"server_compressed_streaming", [](TestService::Stub& stub, grpc::Channel&) { ServerCompressedStreaming(stub); }},
  };
  return cases;
}

int RunCases() {
  const std::shared_ptr<grpc::Channel> channel = NewChannel();
  const std::unique_ptr<TestService::Stub> stub = TestService::NewStub(channel);
  std::stringstream names(flags["test_case"]);
  std::string name;
  int failures = 0;
  while (std::getline(names, name, ',')) {
    const auto found = Cases().find(name);
    std::string outcome = "ok";
    try {
      Require(found != Cases().end(), "no such case");
      found->second(*stub, *channel);
    } catch (const std::runtime_error& wrong) {
      outcome = wrong.what();
      ++failures;
    }
    std::cout << name << " " << outcome << std::endl;
  }
  return failures > 0;
}

}  // namespace
}  // namespace grpc::testing

int main(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    grpc::testing::flags[argument.substr(2, equals == std::string::npos ? equals : equals - 2)] =
        equals == std::string::npos ? "" : argument.substr(equals + 1);
  }
  return argc > 1 && std::string(argv[1]) == "server" ? grpc::testing::Serve() : grpc::testing::RunCases();
}
