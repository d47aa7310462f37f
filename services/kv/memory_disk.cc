#include "services/kv/memory_disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace kv {
namespace {

constexpr size_t kSectorBytes = 512;

}  // namespace

struct MemoryDisk::File {
  // A write at an offset, or (with `truncate`) a cut there.
  struct Change {
    size_t offset;
    std::string bytes;
    bool truncate;
  };
  static void Make(const Change& change, std::string& content) {
    if (change.truncate) {
      content.resize(change.offset);
    } else {
      if (content.size() < change.offset + change.bytes.size()) content.resize(change.offset + change.bytes.size());
      content.replace(change.offset, change.bytes.size(), change.bytes);
    }
  }

  std::string content;           // as seen now
  std::string synced;            // as the last sync left it
  std::vector<Change> unsynced;  // what leads from one to the other
};

struct MemoryDisk::OpenFile {
  sqlite3_file base;
  MemoryDisk* disk;
  File* file;

  static OpenFile& Of(sqlite3_file* file) { return *reinterpret_cast<OpenFile*>(file); }

  static int Close(sqlite3_file* file) noexcept {
    --Of(file).disk->open_;
    return SQLITE_OK;
  }
  static int Read(sqlite3_file* file, void* to, int bytes, sqlite3_int64 offset) noexcept {
    OpenFile& self = Of(file);
    if (!self.disk->power_) return SQLITE_IOERR_READ;
    const std::string& content = self.file->content;
    const size_t from = std::min(static_cast<size_t>(offset), content.size());
    const size_t count = std::min(static_cast<size_t>(bytes), content.size() - from);
    self.disk->bytes_moved_ += bytes;
    std::memcpy(to, content.data() + from, count);
    std::memset(static_cast<char*>(to) + count, 0, static_cast<size_t>(bytes) - count);
    return count == static_cast<size_t>(bytes) ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
  }
  static int Write(sqlite3_file* file, const void* from, int bytes, sqlite3_int64 offset) noexcept {
    OpenFile& self = Of(file);
    self.disk->bytes_moved_ += bytes;
    // The write that fails may have got through in part.
    const int code = self.disk->BeginChange(SQLITE_IOERR_WRITE);
    const size_t count = code == SQLITE_OK ? static_cast<size_t>(bytes) : self.disk->random_() % (bytes + 1);
    if (self.disk->power_ || code == SQLITE_OK) {
      self.Change({static_cast<size_t>(offset), std::string(static_cast<const char*>(from), count), false});
    }
    return code;
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) noexcept {
    OpenFile& self = Of(file);
    const int code = self.disk->BeginChange(SQLITE_IOERR_TRUNCATE);
    if (code == SQLITE_OK) self.Change({static_cast<size_t>(size), "", true});
    return code;
  }
  static int Sync(sqlite3_file* file, int) noexcept {
    OpenFile& self = Of(file);
    const int code = self.disk->BeginChange(SQLITE_IOERR_FSYNC);
    if (code != SQLITE_OK) return code;
    self.file->synced = self.file->content;
    self.file->unsynced.clear();
    // As the real one does for files that it has made: their folder too.
    self.disk->durable_ = self.disk->files_;
    return SQLITE_OK;
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) noexcept {
    *size = static_cast<sqlite3_int64>(Of(file).file->content.size());
    return SQLITE_OK;
  }
  static int Lock(sqlite3_file*, int) noexcept { return SQLITE_OK; }
  static int CheckReservedLock(sqlite3_file*, int* taken) noexcept {
    *taken = 0;
    return SQLITE_OK;
  }
  static int FileControl(sqlite3_file*, int, void*) noexcept { return SQLITE_NOTFOUND; }
  static int SectorSize(sqlite3_file*) noexcept { return kSectorBytes; }
  static int DeviceCharacteristics(sqlite3_file*) noexcept { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }

  static const sqlite3_io_methods* Methods() {
    static const sqlite3_io_methods methods = {1,  // without shared memory, which exclusive locking does not need
                                               &Close,
                                               &Read,
                                               &Write,
                                               &Truncate,
                                               &Sync,
                                               &FileSize,
                                               &Lock,
                                               &Lock,  // and unlock
                                               &CheckReservedLock,
                                               &FileControl,
                                               &SectorSize,
                                               &DeviceCharacteristics,
                                               nullptr,
                                               nullptr,
                                               nullptr,
                                               nullptr,
                                               nullptr,
                                               nullptr};
    return &methods;
  }

  void Change(File::Change change) {
    File::Make(change, file->content);
    file->unsynced.push_back(std::move(change));
  }
};

struct MemoryDisk::Vfs {
  sqlite3_vfs base{};
  std::string name;

  static MemoryDisk& DiskOf(sqlite3_vfs* vfs) { return *static_cast<MemoryDisk*>(vfs->pAppData); }

  static int Open(sqlite3_vfs* vfs, const char* path, sqlite3_file* file, int flags, int* flags_out) noexcept {
    MemoryDisk& disk = DiskOf(vfs);
    file->pMethods = nullptr;
    if (!disk.power_) return SQLITE_CANTOPEN;
    const std::string name = path == nullptr ? absl::StrCat("temporary", disk.all_.size()) : path;
    File* found = disk.Find(name);
    if (found == nullptr) {
      if ((flags & SQLITE_OPEN_CREATE) == 0) return SQLITE_CANTOPEN;
      const int code = disk.BeginChange(SQLITE_CANTOPEN);
      if (code != SQLITE_OK) return code;
      found = disk.all_.emplace_back(std::make_unique<File>()).get();
      disk.files_[name] = found;
    }
    new (file) OpenFile{{OpenFile::Methods()}, &disk, found};
    ++disk.open_;
    if (flags_out != nullptr) *flags_out = flags;
    return SQLITE_OK;
  }
  static int Delete(sqlite3_vfs* vfs, const char* path, int sync_folder) noexcept {
    MemoryDisk& disk = DiskOf(vfs);
    const int code = disk.BeginChange(SQLITE_IOERR_DELETE);
    if (code != SQLITE_OK) return code;
    if (disk.files_.erase(path) == 0) return SQLITE_IOERR_DELETE_NOENT;
    if (sync_folder != 0) disk.durable_ = disk.files_;
    return SQLITE_OK;
  }
  static int Access(sqlite3_vfs* vfs, const char* path, int, int* exists) noexcept {
    const File* const file = DiskOf(vfs).Find(path);
    // As the real one: an empty file counts as none.
    *exists = file != nullptr && !file->content.empty();
    return SQLITE_OK;
  }
  static int FullPathname(sqlite3_vfs*, const char* path, int bytes, char* full) noexcept {
    sqlite3_snprintf(bytes, full, "%s", path);
    return SQLITE_OK;
  }
  static int Randomness(sqlite3_vfs* vfs, int bytes, char* to) noexcept {
    for (int i = 0; i < bytes; ++i) to[i] = static_cast<char>(DiskOf(vfs).random_());
    return bytes;
  }
  static int Sleep(sqlite3_vfs*, int microseconds) noexcept { return microseconds; }
  static int CurrentTime(sqlite3_vfs*, double* julian_day) noexcept {
    *julian_day = 2'460'000;
    return SQLITE_OK;
  }
  static int GetLastError(sqlite3_vfs*, int, char*) noexcept { return 0; }
};

MemoryDisk::MemoryDisk(uint32_t seed) : vfs_(std::make_unique<Vfs>()), random_(seed) {
  static int number = 0;
  vfs_->name = absl::StrCat("memory-disk-", number++);
  sqlite3_vfs& vfs = vfs_->base;
  vfs.iVersion = 1;
  vfs.szOsFile = sizeof(OpenFile);
  vfs.mxPathname = 256;
  vfs.zName = vfs_->name.c_str();
  vfs.pAppData = this;
  vfs.xOpen = &Vfs::Open;
  vfs.xDelete = &Vfs::Delete;
  vfs.xAccess = &Vfs::Access;
  vfs.xFullPathname = &Vfs::FullPathname;
  vfs.xRandomness = &Vfs::Randomness;
  vfs.xSleep = &Vfs::Sleep;
  vfs.xCurrentTime = &Vfs::CurrentTime;
  vfs.xGetLastError = &Vfs::GetLastError;
  CHECK_EQ(sqlite3_vfs_register(&vfs, 0), SQLITE_OK);
}

MemoryDisk::~MemoryDisk() {
  CHECK_EQ(open_, 0) << "files are open";
  sqlite3_vfs_unregister(&vfs_->base);
}

const std::string& MemoryDisk::name() const { return vfs_->name; }

void MemoryDisk::FailAt(int64_t k, int code) {
  fail_at_ = changes_ + k;
  fail_code_ = code;
  failed_ = false;
  cut_ = false;
}

void MemoryDisk::CutPowerAt(int64_t k) {
  FailAt(k, 0);
  cut_ = true;
}

int MemoryDisk::BeginChange(int failure) {
  if (!power_) return failure;
  if (++changes_ != fail_at_) return SQLITE_OK;
  failed_ = true;
  if (!cut_) return fail_code_;
  power_ = false;
  return failure;
}

void MemoryDisk::Restore() {
  CHECK_EQ(open_, 0) << "files are open";
  const auto survives = [this] { return random_() % 2 == 0; };
  // Names that the folder was not synced for, either way.
  std::map<std::string, File*> names = durable_;
  for (const auto& [name, file] : files_) {
    if (durable_.count(name) == 0 && survives()) names[name] = file;
  }
  for (const auto& [name, file] : durable_) {
    if (files_.count(name) == 0 && survives()) names.erase(name);
  }
  files_ = durable_ = names;
  for (const std::unique_ptr<File>& file : all_) {
    std::string content = file->synced;
    for (const File::Change& change : file->unsynced) {
      if (change.truncate) {
        if (survives()) File::Make(change, content);
        continue;
      }
      for (size_t done = 0; done < change.bytes.size();) {
        const size_t to_border = kSectorBytes - (change.offset + done) % kSectorBytes;
        const std::string piece = change.bytes.substr(done, to_border);
        if (survives()) File::Make({change.offset + done, piece, false}, content);
        done += piece.size();
      }
    }
    file->content = file->synced = content;
    file->unsynced.clear();
  }
  power_ = true;
  fail_at_ = 0;
  failed_ = false;
}

MemoryDisk::File* MemoryDisk::Find(const std::string& path) {
  const auto it = files_.find(path);
  return it == files_.end() ? nullptr : it->second;
}

int64_t MemoryDisk::FileBytes(const std::string& path) const {
  const auto it = files_.find(path);
  return it == files_.end() ? -1 : static_cast<int64_t>(it->second->content.size());
}

}  // namespace kv
