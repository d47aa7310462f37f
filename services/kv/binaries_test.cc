// The real server and client, over loopback: what happens to processes.
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kv/v1/kv.troupe.h"
#include "services/kv/store.h"
#include "services/kv/temporary_store.h"
#include "services/testing/child_process.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/async/task_group.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/service/channel.h"
#include "troupe/testing/matchers.h"

namespace kv::v1 {
namespace {

using services::ChildProcess;
using services::Outcome;
using services::Runfile;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using troupe::Task;
using troupe::testing::StatusIs;

class BinariesTest : public ::testing::Test {
 protected:
  // A server on a free port of the loopback interface.
  std::unique_ptr<ChildProcess> StartServer(const std::vector<std::string>& flags = {}) {
    std::vector<std::string> argv = {Runfile("services/kv/kv_server"), "--database=" + files_.options().path,
                                     "--listen=127.0.0.1:0"};
    argv.insert(argv.end(), flags.begin(), flags.end());
    auto server = std::make_unique<ChildProcess>(argv);
    const std::string line = server->ReadLine();
    EXPECT_THAT(line, StartsWith("listening on 127.0.0.1:")) << server->errors();
    address_ = std::string(absl::StripPrefix(line, "listening on "));
    return server;
  }
  Outcome Client(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.insert(arguments.begin(), {Runfile("services/kv/kv_client"), "--target=" + address_});
    ChildProcess::Options options;
    options.input = input;
    return services::RunProgram(arguments, options);
  }
  // Its output, which is all that it shall do.
  std::string Ok(std::vector<std::string> arguments, const std::string& input = "") {
    const Outcome outcome = Client(std::move(arguments), input);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    return outcome.output;
  }

  TemporaryStore files_;
  std::string address_;
};

TEST_F(BinariesTest, ClientCommands) {
  auto server = StartServer();
  EXPECT_EQ(Ok({"put", "a", "one"}), "revision 1\n");
  EXPECT_EQ(Ok({"put", "b", "-"}, std::string("two\0\n", 5)), "revision 2\n");
  EXPECT_EQ(Ok({"get", "a"}), "one");
  EXPECT_EQ(Ok({"get", "b"}), std::string("two\0\n", 5));
  EXPECT_EQ(Ok({"put", "--", "-dash\n", "3"}), "revision 3\n");
  EXPECT_EQ(Ok({"list"}), "-dash\\n\na\nb\n");
  EXPECT_EQ(Ok({"list", "a", "--long"}), "         1        3 a\n");
  EXPECT_EQ(Ok({"watch", "--after=0", "--count=3"}), "1 put a 3\n2 put b 5\n3 put -dash\\n 1\n");
  EXPECT_EQ(Ok({"delete", "a"}), "revision 4\n");
  EXPECT_EQ(Ok({"watch", "--after=3", "--count=1"}), "4 delete a 0\n");

  const Outcome none = Client({"get", "a"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_EQ(none.output, "");
  EXPECT_EQ(none.errors, "kv_client: get: no such key\n");
  EXPECT_EQ(Client({"delete", "a"}).exit_code, 1);

  const Outcome invalid = Client({"put", "", "x"});
  EXPECT_EQ(invalid.exit_code, 3);
  EXPECT_EQ(invalid.errors, "kv_client: put: the key is empty\n");
  EXPECT_EQ(Client({"watch", "--after=99"}).exit_code, 3);
}

TEST_F(BinariesTest, AServerWhoseDatabaseMayNotBeWrittenSaysSoAndEnds) {
  {
    auto server = StartServer();
    EXPECT_EQ(Ok({"put", "a", "one"}), "revision 1\n");
    server->Signal(SIGTERM);
    EXPECT_EQ(server->Wait(), 0);
  }
  const std::string& path = files_.options().path;
  ASSERT_EQ(chmod(path.c_str(), 0400), 0);
  // Root's programs may write everything as long as this capability is within their bounds. Others never could.
  if (geteuid() == 0) {
    ASSERT_EQ(prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE), 0);
  }
  const Outcome outcome =
      services::RunProgram({Runfile("services/kv/kv_server"), "--database=" + path, "--listen=127.0.0.1:0"}, {});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(outcome.output, "");
  EXPECT_THAT(outcome.errors, HasSubstr(path + ": may be read, but not written"));
}

TEST_F(BinariesTest, ClientLoadsLinesAndStanzas) {
  auto server = StartServer();
  EXPECT_THAT(Ok({"load"}, "a\t1\nb\t2\n"), StartsWith("loaded 2 records, 4 bytes in "));
  EXPECT_EQ(Ok({"get", "b"}), "2");
  EXPECT_THAT(Ok({"--format=deb822", "load"}, "Package: p\nVersion: 1\n\nPackage: q\n"),
              StartsWith("loaded 2 records"));
  EXPECT_EQ(Ok({"get", "p"}), "Package: p\nVersion: 1\n");
  EXPECT_THAT(Client({"--progress", "load"}, "c\t1\n").errors, HasSubstr("\rloading: 1 records, 0.0 MiB\n"));

  Outcome bad = Client({"load"}, "d\t1\nno tab\n");
  EXPECT_EQ(bad.exit_code, 3);
  EXPECT_EQ(bad.errors, "kv_client: load: line 2: no tab between key and value\n");
  bad = Client({"load"}, "d\t1\n\t2\ne\t3\n");
  EXPECT_EQ(bad.exit_code, 3);
  EXPECT_EQ(bad.errors, "kv_client: load: put 2: the key is empty\n");
  EXPECT_EQ(Ok({"get", "d"}), "1");
  bad = Client({"load", "/does/not/exist"});
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_THAT(bad.errors, HasSubstr("/does/not/exist"));
}

TEST_F(BinariesTest, ClientExplainsItsUsage) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{}, {"bogus"}, {"get"}, {"put", "a"}, {"list", "a", "b"}, {"--format=x", "load"}}) {
    const Outcome outcome = Client(arguments);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.errors, HasSubstr("kv_client [FLAGS] get KEY"));
  }
}

TEST_F(BinariesTest, ClientSaysWhenNobodyIsThere) {
  StartServer();  // and kills it: nobody else gets its port so soon
  const Outcome outcome = Client({"get", "a"});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("onnection refused"));
}

TEST_F(BinariesTest, ServerRefusesToStartAndSaysWhy) {
  auto server = StartServer();
  Outcome second = services::RunProgram(
      {Runfile("services/kv/kv_server"), "--database=" + files_.options().path, "--listen=127.0.0.1:0"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr("in use by another process"));
  second = services::RunProgram(
      {Runfile("services/kv/kv_server"), "--database=" + files_.folder() + "/none/x", "--listen=127.0.0.1:0"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr("unable to open database file"));
  second = services::RunProgram(
      {Runfile("services/kv/kv_server"), "--database=" + files_.folder() + "/other.db", "--listen=" + address_});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr(address_));
  second = services::RunProgram({Runfile("services/kv/kv_server"), "argument"});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_THAT(second.errors, HasSubstr("unexpected argument: argument"));
  unlink((files_.folder() + "/other.db").c_str());
}

TEST_F(BinariesTest, ServerRefusesFlagsThatMakeNoSense) {
  const struct {
    const char* flag;
    const char* says;
  } kWrong[] = {
      {"--database=", "--database is empty: want a file"},
      {"--listen=", "--listen is empty: want addresses"},
      {"--listen=7400", "7400"},
      {"--listen=127.0.0.1:99999", "99999"},
      {"--database_mib_max=0", "--database_mib_max=0: want 1 to 16777216"},
      {"--database_mib_max=9223372036854775807", "--database_mib_max=9223372036854775807: want 1 to 16777216"},
      {"--database_mib_max=much", "database_mib_max"},
      {"--deletions_kept=-1", "--deletions_kept=-1: want 1 or more"},
      {"--databse=x", "databse"},
  };
  for (const auto& wrong : kWrong) {
    SCOPED_TRACE(wrong.flag);
    const Outcome outcome = services::RunProgram(
        {Runfile("services/kv/kv_server"), "--database=" + files_.options().path, "--listen=127.0.0.1:0", wrong.flag});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.output, "");
    EXPECT_THAT(outcome.errors, HasSubstr(wrong.says));
  }
  const Outcome help = services::RunProgram({Runfile("services/kv/kv_server"), "--help"});
  for (const char* text :
       {"serves kv.v1.KeyValue", "--listen", "--database", "--database_mib_max", "--deletions_kept"}) {
    EXPECT_THAT(help.output + help.errors, HasSubstr(text));
  }
}

TEST_F(BinariesTest, ServerRefusesFilesThatAreNoDatabaseOfItsOwn) {
  const auto refuses = [&](const std::string& path, const std::string& why) {
    SCOPED_TRACE(path);
    const Outcome outcome =
        services::RunProgram({Runfile("services/kv/kv_server"), "--database=" + path, "--listen=127.0.0.1:0"});
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_EQ(outcome.output, "");
    EXPECT_THAT(outcome.errors, AllOf(HasSubstr(path + ": "), HasSubstr(why)));
  };
  refuses(files_.folder(), "unable to open database file");
  const std::string path = files_.folder() + "/other";
  std::ofstream(path) << std::string(10'000, 'x');
  refuses(path, "file is not a database");
  // Neither is touched.
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), std::string(10'000, 'x'));
  unlink(path.c_str());
}

TEST_F(BinariesTest, SigtermAndSigintEndAnIdleServerInGoodOrder) {
  for (const int signo : {SIGTERM, SIGINT}) {
    auto server = StartServer();
    Ok({"put", "a", "1"});
    server->Signal(signo);
    EXPECT_EQ(server->Wait(), 0) << server->errors();
    EXPECT_NE(access((files_.options().path + "-wal").c_str(), F_OK), 0) << "the log was not taken over";
  }
}

// ---- with calls in flight: the client is this process

class LiveTest : public BinariesTest {
 protected:
  ~LiveTest() override {
    channel_.reset();
    loop_.Close();
  }
  KeyValueStub Connect() {
    channel_ = std::make_unique<troupe::Channel>(loop_, address_);
    return KeyValueStub(*channel_);
  }

  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  std::unique_ptr<troupe::Channel> channel_;
};

// Puts one after the other until the server is gone; *acknowledged counts. Keys: name0, name1 ...
Task<void> PutUntilItEnds(KeyValueStub kv, std::string name, int* acknowledged) {
  PutRequest put;
  while (true) {
    put.set_key(absl::StrCat(name, *acknowledged));
    put.set_value(absl::StrCat("value of ", put.key()));
    const absl::StatusOr<PutResponse> response = co_await kv.Put(put);
    if (!response.ok()) {
      EXPECT_THAT(response, StatusIs(absl::StatusCode::kUnavailable));
      co_return;
    }
    ++*acknowledged;
  }
}

Task<void> WriteUntilItEnds(troupe::ClientReaderWriter<PutRequest, WatchEvent>& mirror) {
  PutRequest put;
  for (int i = 0;; ++i) {
    put.set_key(absl::StrCat("mirror", i));
    put.set_value(absl::StrCat("value of ", put.key()));
    const bool more = co_await mirror.Write(put);
    if (!more) co_return;
  }
}

// Puts by several clients at once and by a stream; kills the server when the stream has had `events_max` answers.
Task<void> PutAndKill(KeyValueStub kv, ChildProcess& server, int events_max, std::map<std::string, int>& acknowledged) {
  auto mirror = kv.Mirror();
  troupe::TaskGroup group;
  group.Spawn(WriteUntilItEnds(mirror));
  for (const char* name : {"a", "b", "c"}) group.Spawn(PutUntilItEnds(kv, name, &acknowledged[name]));
  int& answered = acknowledged["mirror"];
  WatchEvent event;
  while (true) {
    const bool more = co_await mirror.Read(event);
    if (!more) break;
    EXPECT_EQ(event.key(), absl::StrCat("mirror", answered));
    if (++answered == events_max) server.Signal(SIGKILL);
  }
  const absl::Status end = co_await mirror.Finish();
  EXPECT_THAT(end, StatusIs(absl::StatusCode::kUnavailable));
  const absl::Status joined = co_await group.Join();
  EXPECT_OK(joined);
}

TEST_F(LiveTest, KillLosesNothingThatWasAcknowledged) {
  for (const int events_max : {1, 100, 2000}) {
    auto server = StartServer();
    std::map<std::string, int> acknowledged;
    loop_.RunUntilComplete(PutAndKill(Connect(), *server, events_max, acknowledged));
    EXPECT_EQ(server->Wait(), -SIGKILL);
    EXPECT_GE(acknowledged["mirror"], events_max);
    const auto store = files_.Open();
    for (const auto& [name, count] : acknowledged) {
      for (int i = 0; i < count; ++i) {
        const std::string key = absl::StrCat(name, i);
        const auto entry = store->Get(key);
        ASSERT_TRUE(entry.ok()) << key << " was acknowledged: " << entry.status();
        ASSERT_EQ(entry->value, "value of " + key);
      }
    }
  }
}

Task<absl::StatusOr<LoadSummary>> LoadAndTerminate(KeyValueStub kv, ChildProcess& server, int puts) {
  const WatchRequest all;
  auto watch = kv.Watch(all);
  auto load = kv.Load();
  PutRequest put;
  for (int i = 0; i < puts; ++i) {
    put.set_key(absl::StrCat("k", i));
    const bool more = co_await load.Write(put);
    EXPECT_TRUE(more);
    if (i == puts / 2) {
      // Once something of it was put, it has surely begun.
      WatchEvent event;
      const bool seen = co_await watch.Read(event);
      EXPECT_TRUE(seen);
      server.Signal(SIGTERM);
    }
  }
  co_return co_await load.Finish();
}

TEST_F(LiveTest, SigtermLetsALoadFinish) {
  auto server = StartServer();
  const auto summary = loop_.RunUntilComplete(LoadAndTerminate(Connect(), *server, 5000));
  ASSERT_OK(summary);
  EXPECT_EQ(summary->puts(), 5000);
  EXPECT_EQ(server->Wait(), 0) << server->errors();
  EXPECT_EQ(files_.Open()->revision(), 5000);
}

// Begins a load that never ends; returns when the server knows of it.
Task<void> BeginLoad(KeyValueStub kv, troupe::ClientWriter<PutRequest, LoadSummary>& load) {
  const WatchRequest all;
  auto watch = kv.Watch(all);
  PutRequest put;
  put.set_key("a");
  const bool more = co_await load.Write(put);
  EXPECT_TRUE(more);
  WatchEvent event;
  const bool seen = co_await watch.Read(event);
  EXPECT_TRUE(seen);
}

TEST_F(LiveTest, SecondSigtermDoesNotWait) {
  auto server = StartServer();
  KeyValueStub kv = Connect();
  auto load = kv.Load();
  loop_.RunUntilComplete(BeginLoad(kv, load));
  server->Signal(SIGTERM);
  EXPECT_TRUE(server->WaitForError("draining"));
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 128 + SIGTERM) << server->errors();
}

// ---- what clients and server know of the same calls

// The client's journal; the server's is its database, where each put has made one revision.
struct Journal {
  std::map<std::string, int64_t> answered;  // key -> revision
  std::set<std::string> refused;            // that the server said, or showed, it would not do
};

Task<void> PutOnce(KeyValueStub kv, std::string key, Journal& journal) {
  PutRequest put;
  put.set_key(key);
  put.set_value("value");
  const absl::StatusOr<PutResponse> response = co_await kv.Put(put);
  if (response.ok()) {
    journal.answered[key] = response->revision();
  } else {
    EXPECT_THAT(response, StatusIs(absl::StatusCode::kUnavailable));
    journal.refused.insert(key);
  }
}

// For a while after it was first refused, too.
Task<void> KeepPutting(KeyValueStub kv, std::string name, Journal& journal) {
  int refusals = 0;
  for (int i = 0; refusals < 3; ++i) {
    const std::string key = absl::StrCat(name, i);
    co_await PutOnce(kv, key, journal);
    if (journal.refused.contains(key)) ++refusals;
  }
}

Task<void> SignalAfter(const Journal& journal, size_t answers, ChildProcess& server) {
  while (journal.answered.size() < answers) co_await troupe::Sleep(absl::ZeroDuration());
  server.Signal(SIGTERM);
}

Task<void> WatchToTheEnd(KeyValueStub kv) {
  const WatchRequest all;
  auto watch = kv.Watch(all);
  WatchEvent event;
  while (true) {
    const bool more = co_await watch.Read(event);
    if (!more) break;
  }
  const absl::Status end = co_await watch.Finish();
  EXPECT_THAT(end, StatusIs(absl::StatusCode::kUnavailable));
}

Task<absl::Status> RunAll(std::vector<Task<void>> tasks) {
  troupe::TaskGroup group;
  for (Task<void>& task : tasks) group.Spawn(std::move(task));
  co_return co_await group.Join();
}

TEST_F(LiveTest, SigtermWithTenThousandPutsInFlightLosesNoneAndRunsNoneTwice) {
#if defined(__SANITIZE_ADDRESS__)
  constexpr int kRounds = 4;  // each takes ten times as long
#else
  constexpr int kRounds = 20;
#endif
  constexpr int kChannels = 40, kPutsPerChannel = 250;
  const int rounds = getenv("TROUPE_IO_BYTES_MAX") == nullptr ? kRounds : 1;  // byte by byte one will do
  int64_t revision = 0;
  for (int round = 0; round < rounds; ++round) {
    auto server = StartServer();
    Journal journal;
    std::vector<std::unique_ptr<troupe::Channel>> channels;
    std::vector<Task<void>> tasks;
    // From round to round more of it is over when the signal comes.
    tasks.push_back(SignalAfter(journal, static_cast<size_t>(round * 9'000 / kRounds), *server));
    for (int c = 0; c < kChannels; ++c) {
      channels.push_back(std::make_unique<troupe::Channel>(loop_, address_));
      const KeyValueStub kv(*channels.back());
      for (int i = 0; i < kPutsPerChannel; ++i) {
        tasks.push_back(PutOnce(kv, absl::StrCat("r", round, "c", c, "i", i), journal));
      }
      if (c % 4 == 0) tasks.push_back(KeepPutting(kv, absl::StrCat("r", round, "c", c, "more"), journal));
      if (c % 10 == 0) tasks.push_back(WatchToTheEnd(kv));
    }
    // One that does not read what it is told.
    const WatchRequest all;
    auto unread = KeyValueStub(*channels[1]).Watch(all);
    EXPECT_OK(loop_.RunUntilComplete(RunAll(std::move(tasks))));
    unread.Cancel();
    channels.clear();
    EXPECT_EQ(server->Wait(), 0) << server->errors();

    const auto store = files_.Open();
    revision += static_cast<int64_t>(journal.answered.size());
    ASSERT_EQ(store->revision(), revision) << "in round " << round << " with " << journal.answered.size()
                                           << " puts answered and " << journal.refused.size() << " refused";
    for (const auto& [key, at] : journal.answered) {
      const auto entry = store->Get(key);
      ASSERT_OK(entry) << key;
      ASSERT_EQ(entry->revision, at) << key;
    }
    for (const std::string& key : journal.refused) {
      ASSERT_THAT(store->Get(key), StatusIs(absl::StatusCode::kNotFound)) << key;
    }
  }
}

// The same path before and after, which a port would not promise.
TEST_F(BinariesTest, AWatchGoesOnAfterTheServerWasKilledAndRestarted) {
  ChildProcess::Options options;
  options.folder = files_.folder();
  const std::vector<std::string> serve = {Runfile("services/kv/kv_server"), "--database=kv.db",
                                          "--listen=unix:kv.sock"};
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {Runfile("services/kv/kv_client"), "--target=unix:kv.sock"});
    return services::RunProgram(arguments, options);
  };
  auto server = std::make_unique<ChildProcess>(serve, options);
  EXPECT_EQ(server->ReadLine(), "listening on unix:kv.sock") << server->errors();
  EXPECT_EQ(run({"put", "a", "1"}).exit_code, 0);
  ChildProcess watch({Runfile("services/kv/kv_client"), "--target=unix:kv.sock", "--after=0", "--retry=10ms", "watch"},
                     options);
  EXPECT_EQ(watch.ReadLine(), "1 put a 1");
  server->Signal(SIGKILL);
  server->Wait();
  server = std::make_unique<ChildProcess>(serve, options);
  EXPECT_EQ(server->ReadLine(), "listening on unix:kv.sock") << server->errors();
  EXPECT_EQ(run({"put", "b", "22"}).exit_code, 0);
  EXPECT_EQ(watch.ReadLine(), "2 put b 2");
  watch.Signal(SIGINT);
  EXPECT_EQ(watch.Wait(), 128 + SIGINT);
  EXPECT_THAT(watch.errors(), HasSubstr("going on after revision 1"));
  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0);
  unlink((files_.folder() + "/kv.sock").c_str());
}

}  // namespace
}  // namespace kv::v1
