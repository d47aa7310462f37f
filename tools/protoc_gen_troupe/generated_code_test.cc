// What the code that the generator wrote does: its tables, its handlers, its stubs. That it compiles without a warning
// is the build's part (testdata/BUILD.bazel). The headers with macros come first: keywords.proto has rpcs of their
// names.
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "comments/comments.troupe.h"
#include "company/api/first.troupe.h"
#include "company/api/second.troupe.h"
#include "gmock/gmock.h"
#include "google/protobuf/empty.pb.h"
#include "google/protobuf/timestamp.troupe.h"  // of a proto_library in another repository
#include "gtest/gtest.h"
#include "keywords/v1/keywords.troupe.h"
#include "legacy/legacy.troupe.h"
#include "library/v1/library.troupe.h"
#include "library/v1/types.troupe.h"
#include "mutual/account_service.troupe.h"
#include "mutual/ledger_service.troupe.h"
#include "shadow/absl.troupe.h"
#include "shadow/last.troupe.h"
#include "shadow/shadow.troupe.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/rpc/internal/client_call.h"
#include "troupe/rpc/internal/server_call.h"
#include "troupe/service/session.h"
#include "troupe/testing/sim/sim_os.h"
#include "twins/east/twin.troupe.h"
#include "twins/west/twin.troupe.h"
#include "wellknown/wellknown.troupe.h"

namespace library::v1 {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::troupe::CallKind;

static_assert(std::is_base_of_v<troupe::Actor, LibraryActor>);
static_assert(std::is_base_of_v<troupe::Protocol, LibraryProtocol> && std::is_final_v<LibraryProtocol>);
static_assert(std::is_constructible_v<LibraryProtocol, std::unique_ptr<LibraryActor>>);
static_assert(!std::is_convertible_v<std::unique_ptr<LibraryActor>, LibraryProtocol>);
static_assert(std::is_same_v<LibraryActor::TroupeActor, LibraryActor>);
static_assert(std::is_same_v<LibraryActor::TroupeStub, LibraryStub>);
static_assert(std::is_trivially_copyable_v<LibraryStub>);

// A method on one line: its path, kind, types and options.
std::string Describe(const troupe::MethodInfo& method) {
  static constexpr const char* kKinds[] = {"unary", "server streaming", "client streaming", "bidi"};
  return absl::StrCat(method.name, " ", method.path, " ", kKinds[static_cast<int>(method.kind)], " ",
                      method.request.prototype().GetTypeName(), " ", method.response.prototype().GetTypeName(),
                      method.one_way ? " one way" : "", method.idempotent ? " idempotent" : "");
}

std::vector<std::string> Describe(const troupe::ServiceInfo& service) {
  std::vector<std::string> lines;
  for (const troupe::MethodInfo& method : service.methods) lines.push_back(Describe(method));
  return lines;
}

TEST(ServiceInfoTest, SaysWhatTheProtoSays) {
  const troupe::ServiceInfo& info = LibraryActor::service_info();
  EXPECT_EQ(info.full_name, "library.v1.Library");
  EXPECT_TRUE(info.serial);
  const std::string browse = "library.v1.BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitles";
  EXPECT_THAT(Describe(info),
              ElementsAre("Login /library.v1.Library/Login unary library.v1.LoginRequest library.v1.LoginResponse",
                          "Find /library.v1.Library/Find unary library.v1.Outer.Inner.Key library.v1.Book idempotent",
                          absl::StrCat("Browse /library.v1.Library/Browse server streaming ", browse, "Request ",
                                       browse, "Response"),
                          "Return /library.v1.Library/Return client streaming library.v1.Book library.v1.Receipt "
                          "idempotent",
                          "Talk /library.v1.Library/Talk bidi library.v1.Book library.v1.Receipt",
                          "Ping /library.v1.Library/Ping unary google.protobuf.Empty google.protobuf.Empty one way",
                          "Logout /library.v1.Library/Logout unary google.protobuf.Empty google.protobuf.Empty"));
}

TEST(ServiceInfoTest, ActorAndStubHaveTheSameTable) {
  EXPECT_EQ(&LibraryActor::service_info(), &LibraryStub::service_info());
  EXPECT_EQ(LibraryActor::troupe_binding().info, &LibraryActor::service_info());
  EXPECT_EQ(LibraryActor::troupe_binding().handlers.size(), LibraryActor::service_info().methods.size());
}

TEST(ServiceInfoTest, AServiceWithoutRpcsHasEmptyTables) {
  EXPECT_EQ(ReservedActor::service_info().full_name, "library.v1.Reserved");
  EXPECT_THAT(ReservedActor::service_info().methods, IsEmpty());
  EXPECT_THAT(ReservedActor::troupe_binding().handlers, IsEmpty());
  EXPECT_FALSE(ReservedActor::service_info().serial);
}

TEST(ServiceInfoTest, Proto2WithoutAPackageAndNamesThatHideOthers) {
  EXPECT_THAT(Describe(LegacyActor::service_info()),
              ElementsAre("Ask /Legacy/Ask unary Question Answer",
                          "Walk /Legacy/Walk server streaming Question.Part moved.Message"));
  EXPECT_THAT(Describe(shadow::troupe::std::ShadowActor::service_info()),
              ElementsAre("Ask /shadow.troupe.std.Shadow/Ask unary shadow.troupe.std.absl shadow.troupe.std.google"));
}

TEST(ServiceInfoTest, PackagesThatEndLikeTheNamespacesOfLibraries) {
  EXPECT_THAT(Describe(shadow::troupe::ActorActor::service_info()),
              ElementsAre("Ask /shadow.troupe.Actor/Ask server streaming shadow.troupe.Writer shadow.troupe.Reader"));
  EXPECT_THAT(Describe(shadow::troupe::StubStub::service_info()),
              ElementsAre("Tell /shadow.troupe.Stub/Tell client streaming shadow.troupe.Reader shadow.troupe.Reply"));
  EXPECT_THAT(Describe(shadow::absl::StatusStub::service_info()),
              ElementsAre("Ask /shadow.absl.Status/Ask unary shadow.absl.Span shadow.absl.Span"));
}

TEST(ServiceInfoTest, MessagesOfProtobufItself) {
  EXPECT_THAT(Describe(wellknown::ClockActor::service_info()),
              ElementsAre("Now /wellknown.Clock/Now unary google.protobuf.Empty google.protobuf.Timestamp",
                          "Sleep /wellknown.Clock/Sleep unary google.protobuf.Duration wellknown.Optional",
                          "Store /wellknown.Clock/Store client streaming google.protobuf.Any "
                          "google.protobuf.StringValue",
                          "Query /wellknown.Clock/Query server streaming google.protobuf.Struct "
                          "google.protobuf.Value"));
}

TEST(ServiceInfoTest, OneNameInTwoPackagesOfOneProgram) {
  EXPECT_EQ(twins::east::TwinActor::service_info().full_name, "twins.east.Twin");
  EXPECT_EQ(twins::west::TwinActor::service_info().full_name, "twins.west.Twin");
  EXPECT_NE(&twins::east::TwinStub::service_info(), &twins::west::TwinStub::service_info());
}

TEST(ServiceInfoTest, FilesWithPrefixesAndLibrariesThatShareMessages) {
  EXPECT_THAT(Describe(prefixed::FirstStub::service_info()),
              ElementsAre("Ask /prefixed.First/Ask unary prefixed.FirstMessage prefixed.SecondMessage"));
  EXPECT_EQ(prefixed::SecondStub::service_info().full_name, "prefixed.Second");
  EXPECT_EQ(prefixed::ThirdStub::service_info().full_name, "prefixed.Third");
  EXPECT_THAT(Describe(mutual::AccountsActor::service_info()),
              ElementsAre("Book /mutual.Accounts/Book unary mutual.Entry mutual.Account"));
  EXPECT_THAT(Describe(mutual::LedgerActor::service_info()),
              ElementsAre("Open /mutual.Ledger/Open unary mutual.Account mutual.Entry"));
}

TEST(ServiceInfoTest, RenamedFunctionsKeepTheirNamesOnTheWire) {
  const troupe::ServiceInfo& info = keywords::v1::switchActor::service_info();
  EXPECT_EQ(info.methods[0].name, "delete");
  EXPECT_EQ(info.methods[0].path, "/keywords.v1.switch/delete");
}

// Calls of the stub, as the caller saw them.
class RecordingCaller final : public troupe::Caller {
 public:
  troupe::EventLoop& loop() override { throw troupe::InvalidState("not needed"); }
  troupe::internal::ClientCallRef StartCall(const troupe::MethodInfo& method, const troupe::CallOptions& options,
                                            const google::protobuf::MessageLite* message) override {
    calls.push_back(absl::StrCat(method.path, message == nullptr ? " streams" : " " + message->GetTypeName(), " ",
                                 absl::FormatDuration(options.timeout)));
    methods.push_back(&method);
    messages.push_back(message);
    return {};
  }
  std::vector<std::string> calls;
  std::vector<const troupe::MethodInfo*> methods;
  std::vector<const google::protobuf::MessageLite*> messages;
};

TEST(StubTest, EachFunctionStartsItsMethodWithItsRequest) {
  RecordingCaller caller;
  LibraryStub stub(caller);
  const LoginRequest login;
  const Outer_Inner_Key key;
  const BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesRequest browse;
  const google::protobuf::Empty empty;
  const troupe::Reply<LoginResponse> a = stub.Login(login);
  const troupe::Reply<Book> b = stub.Find(key, {.timeout = absl::Seconds(5)});
  const troupe::ClientReader<BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesResponse> c = stub.Browse(browse);
  const troupe::ClientWriter<Book, Receipt> d = stub.Return();
  const troupe::ClientReaderWriter<Book, Receipt> e = stub.Talk({.timeout = absl::Seconds(6)});
  const troupe::Told f = stub.Ping(empty);
  EXPECT_THAT(caller.calls, ElementsAre("/library.v1.Library/Login library.v1.LoginRequest inf",
                                        "/library.v1.Library/Find library.v1.Outer.Inner.Key 5s",
                                        "/library.v1.Library/Browse "
                                        "library.v1.BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesRequest inf",
                                        "/library.v1.Library/Return streams inf", "/library.v1.Library/Talk streams 6s",
                                        "/library.v1.Library/Ping google.protobuf.Empty inf"));
  EXPECT_EQ(caller.methods[0], &LibraryActor::service_info().methods[0]) << "the method of the table, not a copy";
  EXPECT_EQ(caller.messages[0], &login) << "the request itself, not a copy";
}

// A call without a wire: what its handler answers stays here.
class LocalCall final : public troupe::internal::ServerCall {
 public:
  using ServerCall::ServerCall;
  explicit LocalCall(troupe::EventLoop& loop) : ServerCall(loop) {}
  ~LocalCall() override = default;

  absl::Status Answer(const troupe::ServiceBinding& binding, size_t method, void* actor,
                      const google::protobuf::MessageLite& request) {
    Begin(binding.info->methods[method], troupe::MonotonicTime::InfiniteFuture(), troupe::Metadata());
    EXPECT_TRUE(binding.info->methods[method].client_streams() || ParseRequest(request.SerializeAsString()));
    RunHandler(binding.handlers[method], actor);
    EXPECT_FALSE(handler_runs()) << "the handlers of this test do not wait";
    return outcome_;
  }
  const std::string& answer() const { return answer_; }

 private:
  bool Send(const google::protobuf::MessageLite& message, troupe::WriteOptions) override {
    absl::StrAppend(&answer_, message.GetTypeName(), ";");
    return true;
  }
  void SendOutcome(const absl::Status& status, const google::protobuf::MessageLite* response) override {
    outcome_ = status;
    if (response != nullptr) absl::StrAppend(&answer_, response->SerializeAsString());
  }
  void OnEnded() override {}
  void OnUnreferenced() override {}
  void Consumed(size_t) override {}
  bool IsBlocked() const override { return false; }
  troupe::Metadata& initial_metadata() override { return trailers(); }
  bool draining() const override { return false; }
  void WatchDraining(troupe::internal::DrainWatcher&) override {}
  troupe::Connection& connection() override { throw troupe::InvalidState("not needed"); }

  absl::Status outcome_ = absl::UnknownError("no outcome");
  std::string answer_;
};

// Implements some rpcs; its generated base is not its first one, so that pointers must be converted to be right.
class Other {
 public:
  virtual ~Other() = default;
  int unused = 0;
};
class LibraryService final : public Other, public LibraryActor {
 public:
  troupe::Task<absl::Status> Find(const Outer_Inner_Key& request, Book& response, troupe::Call& call) override {
    called.push_back(std::string(call.method().name));
    response.set_title(request.value() + "!");
    co_return absl::OkStatus();
  }
  troupe::Task<absl::Status> Browse(
      const BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesRequest&,
      troupe::Writer<BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesResponse> responses, troupe::Call&) override {
    called.emplace_back("Browse");
    responses.WriteWithoutWaiting({});
    co_return absl::OkStatus();
  }
  troupe::Task<absl::Status> Return(troupe::Reader<Book>, Receipt& response, troupe::Call&) override {
    called.emplace_back("Return");
    response.set_number(7);
    co_return absl::OkStatus();
  }
  troupe::Task<absl::Status> Talk(troupe::Reader<Book>, troupe::Writer<Receipt> responses, troupe::Call&) override {
    called.emplace_back("Talk");
    responses.WriteWithoutWaiting({});
    co_return absl::AbortedError("enough");
  }
  std::vector<std::string> called;
};

class HandlerTest : public ::testing::Test {
 protected:
  ~HandlerTest() override { loop_.Close(); }

  // Calls the rpc of that number; "status: what it answered".
  std::string Call(size_t method, const google::protobuf::MessageLite& request) {
    LocalCall call(loop_);
    LibraryActor& generated = service_;
    const absl::Status status = call.Answer(LibraryActor::troupe_binding(), method, &generated, request);
    return absl::StrCat(status.ToString(), ": ", call.answer());
  }

  troupe::testing::SimOs os_;
  troupe::EventLoop loop_{os_};
  LibraryService service_;
};

TEST_F(HandlerTest, EachKindReachesTheFunctionOfTheUsersClass) {
  Outer_Inner_Key key;
  key.set_value("key");
  Book book;
  book.set_title("key!");
  Receipt receipt;
  receipt.set_number(7);
  EXPECT_EQ(Call(1, key), "OK: " + book.SerializeAsString());
  EXPECT_EQ(Call(2, BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesRequest()),
            "OK: library.v1.BrowseAllTheBooksOfOneShelfInTheOrderOfTheirTitlesResponse;");
  EXPECT_EQ(Call(3, Book()), "OK: " + receipt.SerializeAsString());
  EXPECT_EQ(Call(4, Book()), "ABORTED: enough: library.v1.Receipt;");
  EXPECT_THAT(service_.called, ElementsAre("Find", "Browse", "Return", "Talk"));
}

TEST_F(HandlerTest, AnRpcLeftAloneAnswersUnimplementedAndNamesItself) {
  EXPECT_EQ(Call(0, LoginRequest()), "UNIMPLEMENTED: /library.v1.Library/Login is not implemented: ");
  EXPECT_EQ(Call(5, google::protobuf::Empty()), "UNIMPLEMENTED: /library.v1.Library/Ping is not implemented: ");
  EXPECT_THAT(service_.called, IsEmpty());
}

// Says what happened to it, in order.
class LoggingService final : public LibraryActor {
 public:
  explicit LoggingService(std::vector<std::string>& log) : log_(log) {}
  ~LoggingService() override { log_.emplace_back("deleted"); }

  void ConnectionMade(troupe::Connection&) override { log_.emplace_back("made"); }
  troupe::Task<absl::Status> Login(const LoginRequest&, LoginResponse&, troupe::Call&) override {
    log_.emplace_back("Login");
    co_return absl::OkStatus();
  }
  troupe::Task<absl::Status> Find(const Outer_Inner_Key& request, Book& response, troupe::Call&) override {
    log_.push_back("Find " + request.value());
    response.set_title(request.value() + "!");
    co_return absl::OkStatus();
  }
  void ConnectionLost(const absl::Status& reason) override { log_.push_back("lost: " + reason.ToString()); }

 private:
  std::vector<std::string>& log_;
};

troupe::Task<std::string> FindTitle(LibraryStub stub, Outer_Inner_Key key) {
  const LoginRequest login;
  const absl::StatusOr<LoginResponse> in = co_await stub.Login(login);
  if (!in.ok()) co_return in.status().ToString();
  const absl::StatusOr<Book> book = co_await stub.Find(key);
  co_return book.ok() ? book->title() : book.status().ToString();
}

TEST(ProtocolTest, HostsItsActorOnABareLoopWhateverTheBytesComeIn) {
  for (const size_t delivery_bytes_max : {1, 7, 1 << 18}) {
    troupe::testing::SimOs os;
    troupe::EventLoop loop(os);
    std::vector<std::string> log;
    {
      troupe::SessionCounters counters;
      troupe::Session client(loop, troupe::Session::Role::kClient, troupe::SessionOptions(), nullptr, counters);
      const troupe::MemoryPair pair = troupe::MakeMemoryPair(
          loop, client.MakeProtocol(), std::make_unique<LibraryProtocol>(std::make_unique<LoggingService>(log)),
          {.delivery_bytes_max = delivery_bytes_max});
      Outer_Inner_Key key;
      key.set_value("key");
      EXPECT_EQ(loop.RunUntilComplete(FindTitle(LibraryStub(client), key)), "key!");
      client.Close(absl::OkStatus());
      do {
        loop.RunOnceWithoutWaiting();
      } while (loop.HasReady());
    }
    EXPECT_THAT(log, ElementsAre("made", "Login", "Find key", "lost: OK", "deleted"));
    loop.Close();
  }
}

// Every renamed function can be overridden under its new name and called through the stub.
class KeywordService final : public keywords::v1::switchActor {
 public:
  using Union = keywords::v1::union_;
  using Int = keywords::v1::union__int;
  using Outcome = troupe::Task<absl::Status>;
  Outcome delete_(const Union&, Int& response, troupe::Call&) override {
    response.set_value(1);
    co_return absl::OkStatus();
  }
  Outcome co_await_(troupe::Reader<Int>, troupe::Writer<Union>, troupe::Call&) override {
    co_return absl::AbortedError("co_await_");
  }
  Outcome ConnectionMade_(const Union&, Union&, troupe::Call&) override {
    co_return absl::AbortedError("the rpc, not the callback");
  }
  void ConnectionMade(troupe::Connection&) override {}
  Outcome switchActor_(const Union&, Union&, troupe::Call&) override { co_return absl::AbortedError("switchActor_"); }
  Outcome EOF_(const Union&, Union&, troupe::Call&) override { co_return absl::AbortedError("end of file"); }
  Outcome major_(const Union&, Union&, troupe::Call&) override { co_return absl::AbortedError("major"); }
  Outcome troupe(const Union&, Union&, ::troupe::Call&) override { co_return absl::AbortedError("troupe"); }
};

TEST(KeywordsTest, RenamedFunctionsAreReached) {
  const troupe::ServiceBinding& binding = keywords::v1::switchActor::troupe_binding();
  troupe::testing::SimOs os;
  troupe::EventLoop loop(os);
  KeywordService service;
  std::vector<std::string> outcomes;
  for (const char* name :
       {"delete", "co_await", "ConnectionMade", "switchActor", "EOF", "major", "troupe", "requires"}) {
    for (size_t i = 0; i < binding.info->methods.size(); ++i) {
      if (binding.info->methods[i].name != name) continue;
      LocalCall call(loop);
      keywords::v1::switchActor& generated = service;
      outcomes.emplace_back(call.Answer(binding, i, &generated, keywords::v1::union_()).ToString());
    }
  }
  EXPECT_THAT(outcomes,
              ElementsAre("OK", "ABORTED: co_await_", "ABORTED: the rpc, not the callback", "ABORTED: switchActor_",
                          "ABORTED: end of file", "ABORTED: major", "ABORTED: troupe",
                          "UNIMPLEMENTED: /keywords.v1.switch/requires is not implemented"));
  loop.Close();
}

}  // namespace
}  // namespace library::v1
