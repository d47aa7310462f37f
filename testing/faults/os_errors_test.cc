// The table of errors against what it is a table of: the functions of os.h, and the names that the simulated Os gives to
// its calls. Both are read from their sources.
#include "troupe/os/os_errors.h"

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace troupe::testing {
namespace {

std::string Contents(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::set<std::string> Matches(const std::string& text, const std::regex& pattern) {
  std::set<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) found.insert((*it)[1]);
  return found;
}

std::set<std::string> Listed(bool with_errors_only) {
  std::set<std::string> calls;
  for (const OsCallErrors& row : AllOsErrors()) {
    if (!with_errors_only || !row.errors.empty()) calls.insert(std::string(row.call));
  }
  return calls;
}

TEST(OsErrorsTest, EachCallIsListedOnceAndEachOfItsErrorsOnce) {
  std::set<std::string> calls;
  for (const OsCallErrors& row : AllOsErrors()) {
    EXPECT_TRUE(calls.insert(std::string(row.call)).second) << row.call;
    std::set<int> errors;
    for (const int error : row.errors) {
      EXPECT_GT(error, 0);
      EXPECT_TRUE(errors.insert(error).second) << row.call << " " << error;
    }
  }
}

// Read from os.h. Those of WorkerPool: a thread is all that they need.
TEST(OsErrorsTest, EveryFunctionOfTheSeamIsListed) {
  const std::string header = Contents("framework/os/os.h");
  const std::regex function("virtual [^~;]*?(\\w+)\\(");
  const auto section = [&](const std::string& from, const std::string& to) {
    const size_t begin = header.find(from);
    EXPECT_NE(begin, std::string::npos) << from;
    return header.substr(begin, header.find(to, begin) - begin);
  };
  std::set<std::string> functions = {"StartThread"};
  for (const std::string& name : Matches(section("class Poller {", "\n};"), function))
    functions.insert("Poller." + name);
  for (const std::string& name : Matches(section("class Os {", "\n};"), function)) functions.insert(name);
  EXPECT_GT(functions.size(), 40u);
  EXPECT_THAT(Listed(/*with_errors_only=*/false), ::testing::ContainerEq(functions));
}

TEST(OsErrorsTest, TheSimulatedCallsThatCanFailAreThoseWithErrors) {
  std::set<std::string> begun;
  const std::regex begin("\\bBegin\\(\"([A-Za-z.]+)\"");
  for (const auto& file : std::filesystem::directory_iterator("testing/sim")) {
    begun.merge(Matches(Contents(file.path()), begin));
  }
  EXPECT_THAT(begun, ::testing::ContainerEq(Listed(/*with_errors_only=*/true)));
}

}  // namespace
}  // namespace troupe::testing
