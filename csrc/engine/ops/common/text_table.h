// Strings among a node's attributes: lists that steps give out, tables that they look up.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/string_dtype.h"
#include "engine/compile/lower.h"

namespace inferkit {

/// Attributes that are strings of the model's data, and not names of modes: refused where they are not UTF-8.
std::vector<std::string> text_list(const NodeContext& c, std::string_view name);
std::string text_attr(const NodeContext& c, std::string_view name, std::string_view fallback);

/// Views of `values` as an operand, which the plan keeps.
Ref text_constant(LowerContext& c, std::span<const std::string> values);

/// The place that each of some strings has in a list.
class TextTable {
 public:
  /// Of equal keys the first or the last one counts.
  TextTable(std::vector<std::string> keys, bool last_wins);
  TextTable(TextTable&&) = default;
  TextTable(const TextTable&) = delete;

  /// -1 where it is none of them.
  int64_t find(std::string_view key) const {
    const auto at = places_.find(key);
    return at == places_.end() ? -1 : at->second;
  }
  size_t size() const { return keys_.size(); }

 private:
  std::vector<std::string> keys_;
  std::unordered_map<std::string_view, int64_t> places_;  // of views into keys_
};

/// About what a look-up takes.
inline constexpr int64_t kTextLookupNanos = 30;

}  // namespace inferkit
