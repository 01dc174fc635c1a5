#include "engine/ops/common/text_table.h"

#include "base/text.h"
#include "graph/text_tensor.h"

namespace inferkit {
namespace {

void check_text(const NodeContext& c, std::string_view name, std::string_view text) {
  if (!is_utf8(text)) c.wrong(cat(name, " holds ", quote(text), ", which is not UTF-8"));
}

}  // namespace

std::vector<std::string> text_list(const NodeContext& c, std::string_view name) {
  std::vector<std::string> out = c.attr_strings(name);
  for (const std::string& text : out) check_text(c, name, text);
  return out;
}

std::string text_attr(const NodeContext& c, std::string_view name, std::string_view fallback) {
  std::string out = c.attr_string(name, fallback);
  check_text(c, name, out);
  return out;
}

Ref text_constant(LowerContext& c, std::span<const std::string> values) {
  const Tensor tensor = text_tensor({static_cast<int64_t>(values.size())}, values);
  return c.constant(tensor.data, tensor.owner);
}

TextTable::TextTable(std::vector<std::string> keys, bool last_wins) : keys_(std::move(keys)) {
  places_.reserve(keys_.size());
  for (size_t i = 0; i < keys_.size(); ++i) {
    const auto [at, fresh] = places_.try_emplace(keys_[i], static_cast<int64_t>(i));
    if (!fresh && last_wins) at->second = static_cast<int64_t>(i);
  }
}

}  // namespace inferkit
