// com.microsoft.Tokenizer's rules: how text is cut into tokens.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "engine/ops/common/regex.h"
#include "graph/op_schema.h"

namespace inferkit {

/// A pattern among a node's attributes. Refuses what RE2 does not know, and what inferkit does not.
Regex read_regex(const NodeContext& c, std::string_view pattern);

/// Immutable.
class Tokenizer {
 public:
  /// As the attributes say; fails where they contradict each other.
  explicit Tokenizer(const NodeContext& c);

  class Workspace {
    friend class Tokenizer;
    Regex::Workspace regex;
    std::vector<std::string_view> pieces, cut;
  };

  /// Appends the tokens of `text`, views of it, to `out`. Throws Error(kInference) where the patterns take too long: to
  /// find the longest of all matches may mean to look at the rest of the text again for each.
  void read(std::string_view text, Workspace& work, std::vector<std::string_view>& out) const;
  /// Whether a mark stands before and behind the tokens of each text.
  bool marks() const { return mark_; }
  std::string_view padding() const { return padding_; }

 private:
  void read_matches(std::string_view text, Workspace& work, std::vector<std::string_view>& out) const;
  void read_between(std::string_view text, Workspace& work, std::vector<std::string_view>& out) const;
  void add(std::string_view token, std::vector<std::string_view>& out) const;

  bool mark_ = false, characters_ = false;
  int64_t least_ = 1;  // characters of a token
  std::string padding_;
  std::vector<Regex> tokens_;  // one, where tokens are what matches
  std::vector<Regex> separators_;
};

inline constexpr std::string_view kBeginMark = "\x02", kEndMark = "\x03";

}  // namespace inferkit
