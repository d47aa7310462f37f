// What services ask for in their options, honoured over real sessions: the order of a session, serial actors, one-way
// calls. Handlers write down when they start and end; a request says how long its handler takes, and how it ends:
// "a 10" takes ten milliseconds, "a 10 fail" does not end OK.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "desk.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/net/memory_transport.h"
#include "troupe/rpc/internal/serial_gate.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::desk::Note;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::troupe::testing::InProcess;
using ::troupe::testing::StatusIs;

using Status = Task<absl::Status>;

struct World {
  std::vector<std::string> log;
  std::function<Status(const Note&, Call&)> within;  // instead of taking time
};

// Takes its time and writes down how it went.
Status Work(World& world, std::string method, Note note, Call& call) {
  const std::vector<std::string> words = absl::StrSplit(note.text(), ' ');
  const std::string name = absl::StrCat(method, words[0].empty() ? "" : " ", words[0]);
  world.log.push_back(name);
  int milliseconds = 0;
  if (words.size() > 1 && !absl::SimpleAtoi(words[1], &milliseconds)) ADD_FAILURE() << note.text();
  try {
    if (milliseconds != 0) co_await Sleep(absl::Milliseconds(milliseconds));
  } catch (const Cancelled&) {
    world.log.push_back(absl::StrCat(name, " cancelled"));
    throw;
  }
  if (milliseconds != 0) world.log.push_back(absl::StrCat(name, " done"));
  if (words.size() > 2) co_return absl::AbortedError("asked to fail");
  if (world.within != nullptr) {
    Status more = world.within(note, call);
    absl::Status ended = co_await std::move(more);
    co_return ended;
  }
  co_return absl::OkStatus();
}

class DeskService final : public desk::DeskActor {
 public:
  explicit DeskService(World& world) : world_(world) {}
  Status Login(const Note& note, Note&, Call& call) override { return Work(world_, "Login", note, call); }
  Status Get(const Note& note, Note&, Call& call) override { return Work(world_, "Get", note, call); }
  Status Watch(const Note& note, Writer<Note> notes, Call& call) override {
    notes.WriteWithoutWaiting(note);
    return Work(world_, "Watch", note, call);
  }
  Status Save(const Note& note, Note&, Call& call) override { return Work(world_, "Save", note, call); }
  Status Logout(const Note& note, Note&, Call& call) override { return Work(world_, "Logout", note, call); }
  Status Ping(const Note& note, Note&, Call& call) override { return Work(world_, "Ping", note, call); }
  void ConnectionLost(const absl::Status& reason) override { world_.log.push_back("lost: " + reason.ToString()); }

 private:
  World& world_;
};

class QueueService final : public desk::QueueActor {
 public:
  explicit QueueService(World& world) : world_(world) {}
  Status Do(const Note& note, Note&, Call& call) override { return Work(world_, "Do", note, call); }
  Status Watch(const Note& note, Writer<Note>, Call& call) override { return Work(world_, "Watch", note, call); }

 private:
  World& world_;
};

Note Says(std::string text) {
  Note note;
  note.set_text(std::move(text));
  return note;
}

// A stub that knows no order, as one of another language would be: it sends what it is told to.
class LawlessCaller final : public Caller {
 public:
  explicit LawlessCaller(Caller& caller) : caller_(caller) {}
  EventLoop& loop() override { return caller_.loop(); }
  internal::ClientCallRef StartCall(const MethodInfo& method, const CallOptions& options,
                                    const google::protobuf::MessageLite* message) override {
    auto& lawless = *methods_.emplace_back(std::make_unique<MethodInfo>(method));
    lawless.order = nullptr;
    return caller_.StartCall(lawless, options, message);
  }

 private:
  Caller& caller_;
  std::vector<std::unique_ptr<MethodInfo>> methods_;
};

template <class S>
class OptionsTest : public ::testing::Test {
 protected:
  using Stub = typename S::TroupeActor::TroupeStub;

  Stub stub() { return server_->stub(); }
  Stub lawless() {
    if (lawless_ == nullptr) lawless_ = std::make_unique<LawlessCaller>(server_->caller());
    return Stub(*lawless_);
  }
  absl::Status End(Reply<Note> reply) { return server_->Run(std::move(reply)).status(); }
  std::vector<std::string> Log() { return std::exchange(world_.log, {}); }

  World world_;
  std::unique_ptr<InProcess<S>> server_ = std::make_unique<InProcess<S>>(std::ref(world_));
  std::unique_ptr<LawlessCaller> lawless_;
};

// ---------------------------------------------------------------------------------------------------- session order

class SessionOrderTest : public OptionsTest<DeskService> {
 protected:
  void LogIn() {
    EXPECT_OK(End(stub().Login(Says(""))));
    world_.log.clear();
  }
};

TEST_F(SessionOrderTest, WhatIsOutOfOrderIsRefusedByTheServerBeforeItsHandlerSeesIt) {
  const absl::Status status = End(lawless().Get(Says("a")));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("allowed now: Login")));
  ASSERT_TRUE(status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo").has_value());
  EXPECT_THAT(std::string(*status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo")), HasSubstr("SESSION_ORDER"));
  EXPECT_THAT(Log(), IsEmpty());
  EXPECT_OK(End(lawless().Login(Says("a"))));
  EXPECT_OK(End(lawless().Get(Says("a"))));
  EXPECT_THAT(End(lawless().Login(Says("b"))), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(Log(), ElementsAre("Login a", "Get a"));
  EXPECT_OK(End(lawless().Logout(Says("a"))));
}

TEST_F(SessionOrderTest, TheStubRefusesBeforeItSends) {
  const uint64_t before = server_->server().counters().calls_started.value();
  EXPECT_THAT(End(stub().Get(Says("a"))), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("Login")));
  EXPECT_EQ(server_->server().counters().calls_started.value(), before);
  EXPECT_OK(End(stub().Login(Says("a"))));
  EXPECT_OK(End(stub().Get(Says("a"))));
}

TEST_F(SessionOrderTest, StepsMayBeSentBehindEachOtherWithoutWaiting) {
  Reply<Note> login = stub().Login(Says("a 10"));
  Reply<Note> get = stub().Get(Says("b 10"));
  Reply<Note> other = stub().Get(Says("c 10"));
  Reply<Note> save = stub().Save(Says("d 10"));
  Reply<Note> logout = stub().Logout(Says("e"));
  EXPECT_OK(End(std::move(logout)));
  EXPECT_THAT(Log(), ElementsAre("Login a", "Login a done", "Get b", "Get c", "Get b done", "Get c done", "Save d",
                                 "Save d done", "Logout e"));
  for (Reply<Note>* reply : {&login, &get, &other, &save}) EXPECT_OK(End(std::move(*reply)));
}

TEST_F(SessionOrderTest, WhatWaitsBehindAStepThatFailsIsJudgedAnew) {
  Reply<Note> login = stub().Login(Says("a 10 fail"));
  Reply<Note> get = stub().Get(Says("b"));
  Reply<Note> again = stub().Login(Says("c"));
  EXPECT_THAT(End(std::move(login)), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(End(std::move(get)), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(End(std::move(again)));
  EXPECT_THAT(Log(), ElementsAre("Login a", "Login a done", "Login c"));
}

TEST_F(SessionOrderTest, ACallThatWaitsCanBeCancelledAndHasADeadline) {
  LogIn();
  Reply<Note> get = stub().Get(Says("a 100"));
  {
    Reply<Note> dropped = stub().Save(Says("b"));
    server_->RunUntilIdle();
  }
  Reply<Note> late = stub().Save(Says("c"), {.timeout = absl::Milliseconds(50)});
  Reply<Note> behind = stub().Get(Says("d"));
  EXPECT_THAT(End(std::move(late)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_OK(End(std::move(behind)));
  EXPECT_THAT(Log(), ElementsAre("Get a", "Get d")) << "d starts beside a, for nothing between them changes the state";
  EXPECT_OK(End(std::move(get)));
  EXPECT_OK(End(stub().Logout(Says(""))));
}

TEST_F(SessionOrderTest, AStreamThatTheNewStateDoesNotAllowIsCancelled) {
  LogIn();
  ClientReader<Note> watch = stub().Watch(Says("a 1000"));
  EXPECT_OK(End(stub().Save(Says("b"))));
  EXPECT_THAT(server_->Run([&] { return watch.Finish(); }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("Watch is out of order")));
  EXPECT_THAT(Log(), ElementsAre("Watch a", "Save b", "Watch a cancelled"));
}

TEST_F(SessionOrderTest, MethodsOfAnyTimeWaitForNothing) {
  EXPECT_OK(End(stub().Ping(Says("a"))));
  Reply<Note> login = stub().Login(Says("b 10"));
  EXPECT_OK(End(stub().Ping(Says("c"))));
  EXPECT_THAT(Log(), ElementsAre("Ping a", "Login b", "Ping c"));
  EXPECT_OK(End(std::move(login)));
}

TEST_F(SessionOrderTest, AClientThatLostAnOutcomeKeepsBothStates) {
  EXPECT_THAT(End(stub().Login(Says("a 100"), {.timeout = absl::Milliseconds(10)})),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  // The server knows that it did not end OK.
  EXPECT_THAT(End(stub().Get(Says("b"))), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(End(stub().Login(Says("c"))));
  EXPECT_OK(End(stub().Get(Says("d"))));
  EXPECT_THAT(Log(), ElementsAre("Login a", "Login a cancelled", "Login c", "Get d"));
}

TEST_F(SessionOrderTest, ASessionThatNeverBeganEndsInGoodOrder) {
  EXPECT_THAT(End(stub().Login(Says("a 1 fail"))), StatusIs(absl::StatusCode::kAborted));
  EXPECT_THAT(End(lawless().Get(Says("b"))), StatusIs(absl::StatusCode::kFailedPrecondition));
  Log();
  server_.reset();
  EXPECT_THAT(world_.log, ElementsAre("lost: OK"));
}

TEST_F(SessionOrderTest, ConnectionLostIsOkAtAnEndOfTheOrder) {
  LogIn();
  server_.reset();
  EXPECT_THAT(world_.log, ElementsAre("lost: OK"));
}

TEST_F(SessionOrderTest, EachConnectionHasItsOwnSession) {
  LogIn();
  server_->client().Close(absl::OkStatus());
  server_->RunUntilIdle();
  lawless_.reset();
  EXPECT_THAT(End(stub().Get(Says("a"))), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(End(lawless().Get(Says("a"))), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(End(stub().Login(Says(""))));
}

TEST_F(SessionOrderTest, CallsThatWaitEndWithTheirConnection) {
  LogIn();
  std::vector<Reply<Note>> replies;
  for (int i = 0; i < 10; ++i) {
    replies.push_back(stub().Get(Says("a 1000")));
    replies.push_back(stub().Save(Says("b")));
  }
  server_->RunUntilIdle();
  server_->client().Close(absl::OkStatus());
  for (Reply<Note>& reply : replies) EXPECT_THAT(End(std::move(reply)), StatusIs(absl::StatusCode::kUnavailable));
  server_->RunUntilIdle();
  EXPECT_THAT(Log(), ElementsAre("Get a", "Get a cancelled", "lost: OK"));
}

// A step that waits ends, and with it what waited behind and has no place in the order: each once.
TEST_F(SessionOrderTest, AWaitingCallThatTheEndOfAnotherRefusesEndsOnce) {
  LogIn();
  std::vector<Reply<Note>> replies;
  replies.push_back(stub().Get(Says("a 1000")));
  replies.push_back(stub().Save(Says("b")));
  for (int i = 0; i < 3; ++i) replies.push_back(lawless().Login(Says("c")));
  server_->RunUntilIdle();
  server_->server().Close();
  for (Reply<Note>& reply : replies) EXPECT_FALSE(End(std::move(reply)).ok());
  server_->Advance(absl::Seconds(10));
  EXPECT_EQ(server_->server().calls_in_flight(), 0u);
  EXPECT_EQ(server_->server().connections(), 0u);
  EXPECT_THAT(Log(), ElementsAre("Get a", "Get a cancelled", HasSubstr("lost: ")));
}

class LedgerService final : public desk::LedgerActor {
 public:
  explicit LedgerService(World& world) : world_(world) {}
  Status Begin(const Note& note, Note&, Call& call) override { return Work(world_, "Begin", note, call); }
  Status Put(const Note& note, Note&, Call& call) override { return Work(world_, "Put", note, call); }
  Status Commit(const Note& note, Note&, Call& call) override { return Work(world_, "Commit", note, call); }
  void ConnectionLost(const absl::Status& reason) override { world_.log.push_back("lost: " + reason.ToString()); }

 private:
  World& world_;
};

class OrderedDrainTest : public OptionsTest<LedgerService> {
 protected:
  Server::State state() { return server_->server().state(); }
};

TEST_F(OrderedDrainTest, ASessionAtAnEndOfItsOrderIsClosedAtOnce) {
  EXPECT_OK(End(stub().Begin(Says(""))));
  EXPECT_OK(End(stub().Commit(Says(""))));
  server_->server().Drain();
  server_->RunUntilIdle();
  EXPECT_EQ(state(), Server::State::kClosed);
  EXPECT_THAT(Log(), ElementsAre("Begin", "Commit", "lost: OK"));
}

TEST_F(OrderedDrainTest, ASessionThatHasBegunMayComeToAnEndOfItsOrder) {
  EXPECT_OK(End(stub().Begin(Says(""))));
  server_->server().Drain();
  server_->Advance(absl::Seconds(20));
  EXPECT_EQ(state(), Server::State::kDraining);
  EXPECT_OK(End(stub().Put(Says("a"))));
  EXPECT_OK(End(stub().Commit(Says("b"))));
  server_->RunUntilIdle();
  EXPECT_EQ(state(), Server::State::kClosed);
  EXPECT_THAT(Log(), ElementsAre("Begin", "Put a", "Commit b", "lost: OK"));
}

TEST_F(OrderedDrainTest, NoSessionOutlastsTheDrain) {
  EXPECT_OK(End(stub().Begin(Says(""))));
  server_->server().Drain();
  server_->Advance(absl::Seconds(40));
  EXPECT_EQ(state(), Server::State::kClosed);
  ASSERT_EQ(world_.log.size(), 2u);
  EXPECT_THAT(world_.log[1], HasSubstr("the session of desk.Ledger ended before its order did: (Begin Put* Commit)*"));
}

TEST_F(OrderedDrainTest, ConnectionLostSaysThatTheSessionHadNotComeToAnEndOfItsOrder) {
  EXPECT_OK(End(stub().Begin(Says(""))));
  server_->client().Close(absl::OkStatus());
  server_->RunUntilIdle();
  EXPECT_THAT(Log(), ElementsAre("Begin",
                                 "lost: ABORTED: the session of desk.Ledger ended before its order did: "
                                 "(Begin Put* Commit)*"));
}

// ---------------------------------------------------------------------------------------------------- serial actors

class SerialTest : public OptionsTest<QueueService> {};

TEST_F(SerialTest, OneCallAtATimeInTheOrderOfTheirArrival) {
  std::vector<Reply<Note>> replies;
  for (const char* note : {"a 10", "b", "c 10", "d"}) replies.push_back(stub().Do(Says(note)));
  for (Reply<Note>& reply : replies) EXPECT_OK(End(std::move(reply)));
  EXPECT_THAT(Log(), ElementsAre("Do a", "Do a done", "Do b", "Do c", "Do c done", "Do d"));
}

TEST_F(SerialTest, ThousandsThatWait) {
  std::vector<Reply<Note>> replies;
  replies.push_back(stub().Do(Says("a 10")));
  for (int i = 0; i < 5000; ++i) replies.push_back(stub().Do(Says(absl::StrCat(i))));
  for (Reply<Note>& reply : replies) EXPECT_OK(End(std::move(reply)));
  EXPECT_EQ(Log().size(), 5002u);
}

TEST_F(SerialTest, DeadlinesRunWhileACallWaits) {
  Reply<Note> first = stub().Do(Says("a 100"));
  const MonotonicTime start = server_->loop().Time();
  EXPECT_THAT(End(stub().Do(Says("b"), {.timeout = absl::Milliseconds(30)})),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  server_->Advance(absl::Milliseconds(1));
  EXPECT_EQ(server_->server().calls_in_flight(), 1u);
  EXPECT_LT(server_->loop().Time() - start, absl::Milliseconds(100));
  EXPECT_OK(End(std::move(first)));
  EXPECT_OK(End(stub().Do(Says("c"))));
  EXPECT_THAT(Log(), ElementsAre("Do a", "Do a done", "Do c"));
}

TEST_F(SerialTest, ACallIsCancelledWhileItWaits) {
  Reply<Note> first = stub().Do(Says("a 10"));
  {
    Reply<Note> dropped = stub().Do(Says("b"));
    server_->RunUntilIdle();
  }
  Reply<Note> last = stub().Do(Says("c"));
  EXPECT_OK(End(std::move(last)));
  EXPECT_OK(End(std::move(first)));
  EXPECT_THAT(Log(), ElementsAre("Do a", "Do a done", "Do c"));
}

TEST_F(SerialTest, AStreamHoldsTheActorUntilItsCallerDropsIt) {
  Reply<Note> waiting = [&] {
    ClientReader<Note> watch = stub().Watch(Says("a 1000"));
    server_->RunUntilIdle();
    return stub().Do(Says("b"));
  }();
  EXPECT_OK(End(std::move(waiting)));
  EXPECT_THAT(Log(), ElementsAre("Watch a", "Watch a cancelled", "Do b"));
}

TEST_F(SerialTest, CallsThatWaitEndWithADrain) {
  Reply<Note> first = stub().Do(Says("a 10"));
  ClientReader<Note> stream = stub().Watch(Says("b 100000"));
  ClientReader<Note> waits = stub().Watch(Says("c"));
  Reply<Note> last = stub().Do(Says("d"));
  server_->RunUntilIdle();
  server_->server().Drain();
  EXPECT_OK(End(std::move(first)));
  EXPECT_THAT(server_->Run([&] { return stream.Finish(); }), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(server_->Run([&] { return waits.Finish(); }), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_OK(End(std::move(last)));
}

// Its handler calls the next desk of a ring and waits for it.
TEST(SerialCircleTest, ActorsThatWaitForEachOtherInACircleAreAborted) {
  World here_world;
  World there_world;
  InProcess<QueueService> here(std::ref(here_world));
  // A second server on the same loop, so that both run.
  Server there(here.loop());
  there.Add<QueueService>(std::ref(there_world));
  here.Run([](Server& server) -> Task<void> { (void)co_await server.Start(); }(there));
  SessionCounters counters;
  Session to_there(here.loop(), Session::Role::kClient, SessionOptions(), nullptr, counters);
  MemoryPair pair = MakeMemoryPair(here.loop(), to_there.MakeProtocol(), there.NewConnection(), {});

  Caller& to_here = here.caller();
  const auto call = [](Caller& caller, Note note) -> Status {
    desk::QueueStub stub(caller);
    const absl::StatusOr<Note> got = co_await stub.Do(note);
    co_return got.status();
  };
  here_world.within = [&](const Note& note, Call&) { return call(to_there, note); };
  there_world.within = [&](const Note& note, Call&) { return call(to_here, note); };
  EXPECT_THAT(
      here.Run(call(to_here, Says("a"))),
      StatusIs(absl::StatusCode::kAborted, HasSubstr("/desk.Queue/Do is called by what its serial actor waits")));
  EXPECT_THAT(here_world.log, ElementsAre("Do a"));
  EXPECT_THAT(there_world.log, ElementsAre("Do a"));

  // No circle: the next turn is another one.
  there_world.within = nullptr;
  EXPECT_OK(here.Run(call(to_here, Says("b"))));
  to_there.Close(absl::OkStatus());
  there.Close();
  here.Run(there.WaitClosed());
  here.RunUntilIdle();
}

TEST_F(SerialTest, TheTurnsThatACallCarriesAreNotShownToItsHandler) {
  Metadata metadata;
  metadata.Add("key", "value");
  metadata.Add(internal::kSerialTurnsKey, internal::EncodeSerialTurns({1, 2, 3}));
  world_.within = [](const Note&, Call& call) -> Status {
    co_return call.metadata() == Metadata{{"key", "value"}} ? absl::OkStatus() : absl::InternalError("more came");
  };
  EXPECT_OK(End(stub().Do(Says("a"), {.metadata = &metadata})));
}

// ---------------------------------------------------------------------------------------------------- one way

class BellService final : public desk::BellActor {
 public:
  explicit BellService(World& world) : world_(world) {}
  Status Ring(const Note& note, google::protobuf::Empty&, Call& call) override {
    return Work(world_, "Ring", note, call);
  }

 private:
  World& world_;
};

Task<absl::Status> Await(Told told) {
  absl::Status status = co_await told;
  co_return status;
}

TEST(OneWayTest, IsDoneForItsCallerWhenItIsSent) {
  World world;
  InProcess<BellService> bell(std::ref(world));
  const MonotonicTime start = bell.loop().Time();
  EXPECT_OK(bell.Run(Await(bell.stub().Ring(Says("a 1000 fail")))));
  EXPECT_EQ(bell.loop().Time(), start);
  bell.Advance(absl::Seconds(2));
  EXPECT_THAT(world.log, ElementsAre("Ring a", "Ring a done"));
}

TEST(OneWayTest, DroppingItDoesNotCancelTheCall) {
  World world;
  InProcess<BellService> bell(std::ref(world));
  bell.stub().Ring(Says("a 10"));
  bell.stub().Ring(Says("b"));
  bell.Advance(absl::Seconds(1));
  EXPECT_THAT(world.log, ElementsAre("Ring a", "Ring b", "Ring a done"));
}

TEST(OneWayTest, ItsDeadlineHoldsAtTheServer) {
  World world;
  InProcess<BellService> bell(std::ref(world));
  bell.stub().Ring(Says("a 1000"), {.timeout = absl::Milliseconds(10)});
  bell.Advance(absl::Seconds(2));
  EXPECT_THAT(world.log, ElementsAre("Ring a", "Ring a cancelled"));
}

TEST(OneWayTest, WhatCannotBeSentSaysWhy) {
  World world;
  InProcess<BellService> bell(std::ref(world));
  desk::BellStub stub = bell.stub();
  bell.client().Close(absl::OkStatus());
  EXPECT_THAT(bell.Run(Await(stub.Ring(Says("a")))), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(world.log, IsEmpty());
}

// ---------------------------------------------------------------------------------------------------- OpenSession

class OpenSessionTest : public ::testing::Test {
 protected:
  OpenSessionTest() {
    server_.Add<DeskService>(std::ref(world_));
    const absl::Status started = loop_.RunUntilComplete(server_.Start());
    if (!started.ok()) throw StatusError(started);
    channel_ = std::make_unique<Channel>(loop_, "troupe+dns:///" + server_.addresses().front().ToString());
  }
  ~OpenSessionTest() override {
    if (channel_ != nullptr) channel_->Close();
    server_.Close();
    loop_.RunUntilComplete(server_.WaitClosed());
    while (loop_.HasReady()) loop_.RunOnceWithoutWaiting();
    channel_.reset();
    loop_.Close();
  }
  absl::StatusOr<OpenedSession<desk::DeskStub>> Open() {
    return loop_.RunUntilComplete(channel_->OpenSession<desk::DeskStub>());
  }
  static Task<absl::Status> Await(Reply<Note> reply) {
    const absl::StatusOr<Note> got = co_await reply;
    co_return got.status();
  }
  absl::Status End(Reply<Note> reply) { return loop_.RunUntilComplete(Await(std::move(reply))); }

  World world_;
  troupe::testing::SimOs os_;
  EventLoop loop_{os_};
  Server server_{loop_, {.listen = {"127.0.0.1:0"}}};
  std::unique_ptr<Channel> channel_;
};

TEST_F(OpenSessionTest, EachHasAConnectionAndAStateOfItsOwn) {
  absl::StatusOr<OpenedSession<desk::DeskStub>> one = Open();
  absl::StatusOr<OpenedSession<desk::DeskStub>> two = Open();
  ASSERT_OK(one);
  ASSERT_OK(two);
  EXPECT_EQ(channel_->connections_made(), 2u);
  EXPECT_OK(End((*one)->Login(Says("a"))));
  EXPECT_OK(End((*one)->Get(Says("b"))));
  EXPECT_THAT(End((*two)->Get(Says("c"))), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_OK(End((*two)->Login(Says("d"))));
  EXPECT_THAT(world_.log, ElementsAre("Login a", "Get b", "Login d"));
}

TEST_F(OpenSessionTest, AStubOfTheChannelItselfIsRefusedWithWhatToDo) {
  desk::DeskStub stub(*channel_);
  EXPECT_THAT(End(stub.Login(Says("a"))), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("OpenSession")));
  EXPECT_OK(End(stub.Ping(Says("b")))) << "at any time, and anywhere";
}

TEST_F(OpenSessionTest, ALostSessionIsNotMadeAgain) {
  absl::StatusOr<OpenedSession<desk::DeskStub>> session = Open();
  ASSERT_OK(session);
  EXPECT_OK(End((*session)->Login(Says("a"))));
  Reply<Note> running = (*session)->Get(Says("b 1000"));
  session->connection()->Close(absl::OkStatus());
  EXPECT_THAT(End(std::move(running)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(End((*session)->Get(Says("c"))), StatusIs(absl::StatusCode::kUnavailable));
  loop_.RunUntilComplete(Sleep(absl::Seconds(10)));
  EXPECT_EQ(session->connection(), nullptr);
  EXPECT_THAT(End((*session)->Login(Says("d"))), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("open another")));
  EXPECT_EQ(channel_->connections_made(), 1u);
}

TEST_F(OpenSessionTest, ClosesItsConnectionWhenItGoes) {
  {
    absl::StatusOr<OpenedSession<desk::DeskStub>> session = Open();
    ASSERT_OK(session);
    EXPECT_OK(End((*session)->Login(Says("a"))));
    EXPECT_EQ(server_.connections(), 1u);
  }
  loop_.RunUntilComplete(Sleep(absl::Seconds(10)));
  EXPECT_EQ(server_.connections(), 0u);
  EXPECT_THAT(world_.log, ElementsAre("Login a", "lost: OK"));
}

TEST_F(OpenSessionTest, OutlivesItsChannel) {
  absl::StatusOr<OpenedSession<desk::DeskStub>> session = Open();
  ASSERT_OK(session);
  channel_.reset();
  EXPECT_THAT(End((*session)->Login(Says("a"))), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(OpenSessionTest, SaysWhyItCannotBeOpened) {
  Channel nobody(loop_, "127.0.0.1:1");
  EXPECT_THAT(loop_.RunUntilComplete(nobody.OpenSession<desk::DeskStub>()),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("cannot connect to 127.0.0.1:1")));
  Channel unclear(loop_, "://");
  EXPECT_THAT(loop_.RunUntilComplete(unclear.OpenSession<desk::DeskStub>()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  channel_->Close();
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kUnavailable, HasSubstr("the channel is closed")));
}

TEST_F(OpenSessionTest, TheChannelMayGoWhileItIsOpened) {
  auto opening = loop_.CreateTask(channel_->OpenSession<desk::DeskStub>(), "open");
  loop_.RunOnceWithoutWaiting();
  channel_.reset();
  EXPECT_THAT(loop_.RunUntilComplete(std::move(opening)), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace troupe
