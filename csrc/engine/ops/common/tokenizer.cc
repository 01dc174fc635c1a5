#include "engine/ops/common/tokenizer.h"

#include "base/counted.h"
#include "base/text.h"
#include "engine/ops/common/characters.h"
#include "engine/ops/common/text_table.h"

namespace inferkit {
namespace {

/// What the search of one text may take: many times what it does where matches are not far from where they are looked
/// for.
int64_t most_steps(std::string_view text, const Regex& regex) {
  constexpr int64_t kMargin = 64, kLeast = 1024;
  return kMargin * (static_cast<int64_t>(text.size()) + kLeast) * (1 + static_cast<int64_t>(regex.size()) / 4);
}

/// visit(begin, end) for each match that is not empty, one after the other.
template <class Visit>
void for_each_match(const Regex& regex, std::string_view text, Regex::Workspace& work, const Visit& visit) {
  int64_t steps = most_steps(text, regex);
  for (size_t at = 0; at < text.size();) {
    const auto match = regex.search(text, at, work, steps);
    if (steps < 0) {
      throw Error(ErrorCode::kInference,
                  cat("the patterns take too long for a text of ", counted(text.size(), "byte")));
    }
    if (!match) return;
    if (match->begin == match->end) {  // on to the next character
      at = match->end;
      if (at < text.size()) take_character(text, at);
      continue;
    }
    visit(match->begin, match->end);
    at = match->end;
  }
}

}  // namespace

Regex read_regex(const NodeContext& c, std::string_view pattern) {
  try {
    return Regex(pattern);
  } catch (const RegexError& error) {
    if (error.valid) c.unsupported(error.message);
    c.wrong(error.message);
  }
}

Tokenizer::Tokenizer(const NodeContext& c)
    : mark_(c.attr_int("mark", 0) != 0), least_(c.attr_int("mincharnum", 1)), padding_(text_attr(c, "pad_value", "")) {
  const std::vector<std::string> separators = text_list(c, "separators");
  const std::string token = text_attr(c, "tokenexp", "");
  if (least_ < 1) c.wrong(cat("mincharnum is ", least_, "; a token has at least one character"));
  if (token.empty() == separators.empty()) c.wrong("needs either separators or a tokenexp");
  if (!token.empty()) {
    tokens_.push_back(read_regex(c, token));
    return;
  }
  characters_ = separators.size() == 1 && separators[0].empty();
  if (characters_) return;
  for (const std::string& separator : separators) {
    if (separator.empty()) c.wrong("an empty separator among others");
    separators_.push_back(read_regex(c, separator));
  }
}

void Tokenizer::add(std::string_view token, std::vector<std::string_view>& out) const {
  if (static_cast<int64_t>(token.size()) < least_) return;
  if (count_characters(token) >= least_) out.push_back(token);
}

void Tokenizer::read_matches(std::string_view text, Workspace& work, std::vector<std::string_view>& out) const {
  for_each_match(tokens_[0], text, work.regex,
                 [&](size_t begin, size_t end) { add(text.substr(begin, end - begin), out); });
}

/// Each separator in turn cuts what the ones before left.
void Tokenizer::read_between(std::string_view text, Workspace& work, std::vector<std::string_view>& out) const {
  work.pieces.assign(1, text);
  for (const Regex& separator : separators_) {
    work.cut.clear();
    for (const std::string_view piece : work.pieces) {
      size_t begin = 0;
      for_each_match(separator, piece, work.regex, [&](size_t first, size_t last) {
        if (first > begin) work.cut.push_back(piece.substr(begin, first - begin));
        begin = last;
      });
      if (begin < piece.size()) work.cut.push_back(piece.substr(begin));
    }
    std::swap(work.pieces, work.cut);
  }
  for (const std::string_view piece : work.pieces) add(piece, out);
}

void Tokenizer::read(std::string_view text, Workspace& work, std::vector<std::string_view>& out) const {
  if (text.empty()) return;
  if (!tokens_.empty()) return read_matches(text, work, out);
  if (!characters_) return read_between(text, work, out);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    take_character(text, at);
    add(text.substr(begin, at - begin), out);
  }
}

}  // namespace inferkit
