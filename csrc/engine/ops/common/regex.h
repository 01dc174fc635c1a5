// Regular expressions in RE2's syntax, matched in time that grows with the text times the expression and no faster:
// all ways to match are followed at once. Of what RE2 knows, scripts that few texts are written in (\p{Runic}), \C and
// case folding beyond ASCII are not here.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "platform/run_control.h"

namespace inferkit {

/// Why a pattern is not compiled.
struct RegexError {
  std::string message;
  bool valid = false;  // RE2 would take it
};

/// Immutable. Text is well-formed UTF-8.
class Regex {
 public:
  /// Throws RegexError.
  explicit Regex(std::string_view pattern);

  struct Match {
    size_t begin = 0, end = 0;
  };
  /// Memory that matching uses; one thread's at a time. Of a run that may be stopped, matching throws Stopped.
  class Workspace;

  bool full_match(std::string_view text, Workspace& work) const;
  /// The leftmost match that begins at `from` or later, the longest of those. What stands before `from` is seen by
  /// anchors and word boundaries. `steps` is what it takes; empty, too, where it is used up.
  std::optional<Match> search(std::string_view text, size_t from, Workspace& work, int64_t& steps) const;

  size_t size() const { return program_.size(); }

 private:
  friend class RegexParser;
  struct Range {
    uint32_t first, last;
  };
  /// Characters, in ascending ranges.
  struct CharClass {
    std::array<uint64_t, 2> ascii{};
    std::vector<Range> ranges;
    bool holds(uint32_t code) const;
  };
  enum class Op : uint8_t { kClass, kSplit, kJump, kAssert, kMatch };
  enum class Assertion : uint8_t { kBeginText, kEndText, kBeginLine, kEndLine, kWordBoundary, kNoWordBoundary };
  struct Instruction {
    Op op;
    Assertion assertion = Assertion::kBeginText;
    uint32_t to = 0, other = 0;  // where it goes on (kClass: the next); `to` of kClass is the class
  };
  /// What stands around a place in the text.
  struct Place;
  struct Scan;

  void follow(Workspace& work, uint32_t at, size_t begin, const Place& place) const;
  void advance(Workspace& work, uint32_t code, size_t most_begin, const Place& next) const;

  std::vector<Instruction> program_;
  std::vector<CharClass> classes_;
};

class Regex::Workspace {
 private:
  friend class Regex;
  struct Thread {
    uint32_t at;
    size_t begin;
  };
  std::vector<Thread> now, next;
  std::vector<uint64_t> seen;  // by instruction: the round in which it was followed
  uint64_t round = 0;
  std::vector<uint32_t> stack;
  WorkMeter meter;

  void begin_round(size_t instructions) {
    if (seen.size() < instructions) seen.resize(instructions, 0);
    ++round;
  }
};

}  // namespace inferkit
