// MemoryDisk: a file system for SQLite in memory, on which writes fail and the power goes out.
//
//   MemoryDisk disk(seed);
//   options.vfs = disk.name();
//   disk.CutPowerAt(17);              // the 17th change of the disk and all later ones fail
//   ... use a store until it fails, destroy it ...
//   disk.Restore();                   // what was not synced is there, or not, or in part
//   ... open it again and look ...
//
// What a sync has confirmed survives. Of what was written since, each piece of 512 bytes survives or not, by the seed,
// in any combination; so do files that were made or removed without their folder being synced.
//
// Threading: one thread.     Lifetime: outlives the stores that use it.
#ifndef TROUPE_SERVICES_KV_MEMORY_DISK_H_
#define TROUPE_SERVICES_KV_MEMORY_DISK_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace kv {

class MemoryDisk {
 public:
  explicit MemoryDisk(uint32_t seed);
  MemoryDisk(const MemoryDisk&) = delete;
  MemoryDisk& operator=(const MemoryDisk&) = delete;
  ~MemoryDisk();

  // For StoreOptions::vfs.
  const std::string& name() const;

  // The k-th change from now (write, truncation, sync, creation, removal), counting from 1, fails with an SQLite code.
  void FailAt(int64_t k, int code);
  // The k-th change and everything after it fails, until Restore.
  void CutPowerAt(int64_t k);
  // The power is back. REQUIRES: no file is open.
  void Restore();

  // Changes that were asked for so far.
  int64_t changes() const { return changes_; }
  // Bytes that were read and written so far.
  int64_t bytes_moved() const { return bytes_moved_; }
  // The change that was to fail has come.
  bool failed() const { return failed_; }
  // Bytes of a file; -1 if there is none.
  int64_t FileBytes(const std::string& path) const;

 private:
  struct Vfs;
  struct File;
  struct OpenFile;

  // SQLITE_OK, or what the change that begins shall fail with.
  int BeginChange(int failure);
  File* Find(const std::string& path);

  std::unique_ptr<Vfs> vfs_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<File>> all_;  // those removed too, since they may be open
  std::map<std::string, File*> files_;      // as seen now
  std::map<std::string, File*> durable_;    // as the folder was when last synced
  int open_ = 0;
  int64_t changes_ = 0;
  int64_t bytes_moved_ = 0;
  int64_t fail_at_ = 0;
  int fail_code_ = 0;
  bool failed_ = false;
  bool power_ = true;
  bool cut_ = false;  // the failure is a power cut
};

}  // namespace kv

#endif  // TROUPE_SERVICES_KV_MEMORY_DISK_H_
