// The key-value server.
//
//   kv_server --database=/var/lib/kv/kv.db --listen=127.0.0.1:7400,unix:/run/kv.sock
//
// Says "listening on ADDRESS" on stdout, one line for each, when it is ready; port 0 takes a free one. SIGTERM or
// SIGINT drains it: exit code 0.
#include <malloc.h>

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/kv/async_store.h"
#include "services/kv/key_value_service.h"
#include "services/kv/store.h"
#include "troupe/async/run.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/loop/event_loop.h"
#include "troupe/service/server.h"

ABSL_FLAG(std::vector<std::string>, listen, {"127.0.0.1:7400"}, "addresses, separated by commas; also unix:PATH");
ABSL_FLAG(std::string, database, "kv.db", "file of the store; made if there is none");
ABSL_FLAG(int64_t, database_mib_max, 16 << 10, "how large the file may become; then puts are refused");
ABSL_FLAG(int64_t, deletions_kept, 100'000, "how many changes ago a watch may have ended to go on without a gap");
ABSL_FLAG(bool, check_database, true, "reads the whole file at the start to find damage");

namespace {

constexpr int kLargeBlockBytes = 256 << 10;
constexpr int64_t kDatabaseMibMax = int64_t{16} << 20;  // 16 TiB, which SQLite cannot exceed with pages of 4 KiB

// Says which flag is wrong, and what would be right.
absl::Status CheckFlags() {
  const auto wanted = [](absl::string_view flag, int64_t value, absl::string_view want) {
    return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, ": want ", want));
  };
  if (absl::GetFlag(FLAGS_database).empty()) return absl::InvalidArgumentError("--database is empty: want a file");
  if (absl::GetFlag(FLAGS_listen).empty()) {
    return absl::InvalidArgumentError("--listen is empty: want addresses, as in 127.0.0.1:7400,unix:/run/kv.sock");
  }
  const int64_t mib = absl::GetFlag(FLAGS_database_mib_max);
  if (mib < 1 || mib > kDatabaseMibMax) return wanted("database_mib_max", mib, absl::StrCat("1 to ", kDatabaseMibMax));
  const int64_t kept = absl::GetFlag(FLAGS_deletions_kept);
  if (kept < 1) return wanted("deletions_kept", kept, "1 or more");
  return absl::OkStatus();
}

troupe::Task<absl::Status> Main(troupe::EventLoop& loop, const std::vector<char*>& arguments) {
  if (!arguments.empty()) co_return absl::InvalidArgumentError(absl::StrCat("unexpected argument: ", arguments[0]));
  CO_RETURN_IF_ERROR(CheckFlags());
  kv::StoreOptions options;
  options.path = absl::GetFlag(FLAGS_database);
  options.file_bytes_max = absl::GetFlag(FLAGS_database_mib_max) << 20;
  options.deletions_kept_max = absl::GetFlag(FLAGS_deletions_kept);
  options.check_integrity = absl::GetFlag(FLAGS_check_database);
  // The largest that is valid, and some more that is told what is wrong with it.
  constexpr size_t kTooLarge = 64 << 10;
  const size_t request_bytes_max = options.key_bytes_max + options.value_bytes_max + kTooLarge;
  // Blocks, and there is nobody yet who could mind.
  CO_ASSIGN_OR_RETURN(std::unique_ptr<kv::Store> file, kv::Store::Open(std::move(options)));
  kv::AsyncStore store(loop, std::move(file));

  troupe::ServerOptions server_options;
  server_options.listen = absl::GetFlag(FLAGS_listen);
  server_options.limits.message_bytes_max = request_bytes_max;
  troupe::Server server(loop, std::move(server_options));
  server.Add<kv::v1::KeyValueService>(std::ref(store));
  CO_RETURN_IF_ERROR(co_await server.Start());
  for (const troupe::SocketAddress& address : server.addresses()) {
    std::cout << "listening on " << address.ToString() << std::endl;
  }
  co_return co_await server.ServeForever();
}

}  // namespace

int main(int argc, char** argv) {
  // Large values go back to the system when they are freed. Otherwise glibc learns to keep them, and two threads that hand
  // them to each other leave holes of a few MiB.
  mallopt(M_MMAP_THRESHOLD, kLargeBlockBytes);
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = [](absl::string_view file) { return absl::EndsWith(file, "services/kv/main.cc"); };
  absl::SetFlagsUsageConfig(usage);
  absl::SetProgramUsageMessage("serves kv.v1.KeyValue from one file; what is acknowledged is on the disk");
  return troupe::Run(argc, argv, Main);
}
