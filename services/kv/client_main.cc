// The command-line client of the key-value server.
//
//   kv_client [--target=HOST:PORT] COMMAND ...
//
//   get KEY                  writes the value to stdout as it is
//   put KEY VALUE            VALUE "-": what stdin gives
//   delete KEY
//   list [PREFIX]            keys, one a line; with --long their revisions and sizes before them
//   watch [PREFIX]           changes until Ctrl-C, one a line: revision, put or delete, key, size;
//                            goes on by itself after a lost connection
//   load [FILE]              puts the records of FILE, or of stdin; says how many, how fast
//
// Exit code: 0: done. 1: no such key. 2: wrong usage. 3: it failed, with the reason on stderr. 128+n: ended by signal
// n.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "kv/v1/kv.troupe.h"
#include "services/kv/records.h"
#include "troupe/async/blocking.h"
#include "troupe/async/run.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/service/channel.h"

ABSL_FLAG(std::string, target, "127.0.0.1:7400", "the server: HOST:PORT, ipv6:[::1]:PORT, unix:PATH");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(30), "of get, put, delete and each page of list");
ABSL_FLAG(bool, long, false, "list: revision and size before each key");
ABSL_FLAG(int64_t, after, -1, "watch: begin after this revision; 0: with all that is there; -1: with the next change");
ABSL_FLAG(absl::Duration, retry, absl::Seconds(1), "watch: how long to wait after a lost connection");
ABSL_FLAG(int64_t, count, 0, "watch: end after so many changes; 0: never");
ABSL_FLAG(std::string, format, "lines",
          "load: lines (KEY, tab, VALUE) or deb822 (stanzas, as in /var/lib/dpkg/status)");
ABSL_FLAG(std::string, key_field, "Package", "load, deb822: the field that is the key");
ABSL_FLAG(bool, progress, isatty(STDERR_FILENO) != 0, "load: a line on stderr that counts");

namespace {

using kv::v1::KeyValueStub;
using troupe::EventLoop;
using troupe::Task;

enum ExitCode { kDone = 0, kNoSuchKey = 1, kUsage = 2, kFailed = 3 };

using Arguments = std::vector<std::string>;

// Keys may hold anything; lines may not.
std::string Printable(const std::string& key) { return absl::Utf8SafeCEscape(key); }

Task<absl::Status> Get(KeyValueStub kv, Arguments arguments) {
  kv::v1::GetRequest request;
  request.set_key(arguments[0]);
  CO_ASSIGN_OR_RETURN(const kv::v1::GetResponse response,
                      co_await kv.Get(request, {.timeout = absl::GetFlag(FLAGS_timeout)}));
  std::cout << response.value() << std::flush;
  co_return absl::OkStatus();
}

// Reads up to 64 KiB; empty at the end of the file.
absl::StatusOr<std::string> ReadSome(int fd) {
  std::string text(64 << 10, '\0');
  ssize_t count;
  do count = read(fd, text.data(), text.size());
  while (count < 0 && errno == EINTR);
  if (count < 0) return absl::ErrnoToStatus(errno, "reading");
  text.resize(static_cast<size_t>(count));
  return text;
}

Task<absl::Status> Put(KeyValueStub kv, Arguments arguments) {
  kv::v1::PutRequest request;
  request.set_key(arguments[0]);
  if (arguments[1] == "-") {
    while (true) {
      CO_ASSIGN_OR_RETURN(const std::string text, co_await troupe::Blocking([] { return ReadSome(STDIN_FILENO); }));
      if (text.empty()) break;
      request.mutable_value()->append(text);
    }
  } else {
    request.set_value(arguments[1]);
  }
  CO_ASSIGN_OR_RETURN(const kv::v1::PutResponse response,
                      co_await kv.Put(request, {.timeout = absl::GetFlag(FLAGS_timeout)}));
  std::cout << "revision " << response.revision() << std::endl;
  co_return absl::OkStatus();
}

Task<absl::Status> Delete(KeyValueStub kv, Arguments arguments) {
  kv::v1::DeleteRequest request;
  request.set_key(arguments[0]);
  CO_ASSIGN_OR_RETURN(const kv::v1::DeleteResponse response,
                      co_await kv.Delete(request, {.timeout = absl::GetFlag(FLAGS_timeout)}));
  if (!response.found()) co_return absl::NotFoundError("no such key");
  std::cout << "revision " << response.revision() << std::endl;
  co_return absl::OkStatus();
}

Task<absl::Status> List(KeyValueStub kv, Arguments arguments) {
  const bool long_lines = absl::GetFlag(FLAGS_long);
  kv::v1::ListRequest request;
  if (!arguments.empty()) request.set_prefix(arguments[0]);
  request.set_keys_only(!long_lines);
  request.set_page_size(1000);
  do {
    CO_ASSIGN_OR_RETURN(const kv::v1::ListResponse page,
                        co_await kv.List(request, {.timeout = absl::GetFlag(FLAGS_timeout)}));
    for (const kv::v1::Entry& entry : page.entries()) {
      if (long_lines) std::cout << absl::StreamFormat("%10d %8d ", entry.revision(), entry.value().size());
      std::cout << Printable(entry.key()) << "\n";
    }
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  std::cout << std::flush;
  co_return absl::OkStatus();
}

Task<absl::Status> Watch(KeyValueStub kv, Arguments arguments) {
  int64_t left = absl::GetFlag(FLAGS_count);
  kv::v1::WatchRequest request;
  if (!arguments.empty()) request.set_prefix(arguments[0]);
  if (absl::GetFlag(FLAGS_after) >= 0) request.set_after_revision(absl::GetFlag(FLAGS_after));
  while (true) {
    auto events = kv.Watch(request);
    kv::v1::WatchEvent event;
    while (true) {
      const bool more = co_await events.Read(event);
      if (!more) break;
      const bool put = event.type() == kv::v1::WatchEvent::TYPE_PUT;
      std::cout << event.revision() << (put ? " put " : " delete ") << Printable(event.key()) << " "
                << event.value().size() << std::endl;
      request.set_after_revision(event.revision());
      if (--left == 0) co_return absl::OkStatus();
    }
    const absl::Status end = co_await events.Finish();
    // Without a revision there is nothing to go on from: changes might be missed.
    if (!absl::IsUnavailable(end) || !request.has_after_revision()) co_return end;
    std::cerr << "kv_client: " << end.message() << "; going on after revision " << request.after_revision() << "\n";
    co_await troupe::Sleep(absl::GetFlag(FLAGS_retry));
  }
}

class Progress {
 public:
  Progress(EventLoop& loop, bool show) : loop_(loop), show_(show), began_(loop.Time()) {}
  // Writes over the line, if there is a new number to show and the last one was seen for long enough.
  void Show(int64_t records, int64_t bytes) {
    if (!show_ || loop_.Time() < next_) return;
    next_ = loop_.Time() + absl::Milliseconds(100);
    std::cerr << Line(records, bytes) << std::flush;
    shown_ = true;
  }
  void End(int64_t records, int64_t bytes) {
    if (show_) std::cerr << Line(records, bytes) << std::endl;
    shown_ = false;
  }
  // Errors begin on a line of their own.
  ~Progress() {
    if (shown_) std::cerr << std::endl;
  }
  absl::Duration elapsed() const { return loop_.Time() - began_; }

 private:
  std::string Line(int64_t records, int64_t bytes) const {
    return absl::StrFormat("\rloading: %d records, %.1f MiB", records, static_cast<double>(bytes) / (1 << 20));
  }
  EventLoop& loop_;
  const bool show_;
  const troupe::MonotonicTime began_;
  troupe::MonotonicTime next_;
  bool shown_ = false;
};

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ > STDIN_FILENO) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  const int fd_;
};

Task<absl::Status> Load(KeyValueStub kv, Arguments arguments, EventLoop& loop) {
  const std::string format = absl::GetFlag(FLAGS_format);
  const File file(arguments.empty() ? STDIN_FILENO : open(arguments[0].c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0) co_return absl::ErrnoToStatus(errno, arguments[0]);
  kv::RecordParser parser(format == "lines" ? kv::RecordFormat::kLines : kv::RecordFormat::kDeb822,
                          absl::GetFlag(FLAGS_key_field));
  Progress progress(loop, absl::GetFlag(FLAGS_progress));
  int64_t count = 0, bytes = 0;
  auto load = kv.Load();
  kv::v1::PutRequest put;
  bool open = true;
  for (bool end = false; open && !end;) {
    CO_ASSIGN_OR_RETURN(const std::string text, co_await troupe::Blocking([&file] { return ReadSome(file.fd()); }));
    end = text.empty();
    std::vector<kv::Record> records;
    CO_RETURN_IF_ERROR(end ? parser.Finish(&records) : parser.Parse(text, &records));
    for (kv::Record& record : records) {
      ++count;
      bytes += static_cast<int64_t>(record.key.size() + record.value.size());
      put.set_key(std::move(record.key));
      put.set_value(std::move(record.value));
      open = co_await load.Write(put);
      if (!open) break;
      progress.Show(count, bytes);
    }
  }
  // Whether it took all of them or ended the call before, it says so here.
  CO_ASSIGN_OR_RETURN(const kv::v1::LoadSummary summary, co_await load.Finish());
  progress.End(summary.puts(), summary.bytes());
  const double seconds = absl::ToDoubleSeconds(progress.elapsed());
  std::cout << absl::StreamFormat("loaded %d records, %d bytes in %.2f s: %.0f records/s, %.1f MiB/s; revision %d\n",
                                  summary.puts(), summary.bytes(), seconds, summary.puts() / seconds,
                                  static_cast<double>(summary.bytes()) / (1 << 20) / seconds, summary.revision())
            << std::flush;
  co_return absl::OkStatus();
}

constexpr char kUsageText[] =
    "speaks to a key-value server\n\n"
    "  kv_client [FLAGS] get KEY\n"
    "  kv_client [FLAGS] put KEY VALUE     (VALUE \"-\": stdin)\n"
    "  kv_client [FLAGS] delete KEY\n"
    "  kv_client [FLAGS] list [PREFIX]\n"
    "  kv_client [FLAGS] watch [PREFIX]\n"
    "  kv_client [FLAGS] load [FILE]       (without FILE: stdin)\n\n"
    "  \"--\" ends the flags, for keys that begin with a dash.";

struct Command {
  const char* name;
  size_t arguments_min, arguments_max;
};
constexpr Command kCommands[] = {{"get", 1, 1},  {"put", 2, 2},   {"delete", 1, 1},
                                 {"list", 0, 1}, {"watch", 0, 1}, {"load", 0, 1}};

absl::Status CheckUsage(const std::vector<char*>& words) {
  if (words.empty()) return absl::InvalidArgumentError("which command?");
  const std::string name = words[0];
  for (const Command& command : kCommands) {
    if (name != command.name) continue;
    const size_t arguments = words.size() - 1;
    if (arguments < command.arguments_min || arguments > command.arguments_max) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", arguments, " arguments, want ", command.arguments_min,
                       command.arguments_min == command.arguments_max ? "" : " or ",
                       command.arguments_min == command.arguments_max ? "" : absl::StrCat(command.arguments_max)));
    }
    const std::string format = absl::GetFlag(FLAGS_format);
    if (format != "lines" && format != "deb822") {
      return absl::InvalidArgumentError(absl::StrCat("--format=", format, ": want lines or deb822"));
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("no command \"", name, "\""));
}

// What the command came to; says what went wrong.
Task<ExitCode> Execute(EventLoop& loop, const std::vector<char*>& words) {
  if (const absl::Status usage = CheckUsage(words); !usage.ok()) {
    std::cerr << "kv_client: " << usage.message() << "\n" << kUsageText << "\n";
    co_return kUsage;
  }
  const std::string command = words[0];
  Arguments arguments(words.begin() + 1, words.end());
  troupe::Channel channel(loop, absl::GetFlag(FLAGS_target), {.wire = troupe::Wire::kNative});
  const KeyValueStub kv(channel);
  absl::Status status;
  if (command == "get") {
    status = co_await Get(kv, arguments);
  } else if (command == "put") {
    status = co_await Put(kv, arguments);
  } else if (command == "delete") {
    status = co_await Delete(kv, arguments);
  } else if (command == "list") {
    status = co_await List(kv, arguments);
  } else if (command == "watch") {
    status = co_await Watch(kv, arguments);
  } else {
    status = co_await Load(kv, arguments, loop);
  }
  channel.Close();
  if (status.ok()) co_return kDone;
  std::cerr << "kv_client: " << command << ": " << status.message() << "\n";
  co_return absl::IsNotFound(status) ? kNoSuchKey : kFailed;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(kUsageText);
  ExitCode exit_code = kFailed;
  const int run = troupe::Run(argc, argv, [&](EventLoop& loop, const std::vector<char*>& words) -> Task<absl::Status> {
    exit_code = co_await Execute(loop, words);
    co_return absl::OkStatus();
  });
  return run == 0 ? exit_code : run;
}
