#include "troupe/async/finally.h"

#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"

namespace troupe::internal {

void ReportReplacedError(const std::exception_ptr& error) {
  if (!error) return;
  try {
    std::rethrow_exception(error);
  } catch (const Cancelled&) {
    return;
  } catch (const GeneratorExit&) {
    return;
  } catch (const Fatal&) {
    throw;         // nobody swallows it: it goes before what the cleanup threw
  } catch (...) {  // goes to the exception handler below
  }
  ExceptionContext context;
  context.message = "An error was replaced by one of the cleanup in Finally";
  context.exception = error;
  EventLoop::Current().CallExceptionHandler(context);
}

}  // namespace troupe::internal
