#include "troupe/async/async_generator.h"

#include <glog/logging.h>

#include "absl/strings/str_cat.h"
#include "troupe/async/internal/generators.h"

namespace troupe::internal {

void GeneratorPromiseBase::Enter(PromiseBase& consumer, GeneratorAwaiter& awaiter) {
  if (running_) throw InvalidState("the asynchronous generator is already running");
  Root& root = *Root::Current();
  if (!std::exchange(started_, true)) root.loop().Local<Generators>().Add(*this);
  running_ = true;
  awaiter_ = &awaiter;
  parent = &consumer;
  root.Enter(*this);
}

void GeneratorPromiseBase::Destroy() {
  if (running_) {
    awaiter_->Adopt();
  } else {
    self.destroy();
  }
}

void GeneratorPromiseBase::Leave() noexcept {
  running_ = false;
  Root::Current()->Enter(*std::exchange(parent, nullptr));
}

Task<void> GeneratorPromiseBase::Close() {
  if (finished_) co_return;
  if (running_) throw InvalidState("the asynchronous generator is already running");
  if (!started_) {
    Finish();
    co_return;
  }
  closing_ = true;
  GeneratorAwaiter ended(*this);  // outlives the last look at this
  try {
    co_await ended;
  } catch (const GeneratorExit&) {
    co_return;
  }
  if (!finished_) throw InvalidState("the asynchronous generator ignored GeneratorExit");
}

void Generators::Add(GeneratorPromiseBase& generator) {
  LOG_IF(WARNING, shut_down_) << "an asynchronous generator was started after those of its loop were shut down";
  generators_.PushBack(generator);
}

Task<void> Generators::Shutdown() {
  shut_down_ = true;
  while (!generators_.empty()) {
    GeneratorPromiseBase& generator = generators_.PopFront();
    const std::string what = absl::StrCat("<asynchronous generator at ", generator.where.file_name(), ":",
                                          generator.where.line(), " ", generator.where.function_name(), ">");
    try {
      Task<void> close = generator.Close();
      co_await std::move(close);
    } catch (...) {  // reports to the exception handler, which passes Fatal on
      ExceptionContext context;
      context.message = absl::StrCat("an error occurred during closing of ", what);
      context.Add("asyncgen", what, &generator);
      loop_.ReportCurrentException(std::move(context));
    }
  }
}

}  // namespace troupe::internal
