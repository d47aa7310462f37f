// How this test works: server, client and store on one real loop; the store's queries run on a real thread, where a
// QueryGate holds one fast in the middle of SQLite while the test ends its call in every way there is. Nothing depends
// on who is faster. What is wrong here, AddressSanitizer and ThreadSanitizer see.
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kv/v1/kv.troupe.h"
#include "services/kv/async_store.h"
#include "services/kv/key_value_service.h"
#include "services/kv/query_gate.h"
#include "services/kv/store.h"
#include "services/kv/temporary_store.h"
#include "troupe/async/blocking.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/testing/matchers.h"

namespace kv::v1 {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using troupe::CallOptions;
using troupe::Task;
using troupe::testing::IsOk;
using troupe::testing::StatusIs;

// A call whose outcome is only a status.
class CallInFlight {
 public:
  virtual ~CallInFlight() = default;
  virtual void Cancel() = 0;
  virtual Task<absl::Status> End() = 0;
};

template <class C>
class CallOf final : public CallInFlight {
 public:
  explicit CallOf(C call) : call_(std::move(call)) {}
  void Cancel() override { call_.Cancel(); }
  Task<absl::Status> End() override {
    if constexpr (requires { call_.Finish(); }) {
      const auto end = co_await call_.Finish();
      co_return StatusOf(end);
    } else {
      const auto end = co_await call_;
      co_return end.status();
    }
  }

 private:
  static absl::Status StatusOf(const absl::Status& status) { return status; }
  template <class T>
  static absl::Status StatusOf(const absl::StatusOr<T>& result) {
    return result.status();
  }
  C call_;
};

template <class C>
std::unique_ptr<CallInFlight> InFlight(C call) {
  return std::make_unique<CallOf<C>>(std::move(call));
}

using Starting = Task<std::unique_ptr<CallInFlight>>;

PutRequest NewPair() {
  PutRequest put;
  put.set_key("new");
  put.set_value("2");
  return put;
}
Starting StartGet(KeyValueStub kv, CallOptions options) {
  GetRequest get;
  get.set_key("old");
  co_return InFlight(kv.Get(get, options));
}
Starting StartList(KeyValueStub kv, CallOptions options) {
  const ListRequest list;
  co_return InFlight(kv.List(list, options));
}
Starting StartWatch(KeyValueStub kv, CallOptions options) {
  WatchRequest watch;
  watch.set_after_revision(0);
  co_return InFlight(kv.Watch(watch, options));
}
Starting StartPut(KeyValueStub kv, CallOptions options) {
  const PutRequest put = NewPair();
  co_return InFlight(kv.Put(put, options));
}
Starting StartDelete(KeyValueStub kv, CallOptions options) {
  DeleteRequest request;
  request.set_key("old");
  co_return InFlight(kv.Delete(request, options));
}
Starting StartLoad(KeyValueStub kv, CallOptions options) {
  const PutRequest put = NewPair();
  auto load = kv.Load(options);
  co_await load.Write(put);
  co_return InFlight(std::move(load));
}
Starting StartMirror(KeyValueStub kv, CallOptions options) {
  const PutRequest put = NewPair();
  auto mirror = kv.Mirror(options);
  co_await mirror.Write(put);
  co_return InFlight(std::move(mirror));
}

struct QueryKind {
  const char* name;
  Starting (*start)(KeyValueStub kv, CallOptions options);
  QueryGate::Where stops_at;
  // What the store holds when the query has run, which began with old=1.
  const char* left;
  // How the call ends when the server drains and the query finishes in time.
  absl::StatusCode drained = absl::StatusCode::kOk;
};
constexpr auto kRead = QueryGate::Where::kRead;
constexpr auto kCommit = QueryGate::Where::kCommit;
const QueryKind kQueries[] = {
    {"Get", &StartGet, kRead, "old=1 at revision 1"},
    {"List", &StartList, kRead, "old=1 at revision 1"},
    {"Watch", &StartWatch, kRead, "old=1 at revision 1", absl::StatusCode::kUnavailable},
    {"Put", &StartPut, kCommit, "new=2 old=1 at revision 2"},
    {"Delete", &StartDelete, kCommit, "at revision 2"},
    {"Load", &StartLoad, kCommit, "new=2 old=1 at revision 2"},
    {"Mirror", &StartMirror, kCommit, "new=2 old=1 at revision 2"},
};
std::ostream& operator<<(std::ostream& out, const QueryKind& query) { return out << query.name; }

// A Get that asks the store itself, in a thread: its query borrows from its frame.
class BlockingGets final : public KeyValueActor {
 public:
  BlockingGets(Store& store, troupe::WorkerPool& pool, std::vector<std::string>& log)
      : store_(store), pool_(pool), log_(log) {}
  ~BlockingGets() override { log_.push_back("actor ends"); }

  Task<absl::Status> Get(const GetRequest& request, GetResponse& response, troupe::Call&) override {
    const Ends frame(log_, "frame ends");
    const std::string key = request.key();
    absl::StatusOr<kv::Entry> entry;
    const auto query = [&] { entry = store_.Get(key); };
    co_await troupe::Blocking(pool_, query);
    if (!entry.ok()) co_return entry.status();
    response.set_value(entry->value);
    co_return absl::OkStatus();
  }

 private:
  struct Ends {
    Ends(std::vector<std::string>& to, const char* text) : log(to), what(text) {}
    ~Ends() { log.push_back(what); }
    std::vector<std::string>& log;
    const char* const what;
  };
  Store& store_;
  troupe::WorkerPool& pool_;
  std::vector<std::string>& log_;
};

class ExecutorTest : public ::testing::Test {
 protected:
  ExecutorTest() {
    loop_.SetExceptionHandler([this](troupe::EventLoop&, const troupe::ExceptionContext& context) {
      reports_.push_back(context.ToString());
    });
    auto file = files_.Open();
    EXPECT_THAT(file->Put("old", "1"), IsOk());
    store_ = std::make_unique<AsyncStore>(loop_, std::move(file), AsyncStoreOptions(), NewPool());
  }
  ~ExecutorTest() override {
    gate_.Open();
    call_.reset();
    channel_.reset();
    CloseServer();
    store_.reset();
    EXPECT_THAT(reports_, IsEmpty());
    loop_.SetExceptionHandler(nullptr);
    loop_.Close();
  }

  std::unique_ptr<troupe::WorkerPool> NewPool() {
    return std::make_unique<GatedPool>(gate_, loop_.os().NewWorkerPool(1, "kv"));
  }
  void StartServer(troupe::ServerOptions options = {}) {
    options.listen = {"127.0.0.1:0"};
    server_ = std::make_unique<troupe::Server>(loop_, std::move(options));
    server_->Add<KeyValueService>(std::ref(*store_));
    Connect();
  }
  void Connect() {
    if (server_->state() == troupe::Server::State::kMade) {
      EXPECT_THAT(Run(server_->Start()), IsOk());
    }
    channel_ = std::make_unique<troupe::Channel>(loop_, server_->addresses().front().ToString());
  }
  void CloseServer() {
    if (server_ == nullptr) return;
    server_->Close();
    Run(server_->WaitClosed());
    server_.reset();
  }
  KeyValueStub stub() { return KeyValueStub(*channel_); }
  template <class T>
  T Run(Task<T> task) {
    return loop_.RunUntilComplete(std::move(task));
  }
  static Task<void> Until(std::function<bool()> condition) {
    while (!condition()) co_await troupe::Sleep(absl::ZeroDuration());
  }
  void WaitUntil(std::function<bool()> condition) { Run(Until(std::move(condition))); }

  // Starts a call and returns when its query stands in the gate.
  void Begin(const QueryKind& query) {
    const troupe::Future<void> stops = gate_.StopNext(query.stops_at, loop_);
    call_ = Run(query.start(stub(), {}));
    loop_.RunUntilComplete(stops);
    ASSERT_EQ(server_->calls_in_flight(), 1u);
  }
  // How the call ends.
  absl::Status End() { return Run(call_->End()); }
  // The query has not gone on: whatever has happened since Begin() did not wait for it.
  void ExpectStillStopped() { EXPECT_TRUE(gate_.stopped()) << "the query was waited for"; }

  // The handler's frame is gone although the query runs.
  void ExpectHandlerGone() {
    WaitUntil([this] { return server_->calls_in_flight() == 0; });
    ExpectStillStopped();
  }

  TemporaryStore files_;
  QueryGate gate_;
  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  std::vector<std::string> reports_;
  std::unique_ptr<AsyncStore> store_;
  std::unique_ptr<troupe::Server> server_;
  std::unique_ptr<troupe::Channel> channel_;
  std::unique_ptr<CallInFlight> call_;
};

class CallOfARunningQuery : public ExecutorTest, public ::testing::WithParamInterface<QueryKind> {
 protected:
  ~CallOfARunningQuery() override {
    gate_.Open();
    // The store serves on, after what ran.
    if (store_ != nullptr) {
      if (server_ == nullptr || server_->state() != troupe::Server::State::kServing) {
        CloseServer();
        StartServer();
      } else {
        Connect();
      }
      EXPECT_EQ(Listed(), GetParam().left);
      channel_.reset();
      CloseServer();
      store_.reset();
    }
    // It is whole, which opening it checks.
    const std::unique_ptr<Store> file = files_.Open();
    const auto page = file->List({});
    EXPECT_THAT(page, IsOk());
    std::string left;
    for (const kv::Entry& entry : page->entries) absl::StrAppend(&left, entry.key, "=", entry.value, " ");
    EXPECT_EQ(absl::StrCat(left, "at revision ", page->revision), GetParam().left);
  }
  std::string Listed() {
    auto list = [](KeyValueStub kv) -> Task<absl::StatusOr<ListResponse>> {
      const ListRequest all;
      auto page = co_await kv.List(all);
      co_return page;
    };
    const auto page = Run(list(stub()));
    if (!page.ok()) return page.status().ToString();
    std::string listed;
    for (const v1::Entry& entry : page->entries()) absl::StrAppend(&listed, entry.key(), "=", entry.value(), " ");
    return absl::StrCat(listed, "at revision ", page->revision());
  }
};

INSTANTIATE_TEST_SUITE_P(Query, CallOfARunningQuery, ::testing::ValuesIn(kQueries),
                         [](const auto& info) { return info.param.name; });

TEST_P(CallOfARunningQuery, IsCancelledAtOnce) {
  StartServer();
  Begin(GetParam());
  call_->Cancel();
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kCancelled));
  ExpectHandlerGone();
}

TEST_P(CallOfARunningQuery, IsDroppedByItsClient) {
  StartServer();
  Begin(GetParam());
  call_.reset();
  ExpectHandlerGone();
}

TEST_P(CallOfARunningQuery, EndsAtItsDeadline) {
  StartServer();
  // The deadline may pass before the query has begun, on a slow machine: then a longer one is tried.
  for (absl::Duration timeout = absl::Milliseconds(20);; timeout *= 2) {
    const troupe::Future<void> stops = gate_.StopNext(GetParam().stops_at, loop_);
    call_ = Run(GetParam().start(stub(), {.timeout = timeout}));
    EXPECT_THAT(End(), StatusIs(absl::StatusCode::kDeadlineExceeded));
    if (gate_.stopped()) break;
    gate_.Open();
    ASSERT_LT(timeout, absl::Minutes(1));
  }
  ExpectHandlerGone();
}

TEST_P(CallOfARunningQuery, LosesItsConnection) {
  StartServer();
  Begin(GetParam());
  channel_.reset();
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
  ExpectHandlerGone();
  WaitUntil([this] { return server_->connections() == 0; });
}

TEST_P(CallOfARunningQuery, EndsWithItsServer) {
  StartServer();
  Begin(GetParam());
  server_->Close();
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
  Run(server_->WaitClosed());
  ExpectStillStopped();
}

TEST_P(CallOfARunningQuery, EndsWhenItsServerIsDestroyed) {
  StartServer();
  Begin(GetParam());
  server_.reset();
  ExpectStillStopped();
  EXPECT_THAT(std::exchange(reports_, {}), ElementsAre(HasSubstr("Server was destroyed but it is open!")));
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
  ExpectStillStopped();
}

TEST_P(CallOfARunningQuery, EndsWithServerAndStore) {
  StartServer();
  Begin(GetParam());
  server_.reset();
  ExpectStillStopped();
  reports_.clear();
  store_.reset();
  EXPECT_FALSE(gate_.stopped()) << "the store went before the query that uses it";
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_P(CallOfARunningQuery, FinishesInADrain) {
  StartServer();
  Begin(GetParam());
  server_->Drain();
  gate_.Open();
  EXPECT_EQ(End().code(), GetParam().drained);
  Run(server_->WaitClosed());
}

TEST_P(CallOfARunningQuery, EndsWithADrainThatIsOver) {
  troupe::ServerOptions options;
  options.stream_drain_timeout = options.drain_timeout = absl::ZeroDuration();
  StartServer(options);
  Begin(GetParam());
  server_->Drain();
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
  Run(server_->WaitClosed());
  ExpectStillStopped();
}

// ---- a handler whose query borrows from its frame

class BlockingQueryTest : public ExecutorTest {
 protected:
  BlockingQueryTest() {
    store_.reset();
    file_ = files_.Open();
    pool_ = NewPool();
    troupe::ServerOptions options;
    options.listen = {"127.0.0.1:0"};
    server_ = std::make_unique<troupe::Server>(loop_, std::move(options));
    server_->Add<BlockingGets>(std::ref(*file_), std::ref(*pool_), std::ref(log_));
    Connect();
    Begin(kQueries[0]);
  }
  ~BlockingQueryTest() override {
    CloseServer();
    file_.reset();
  }
  // The frame goes after the query, and then the actor.
  void ExpectFrameWaitsForQuery() {
    EXPECT_THAT(log_, IsEmpty());
    ExpectStillStopped();
    gate_.Open();
    WaitUntil([this] { return server_->calls_in_flight() == 0; });
    EXPECT_THAT(log_, AnyOf(ElementsAre("frame ends"), ElementsAre("frame ends", "actor ends")));
    if (server_->state() == troupe::Server::State::kServing) {
      Connect();
      call_ = Run(StartGet(stub(), {}));
      EXPECT_THAT(End(), IsOk());
    }
  }

  std::unique_ptr<Store> file_;
  std::unique_ptr<troupe::WorkerPool> pool_;
  std::vector<std::string> log_;
};

TEST_F(BlockingQueryTest, OutlivesACancellation) {
  call_->Cancel();
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kCancelled));
  ExpectFrameWaitsForQuery();
}

TEST_F(BlockingQueryTest, OutlivesItsConnection) {
  channel_.reset();
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
  ExpectFrameWaitsForQuery();
}

TEST_F(BlockingQueryTest, IsWaitedForByADrain) {
  server_->Drain();
  ExpectFrameWaitsForQuery();
  EXPECT_THAT(End(), IsOk());
  Run(server_->WaitClosed());
}

TEST_F(BlockingQueryTest, IsWaitedForByTheDestructionOfItsServer) {
  server_.reset();
  EXPECT_THAT(log_, ElementsAre("frame ends", "actor ends"));
  EXPECT_FALSE(gate_.stopped());
  EXPECT_THAT(std::exchange(reports_, {}), ElementsAre(HasSubstr("Server was destroyed but it is open!")));
  EXPECT_THAT(End(), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace kv::v1
