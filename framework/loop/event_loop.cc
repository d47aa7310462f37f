#include "troupe/loop/event_loop.h"

#include <glog/logging.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "troupe/loop/internal/assigned_loop.h"

namespace troupe {
namespace {

constexpr int kBatchesPerPoll = 16;
constexpr absl::Duration kSharedPollTime = absl::Microseconds(20);
// Events taken by one poll; more are found by the next one.
constexpr size_t kEventsPerPoll = 256;

std::string FormatLocation(const std::source_location& where) {
  return absl::StrCat(where.file_name(), ":", where.line(), " ", where.function_name());
}

absl::string_view Truncated(absl::string_view text) { return text.substr(0, 400); }

}  // namespace

// A loop that runs looks here between its batches. Only one that waits in its poller has to be woken, once: it says
// that it is going to wait under the mutex and only while the queue is empty, so that no post falls between. The
// wake-up itself, a system call after which the woken thread wants the mutex, is done outside of it.
struct EventLoop::Inbox {
  std::mutex mutex;
  RunQueue queue;       // guarded by mutex
  bool closed = false;  // guarded by mutex
  // Set under the mutex. Cleared by who wakes the loop, and by the loop: a waker that sees an old true wakes in vain.
  std::atomic<bool> waiting = false;
  // Held during a wake-up, and taken before `mutex` is given up: Close() takes it before the poller goes.
  std::mutex waking;
  // A hint that saves the lock: set when something was queued, cleared before it is taken.
  std::atomic<bool> has_some = false;
};

// ---------------------------------------------------------------------------------------------------- callbacks

namespace internal {

void Callback::Cancel() {
  if (shared_) {
    // The node stays where it is, perhaps in the hands of the loop's thread, which drops it.
    uint8_t pending = kPending;
    state_.compare_exchange_strong(pending, kCancelled, std::memory_order_acq_rel);
    return;
  }
  if (state_.load(std::memory_order_relaxed) != kPending) return;
  state_.store(kCancelled, std::memory_order_relaxed);
  Unschedule();
  DestroyFunction();
  Release();
}

std::string Callback::Describe() const {
  return absl::StrCat("<Handle", cancelled() ? " cancelled" : "", " created at ", where_.file_name(), ":",
                      where_.line(), ">");
}

void Callback::Report() {
  ExceptionContext context;
  context.message = absl::StrCat("Exception in callback ", where_.function_name());
  context.Add("handle", Describe(), this);
  if (loop_.debug()) context.source_traceback = FormatLocation(where_);
  loop_.ReportCurrentException(std::move(context));
}

}  // namespace internal

// ---------------------------------------------------------------------------------------------------- user watchers

class EventLoop::CallbackWatcher final : public FdWatcher {
 public:
  CallbackWatcher(EventLoop& loop, int fd) : FdWatcher(loop, fd) {}

  // Shared with the call in progress, which may replace or remove it. Runs in the context of AddReader (C-LOOP-39).
  struct Registered {
    absl::AnyInvocable<void()> function;
    Context context = Context::Current();
  };
  std::shared_ptr<Registered> reader;
  std::shared_ptr<Registered> writer;

  // After one was removed.
  int Rewatch() { return Watch(Wanted()); }
  // After one was added. Libraries close their descriptors when they like, and the next one has the number: then the poller
  // knows nothing of it any more.
  int WatchAdded() {
    if (interest() == 0) return Watch(Wanted());
    const int result = watcher_loop_.poller().Modify(fd(), Wanted(), static_cast<FdWatcher*>(this));
    if (result == 0) interest_ = Wanted();
    if (result != -ENOENT) return result;
    Watch(0);
    interest_ = 0;  // whatever the poller says to that
    return Watch(Wanted());
  }

 private:
  uint32_t Wanted() const { return (reader ? uint32_t{kReadable} : 0) | (writer ? uint32_t{kWritable} : 0); }
  void OnReadable() override { reader ? Call(reader, "reader") : Unwanted(); }
  void OnWritable() override { writer ? Call(writer, "writer") : Unwanted(); }
  // The poller could not be told that this direction is no longer watched: it is told again.
  void Unwanted() { Rewatch(); }
  std::string DescribeWatcher() const override { return absl::StrCat("<watcher of descriptor ", fd(), ">"); }

  void Call(std::shared_ptr<Registered> callback, absl::string_view kind) {
    EventLoop& loop = watcher_loop_;
    const int descriptor = fd();
    ContextScope scope(callback->context);
    try {
      callback->function();
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      ExceptionContext context;
      context.message = absl::StrCat("Exception in callback ", kind, " of descriptor ", descriptor);
      context.Add("handle", absl::StrCat("<", kind, " of descriptor ", descriptor, ">"));
      loop.ReportCurrentException(std::move(context));
    }
  }
};

// ---------------------------------------------------------------------------------------------------- life

EventLoop::EventLoop(Os& os, EventLoopOptions options)
    : os_(os),
      options_(options),
      slow_callback_duration_(options.slow_callback_duration),
      poller_(os.NewPoller()),
      inbox_(std::make_unique<Inbox>()),
      events_(kEventsPerPoll) {
  const char* debug = std::getenv("TROUPE_DEBUG");
  SetDebug(debug != nullptr && *debug != '\0' && std::strcmp(debug, "0") != 0);
}

EventLoop::~EventLoop() {
  if (!IsClosed()) {
    LOG(WARNING) << "unclosed event loop destroyed";
    if (!IsRunning()) Close();
  }
  // Joins the workers; what they sent after Close() is still here.
  executor_.reset();
  resolver_.reset();
  while (!inbox_->queue.empty()) inbox_->queue.PopFront().Drop();
  while (!locals_.empty()) locals_.pop_back();
  if (internal::assigned_loop.loop == this) internal::assigned_loop.loop = nullptr;
}

EventLoop& EventLoop::Current() {
  EventLoop* loop = CurrentOrNull();
  if (loop == nullptr) throw InvalidState("no running event loop");
  return *loop;
}

void EventLoop::Close() {
  if (IsRunning()) throw InvalidState("Cannot close a running event loop");
  if (IsClosed()) return;
  while (!signal_handlers_.empty()) RemoveSignalHandler(signal_handlers_.back().signo);
  {
    std::lock_guard<std::mutex> lock(inbox_->mutex);
    inbox_->closed = true;
  }
  {
    std::lock_guard<std::mutex> lock(inbox_->waking);  // nobody takes it any more
  }
  TakeInbox();
  // Destructors of what is dropped may still schedule: their callbacks are dropped too, unrun (C-LOOP-26).
  while (!tasks_.empty() || !ready_.empty() || !timers_.empty() || !after_batch_.empty()) {
    while (!tasks_.empty()) tasks_.front().DestroyPending();
    while (!ready_.empty()) ready_.PopFront().Drop();
    while (!after_batch_.empty()) after_batch_.PopFront().Drop();
    while (!timers_.empty()) timers_.PopFront().Drop();
  }
  for (size_t i = locals_.size(); i > 0; --i) locals_[i - 1].local->OnLoopClose();
  user_watchers_.clear();
  closed_.store(true, std::memory_order_release);
  checked_ = true;
  poller_.reset();
}

void EventLoop::SetDebug(bool debug) {
  debug_ = debug;
  checked_ = debug_ || IsClosed();
}

void EventLoop::CheckUsableSlow(const char* called) const {
  if (IsClosed()) throw InvalidState("Event loop is closed");
  if (!debug_) return;
  if (IsRunning() && thread_.load(std::memory_order_relaxed) != std::this_thread::get_id()) {
    throw InvalidState(
        absl::StrCat("Non-thread-safe operation invoked on an event loop other than the current one: ", called));
  }
}

// ---------------------------------------------------------------------------------------------------- running

// Marks the loop as running in this thread, until the end of the scope (C-LOOP-15).
class EventLoop::RunScope {
 public:
  explicit RunScope(EventLoop& loop) : loop_(loop) {
    if (loop.IsClosed()) throw InvalidState("Event loop is closed");
    if (loop.IsRunning()) throw InvalidState("This event loop is already running");
    if (CurrentOrNull() != nullptr) throw InvalidState("Cannot run the event loop while another loop is running");
    loop.thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    loop.running_.store(true, std::memory_order_relaxed);
    internal::thread_state.loop = &loop;
  }
  RunScope(const RunScope&) = delete;
  RunScope& operator=(const RunScope&) = delete;
  ~RunScope() {
    internal::thread_state.loop = nullptr;
    loop_.running_.store(false, std::memory_order_relaxed);
    loop_.thread_.store({}, std::memory_order_relaxed);
    loop_.stopping_ = false;
  }

 private:
  EventLoop& loop_;
};

void EventLoop::RunForever() {
  RunScope scope(*this);
  do {
    RunIteration(/*wait=*/true);
  } while (!stopping_);
}

bool EventLoop::RunOnceWithoutWaiting() {
  RunScope scope(*this);
  return RunIteration(/*wait=*/false);
}

MonotonicTime EventLoop::NextWakeup() {
  if (HasReady() || stopping_ || inbox_->has_some.load(std::memory_order_acquire)) return Time();
  return timers_.empty() ? MonotonicTime::InfiniteFuture() : timers_.next();
}

bool EventLoop::RunIteration(bool wait) {
  MonotonicTime deadline;  // long ago: poll and return
  if (wait && !HasReady() && !stopping_ && AnnounceWaiting()) {
    deadline = timers_.empty() ? MonotonicTime::InfiniteFuture() : timers_.next();
  }
  const MonotonicTime before = debug_ ? Time() : MonotonicTime();
  const int count = poller_->Wait(deadline, absl::MakeSpan(events_));
  inbox_->waiting.store(false, std::memory_order_relaxed);
  if (count == -EDEADLK) ThrowStalled();
  LOG_IF(ERROR, count < 0) << "poll failed: " << std::strerror(-count);
  if (debug_ && deadline != MonotonicTime()) {
    const absl::Duration took = Time() - before;
    if (took >= absl::Seconds(1)) {
      LOG(INFO) << "poll took " << absl::FormatDuration(took) << ": " << count << " events";
    } else {
      VLOG(1) << "poll took " << absl::FormatDuration(took) << ": " << count << " events";
    }
  }
  for (int i = 0; i < count; ++i) static_cast<FdWatcher*>(events_[i].token)->Notify(events_[i].ready);
  if (inbox_->has_some.load(std::memory_order_acquire)) TakeInbox();
  if (!signal_handlers_.empty()) TakeSignals();

  if (!timers_.empty()) TakeTimers(Time());
  const bool ran = HasReady();
  RunBatch();
  if (options_.strict_polling || ready_.empty() || stopping_) return ran;
  // Batches that share the poll are iterations in all but the poll: what is due, or was posted by other threads, takes
  // its place between them.
  MonotonicTime now = Time();
  const MonotonicTime end = now + kSharedPollTime;
  for (int i = 1; i < kBatchesPerPoll && now < end; ++i) {
    if (inbox_->has_some.load(std::memory_order_acquire)) TakeInbox();
    TakeTimers(now);
    RunBatch();
    if (ready_.empty() || stopping_) return ran;
    now = Time();
  }
  return ran;
}

void EventLoop::RunBatch() {
  batch_.SpliceBack(ready_);
  RunQueued();
  if (after_batch_.empty()) return;
  batch_.SpliceBack(after_batch_);
  RunQueued();
}

void EventLoop::RunQueued() {
  // A Fatal leaves with the rest of the batch still queued (C-LOOP-23).
  struct Restore {
    EventLoop& loop;
    ~Restore() { loop.ready_.SpliceFront(loop.batch_); }
  } restore{*this};
  while (!batch_.empty()) {
    // Asked each time: a callback may switch debug mode (C-DBG-07).
    if (debug_) [[unlikely]] {
      RunDebug(batch_.PopFront());
    } else {
      batch_.PopFront().Run();
    }
  }
}

void EventLoop::RunDebug(Runnable& runnable) {
  const std::string what = runnable.Describe();
  struct Current {
    EventLoop& loop;
    ~Current() { loop.current_ = nullptr; }
  } current{*this};
  current_ = &what;
  const MonotonicTime start = Time();
  runnable.Run();
  const absl::Duration took = Time() - start;
  if (took >= slow_callback_duration_) {
    LOG(WARNING) << absl::StrFormat("Executing %s took %.3f seconds", what, absl::ToDoubleSeconds(took));
  }
}

void EventLoop::ThrowStalled() {
  std::string text = "nothing is left that could wake the event loop; suspended tasks:";
  for (const internal::TaskNode& task : tasks_) absl::StrAppend(&text, "\n", task.DescribeTask());
  if (tasks_.empty()) absl::StrAppend(&text, " none");
  throw InvalidState(text);
}

// ---------------------------------------------------------------------------------------------------- other threads

bool EventLoop::ScheduleThreadsafe(Runnable& runnable, bool even_if_closed) {
  if (CurrentOrNull() == this) {
    Schedule(runnable);
    return true;
  }
  Inbox& inbox = *inbox_;
  std::unique_lock<std::mutex> waking(inbox.waking, std::defer_lock);
  {
    std::lock_guard<std::mutex> lock(inbox.mutex);
    if (inbox.closed && !even_if_closed) return false;
    inbox.queue.PushBack(runnable);
    if (inbox.closed) return true;  // the destructor drops it
    inbox.has_some.store(true, std::memory_order_release);
    if (!inbox.waiting.load(std::memory_order_relaxed)) return true;
    inbox.waiting.store(false, std::memory_order_relaxed);
    waking.lock();
  }
  poller_->Wake();
  return true;  // the last touch: once `waking` is free the loop may be closed and gone
}

bool EventLoop::AnnounceWaiting() {
  std::lock_guard<std::mutex> lock(inbox_->mutex);
  if (!inbox_->queue.empty()) return false;
  inbox_->waiting.store(true, std::memory_order_relaxed);
  return true;
}

void EventLoop::ScheduleFromThread(Runnable& runnable) { ScheduleThreadsafe(runnable, /*even_if_closed=*/true); }

void EventLoop::CancelFromThread(Runnable& runnable) {
  std::lock_guard<std::mutex> lock(inbox_->mutex);
  runnable.Unlink();
}

void EventLoop::TakeInbox() {
  RunQueue taken;
  {
    std::lock_guard<std::mutex> lock(inbox_->mutex);
    inbox_->has_some.store(false, std::memory_order_relaxed);
    taken.SpliceBack(inbox_->queue);
  }
  ready_.SpliceBack(taken);
}

// ---------------------------------------------------------------------------------------------------- descriptors

void EventLoop::ClaimDescriptor(FdWatcher& watcher) {
  const int fd = watcher.fd();
  if (fd < 0) return;
  if (static_cast<size_t>(fd) >= watchers_.size()) watchers_.resize(fd + 1);
  if (watchers_[fd] == nullptr) watchers_[fd] = &watcher;
}

void EventLoop::ReleaseDescriptor(FdWatcher& watcher) {
  const int fd = watcher.fd();
  if (fd >= 0 && watchers_[fd] == &watcher) watchers_[fd] = nullptr;
}

int EventLoop::SetWatch(FdWatcher& watcher, uint32_t before, uint32_t now) {
  const int fd = watcher.fd();
  if (now == 0) return poller_ ? poller_->Remove(fd) : 0;
  CheckUsable("FdWatcher::Watch");
  if (before != 0) return poller_->Modify(fd, now, &watcher);
  if (fd < 0) return -EBADF;
  if (watchers_[fd] == nullptr) watchers_[fd] = &watcher;  // released before
  if (watchers_[fd] != &watcher) return -EEXIST;
  return poller_->Add(fd, now, &watcher);
}

EventLoop::CallbackWatcher& EventLoop::UserWatcher(int fd) {
  // By descriptor, null where there is none: thousands may be watched.
  if (static_cast<size_t>(fd) >= user_watchers_.size()) user_watchers_.resize(static_cast<size_t>(fd) + 1);
  std::unique_ptr<CallbackWatcher>& watcher = user_watchers_[static_cast<size_t>(fd)];
  if (watcher != nullptr) return *watcher;
  if (static_cast<size_t>(fd) < watchers_.size() && watchers_[fd] != nullptr) {
    throw InvalidState(
        absl::StrCat("File descriptor ", fd, " is used by transport ", watchers_[fd]->DescribeWatcher()));
  }
  watcher = std::make_unique<CallbackWatcher>(*this, fd);
  return *watcher;
}

int EventLoop::SetReader(int fd, absl::AnyInvocable<void()> callback) {
  CheckUsableSlow("AddReader");
  if (fd < 0) return -EBADF;
  CallbackWatcher& watcher = UserWatcher(fd);
  watcher.reader = std::make_shared<CallbackWatcher::Registered>(std::move(callback));
  watcher.readable_.Unlink();  // what was queued is the former one's
  const int result = watcher.WatchAdded();
  if (result != 0) RemoveReader(fd);
  return result;
}

int EventLoop::SetWriter(int fd, absl::AnyInvocable<void()> callback) {
  CheckUsableSlow("AddWriter");
  if (fd < 0) return -EBADF;
  CallbackWatcher& watcher = UserWatcher(fd);
  watcher.writer = std::make_shared<CallbackWatcher::Registered>(std::move(callback));
  watcher.writable_.Unlink();  // what was queued is the former one's
  const int result = watcher.WatchAdded();
  if (result != 0) RemoveWriter(fd);
  return result;
}

bool EventLoop::RemoveReader(int fd) {
  if (IsClosed() || fd < 0) return false;
  CallbackWatcher& watcher = UserWatcher(fd);
  const bool had = std::exchange(watcher.reader, nullptr) != nullptr;
  watcher.Rewatch();
  if (!watcher.writer) user_watchers_[static_cast<size_t>(fd)].reset();
  return had;
}

bool EventLoop::RemoveWriter(int fd) {
  if (IsClosed() || fd < 0) return false;
  CallbackWatcher& watcher = UserWatcher(fd);
  const bool had = std::exchange(watcher.writer, nullptr) != nullptr;
  watcher.Rewatch();
  if (!watcher.reader) user_watchers_[static_cast<size_t>(fd)].reset();
  return had;
}

// ---------------------------------------------------------------------------------------------------- signals

absl::Status EventLoop::SetSignalHandler(int signo, absl::AnyInvocable<void()> handler) {
  CheckUsableSlow("AddSignalHandler");
  auto shared = std::make_shared<absl::AnyInvocable<void()>>(std::move(handler));
  for (SignalHandler& known : signal_handlers_) {
    if (known.signo == signo) {
      known.context = Context::Current();
      known.handler = std::move(shared);
      return absl::OkStatus();
    }
  }
  const int result = os_.WatchSignal(signo, *poller_);
  if (result == -EPERM) throw InvalidState(absl::StrCat("sig ", signo, " cannot be caught"));
  if (result != 0) {
    return absl::InvalidArgumentError(absl::StrCat("sig ", signo, " cannot be watched: ", std::strerror(-result)));
  }
  signal_handlers_.push_back({signo, Context::Current(), std::move(shared)});
  return absl::OkStatus();
}

bool EventLoop::RemoveSignalHandler(int signo) {
  for (auto it = signal_handlers_.begin(); it != signal_handlers_.end(); ++it) {
    if (it->signo != signo) continue;
    signal_handlers_.erase(it);
    os_.UnwatchSignal(signo, *poller_);
    return true;
  }
  return false;
}

void EventLoop::TakeSignals() {
  const uint64_t delivered = os_.TakeSignals(*poller_);
  if (delivered == 0) return;
  for (const SignalHandler& known : signal_handlers_) {
    if ((delivered >> known.signo & 1) == 0) continue;
    Post([this, signo = known.signo] {
      // Looked up again: it may have been replaced or removed since (C-SIG-05).
      for (const SignalHandler& now : signal_handlers_) {
        if (now.signo != signo) continue;
        const auto handler = now.handler;
        Context context = now.context;
        ContextScope scope(context);
        return (*handler)();
      }
    });
  }
}

// ---------------------------------------------------------------------------------------------------- tasks

void EventLoop::SetTaskFactory(TaskFactory factory) {
  task_factory_ = factory ? std::make_shared<TaskFactory>(std::move(factory)) : nullptr;
}

void EventLoop::CallTaskFactory(NewTask& task) {
  const std::shared_ptr<TaskFactory> factory = task_factory_;
  (*factory)(*this, task);
}

// ---------------------------------------------------------------------------------------------------- errors

void EventLoop::SetExceptionHandler(ExceptionHandler handler) {
  exception_handler_ = handler ? std::make_shared<ExceptionHandler>(std::move(handler)) : nullptr;
}

void EventLoop::DefaultExceptionHandler(const ExceptionContext& context) {
  std::string text = context.ToString();
  // What was running, if the context does not know better where it comes from (C-EXC-08).
  if (current_ != nullptr && context.source_traceback.empty()) absl::StrAppend(&text, "\nwhile running: ", *current_);
  LOG(ERROR) << text;
}

void EventLoop::CallExceptionHandler(const ExceptionContext& context) {
  const std::shared_ptr<ExceptionHandler> handler = exception_handler_;
  if (handler == nullptr) return DefaultExceptionHandler(context);
  try {
    (*handler)(*this, context);
  } catch (const Fatal&) {
    throw;
  } catch (...) {  // reports to the default exception handler
    ExceptionContext broken;
    broken.message = "Unhandled error in exception handler";
    broken.exception = std::current_exception();
    broken.Add("context", std::string(Truncated(context.ToString())));
    DefaultExceptionHandler(broken);
  }
}

void EventLoop::CallExceptionHandlerLater(const ExceptionContext& context) noexcept {
  try {
    CallExceptionHandler(context);
  } catch (const Fatal& fatal) {
    if (IsClosed()) {
      LOG(ERROR) << "thrown by the exception handler of a closed loop: Fatal: " << fatal.message();
    } else {
      Post([fatal] { throw fatal; });
    }
  }
}

void EventLoop::ReportCurrentException(ExceptionContext context) {
  context.exception = std::current_exception();
  try {
    throw;
  } catch (const Fatal&) {
    throw;
  } catch (const StatusError& error) {
    context.status = error.status();
    context.exception = nullptr;
  } catch (...) {  // reports to the exception handler
  }
  CallExceptionHandler(context);
}

// ---------------------------------------------------------------------------------------------------- extensions

internal::LoopLocal* EventLoop::FindLocal(const void* key) const {
  for (const OwnedLocal& known : locals_) {
    if (known.key == key) return known.local.get();
  }
  return nullptr;
}

WorkerPool& EventLoop::executor() {
  CheckUsableSlow("executor");
  if (!executor_) executor_ = os_.NewWorkerPool(options_.executor_threads_max, "executor");
  return *executor_;
}

WorkerPool& EventLoop::resolver() {
  CheckUsableSlow("resolver");
  if (!resolver_) resolver_ = os_.NewWorkerPool(1, "resolver");
  return *resolver_;
}

}  // namespace troupe
