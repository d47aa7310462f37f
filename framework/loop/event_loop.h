// EventLoop: runs callbacks, timers, descriptor events and tasks of one thread, as asyncio's loop does.
//
// Make one per thread, usually through troupe::Run (async/run.h), and schedule everything on it. Nothing on a loop
// needs a lock: its callbacks never run at the same time. The contract's rules C-LOOP, C-HND, C-EXC and C-DBG name what
// it promises.
//
// Life:      made -> (CallSoon | CreateTask | ...)* -> RunForever or RunUntilComplete, any number of times -> Close
// An iteration: poll until the nearest timer, turn readiness into ready callbacks, move due timers to ready, run
//            exactly the callbacks that were ready at that point. What they schedule runs in the next iteration. Unless
//            `strict_polling` is set, up to 16 iterations or 20 us share one poll while callbacks are ready; they
//            differ from others by nothing else.
// Threading: the thread that runs it. CallSoonThreadsafe and Stop through it are the only entries from elsewhere; debug
//            mode checks.
// Lifetime:  outlives everything made on it. The Os outlives the loop. Destroying an open loop closes it, with a
//            warning, and waits for functions that still run in its executor.
// Errors:    misuse throws InvalidState. What callbacks throw reaches the exception handler; Fatal leaves Run*.
#ifndef TROUPE_LOOP_EVENT_LOOP_H_
#define TROUPE_LOOP_EVENT_LOOP_H_

#include <array>
#include <atomic>
#include <concepts>
#include <memory>
#include <source_location>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "troupe/base/errors.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/loop/context.h"
#include "troupe/loop/exception_context.h"
#include "troupe/loop/fd_watcher.h"
#include "troupe/loop/handle.h"
#include "troupe/loop/internal/loop_local.h"
#include "troupe/loop/internal/task_node.h"
#include "troupe/loop/runnable.h"
#include "troupe/loop/timer_heap.h"
#include "troupe/os/os.h"

namespace troupe {

template <class T>
class Future;
template <class T>
class Task;
template <class T>
class TaskHandle;

namespace internal {
template <class A>
inline constexpr bool kIsTask = false;
template <class T>
inline constexpr bool kIsTask<Task<T>> = true;
}  // namespace internal

// What can be scheduled: called without arguments, and no coroutine, whose task nobody would run (C-DBG-02). Those go to
// CreateTask.
template <class F>
concept LoopCallback = std::invocable<std::decay_t<F>&> && !internal::kIsTask<std::invoke_result_t<std::decay_t<F>&>>;

// What is about to become a task, as a task factory sees it.
struct NewTask {
  std::string name;
  Context context;
  std::source_location where;
};

struct EventLoopOptions {
  // Poll before every batch, as asyncio does, instead of letting batches share a poll (160 ns each).
  bool strict_polling = false;
  // Of RunInExecutor and Blocking; started one by one when needed.
  int executor_threads_max = 32;
  // In debug mode a callback or task step that takes this long is logged (C-DBG-03).
  absl::Duration slow_callback_duration = absl::Milliseconds(100);
};

class EventLoop {
 public:
  using ExceptionHandler = absl::AnyInvocable<void(EventLoop&, const ExceptionContext&)>;
  using TaskFactory = absl::AnyInvocable<void(EventLoop&, NewTask&)>;

  explicit EventLoop(Os& os, EventLoopOptions options = {});
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  ~EventLoop();

  // The loop that runs in this thread. Current() throws InvalidState "no running event loop".
  static EventLoop& Current();
  static EventLoop* CurrentOrNull() { return internal::thread_state.loop; }

  // ---- scheduling. F is called once, without arguments, in the context of the caller. First scheduled, first run.
  template <LoopCallback F>
  Handle CallSoon(F&& f, std::source_location where = std::source_location::current()) {
    auto& node = *NewSoon("CallSoon", std::forward<F>(f), Context::Current(), where);
    Handle handle(node);
    Schedule(node);
    return handle;
  }
  // In a context of one's own choice.
  template <LoopCallback F>
  Handle CallSoonIn(Context context, F&& f, std::source_location where = std::source_location::current()) {
    auto& node = *NewSoon("CallSoonIn", std::forward<F>(f), std::move(context), where);
    Handle handle(node);
    Schedule(node);
    return handle;
  }
  // CallSoon without a handle: the cheapest form.
  template <LoopCallback F>
  void Post(F&& f, std::source_location where = std::source_location::current()) {
    Schedule(*NewSoon("Post", std::forward<F>(f), Context::Current(), where));
  }
  // Not before `delay` has passed; a negative delay is due at once and still orders the timer (C-LOOP-08).
  template <LoopCallback F>
  TimerHandle CallLater(absl::Duration delay, F&& f, std::source_location where = std::source_location::current()) {
    CheckUsable("CallLater");
    return CallAt(Time() + delay, std::forward<F>(f), where);
  }
  template <LoopCallback F>
  TimerHandle CallAt(MonotonicTime when, F&& f, std::source_location where = std::source_location::current()) {
    CheckUsable("CallAt");
    auto* node =
        new internal::CallbackNode<Timer, std::decay_t<F>>(*this, Context::Current(), where, false, std::forward<F>(f));
    TimerHandle handle(*node, when);
    ScheduleAt(*node, when);
    return handle;
  }
  // From any thread; wakes the loop. Runs `f` on the loop's thread, in the caller's context. Throws InvalidState when
  // the loop is closed; the caller sees to it that the loop still exists.
  template <LoopCallback F>
  Handle CallSoonThreadsafe(F&& f, std::source_location where = std::source_location::current()) {
    auto* node = new internal::CallbackNode<Runnable, std::decay_t<F>>(*this, Context::Current(), where, true,
                                                                       std::forward<F>(f));
    Handle handle(*node);
    if (!ScheduleThreadsafe(*node, /*even_if_closed=*/false)) {
      node->Drop();
      throw InvalidState("Event loop is closed");
    }
    return handle;
  }
  // Deletes `object` in the next iteration, when nothing of this one can still be using it.
  template <class T>
  void DeleteLater(std::unique_ptr<T> object) {
    if (object != nullptr && !IsClosed()) Post(Deleter<T>{std::move(object)});
  }

  // ---- running. Throws InvalidState when closed, or when this or another loop runs in the thread (C-LOOP-17, -18).
  void RunForever();
  // Runs until the task or future is done and gives its result; a status where the type is one, else what it failed
  // with is thrown. Defined in troupe/async/task.h.
  template <class T>
  T RunUntilComplete(Task<T> task);
  template <class T>
  T RunUntilComplete(Future<T> future);
  // Lets the running batch complete and then leaves RunForever; before RunForever: exactly one iteration (C-LOOP-14).
  void Stop() { stopping_ = true; }
  // Drops what is queued, destroys tasks that are left (each is reported), shuts down executor and poller. Idempotent.
  // Does not wait for functions that RunInExecutor started; the destructor does (C-LOOP-26).
  void Close();
  bool IsRunning() const { return running_.load(std::memory_order_relaxed); }
  bool IsClosed() const { return closed_.load(std::memory_order_acquire); }
  MonotonicTime Time() { return os_.Now(); }

  // ---- tasks. Schedules the first step; the loop keeps the task alive until it is done.
  template <class T>
  TaskHandle<T> CreateTask(Task<T> task, absl::string_view name = "",
                           std::source_location where = std::source_location::current());
  // `factory` is called for every task before it is made, those of TaskGroup, Gather and the like too: it may name it,
  // change its context, count it, or refuse it by throwing, which leaves CreateTask. Null restores the built-in way.
  void SetTaskFactory(TaskFactory factory);
  bool has_task_factory() const { return task_factory_ != nullptr; }

  // ---- descriptors. Replaces an earlier reader (writer) of `fd`. InvalidState when a transport owns it (C-TRN-14).
  // Returns 0, or -errno of the poller. Removing tells whether there was one.
  template <LoopCallback F>
  int AddReader(int fd, F&& callback) {
    return SetReader(fd, absl::AnyInvocable<void()>(std::forward<F>(callback)));
  }
  template <LoopCallback F>
  int AddWriter(int fd, F&& callback) {
    return SetWriter(fd, absl::AnyInvocable<void()>(std::forward<F>(callback)));
  }
  bool RemoveReader(int fd);
  bool RemoveWriter(int fd);

  // ---- signals. The handler runs as an ordinary callback of the loop, never in signal context (C-SIG-02). Adding
  // again replaces; removing restores the former action. INVALID_ARGUMENT: no such signal, or another loop has it;
  // InvalidState: it cannot be caught.
  template <LoopCallback F>
  absl::Status AddSignalHandler(int signo, F&& handler) {
    return SetSignalHandler(signo, absl::AnyInvocable<void()>(std::forward<F>(handler)));
  }
  bool RemoveSignalHandler(int signo);

  // ---- errors. `handler` null restores the default one, which logs.
  void SetExceptionHandler(ExceptionHandler handler);
  bool has_exception_handler() const { return exception_handler_ != nullptr; }
  void CallExceptionHandler(const ExceptionContext& context);
  void DefaultExceptionHandler(const ExceptionContext& context);
  // For destructors: a Fatal that the handler throws leaves the loop in its next iteration.
  void CallExceptionHandlerLater(const ExceptionContext& context) noexcept;
  // For boundaries: rethrows Fatal, else reports `context` with the exception being handled. In a catch block.
  void ReportCurrentException(ExceptionContext context);

  // ---- debug mode (TROUPE_DEBUG=1, or here, at any time).
  void SetDebug(bool debug);
  bool debug() const { return debug_; }
  // From how long on a callback counts as slow (C-DBG-03).
  void SetSlowCallbackDuration(absl::Duration duration) { slow_callback_duration_ = duration; }
  absl::Duration slow_callback_duration() const { return slow_callback_duration_; }

  // ---- what the framework builds on.
  Os& os() { return os_; }
  Poller& poller() { return *poller_; }
  WorkerPool& executor();  // made on first use
  WorkerPool& resolver();  // one thread of its own, so that a busy executor does not stop DNS
  // Queues a Runnable behind what is ready. REQUIRES: not linked.
  void Schedule(Runnable& runnable) {
    CheckUsable("Schedule");
    ready_.PushBack(runnable);
  }
  void Schedule(Timer&) = delete;  // ScheduleAt
  // From any thread. The loop's thread calls Run(), or Drop() when the loop is closed, at the latest in its destructor.
  void ScheduleFromThread(Runnable& runnable);
  // Takes back what ScheduleFromThread was given, wherever it stands. On the loop's thread; no effect once it has run.
  void CancelFromThread(Runnable& runnable);
  // REQUIRES: not scheduled.
  void ScheduleAt(Timer& timer, MonotonicTime when) {
    CheckUsable("ScheduleAt");
    timers_.Add(timer, when);
  }
  // Takes it out wherever it stands.
  void Cancel(Timer& timer) {
    timers_.Remove(timer);
    timer.Unlink();
  }
  // Runs once, when the current batch ends (or the next one, if none runs): sessions send there what a batch produced.
  void AfterBatch(Runnable& runnable) {
    CheckUsable("AfterBatch");
    after_batch_.PushBack(runnable);
  }
  // This loop's own T, made on first use: see internal/loop_local.h.
  template <class T>
  T& Local() {
    if (internal::LoopLocal* known = FindLocal(&internal::kLoopLocalKey<T>)) return static_cast<T&>(*known);
    CheckUsableSlow("Local");
    auto made = std::make_unique<T>(*this);
    T& local = *made;
    locals_.push_back({&internal::kLoopLocalKey<T>, std::move(made)});
    return local;
  }
  // Null if nothing has made it yet.
  template <class T>
  T* LocalOrNull() {
    return static_cast<T*>(FindLocal(&internal::kLoopLocalKey<T>));
  }
  // Tasks that are not done, in order of creation.
  IntrusiveList<internal::TaskNode>& tasks() { return tasks_; }
  // Throws InvalidState when the loop is closed, and in debug mode on the wrong thread, which names what was `called`.
  void CheckUsable(const char* called) const {
    if (checked_) [[unlikely]]
      CheckUsableSlow(called);
  }
  // REQUIRES: has_task_factory().
  void CallTaskFactory(NewTask& task);
  // True when something queued is waiting to run.
  bool HasReady() const { return !ready_.empty() || !after_batch_.empty(); }
  // One iteration that does not wait; says whether anything ran. For drivers of several loops in one thread.
  // REQUIRES: no loop runs in the thread.
  bool RunOnceWithoutWaiting();
  // When it next has something to run by itself: now, a timer's time, or never (then only its Os can wake it).
  MonotonicTime NextWakeup();

 private:
  friend class FdWatcher;
  friend class internal::Callback;
  class CallbackWatcher;
  class RunScope;

  template <class T>
  struct Deleter {
    std::unique_ptr<T> object;
    void operator()() { object.reset(); }
  };

  template <class F>
  auto* NewSoon(const char* called, F&& f, Context context, std::source_location where) {
    CheckUsable(called);
    return new internal::CallbackNode<Runnable, std::decay_t<F>>(*this, std::move(context), where, false,
                                                                 std::forward<F>(f));
  }
  void CheckUsableSlow(const char* called) const;

  int SetReader(int fd, absl::AnyInvocable<void()> callback);
  int SetWriter(int fd, absl::AnyInvocable<void()> callback);
  absl::Status SetSignalHandler(int signo, absl::AnyInvocable<void()> handler);

  // False: the loop is closed, and the runnable was not taken.
  bool ScheduleThreadsafe(Runnable& runnable, bool even_if_closed);
  internal::LoopLocal* FindLocal(const void* key) const;
  // Moves what other threads posted to ready.
  void TakeInbox();
  // From here on who posts wakes the poller. False: somebody has posted.
  bool AnnounceWaiting();
  // Says whether anything ran.
  bool RunIteration(bool wait);
  // Moves what is due to ready; `now` is sampled once for the whole pass (C-LOOP-07).
  void TakeTimers(MonotonicTime now) {
    while (!timers_.empty() && timers_.next() <= now) ready_.PushBack(timers_.PopFront());
  }
  void RunBatch();
  void RunQueued();
  void RunDebug(Runnable& runnable);
  void TakeSignals();
  // `watchers_` knows who has a descriptor, from its construction to its release.
  void ClaimDescriptor(FdWatcher& watcher);
  void ReleaseDescriptor(FdWatcher& watcher);
  int SetWatch(FdWatcher& watcher, uint32_t before, uint32_t now);
  CallbackWatcher& UserWatcher(int fd);
  [[noreturn]] void ThrowStalled();

  Os& os_;
  const EventLoopOptions options_;
  absl::Duration slow_callback_duration_;
  std::unique_ptr<Poller> poller_;

  RunQueue ready_;
  RunQueue batch_;  // what the current iteration runs
  RunQueue after_batch_;
  TimerHeap timers_;
  // Atomic for the sake of calls from the wrong thread, which debug mode refuses.
  std::atomic<bool> running_ = false;
  std::atomic<std::thread::id> thread_;  // of RunForever
  bool stopping_ = false;
  bool debug_ = false;
  bool checked_ = false;  // debug_ or closed: CheckUsable has something to look at
  std::atomic<bool> closed_ = false;
  const std::string* current_ = nullptr;  // in debug mode: what runs

  struct Inbox;  // what other threads posted
  std::unique_ptr<Inbox> inbox_;

  std::vector<PollEvent> events_;
  std::vector<FdWatcher*> watchers_;  // by descriptor
  std::vector<std::unique_ptr<CallbackWatcher>> user_watchers_;

  struct SignalHandler {
    int signo;
    Context context;
    std::shared_ptr<absl::AnyInvocable<void()>> handler;  // shared with the queued call
  };
  std::vector<SignalHandler> signal_handlers_;

  std::shared_ptr<ExceptionHandler> exception_handler_;  // shared with the call in progress, which may replace it
  std::shared_ptr<TaskFactory> task_factory_;            // as above
  IntrusiveList<internal::TaskNode> tasks_;
  struct OwnedLocal {
    const void* key;
    std::unique_ptr<internal::LoopLocal> local;
  };
  std::vector<OwnedLocal> locals_;  // few: searched in order
  std::unique_ptr<WorkerPool> executor_;
  std::unique_ptr<WorkerPool> resolver_;
};

namespace internal {

template <class Base, class F>
void CallbackNode<Base, F>::Unschedule() {
  if constexpr (std::is_same_v<Base, Timer>) {
    loop_.Cancel(*this);
  } else {
    this->Unlink();
  }
}

}  // namespace internal
}  // namespace troupe

#endif  // TROUPE_LOOP_EVENT_LOOP_H_
