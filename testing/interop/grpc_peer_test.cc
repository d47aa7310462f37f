// How this test works: gRPC C++, as Debian has it, at one end of real sockets and ours at the other, both ways round.
// What one side says the other must understand: kinds of calls, metadata, statuses with details, deadlines, cancels,
// large and packed messages. Nothing waits for a clock but for deadlines that are to pass.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "echo/v1/echo.grpc.pb.h"
#include "echo/v1/echo.pb.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"

namespace echo::v1 {
namespace {

using ::testing::HasSubstr;
using troupe::Task;
using troupe::testing::StatusIs;

constexpr char kDetailUrl[] = "type.googleapis.com/echo.v1.Detail";
const std::string kBinary("\0\xab\xff", 3);
const std::string kText = "\t\ntest with whitespace\r\nand Unicode BMP \xE2\x98\xBA and non-BMP \xF0\x9F\x98\x88\t\n";

// ---------------------------------------------------------------- our server, their client

// Says what a test asks for by the message.
class OurEcho final : public EchoActor {
 public:
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, troupe::Call& call) override {
    if (const auto value = call.metadata().Get("x-initial")) call.initial_metadata().Add("x-initial", *value);
    if (const auto value = call.metadata().Get("x-trailing-bin")) call.trailers().Add("x-trailing-bin", *value);
    if (request.message() == "sleep") co_await troupe::Sleep(absl::Hours(1));
    if (request.message() == "throw") throw std::runtime_error("a secret");
    if (request.message() == "fail") {
      absl::Status status = absl::DataLossError(kText);
      status.SetPayload(kDetailUrl, absl::Cord("\n\6detail"));
      co_return status;
    }
    response.set_message(request.message());
    co_return absl::OkStatus();
  }
  Task<absl::Status> Expand(const ExpandRequest& request, troupe::Writer<ExpandResponse> writer,
                            troupe::Call&) override {
    ExpandResponse response;
    response.set_message(request.message());
    for (int i = 0; i < request.count(); ++i) {
      response.set_index(i);
      const bool goes_on = co_await writer.Write(response);
      if (!goes_on) break;
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Collect(troupe::Reader<CollectRequest> reader, CollectResponse& response, troupe::Call&) override {
    CollectRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      response.add_messages(request.message());
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Chat(troupe::Reader<ChatRequest> reader, troupe::Writer<ChatResponse> writer,
                          troupe::Call&) override {
    ChatRequest request;
    ChatResponse response;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      response.set_message(request.message());
      const bool goes_on = co_await writer.Write(response);
      if (!goes_on) break;
    }
    co_return absl::OkStatus();
  }
};

class TheirClient : public ::testing::Test {
 protected:
  TheirClient() {
    std::promise<int> port;
    thread_ = std::thread([this, &port] {
      troupe::EventLoop loop(troupe::PosixOs::Get());
      loop.RunUntilComplete(Serve(loop, port));
      loop.Close();
    });
    target_ = absl::StrCat("ipv4:127.0.0.1:", port.get_future().get());
    stub_ = Echo::NewStub(grpc::CreateChannel(target_, grpc::InsecureChannelCredentials()));
  }
  ~TheirClient() override {
    loop_->CallSoonThreadsafe([this] { server_->Drain(); });
    thread_.join();
  }
  Task<void> Serve(troupe::EventLoop& loop, std::promise<int>& port) {
    troupe::Server server(loop, {.listen = {"127.0.0.1:0"}});
    server.Add<OurEcho>();
    const absl::Status started = co_await server.Start();
    EXPECT_OK(started);
    server_ = &server;
    loop_ = &loop;
    port.set_value(server.addresses()[0].port());
    co_await server.WaitClosed();
  }
  static EchoRequest Request(std::string text) {
    EchoRequest request;
    request.set_message(std::move(text));
    return request;
  }
  grpc::Status Call(const std::string& text, EchoResponse& response) {
    grpc::ClientContext context;
    return stub_->Echo(&context, Request(text), &response);
  }

  std::thread thread_;
  troupe::EventLoop* loop_ = nullptr;
  troupe::Server* server_ = nullptr;
  std::string target_;
  std::unique_ptr<Echo::Stub> stub_;
};

TEST_F(TheirClient, CallsUnary) {
  EchoResponse response;
  for (const size_t size : {0u, 1u, 1000u, 70'000u, 3'000'000u}) {
    EXPECT_TRUE(Call(std::string(size, 'x'), response).ok()) << size;
    EXPECT_EQ(response.message().size(), size);
  }
}

TEST_F(TheirClient, HearsStatusesWithTextAndDetails) {
  EchoResponse response;
  const grpc::Status status = Call("fail", response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(status.error_message(), kText);
  EXPECT_THAT(status.error_details(), HasSubstr(kDetailUrl));
  EXPECT_THAT(status.error_details(), HasSubstr("detail"));
  const grpc::Status thrown = Call("throw", response);
  EXPECT_EQ(thrown.error_code(), grpc::StatusCode::UNKNOWN);
  EXPECT_EQ(thrown.error_message().find("secret"), std::string::npos);
}

TEST_F(TheirClient, SendsAndReceivesMetadata) {
  grpc::ClientContext context;
  context.AddMetadata("x-initial", "first words");
  context.AddMetadata("x-trailing-bin", kBinary);
  EchoResponse response;
  ASSERT_TRUE(stub_->Echo(&context, Request("m"), &response).ok());
  const auto initial = context.GetServerInitialMetadata().find("x-initial");
  ASSERT_NE(initial, context.GetServerInitialMetadata().end());
  EXPECT_EQ(std::string(initial->second.data(), initial->second.size()), "first words");
  const auto trailing = context.GetServerTrailingMetadata().find("x-trailing-bin");
  ASSERT_NE(trailing, context.GetServerTrailingMetadata().end());
  EXPECT_EQ(std::string(trailing->second.data(), trailing->second.size()), kBinary);
}

TEST_F(TheirClient, HasDeadlines) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
  EchoResponse response;
  EXPECT_EQ(stub_->Echo(&context, Request("sleep"), &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(TheirClient, Cancels) {
  grpc::ClientContext context;
  const auto chat = stub_->Chat(&context);
  ChatRequest request;
  request.set_message("one");
  ASSERT_TRUE(chat->Write(request));
  ChatResponse response;
  ASSERT_TRUE(chat->Read(&response));
  context.TryCancel();
  EXPECT_EQ(chat->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(TheirClient, ReceivesAStream) {
  grpc::ClientContext context;
  ExpandRequest request;
  request.set_message(std::string(10'000, 'x'));
  request.set_count(200);
  const auto reader = stub_->Expand(&context, request);
  ExpandResponse response;
  int count = 0;
  while (reader->Read(&response)) {
    EXPECT_EQ(response.index(), count++);
    EXPECT_EQ(response.message().size(), 10'000u);
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(count, 200);
}

TEST_F(TheirClient, SendsAStream) {
  grpc::ClientContext context;
  CollectResponse response;
  const auto writer = stub_->Collect(&context, &response);
  CollectRequest request;
  for (int i = 0; i < 200; ++i) {
    request.set_message(std::string(10'000, static_cast<char>('a' + i % 26)));
    ASSERT_TRUE(writer->Write(request));
  }
  writer->WritesDone();
  EXPECT_TRUE(writer->Finish().ok());
  EXPECT_EQ(response.messages_size(), 200);
}

TEST_F(TheirClient, Chats) {
  grpc::ClientContext context;
  const auto chat = stub_->Chat(&context);
  ChatRequest request;
  ChatResponse response;
  for (int i = 0; i < 100; ++i) {
    request.set_message(absl::StrCat("message ", i));
    ASSERT_TRUE(chat->Write(request));
    ASSERT_TRUE(chat->Read(&response));
    EXPECT_EQ(response.message(), request.message());
  }
  chat->WritesDone();
  EXPECT_FALSE(chat->Read(&response));
  EXPECT_TRUE(chat->Finish().ok());
}

TEST_F(TheirClient, PacksMessages) {
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  EchoResponse response;
  const grpc::Status status = stub_->Echo(&context, Request(std::string(100'000, 'x')), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.message(), std::string(100'000, 'x'));
}

TEST_F(TheirClient, MakesManyCallsAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int> ended = 0;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      EchoResponse response;
      for (int j = 0; j < 50; ++j) ended += Call(std::string(1 + static_cast<size_t>(j) * 100, 'x'), response).ok();
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(ended, 400);
}

// ---------------------------------------------------------------- their server, our client

class TheirEcho final : public Echo::Service {
 public:
  grpc::Status Echo(grpc::ServerContext* context, const EchoRequest* request, EchoResponse* response) override {
    for (const auto& [key, value] : context->client_metadata()) {
      const std::string text(value.data(), value.size());
      if (key == "x-initial") context->AddInitialMetadata("x-initial", text);
      if (key == "x-trailing-bin") context->AddTrailingMetadata("x-trailing-bin", text);
    }
    if (request->message() == "sleep") {
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status::CANCELLED;
    }
    if (request->message() == "pack") context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    if (request->message() == "fail") {
      // google.rpc.Status: code 15, a message, and one detail.
      std::string details("\x08\x0f\x1a", 3);
      std::string any;
      any += absl::StrCat("\n", std::string(1, static_cast<char>(sizeof(kDetailUrl) - 1)), kDetailUrl);
      any +=
          "\x12\x06"
          "detail";
      details += std::string(1, static_cast<char>(any.size())) + any;
      return grpc::Status(grpc::StatusCode::DATA_LOSS, kText, details);
    }
    response->set_message(request->message() == "pack" ? std::string(100'000, 'x') : request->message());
    return grpc::Status::OK;
  }
  grpc::Status Expand(grpc::ServerContext*, const ExpandRequest* request,
                      grpc::ServerWriter<ExpandResponse>* writer) override {
    ExpandResponse response;
    response.set_message(request->message());
    for (int i = 0; i < request->count(); ++i) {
      response.set_index(i);
      writer->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status Collect(grpc::ServerContext*, grpc::ServerReader<CollectRequest>* reader,
                       CollectResponse* response) override {
    CollectRequest request;
    while (reader->Read(&request)) response->add_messages(request.message());
    return grpc::Status::OK;
  }
  grpc::Status Chat(grpc::ServerContext*, grpc::ServerReaderWriter<ChatResponse, ChatRequest>* chat) override {
    ChatRequest request;
    ChatResponse response;
    while (chat->Read(&request)) {
      response.set_message(request.message());
      chat->Write(response);
    }
    return grpc::Status::OK;
  }
};

class OurClient : public ::testing::Test {
 protected:
  OurClient() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    channel_ = std::make_unique<troupe::Channel>(loop_, absl::StrCat("ipv4:127.0.0.1:", port),
                                                 troupe::ChannelOptions{.wire = troupe::Wire::kGrpc});
  }
  ~OurClient() override {
    channel_.reset();
    loop_.Close();
    server_->Shutdown(std::chrono::system_clock::now());
  }
  EchoStub stub() { return EchoStub(*channel_); }
  static EchoRequest Request(std::string text) {
    EchoRequest request;
    request.set_message(std::move(text));
    return request;
  }
  static Task<absl::StatusOr<EchoResponse>> Call(EchoStub echo, EchoRequest request, troupe::CallOptions options) {
    co_return co_await echo.Echo(request, options);
  }
  absl::StatusOr<EchoResponse> Run(const std::string& text, troupe::CallOptions options = {}) {
    return loop_.RunUntilComplete(Call(stub(), Request(text), options));
  }

  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  TheirEcho service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<troupe::Channel> channel_;
};

TEST_F(OurClient, CallsUnary) {
  for (const size_t size : {0u, 1u, 1000u, 70'000u, 3'000'000u}) {
    const absl::StatusOr<EchoResponse> response = Run(std::string(size, 'x'));
    ASSERT_OK(response);
    EXPECT_EQ(response->message().size(), size);
  }
  EXPECT_EQ(channel_->connections_made(), 1u);
}

TEST_F(OurClient, HearsStatusesWithTextAndDetails) {
  const absl::Status status = Run("fail").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), kText);
  EXPECT_EQ(status.GetPayload(kDetailUrl), absl::Cord("detail"));
}

Task<void> TalkAboutMetadata(EchoStub echo) {
  EchoRequest request;
  request.set_message("m");
  const troupe::Metadata metadata = {{"x-initial", "first words"}, {"x-trailing-bin", kBinary}};
  troupe::Reply<EchoResponse> reply = echo.Echo(request, {.metadata = &metadata});
  const absl::StatusOr<EchoResponse> response = co_await reply;
  EXPECT_OK(response);
  EXPECT_EQ(reply.initial_metadata().Get("x-initial"), absl::string_view("first words"));
  EXPECT_EQ(reply.trailers().Get("x-trailing-bin"), absl::string_view(kBinary));
}

TEST_F(OurClient, SendsAndReceivesMetadata) { loop_.RunUntilComplete(TalkAboutMetadata(stub())); }

TEST_F(OurClient, HasDeadlines) {
  EXPECT_THAT(Run("sleep", {.timeout = absl::Milliseconds(20)}), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(OurClient, CancelsByDroppingTheReply) {
  {
    const troupe::Reply<EchoResponse> dropped = stub().Echo(Request("sleep"));
  }
  EXPECT_OK(Run("afterwards"));
}

TEST_F(OurClient, HearsPackedMessages) {
  const absl::StatusOr<EchoResponse> response = Run("pack");
  ASSERT_OK(response);
  EXPECT_EQ(response->message(), std::string(100'000, 'x'));
}

Task<void> Streams(EchoStub echo) {
  ExpandRequest expand;
  expand.set_message(std::string(10'000, 'x'));
  expand.set_count(200);
  auto reader = echo.Expand(expand);
  ExpandResponse expanded;
  int count = 0;
  while (true) {
    const bool more = co_await reader.Read(expanded);
    if (!more) break;
    EXPECT_EQ(expanded.index(), count++);
  }
  absl::Status end = co_await reader.Finish();
  EXPECT_OK(end);
  EXPECT_EQ(count, 200);

  auto writer = echo.Collect();
  CollectRequest collect;
  for (int i = 0; i < 200; ++i) {
    collect.set_message(std::string(10'000, 'y'));
    const bool goes_on = co_await writer.Write(collect);
    EXPECT_TRUE(goes_on);
  }
  const absl::StatusOr<CollectResponse> collected = co_await writer.Finish();
  EXPECT_OK(collected);
  EXPECT_EQ(collected->messages_size(), 200);

  auto chat = echo.Chat();
  ChatRequest said;
  ChatResponse heard;
  for (int i = 0; i < 100; ++i) {
    said.set_message(absl::StrCat("message ", i));
    const bool goes_on = co_await chat.Write(said);
    EXPECT_TRUE(goes_on);
    const bool answered = co_await chat.Read(heard);
    EXPECT_TRUE(answered);
    EXPECT_EQ(heard.message(), said.message());
  }
  chat.WritesDone();
  const bool more = co_await chat.Read(heard);
  EXPECT_FALSE(more);
  end = co_await chat.Finish();
  EXPECT_OK(end);
}

TEST_F(OurClient, StreamsEachWay) { loop_.RunUntilComplete(Streams(stub())); }

TEST_F(OurClient, OutlivesItsServer) {
  EXPECT_OK(Run("before"));
  server_->Shutdown(std::chrono::system_clock::now());
  EXPECT_THAT(Run("after"), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace echo::v1
