// How this test works: every place in which a server runs its user's code, and every bad thing that such code can do
// there, as a table. Whatever it does: nothing is used after it was freed (AddressSanitizer sees to that), what is a
// bug is reported once, what was thrown does not reach the client, every call ends, every actor hears its
// ConnectionLost and goes, and the next connection works.
#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "troupe/async/sleep.h"
#include "troupe/base/errors.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/in_process.h"
#include "troupe/testing/matchers.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

using ::echo::v1::ChatRequest;
using ::echo::v1::ChatResponse;
using ::echo::v1::CollectRequest;
using ::echo::v1::CollectResponse;
using ::echo::v1::EchoRequest;
using ::echo::v1::EchoResponse;
using ::echo::v1::EchoStub;
using ::echo::v1::ExpandRequest;
using ::echo::v1::ExpandResponse;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::troupe::testing::InProcess;
using ::troupe::testing::SimOs;
using ::troupe::testing::StatusIs;

// Where user code runs.
enum class Place {
  kFactory,
  kConnectionMade,
  kFunction,  // an rpc's function, before it gives its task
  kUnary,
  kUnaryLater,  // after it has waited
  kServerStream,
  kClientStream,
  kBothStreams,
  kEofReceived,
  kPauseWriting,
  kResumeWriting,
  kConnectionLost,
  kExceptionHandler,
};
const char* const kPlaces[] = {"Factory",       "ConnectionMade", "Function",        "Unary",       "UnaryLater",
                               "ServerStream",  "ClientStream",   "BothStreams",     "EofReceived", "PauseWriting",
                               "ResumeWriting", "ConnectionLost", "ExceptionHandler"};

struct World;

struct Deed {
  const char* name;
  void (*act)(World& world);
  enum Kind { kThrows, kThrowsStatus, kThrowsFatal, kActs, kDestroysServer } kind = kActs;
};

class Doing;

struct World {
  World(Place where, const Deed& what) : place(where), deed(what) {
    os.kernel().SetSendBufferBytes(4096);
    loop.SetExceptionHandler([this](EventLoop&, const ExceptionContext& context) {
      reports.push_back(context.ToString());
      Come(Place::kExceptionHandler);
    });
    StartServer();
    channel = std::make_unique<Channel>(loop, "troupe+dns:///127.0.0.1:7400");
  }
  ~World() {
    channel.reset();
    if (server != nullptr) {
      server->Close();
      Run(server->WaitClosed());
    }
    EXPECT_THAT(fatals, IsEmpty());
    EXPECT_THAT(reports, IsEmpty());
    EXPECT_EQ(actors, 0);
    for (const internal::TaskNode& task : loop.tasks()) ADD_FAILURE() << "left: " << task.DescribeTask();
    loop.SetExceptionHandler(nullptr);
    loop.Close();
  }

  void StartServer();
  // User code is here.
  void Come(Place here) {
    if (here != place || std::exchange(done, true)) return;
    deed.act(*this);
  }
  // Until the task is done, whatever Fatal leaves the loop meanwhile.
  void Run(Task<void> task) {
    TaskHandle<void> handle = loop.CreateTask(std::move(task));
    while (!handle.done()) {
      try {
        loop.RunUntilComplete(Sleep(absl::Seconds(1)));
      } catch (const Fatal& fatal) {
        fatals.push_back(fatal.message());
      }
    }
    handle.result();
  }

  const Place place;
  const Deed& deed;
  bool done = false;
  int actors = 0;
  int connections_made = 0;
  int connections_lost = 0;
  Connection* connection = nullptr;  // while there is one
  std::vector<std::string> reports;
  std::vector<std::string> fatals;
  std::vector<absl::Status> ends;  // of the client's calls
  SimOs os;
  EventLoop loop{os};
  std::unique_ptr<Server> server;
  std::unique_ptr<Channel> channel;
};

class Doing final : public echo::v1::EchoActor {
 public:
  explicit Doing(World& world) : world_(world) { ++world_.actors; }
  ~Doing() override { --world_.actors; }

  void ConnectionMade(Connection& connection) override {
    ++world_.connections_made;
    world_.connection = &connection;
    Come(Place::kConnectionMade);
  }
  bool EofReceived() override {
    Come(Place::kEofReceived);
    return false;
  }
  void PauseWriting() override { Come(Place::kPauseWriting); }
  void ResumeWriting() override { Come(Place::kResumeWriting); }
  void ConnectionLost(const absl::Status&) override {
    ++world_.connections_lost;
    world_.connection = nullptr;
    Come(Place::kConnectionLost);
  }

  Task<absl::Status> Echo(const EchoRequest& request, EchoResponse& response, Call& call) override {
    Come(Place::kFunction);
    return EchoInTime(request, response, call);
  }
  Task<absl::Status> Expand(const ExpandRequest& request, Writer<ExpandResponse> writer, Call& call) override {
    Come(Place::kServerStream);
    ExpandResponse response;
    response.set_message(std::string(static_cast<size_t>(request.count()), 'x'));
    for (int i = 0; i < 2; ++i) {
      const bool more = co_await writer.Write(response);
      if (!more) co_return absl::CancelledError(call.method().path);
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Collect(Reader<CollectRequest> reader, CollectResponse& response, Call&) override {
    CollectRequest request;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      Come(Place::kClientStream);
      response.add_messages(request.message());
    }
    co_return absl::OkStatus();
  }
  Task<absl::Status> Chat(Reader<ChatRequest> reader, Writer<ChatResponse> writer, Call&) override {
    ChatRequest request;
    ChatResponse response;
    while (true) {
      const bool more = co_await reader.Read(request);
      if (!more) break;
      Come(Place::kBothStreams);
      response.set_message(request.message());
      co_await writer.Write(response);
    }
    co_return absl::OkStatus();
  }

 private:
  Task<absl::Status> EchoInTime(const EchoRequest& request, EchoResponse& response, Call& call) {
    Come(Place::kUnary);
    if (world_.place == Place::kExceptionHandler && !world_.done) throw std::runtime_error("secret");
    co_await Sleep(absl::Milliseconds(1));
    Come(Place::kUnaryLater);
    response.set_message(request.message());
    co_await Sleep(absl::Milliseconds(1));
    if (call.cancelled()) co_return absl::CancelledError("not heard of it");
    co_return absl::OkStatus();
  }
  // Whatever was done there, the actor lives until its callback has returned.
  void Come(Place here) {
    world_.Come(here);
    self_ = this;
  }
  World& world_;
  Doing* self_ = nullptr;
};

void World::StartServer() {
  server = std::make_unique<Server>(loop, ServerOptions{.listen = {"127.0.0.1:7400"}});
  server->AddFactory<Doing>([this](Connection&) {
    Come(Place::kFactory);
    return std::make_unique<Doing>(*this);
  });
  EXPECT_OK(loop.RunUntilComplete(server->Start()));
}

Task<void> CallEcho(World& world) {
  if (world.channel == nullptr) co_return;
  EchoRequest request;
  request.set_message("hello");
  const absl::StatusOr<EchoResponse> got = co_await EchoStub(*world.channel).Echo(request);
  world.ends.push_back(got.status());
}
Task<void> CallExpand(World& world, int bytes) {
  if (world.channel == nullptr) co_return;
  ExpandRequest request;
  request.set_count(bytes);
  auto stream = EchoStub(*world.channel).Expand(request);
  ExpandResponse response;
  while (true) {
    const bool more = co_await stream.Read(response);
    if (!more) break;
  }
  world.ends.push_back(co_await stream.Finish());
}
Task<void> CallCollect(World& world) {
  if (world.channel == nullptr) co_return;
  auto stream = EchoStub(*world.channel).Collect();
  CollectRequest request;
  request.set_message("hello");
  co_await stream.Write(request);
  co_await Sleep(absl::Milliseconds(5));
  const absl::StatusOr<CollectResponse> got = co_await stream.Finish();
  world.ends.push_back(got.status());
}
Task<void> CallChat(World& world) {
  if (world.channel == nullptr) co_return;
  auto stream = EchoStub(*world.channel).Chat();
  ChatRequest request;
  request.set_message("hello");
  co_await stream.Write(request);
  ChatResponse response;
  co_await stream.Read(response);
  stream.WritesDone();
  world.ends.push_back(co_await stream.Finish());
}

// Brings a server to every place: one call of each kind at once, more output than a transport buffers, and the end.
Task<void> Visit(World& world) {
  std::vector<TaskHandle<void>> calls;
  calls.push_back(world.loop.CreateTask(CallEcho(world)));
  calls.push_back(world.loop.CreateTask(CallCollect(world)));
  calls.push_back(world.loop.CreateTask(CallChat(world)));
  for (int i = 0; i < 4; ++i) calls.push_back(world.loop.CreateTask(CallExpand(world, 40'000)));
  for (TaskHandle<void>& call : calls) co_await call;
  if (world.channel != nullptr) world.channel->Close();
  co_await Sleep(absl::Seconds(40));  // as long as anything may take to end
}

const Deed kDeeds[] = {
    {"ThrowsAnException", [](World&) { throw std::runtime_error("secret"); }, Deed::kThrows},
    {"ThrowsAnInt", [](World&) { throw 7; }, Deed::kThrows},
    {"ThrowsAStatus", [](World&) { throw StatusError(absl::NotFoundError("to be told")); }, Deed::kThrowsStatus},
    {"ThrowsFatal", [](World&) { throw Fatal("secret"); }, Deed::kThrowsFatal},
    {"ClosesTheConnection",
     [](World& world) {
       if (world.connection != nullptr) world.connection->Close(absl::AbortedError("closed"));
     }},
    {"ClosesTheServer", [](World& world) { world.server->Close(); }},
    {"DrainsTheServer", [](World& world) { world.server->Drain(); }},
    {"DestroysTheServer", [](World& world) { world.server.reset(); }, Deed::kDestroysServer},
    {"ClosesTheChannel", [](World& world) { world.channel->Close(); }},
    {"DestroysTheChannel", [](World& world) { world.channel.reset(); }},
};

class CallbacksTest : public ::testing::TestWithParam<std::tuple<int, int>> {
 protected:
  Place place() const { return static_cast<Place>(std::get<0>(GetParam())); }
  const Deed& deed() const { return kDeeds[std::get<1>(GetParam())]; }
  bool in_handler() const { return place() >= Place::kFunction && place() <= Place::kBothStreams; }
};

INSTANTIATE_TEST_SUITE_P(Table, CallbacksTest,
                         ::testing::Combine(::testing::Range(0, static_cast<int>(std::size(kPlaces))),
                                            ::testing::Range(0, static_cast<int>(std::size(kDeeds)))),
                         [](const auto& info) {
                           return absl::StrCat(kPlaces[std::get<0>(info.param)], kDeeds[std::get<1>(info.param)].name);
                         });

TEST_P(CallbacksTest, MayDoWhatItLikes) {
  const bool throws = deed().kind == Deed::kThrows || deed().kind == Deed::kThrowsStatus;
  if (place() == Place::kExceptionHandler && throws) return;  // the loop's own affair (C-EXC-05)
  World world(place(), deed());
  world.Run(Visit(world));
  EXPECT_TRUE(world.done) << "the table's test does not come by there";

  // Every call has ended, and what was thrown stays here.
  EXPECT_EQ(world.ends.size(), 7u);
  for (const absl::Status& end : world.ends) EXPECT_THAT(std::string(end.message()), Not(HasSubstr("secret")));
  if (in_handler() && throws) {
    const bool told = deed().kind == Deed::kThrowsStatus;
    EXPECT_THAT(world.ends, Contains(StatusIs(told ? absl::StatusCode::kNotFound : absl::StatusCode::kUnknown)));
    EXPECT_EQ(std::count(world.ends.begin(), world.ends.end(), absl::OkStatus()), 6) << "another call paid for it";
  }
  // The actor has heard of its end, and is gone.
  EXPECT_EQ(world.connections_lost, world.connections_made);
  EXPECT_EQ(world.actors, 0);

  // What was a bug was reported, once.
  std::vector<std::string> reports = std::exchange(world.reports, {});
  if (place() == Place::kExceptionHandler) {
    ASSERT_FALSE(reports.empty());
    EXPECT_THAT(reports.front(), HasSubstr("Exception in the handler of /echo.v1.Echo/Echo"));
    reports.erase(reports.begin());
  }
  if (deed().kind == Deed::kThrows || (deed().kind == Deed::kThrowsStatus && !in_handler())) {
    EXPECT_EQ(reports.size(), 1u) << ::testing::PrintToString(reports);
  } else if (deed().kind == Deed::kDestroysServer) {
    EXPECT_THAT(reports, ElementsAre(HasSubstr("Server was destroyed but it is open!")));
  } else {
    EXPECT_THAT(reports, IsEmpty());
  }
  EXPECT_EQ(std::exchange(world.fatals, {}).size(), deed().kind == Deed::kThrowsFatal ? 1u : 0u);

  // The next connection works.
  world.ends.clear();
  if (world.server == nullptr || world.server->state() != Server::State::kServing) {
    if (world.server != nullptr) world.Run(world.server->WaitClosed());
    world.StartServer();
  }
  world.channel = std::make_unique<Channel>(world.loop, "troupe+dns:///127.0.0.1:7400");
  world.Run(Visit(world));
  EXPECT_EQ(world.ends, std::vector<absl::Status>(7));
}

// ---- tasks that wait in a server when it is destroyed

class DestroyedServerTest : public ::testing::Test {
 protected:
  ~DestroyedServerTest() override { loop_.Close(); }

  SimOs os_;
  EventLoop loop_{os_};
  std::unique_ptr<Server> server_ = std::make_unique<Server>(loop_, ServerOptions{.listen = {"127.0.0.1:7400"}});
};

TEST_F(DestroyedServerTest, EndsStart) {
  auto starting = loop_.CreateTask(server_->Start());
  loop_.Post([this] { server_.reset(); });
  EXPECT_THAT(loop_.RunUntilComplete(Future<absl::Status>(starting)), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(os_.OpenDescriptors(), IsEmpty());
}

TEST_F(DestroyedServerTest, EndsServeForeverAndWaitClosed) {
  auto serving = loop_.CreateTask(server_->ServeForever());
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  ASSERT_EQ(server_->state(), Server::State::kServing);
  auto waiting = loop_.CreateTask(server_->WaitClosed());
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  std::vector<std::string> reports;
  loop_.SetExceptionHandler(
      [&reports](EventLoop&, const ExceptionContext& context) { reports.push_back(context.message); });
  server_.reset();
  EXPECT_THAT(loop_.RunUntilComplete(Future<absl::Status>(serving)), StatusIs(absl::StatusCode::kCancelled));
  loop_.RunUntilComplete(Future<void>(waiting));
  EXPECT_THAT(reports, ElementsAre("Server was destroyed but it is open!"));
}

TEST_F(DestroyedServerTest, LetsACancelledServeForeverGo) {
  auto serving = loop_.CreateTask(server_->ServeForever());
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  loop_.SetExceptionHandler([](EventLoop&, const ExceptionContext&) {});
  serving.Cancel();
  server_.reset();
  loop_.RunUntilComplete(Sleep(absl::Seconds(1)));
  EXPECT_TRUE(serving.cancelled());
}

class DestroysItsWorld final : public echo::v1::EchoActor {
 public:
  explicit DestroysItsWorld(std::unique_ptr<testing::InProcessServer>& world) : world_(world) {}
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse&, Call&) override {
    world_.reset();
    co_return absl::OkStatus();
  }

 private:
  std::unique_ptr<testing::InProcessServer>& world_;
};

TEST(InProcessDeathTest, IsNotDestroyedInsideItsOwnLoop) {
  std::unique_ptr<testing::InProcessServer> world = std::make_unique<testing::InProcessServer>();
  world->server().Add<DestroysItsWorld>(std::ref(world));
  const EchoRequest request;
  EXPECT_DEATH(static_cast<void>(world->Run(EchoStub(world->caller()).Echo(request))),
               "InProcess is destroyed inside its own loop");
  world->client().Abort(absl::OkStatus());
}

}  // namespace
}  // namespace troupe
