// TemporaryStore: the file of a store in the test's temporary folder, removed at the end.
#ifndef TROUPE_SERVICES_KV_TEMPORARY_STORE_H_
#define TROUPE_SERVICES_KV_TEMPORARY_STORE_H_

#include <stdlib.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "services/kv/store.h"

namespace kv {

class TemporaryStore {
 public:
  TemporaryStore() {
    const char* const parent = getenv("TEST_TMPDIR");
    folder_ = (parent == nullptr ? ::testing::TempDir() : std::string(parent)) + "/kv.XXXXXX";
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    options_.path = folder_ + "/kv.db";
  }
  TemporaryStore(const TemporaryStore&) = delete;
  TemporaryStore& operator=(const TemporaryStore&) = delete;
  // REQUIRES: the store is closed. Everything that it makes is one of these.
  ~TemporaryStore() {
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) unlink((options_.path + suffix).c_str());
    EXPECT_EQ(rmdir(folder_.c_str()), 0) << folder_ << " holds files that are not known";
  }

  const std::string& folder() const { return folder_; }
  StoreOptions& options() { return options_; }

  // REQUIRES: it can be opened.
  std::unique_ptr<Store> Open() {
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

 private:
  std::string folder_;
  StoreOptions options_;
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_TEMPORARY_STORE_H_
