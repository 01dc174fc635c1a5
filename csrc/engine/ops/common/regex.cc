#include "engine/ops/common/regex.h"

#include <iterator>
#include <limits>

#include "engine/ops/common/characters.h"

namespace inferkit {
namespace {

bool is_word(uint32_t code) {
  return (code >= '0' && code <= '9') || (code >= 'A' && code <= 'Z') || (code >= 'a' && code <= 'z') || code == '_';
}

}  // namespace

bool Regex::CharClass::holds(uint32_t code) const {
  if (code < 128) return (ascii[code / 64] >> (code % 64)) & 1;
  for (const Range& range : ranges) {
    if (code <= range.last) return code >= range.first;
  }
  return false;
}

struct Regex::Place {
  static constexpr uint32_t kNothing = std::numeric_limits<uint32_t>::max();
  uint32_t before = kNothing, after = kNothing;

  bool holds(Assertion assertion) const {
    const bool boundary = (before != kNothing && is_word(before)) != (after != kNothing && is_word(after));
    switch (assertion) {
      case Assertion::kBeginText:
        return before == kNothing;
      case Assertion::kEndText:
        return after == kNothing;
      case Assertion::kBeginLine:
        return before == kNothing || before == '\n';
      case Assertion::kEndLine:
        return after == kNothing || after == '\n';
      case Assertion::kWordBoundary:
        return boundary;
      case Assertion::kNoWordBoundary:
        return !boundary;
    }
    return false;
  }
};

/// Adds what can be reached from instruction `at` without a character to work.next, but for what is there already.
void Regex::follow(Workspace& work, uint32_t at, size_t begin, const Place& place) const {
  work.stack.assign(1, at);
  while (!work.stack.empty()) {
    at = work.stack.back();
    work.stack.pop_back();
    if (work.seen[at] == work.round) continue;
    work.seen[at] = work.round;
    const Instruction& i = program_[at];
    switch (i.op) {
      case Op::kSplit:
        work.stack.push_back(i.other);
        work.stack.push_back(i.to);
        break;
      case Op::kJump:
        work.stack.push_back(i.to);
        break;
      case Op::kAssert:
        if (place.holds(i.assertion)) work.stack.push_back(at + 1);
        break;
      case Op::kClass:
      case Op::kMatch:
        work.next.push_back({at, begin});
    }
  }
}

/// From work.now, over one character, to work.next.
void Regex::advance(Workspace& work, uint32_t code, size_t most_begin, const Place& next) const {
  work.next.clear();
  work.begin_round(program_.size());
  for (const Workspace::Thread& thread : work.now) {
    if (thread.begin > most_begin) break;  // they are in the order of their beginnings
    const Instruction& i = program_[thread.at];
    if (i.op == Op::kClass && classes_[i.to].holds(code)) follow(work, thread.at + 1, thread.begin, next);
  }
}

/// A place that goes through the text.
struct Regex::Scan : Place {
  Scan(std::string_view text_, size_t from) : text(text_), at(from), behind(from) {
    if (from > 0) before = character_before(text, from);
    look();
  }
  bool at_end() const { return at == text.size(); }
  /// On to the next character; the one that it went over.
  uint32_t step() {
    before = after;
    at = behind;
    look();
    return before;
  }

  const std::string_view text;
  size_t at;

 private:
  void look() { after = at_end() ? kNothing : take_character(text, behind); }
  size_t behind;  // the character after `at`
};

constexpr int64_t kStepNanos = 5;  // of one way to match over one character

bool Regex::full_match(std::string_view text, Workspace& work) const {
  Scan scan(text, 0);
  work.next.clear();
  work.begin_round(program_.size());
  follow(work, 0, 0, scan);
  while (!scan.at_end()) {
    if (work.next.empty()) return false;
    work.meter.spend(kStepNanos * (1 + std::ssize(work.next)));
    std::swap(work.now, work.next);
    const uint32_t code = scan.step();
    advance(work, code, 0, scan);
  }
  for (const Workspace::Thread& thread : work.next) {
    if (program_[thread.at].op == Op::kMatch) return true;
  }
  return false;
}

std::optional<Regex::Match> Regex::search(std::string_view text, size_t from, Workspace& work, int64_t& steps) const {
  std::optional<Match> best;
  Scan scan(text, from);
  work.next.clear();
  work.begin_round(program_.size());
  for (;;) {
    if (!best) follow(work, 0, scan.at, scan);  // behind those that began before
    const int64_t taken = 1 + std::ssize(work.next);
    steps -= taken;
    if (steps < 0) return std::nullopt;
    work.meter.spend(kStepNanos * taken);
    for (const Workspace::Thread& thread : work.next) {
      if (best && thread.begin > best->begin) break;
      if (program_[thread.at].op == Op::kMatch) best = {thread.begin, scan.at};
    }
    if (scan.at_end() || (best && work.next.empty())) return best;
    std::swap(work.now, work.next);
    const uint32_t code = scan.step();
    advance(work, code, best ? best->begin : std::numeric_limits<size_t>::max(), scan);
  }
}

}  // namespace inferkit
