#include "tools/protoc_gen_troupe/session_order.h"

#include <algorithm>
#include <bitset>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "troupe/base/status_macros.h"

namespace troupe::generator {
namespace {

// Of places in the text where a method stands.
using Places = std::bitset<kSessionOrderStepsMax>;

// Sets of places that are followed before the text is given up: it may mean few states all the same, but finding them
// would take too long.
constexpr size_t kSetsMax = 4096;

template <class Words, class Word>
bool Contains(const Words& words, const Word& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool IsNameCharacter(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool IsRepetition(char c) { return c == '*' || c == '+' || c == '?'; }

// Reads the text into the sets of Glushkov's construction: where a sequence may begin and end, and which place may
// follow which.
class OrderParser {
 public:
  struct Part {
    Places first;
    Places last;
    bool may_be_empty = false;
  };

  OrderParser(absl::string_view text, absl::Span<const std::string> methods) : text_(text), methods_(methods) {}

  absl::Status Parse() {
    RETURN_IF_ERROR(Alternative(0, whole_));
    if (Peek() == ')') return Error("\")\" without \"(\"");
    return absl::OkStatus();
  }

  const Part& whole() const { return whole_; }
  // By place: its method, and the places that may follow it.
  const std::vector<size_t>& method_at() const { return method_at_; }
  const std::vector<Places>& follow() const { return follow_; }

 private:
  absl::Status Alternative(int depth, Part& part) {
    RETURN_IF_ERROR(Sequence(depth, part));
    while (Peek() == '|') {
      ++position_;
      Part other;
      RETURN_IF_ERROR(Sequence(depth, other));
      part.first |= other.first;
      part.last |= other.last;
      part.may_be_empty |= other.may_be_empty;
    }
    return absl::OkStatus();
  }

  absl::Status Sequence(int depth, Part& part) {
    RETURN_IF_ERROR(Repetition(depth, part));
    while (Peek() != '\0' && Peek() != '|' && Peek() != ')') {
      Part next;
      RETURN_IF_ERROR(Repetition(depth, next));
      Follow(part.last, next.first);
      if (part.may_be_empty) part.first |= next.first;
      part.last = next.may_be_empty ? part.last | next.last : next.last;
      part.may_be_empty &= next.may_be_empty;
    }
    return absl::OkStatus();
  }

  absl::Status Repetition(int depth, Part& part) {
    if (Peek() == '(') {
      if (depth == kSessionOrderDepthMax) return Error(absl::StrCat("more than ", depth, " nested parentheses"));
      ++position_;
      RETURN_IF_ERROR(Alternative(depth + 1, part));
      if (Peek() != ')') return Error("\")\" expected");
      ++position_;
    } else {
      RETURN_IF_ERROR(Method(part));
    }
    const char c = Peek();
    if (!IsRepetition(c)) return absl::OkStatus();
    ++position_;
    if (IsRepetition(Peek())) {
      return Error(
          absl::StrCat("what stands before it is repeated already, by \"", std::string(1, c), "\"; keep one of them"));
    }
    if (c != '?') Follow(part.last, part.first);
    part.may_be_empty |= c != '+';
    return absl::OkStatus();
  }

  absl::Status Method(Part& part) {
    if (!IsNameCharacter(Peek())) return Error("a method or \"(\" expected");
    const size_t start = position_;
    while (position_ < text_.size() && IsNameCharacter(text_[position_])) ++position_;
    const absl::string_view name = text_.substr(start, position_ - start);
    const auto found = std::find(methods_.begin(), methods_.end(), name);
    if (found == methods_.end() || method_at_.size() == kSessionOrderStepsMax) {
      position_ = start;
      if (found == methods_.end()) return Error(absl::StrCat("the service has no method ", name));
      return Error(absl::StrCat("more than ", kSessionOrderStepsMax, " methods in one order"));
    }
    part.first.set(method_at_.size());
    part.last = part.first;
    method_at_.push_back(static_cast<size_t>(found - methods_.begin()));
    follow_.emplace_back();
    return absl::OkStatus();
  }

  void Follow(const Places& before, const Places& after) {
    for (size_t i = 0; i < follow_.size(); ++i) {
      if (before[i]) follow_[i] |= after;
    }
  }

  // The next character that is not a blank; 0 at the end.
  char Peek() {
    while (position_ < text_.size() && absl::ascii_isspace(static_cast<unsigned char>(text_[position_]))) ++position_;
    return position_ < text_.size() ? text_[position_] : '\0';
  }

  absl::Status Error(absl::string_view what) {
    const absl::string_view rest = text_.substr(position_);
    return absl::InvalidArgumentError(
        absl::StrCat("session order, ", rest.empty() ? "at its end" : absl::StrCat("at \"", rest, "\""), ": ", what));
  }

  absl::string_view text_;
  absl::Span<const std::string> methods_;
  size_t position_ = 0;
  Part whole_;
  std::vector<size_t> method_at_;
  std::vector<Places> follow_;
};

absl::Status CheckAnytime(absl::Span<const std::string> anytime, absl::Span<const std::string> methods,
                          const std::vector<std::string>& steps) {
  for (size_t i = 0; i < anytime.size(); ++i) {
    const std::string& name = anytime[i];
    if (!Contains(methods, name)) {
      return absl::InvalidArgumentError(absl::StrCat("session anytime: the service has no method ", name));
    }
    if (Contains(anytime.first(i), name)) {
      return absl::InvalidArgumentError(absl::StrCat("session anytime: ", name, " stands there twice"));
    }
    if (Contains(steps, name)) {
      return absl::InvalidArgumentError(absl::StrCat("session anytime: ", name, " stands in the order too"));
    }
  }
  for (const std::string& name : methods) {
    if (!Contains(steps, name) && !Contains(anytime, name)) {
      return absl::InvalidArgumentError(absl::StrCat("session order: ", name,
                                                     " could never be called: it stands neither in the order nor "
                                                     "in anytime"));
    }
  }
  return absl::OkStatus();
}

// Each state is the set of places at which the session may stand.
absl::StatusOr<SessionAutomaton> Determinize(const OrderParser& parser, const std::vector<size_t>& step_of_method) {
  SessionAutomaton automaton;
  const size_t steps = *std::max_element(step_of_method.begin(), step_of_method.end()) + 1;
  std::map<std::string, int> known;  // sets as text: a bitset has no order
  std::vector<Places> sets;
  const auto state_of = [&](const Places& set, bool accepting) {
    const auto [at, inserted] = known.emplace(set.to_string(), static_cast<int>(sets.size()));
    if (inserted) {
      sets.push_back(set);
      automaton.accepting.push_back(accepting);
    }
    return at->second;
  };
  // The beginning is at no place.
  state_of(Places(), parser.whole().may_be_empty);
  for (size_t state = 0; state < sets.size(); ++state) {
    if (sets.size() > kSetsMax) {
      return absl::InvalidArgumentError(absl::StrCat("session order: it has too many states to be compiled; at most ",
                                                     kSessionOrderStatesMax, " can be had: write it shorter"));
    }
    Places possible = state == 0 ? parser.whole().first : Places();
    for (size_t place = 0; place < parser.follow().size(); ++place) {
      if (sets[state][place]) possible |= parser.follow()[place];
    }
    std::vector<Places> by_step(steps);
    for (size_t place = 0; place < parser.method_at().size(); ++place) {
      if (possible[place]) by_step[step_of_method[parser.method_at()[place]]].set(place);
    }
    std::vector<int> next(steps, SessionAutomaton::kNotAllowed);
    for (size_t step = 0; step < steps; ++step) {
      if (by_step[step].any()) next[step] = state_of(by_step[step], (by_step[step] & parser.whole().last).any());
    }
    automaton.next.push_back(std::move(next));
  }
  return automaton;
}

// States that no sequence tells apart become one (Moore), and the rest is numbered as it is reached.
SessionAutomaton Minimize(const SessionAutomaton& large) {
  const size_t states = large.next.size();
  std::vector<int> block(large.accepting.begin(), large.accepting.end());
  for (size_t blocks = 0;;) {
    std::map<std::vector<int>, int> known;
    std::vector<int> refined(states);
    for (size_t state = 0; state < states; ++state) {
      std::vector<int> signature = {block[state]};
      for (const int next : large.next[state]) {
        signature.push_back(next == SessionAutomaton::kNotAllowed ? next : block[static_cast<size_t>(next)]);
      }
      refined[state] = known.emplace(std::move(signature), static_cast<int>(known.size())).first->second;
    }
    block = std::move(refined);
    if (known.size() == blocks) break;
    blocks = known.size();
  }
  SessionAutomaton small;
  std::map<int, int> number;           // of a block
  std::vector<size_t> representative;  // by number
  const auto number_of = [&](size_t state) {
    const auto [at, inserted] = number.emplace(block[state], static_cast<int>(representative.size()));
    if (inserted) representative.push_back(state);
    return at->second;
  };
  number_of(0);
  for (size_t i = 0; i < representative.size(); ++i) {
    const size_t state = representative[i];
    std::vector<int> next;
    for (const int to : large.next[state]) {
      next.push_back(to == SessionAutomaton::kNotAllowed ? to : number_of(static_cast<size_t>(to)));
    }
    small.next.push_back(std::move(next));
    small.accepting.push_back(large.accepting[state]);
  }
  return small;
}

}  // namespace

absl::StatusOr<SessionAutomaton> CompileSessionOrder(absl::string_view order, absl::Span<const std::string> anytime,
                                                     absl::Span<const std::string> methods) {
  if (absl::StripAsciiWhitespace(order).empty()) {
    if (anytime.empty()) return SessionAutomaton();
    return absl::InvalidArgumentError("session anytime: methods of any time without a session order");
  }
  OrderParser parser(order, methods);
  RETURN_IF_ERROR(parser.Parse());
  std::vector<std::string> steps;
  std::vector<size_t> step_of_method(methods.size());
  for (size_t i = 0; i < methods.size(); ++i) {
    if (!Contains(parser.method_at(), i)) continue;
    step_of_method[i] = steps.size();
    steps.push_back(methods[i]);
  }
  RETURN_IF_ERROR(CheckAnytime(anytime, methods, steps));
  absl::StatusOr<SessionAutomaton> large = Determinize(parser, step_of_method);
  if (!large.ok()) return large.status();
  SessionAutomaton small = Minimize(*large);
  if (small.next.size() > kSessionOrderStatesMax) {
    return absl::InvalidArgumentError(absl::StrCat("session order: it has ", small.next.size(), " states, and at most ",
                                                   kSessionOrderStatesMax, " can be had: write it shorter"));
  }
  small.steps = std::move(steps);
  return small;
}

}  // namespace troupe::generator
