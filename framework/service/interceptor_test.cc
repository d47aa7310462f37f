// How this test works: a server and a channel on one loop of a simulated system, with interceptors at either end that
// write down what they see, and change it.
#include "troupe/rpc/interceptor.h"

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.troupe.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/service/testing_actor.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::google::protobuf::MessageLite;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::troupe::testing::SimOs;
using ::troupe::testing::StatusIs;

using Log = std::vector<std::string>;

Task<absl::Status> Logging(std::string name, Log& log, Next next) {
  log.push_back(name + " before");
  const absl::Status status = co_await next();
  log.push_back(absl::StrCat(name, " behind ", absl::StatusCodeToString(status.code())));
  co_return status;
}
Task<absl::Status> Answering(absl::Status status) { co_return status; }
Task<absl::Status> SleepingFirst(absl::Duration duration, Log& log, Next next) {
  try {
    co_await Sleep(duration);
  } catch (const Cancelled&) {
    log.push_back("cancelled");
    throw;
  }
  const absl::Status status = co_await next();
  log.push_back(absl::StatusCodeToString(status.code()));
  co_return status;
}
Task<absl::Status> Throwing(bool status) {
  if (status) throw StatusError(absl::AbortedError("thrown"));
  throw std::runtime_error("secret");
  co_return absl::OkStatus();
}
Task<absl::Status> GoingOnTwice(Next next) {
  const absl::Status first = co_await next();
  static_cast<void>(first);
  co_return co_await next();
}
Task<absl::Status> Changing(absl::Status status, Next next) {
  const absl::Status replaced = co_await next();
  static_cast<void>(replaced);
  co_return status;
}
// Adds to what the request says, and to what the answer says.
template <class Interception, class Answer>
Task<absl::Status> Decorating(Interception& rpc, Answer answer, Next next) {
  rpc.metadata().Add("x-added", "by an interceptor");
  auto& request = static_cast<EchoRequest&>(*rpc.request());
  request.set_message(request.message() + "+request");
  const absl::Status status = co_await next();
  if (!status.ok()) co_return status;
  auto& response = static_cast<EchoResponse&>(*answer(rpc));
  response.set_message(response.message() + "+response");
  co_return status;
}

class InterceptorTest : public ::testing::Test {
 protected:
  ~InterceptorTest() override {
    channel_.reset();
    loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
    server_.Close();
    loop_.RunUntilComplete(server_.WaitClosed());
    EXPECT_THAT(reports_, IsEmpty());
    loop_.Close();
  }
  // Starts the server and makes the channel, once.
  Channel& channel() {
    if (channel_ == nullptr) {
      loop_.SetExceptionHandler(
          [this](EventLoop&, const ExceptionContext& context) { reports_.push_back(context.ToString()); });
      if (!script_.echo) {
        script_.echo = [this](const EchoRequest& request, EchoResponse& response, Call& call) {
          return Echo(request, response, call);
        };
      }
      server_.Add<internal::ScriptedEcho>(std::ref(script_));
      EXPECT_OK(loop_.RunUntilComplete(server_.Start()));
      channel_ = std::make_unique<Channel>(loop_, target_, options_);
    }
    return *channel_;
  }
  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call& call) {
    log_.push_back("handler");
    if (request.message() == "slow") co_await Sleep(absl::Hours(1));
    response.set_message(absl::StrCat(request.message(), call.metadata().Get("x-added").has_value() ? "+metadata" : ""));
    if (const auto token = call.metadata().Get("authorization")) response.set_message(std::string(*token));
    co_return absl::OkStatus();
  }
  static Task<absl::StatusOr<EchoResponse>> Await(Reply<EchoResponse>& reply) {
    absl::StatusOr<EchoResponse> got = co_await reply;
    co_return got;
  }
  Reply<EchoResponse> Start(std::string text, CallOptions options = {}) {
    EchoRequest request;
    request.set_message(std::move(text));
    return EchoStub(channel()).Echo(request, options);
  }
  absl::StatusOr<std::string> Say(std::string text, CallOptions options = {}) {
    Reply<EchoResponse> reply = Start(std::move(text), options);
    const absl::StatusOr<EchoResponse> got = loop_.RunUntilComplete(Await(reply));
    if (!got.ok()) return got.status();
    return got->message();
  }
  void Pass(absl::Duration duration) { loop_.RunUntilComplete(Sleep(duration)); }
  Log TakeLog() { return std::exchange(log_, {}); }
  // The same at either end.
  void AddServer(std::function<Task<absl::Status>(Next)> interceptor) {
    server_.AddInterceptor([interceptor](ServerInterception&, Next next) { return interceptor(next); });
  }
  void AddClient(std::function<Task<absl::Status>(Next)> interceptor) {
    options_.interceptors.push_back([interceptor](ClientInterception&, Next next) { return interceptor(next); });
  }

  SimOs os_;
  EventLoop loop_{os_};
  std::vector<std::string> reports_;
  Log log_;
  internal::Script script_;
  Server server_{loop_, {.listen = {"127.0.0.1:7400", "unix:/run/echo.sock"}}};
  std::string target_ = "127.0.0.1:7400";
  ChannelOptions options_;
  std::unique_ptr<Channel> channel_;
};

// ---------------------------------------------------------------------------------------------------- both ends

TEST_F(InterceptorTest, TheFirstOneIsOutermost) {
  AddClient([this](Next next) { return Logging("client 1", log_, next); });
  AddClient([this](Next next) { return Logging("client 2", log_, next); });
  AddServer([this](Next next) { return Logging("server 1", log_, next); });
  AddServer([this](Next next) { return Logging("server 2", log_, next); });
  EXPECT_EQ(Say("hello").value(), "hello");
  EXPECT_THAT(TakeLog(),
              ElementsAre("client 1 before", "client 2 before", "server 1 before", "server 2 before", "handler",
                          "server 2 behind OK", "server 1 behind OK", "client 2 behind OK", "client 1 behind OK"));
}

TEST_F(InterceptorTest, HealthIsInterceptedTooAndKnownByItsPath) {
  server_.AddInterceptor([](ServerInterception& rpc, Next next) {
    const bool probe = absl::StartsWith(rpc.call().method().path, "/grpc.health.v1.Health/");
    return probe ? next() : Answering(absl::UnauthenticatedError("who are you?"));
  });
  AddServer([this](Next next) { return Logging("inner", log_, next); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(TakeLog(), IsEmpty());
  auto check = [](Channel& channel) -> Task<absl::Status> {
    const grpc::health::v1::HealthCheckRequest request;
    const auto response = co_await grpc::health::v1::HealthStub(channel).Check(request);
    co_return response.status();
  };
  EXPECT_OK(loop_.RunUntilComplete(check(channel())));
  EXPECT_THAT(TakeLog(), ElementsAre("inner before", "inner behind OK"));
}

TEST_F(InterceptorTest, AServersSeesAndChangesWhatIsSaid) {
  server_.AddInterceptor([](ServerInterception& rpc, Next next) {
    return Decorating(rpc, [](ServerInterception& of) { return of.response(); }, next);
  });
  EXPECT_EQ(Say("hello").value(), "hello+request+metadata+response");
}

TEST_F(InterceptorTest, AClientsSeesAndChangesWhatIsSaid) {
  options_.interceptors.push_back([](ClientInterception& rpc, Next next) {
    return Decorating(rpc, [](ClientInterception& of) { return of.reply(); }, next);
  });
  EXPECT_EQ(Say("hello").value(), "hello+request+metadata+response");
}

TEST_F(InterceptorTest, AStatusMayBeAnotherFurtherOut) {
  AddServer([](Next next) { return Changing(absl::NotFoundError("changed by the server"), next); });
  AddClient([this](Next next) { return Logging("client", log_, next); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kNotFound, "changed by the server"));
  EXPECT_THAT(TakeLog(), ElementsAre("client before", "handler", "client behind NOT_FOUND"));
}

TEST_F(InterceptorTest, AnEarlyAnswerOfAServerStartsNoHandler) {
  AddServer([](Next) { return Answering(absl::PermissionDeniedError("nobody may")); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kPermissionDenied, "nobody may"));
  EXPECT_THAT(TakeLog(), IsEmpty());
}

TEST_F(InterceptorTest, AnEarlyOkAnswersWithWhatWasPutThere) {
  server_.AddInterceptor([](ServerInterception& rpc, Next) {
    static_cast<EchoResponse&>(*rpc.response()).set_message("from the server's cache");
    return Answering(absl::OkStatus());
  });
  EXPECT_EQ(Say("x").value(), "from the server's cache");
  EXPECT_THAT(TakeLog(), IsEmpty());
}

TEST_F(InterceptorTest, AnEarlyAnswerOfAClientSendsNothing) {
  options_.interceptors.push_back([](ClientInterception& rpc, Next next) {
    const std::string asked = static_cast<EchoRequest&>(*rpc.request()).message();
    if (asked == "cached") static_cast<EchoResponse&>(*rpc.reply()).set_message("from the client's cache");
    if (asked == "refused") return Answering(absl::PermissionDeniedError("not even asked"));
    return asked == "sent" ? next() : Answering(absl::OkStatus());
  });
  EXPECT_EQ(Say("cached").value(), "from the client's cache");
  EXPECT_THAT(Say("refused"), StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(Say("nothing"), StatusIs(absl::StatusCode::kInternal, HasSubstr("without a reply")));
  EXPECT_EQ(channel().connections_made(), 0u);
  EXPECT_EQ(Say("sent").value(), "sent");
}

TEST_F(InterceptorTest, StreamsAreSeenMessageByMessage) {
  script_.collect = [](Reader<CollectRequest> reader, CollectResponse& response, Call&) -> internal::Script::Status {
    CollectRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      response.add_messages(request.message());
    }
    co_return absl::OkStatus();
  };
  script_.expand = [](const ExpandRequest& request, Writer<ExpandResponse> writer, Call&) -> internal::Script::Status {
    ExpandResponse response;
    for (int i = 0; i < request.count(); ++i) {
      response.set_message(request.message());
      const bool wrote = co_await writer.Write(response);
      if (!wrote) break;
    }
    co_return absl::OkStatus();
  };
  const auto collected = [](const char* what) {
    return [what](MessageLite& message) {
      if (auto* request = dynamic_cast<CollectRequest*>(&message)) request->set_message(request->message() + what);
      if (auto* response = dynamic_cast<ExpandResponse*>(&message)) response->set_message(response->message() + what);
    };
  };
  server_.AddInterceptor([collected](ServerInterception& rpc, Next next) {
    rpc.OnRead(collected("+read1"));
    rpc.OnRead(collected("+read2"));
    rpc.OnWrite(collected("+written"));
    return next();
  });
  options_.interceptors.push_back([collected](ClientInterception& rpc, Next next) {
    rpc.OnRead(collected("+Read"));
    rpc.OnWrite(collected("+Written"));
    return next();
  });
  auto collect = EchoStub(channel()).Collect();
  auto write_and_finish = [](auto& stream) -> Task<absl::StatusOr<CollectResponse>> {
    CollectRequest request;
    for (const char* const text : {"a", "b"}) {
      request.set_message(text);
      const bool wrote = co_await stream.Write(request);
      EXPECT_TRUE(wrote);
    }
    absl::StatusOr<CollectResponse> got = co_await stream.Finish();
    co_return got;
  };
  const absl::StatusOr<CollectResponse> got = loop_.RunUntilComplete(write_and_finish(collect));
  ASSERT_OK(got);
  EXPECT_THAT(got->messages(), ElementsAre("a+Written+read1+read2", "b+Written+read1+read2"));

  ExpandRequest request;
  request.set_message("x");
  request.set_count(2);
  auto expand = EchoStub(channel()).Expand(request);
  auto read_all = [](auto& stream, Log& messages) -> Task<absl::Status> {
    ExpandResponse response;
    while (true) {
      const bool more = co_await stream.Read(response);
      if (!more) break;
      messages.push_back(response.message());
    }
    co_return co_await stream.Finish();
  };
  Log messages;
  EXPECT_OK(loop_.RunUntilComplete(read_all(expand, messages)));
  EXPECT_THAT(messages, ElementsAre("x+written+Read", "x+written+Read"));
}

TEST_F(InterceptorTest, WhatIsThrownEndsTheCall) {
  AddServer([](Next) { return Throwing(/*status=*/true); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kAborted, "thrown"));
}

TEST_F(InterceptorTest, WhatIsThrownByAServersIsReportedAndDoesNotTravel) {
  AddServer([](Next) { return Throwing(/*status=*/false); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnknown, ::testing::Not(HasSubstr("secret"))));
  EXPECT_THAT(std::exchange(reports_, {}), ElementsAre(HasSubstr("secret")));
}

TEST_F(InterceptorTest, WhatIsThrownByAClientsIsReported) {
  AddClient([](Next) { return Throwing(/*status=*/false); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnknown));
  Pass(absl::Seconds(1));
  EXPECT_THAT(std::exchange(reports_, {}), ElementsAre(HasSubstr("secret")));
}

TEST_F(InterceptorTest, AClientsMayThrowAStatus) {
  AddClient([](Next) { return Throwing(/*status=*/true); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kAborted, "thrown"));
}

TEST_F(InterceptorTest, NextGoesOnOnce) {
  AddServer([](Next next) { return GoingOnTwice(next); });
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnknown));
  EXPECT_THAT(TakeLog(), ElementsAre("handler"));
  EXPECT_THAT(std::exchange(reports_, {}), ElementsAre(HasSubstr("second time")));
}

// ---------------------------------------------------------------------------------------------------- ends

TEST_F(InterceptorTest, AServersIsCancelledWithItsCall) {
  AddServer([this](Next next) { return SleepingFirst(absl::Minutes(1), log_, next); });
  EXPECT_THAT(Say("x", {.timeout = absl::Seconds(1)}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  Pass(absl::Seconds(1));
  EXPECT_THAT(TakeLog(), ElementsAre("cancelled"));
  Reply<EchoResponse> reply = Start("x");
  Pass(absl::Seconds(1));
  reply.Cancel();
  Pass(absl::Seconds(1));
  EXPECT_THAT(TakeLog(), ElementsAre("cancelled"));
  EXPECT_EQ(server_.calls_in_flight(), 0u);
}

TEST_F(InterceptorTest, ADeadlineThatPassesBeforeNextEndsTheCall) {
  AddClient([this](Next next) { return SleepingFirst(absl::Minutes(1), log_, next); });
  EXPECT_THAT(Say("x", {.timeout = absl::Seconds(1)}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(loop_.Time().nanos(), absl::ToInt64Nanoseconds(absl::Seconds(1)));
  Pass(absl::Seconds(1));
  EXPECT_THAT(TakeLog(), ElementsAre("cancelled"));
  EXPECT_EQ(channel().connections_made(), 0u);
}

TEST_F(InterceptorTest, ADeadlineThatPassesInsideNextIsItsStatus) {
  AddClient([this](Next next) { return Logging("client", log_, next); });
  EXPECT_THAT(Say("slow", {.timeout = absl::Seconds(1)}), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(TakeLog(), ElementsAre("client before", "handler", "client behind DEADLINE_EXCEEDED"));
}

TEST_F(InterceptorTest, ACallerThatCancelsWaitsForNobody) {
  AddClient([this](Next next) { return SleepingFirst(absl::Seconds(10), log_, next); });
  for (const absl::Duration after : {absl::ZeroDuration(), absl::Seconds(1), absl::Seconds(11)}) {
    Reply<EchoResponse> reply = Start("slow");
    if (after > absl::ZeroDuration()) Pass(after);
    reply.Cancel();
    EXPECT_TRUE(reply.done());
    Pass(absl::Seconds(1));
    EXPECT_EQ(server_.calls_in_flight(), 0u);
  }
  EXPECT_THAT(TakeLog(), ElementsAre("cancelled", "handler"));
}

TEST_F(InterceptorTest, AChannelThatClosesEndsWhatWaitsAroundItsCalls) {
  AddClient([this](Next next) { return SleepingFirst(absl::Seconds(10), log_, next); });
  Reply<EchoResponse> before = Start("x");
  Pass(absl::Seconds(1));
  channel().Close();
  EXPECT_THAT(loop_.RunUntilComplete(Await(before)), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("closed")));
  Pass(absl::Seconds(20));
  EXPECT_THAT(TakeLog(), ElementsAre("cancelled"));
}

TEST_F(InterceptorTest, ACallOutlivesItsChannelWithItsInterceptors) {
  AddClient([this](Next next) { return Logging("client", log_, next); });
  Reply<EchoResponse> reply = Start("slow");
  Pass(absl::Seconds(1));
  channel_.reset();
  EXPECT_THAT(loop_.RunUntilComplete(Await(reply)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(TakeLog(), ElementsAre("client before", "handler", "client behind UNAVAILABLE"));
}

TEST_F(InterceptorTest, WhatCannotBeSentIsTheStatusOfNext) {
  AddClient([this](Next next) { return Logging("client", log_, next); });
  target_ = "127.0.0.1:1";
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("Connection refused")));
    EXPECT_THAT(TakeLog(), ElementsAre("client before", "client behind UNAVAILABLE"));
  }
}

TEST_F(InterceptorTest, TheCallsOfASessionAreInterceptedToo) {
  AddClient([this](Next next) { return Logging("client", log_, next); });
  auto open = [](Channel& channel) -> Task<absl::StatusOr<std::string>> {
    absl::StatusOr<OpenedSession<EchoStub>> session = co_await channel.OpenSession<EchoStub>();
    if (!session.ok()) co_return session.status();
    EchoRequest request;
    request.set_message("hello");
    absl::StatusOr<EchoResponse> got = co_await (*session)->Echo(request);
    if (!got.ok()) co_return got.status();
    co_return got->message();
  };
  EXPECT_EQ(loop_.RunUntilComplete(open(channel())).value(), "hello");
  EXPECT_THAT(TakeLog(), ElementsAre("client before", "handler", "client behind OK"));
}

// ---------------------------------------------------------------------------------------------------- credentials

Task<absl::StatusOr<Metadata>> Token(absl::Duration takes, absl::Status failure, std::string token) {
  co_await Sleep(takes);
  if (!failure.ok()) co_return failure;
  Metadata metadata = {{"authorization", "Bearer " + token}};
  co_return metadata;
}

TEST_F(InterceptorTest, CredentialsAreAskedForEachCallAndSent) {
  options_.credentials = [this](const CallCredentialsRequest& request) {
    log_.push_back(absl::StrCat(request.service_url, " ", request.method));
    return Token(absl::Seconds(1), absl::OkStatus(), std::to_string(log_.size()));
  };
  EXPECT_EQ(Say("x").value(), "Bearer 1");
  EXPECT_EQ(Say("x").value(), "Bearer 3");
  EXPECT_THAT(TakeLog(), ElementsAre("http://127.0.0.1:7400/echo.v1.Echo Echo", "handler",
                                     "http://127.0.0.1:7400/echo.v1.Echo Echo", "handler"));
}

TEST_F(InterceptorTest, CredentialsTravelByUnixSockets) {
  target_ = "unix:/run/echo.sock";
  options_.credentials = [](const CallCredentialsRequest&) {
    return Token(absl::ZeroDuration(), absl::OkStatus(), "t");
  };
  EXPECT_EQ(Say("x").value(), "Bearer t");
}

TEST_F(InterceptorTest, CredentialsAreNotSentInClearTextUnlessToldTo) {
  os_.kernel().SetName("elsewhere.test", {*SocketAddress::Parse("127.0.0.1:0")});
  target_ = "elsewhere.test:7400";
  options_.credentials = [this](const CallCredentialsRequest&) {
    log_.push_back("asked");
    return Token(absl::ZeroDuration(), absl::OkStatus(), "t");
  };
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("clear text")));
  EXPECT_THAT(TakeLog(), IsEmpty());
  EXPECT_EQ(channel().connections_made(), 0u);
  // One of the addresses is not this machine's.
  channel_ = std::make_unique<Channel>(loop_, "ipv4:127.0.0.1:7400,10.1.2.3:7400", options_);
  EXPECT_THAT(Say("x"), StatusIs(absl::StatusCode::kUnauthenticated, HasSubstr("clear text")));
  EXPECT_THAT(TakeLog(), IsEmpty());
  options_.credentials_in_clear_text = true;
  channel_ = std::make_unique<Channel>(loop_, target_, options_);
  EXPECT_EQ(Say("x").value(), "Bearer t");
}

TEST_F(InterceptorTest, CredentialsThatFailEndTheCallAsGrpcSays) {
  using Code = absl::StatusCode;
  absl::Status failure;
  options_.credentials = [&failure](const CallCredentialsRequest&) {
    return Token(absl::ZeroDuration(), failure, "");
  };
  for (const auto& [code, expected] : std::vector<std::pair<Code, Code>>{{Code::kUnknown, Code::kUnauthenticated},
                                                                         {Code::kUnavailable, Code::kUnavailable},
                                                                         {Code::kUnauthenticated, Code::kUnauthenticated},
                                                                         {Code::kPermissionDenied, Code::kPermissionDenied},
                                                                         {Code::kNotFound, Code::kInternal},
                                                                         {Code::kDataLoss, Code::kInternal}}) {
    failure = absl::Status(code, "no token");
    EXPECT_THAT(Say("x"), StatusIs(expected, HasSubstr("no token")));
  }
  EXPECT_EQ(channel().connections_made(), 0u);
}

TEST_F(InterceptorTest, CredentialsThatComeTooLateAreTheCallsDeadline) {
  options_.credentials = [](const CallCredentialsRequest&) { return Token(absl::Minutes(1), absl::OkStatus(), "t"); };
  EXPECT_THAT(Say("x", {.timeout = absl::Seconds(1)}), StatusIs(absl::StatusCode::kDeadlineExceeded));
}

}  // namespace
}  // namespace troupe
