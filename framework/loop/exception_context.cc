#include "troupe/loop/exception_context.h"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <typeinfo>

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"

namespace troupe {
namespace {

std::string TypeName(const std::type_info& type) {
  int failed = 0;
  std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(type.name(), nullptr, nullptr, &failed),
                                                   &std::free);
  return failed == 0 ? name.get() : type.name();
}

}  // namespace

absl::string_view ExceptionContext::Get(absl::string_view key) const {
  for (const Involved& entry : involved) {
    if (entry.key == key) return entry.what;
  }
  return "";
}

std::string ExceptionContext::ToString() const {
  std::string text = message.empty() ? "Unhandled exception in event loop" : message;
  std::vector<const Involved*> sorted;
  for (const Involved& entry : involved) sorted.push_back(&entry);
  // Equal keys in the order in which they were added: the pointers are into one vector.
  std::sort(sorted.begin(), sorted.end(),
            [](const Involved* a, const Involved* b) { return a->key != b->key ? a->key < b->key : a < b; });
  for (const Involved* entry : sorted) absl::StrAppend(&text, "\n", entry->key, ": ", entry->what);
  if (!source_traceback.empty()) absl::StrAppend(&text, "\ncreated at:\n", source_traceback);
  if (exception) absl::StrAppend(&text, "\nexception: ", DescribeException(exception));
  if (!status.ok()) absl::StrAppend(&text, "\nstatus: ", status.ToString());
  return text;
}

std::string DescribeException(const std::exception_ptr& exception) {
  if (!exception) return "none";
  try {
    std::rethrow_exception(exception);
  } catch (const Cancelled&) {
    return "troupe::Cancelled";
  } catch (const Fatal& fatal) {
    return absl::StrCat("troupe::Fatal: ", fatal.message());
  } catch (const std::exception& error) {
    return absl::StrCat(TypeName(typeid(error)), ": ", error.what());
  } catch (...) {  // describes, and its caller keeps the exception
    const std::type_info* type = abi::__cxa_current_exception_type();
    return type ? TypeName(*type) : "unknown exception";
  }
}

}  // namespace troupe
