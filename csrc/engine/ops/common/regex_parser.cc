// From a pattern to a tree, from the tree to a program.
#include <algorithm>
#include <memory>

#include "base/cat.h"
#include "base/immortal.h"
#include "base/text.h"
#include "engine/ops/common/character_classes.h"
#include "engine/ops/common/characters.h"
#include "engine/ops/common/regex.h"

namespace inferkit {

class RegexParser {
 public:
  RegexParser(std::string_view pattern, Regex& out) : text_(pattern), out_(out) {}

  void run() {
    const NodeRef tree = alternatives(0);
    if (at_ < text_.size()) invalid("a ) that closes nothing");
    emit(*tree);
    add({Regex::Op::kMatch});
  }

 private:
  using Range = Regex::Range;
  using Ranges = std::vector<Range>;
  using Assertion = Regex::Assertion;
  static constexpr uint32_t kMostCode = 0x10ffff;
  static constexpr int kMostDepth = 200;
  static constexpr int kMostRepeats = 1000;
  static constexpr size_t kMostInstructions = size_t{1} << 15;
  static constexpr size_t kMostPattern = size_t{1} << 16;

  struct Node;
  using NodeRef = std::unique_ptr<Node>;
  struct Node {
    enum class Kind : uint8_t { kClass, kAssert, kAll, kAny, kRepeat } kind;
    Ranges ranges = {};
    Assertion assertion = Assertion::kBeginText;
    std::vector<NodeRef> parts = {};  // one after the other, or (kAny) one of them
    int least = 0, most = 0;          // most < 0: any number
  };
  struct Flags {
    bool fold = false, multiline = false, dot_newline = false;
  };

  [[noreturn]] void invalid(const std::string& what) const {
    throw RegexError{cat("the pattern ", quote(text_), " has ", what), false};
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw RegexError{cat("the pattern ", quote(text_), " has ", what), true};
  }

  // Reading

  bool more() const { return at_ < text_.size(); }
  bool comes(std::string_view what) const { return text_.substr(at_, what.size()) == what; }
  bool skip(std::string_view what) {
    if (!comes(what)) return false;
    at_ += what.size();
    return true;
  }
  uint32_t take() { return take_character(text_, at_); }

  static NodeRef node(Node::Kind kind) {
    auto out = std::make_unique<Node>();
    out->kind = kind;
    return out;
  }
  static NodeRef assertion(Assertion of) {
    NodeRef out = node(Node::Kind::kAssert);
    out->assertion = of;
    return out;
  }
  static NodeRef of_ranges(Ranges ranges) {
    NodeRef out = node(Node::Kind::kClass);
    out->ranges = std::move(ranges);
    return out;
  }

  NodeRef alternatives(int depth) {
    if (depth > kMostDepth) unsupported(cat("more than ", kMostDepth, " nested groups"));
    NodeRef out = node(Node::Kind::kAny);
    do {
      out->parts.push_back(sequence(depth));
    } while (skip("|"));
    return out->parts.size() == 1 ? std::move(out->parts[0]) : std::move(out);
  }

  NodeRef sequence(int depth) {
    NodeRef out = node(Node::Kind::kAll);
    while (more() && !comes("|") && !comes(")")) {
      if (skip("\\Q")) {
        while (more() && !skip("\\E")) out->parts.push_back(literal(take()));
        continue;
      }
      const size_t before = at_;
      NodeRef part = atom(depth);
      if (!part) continue;  // flags
      if (repeat(part) && repeats_again()) invalid(cat("two repetitions of one thing: ", quote(text_.substr(before))));
      out->parts.push_back(std::move(part));
    }
    return out;
  }

  /// What follows an atom; true where it is repeated.
  bool repeat(NodeRef& part) {
    int least = 0, most = -1;
    if (skip("?")) {
      most = 1;
    } else if (skip("+")) {
      least = 1;
    } else if (!skip("*") && !counted(least, most)) {
      return false;
    }
    skip("?");  // as few as possible: the same text matches
    NodeRef out = node(Node::Kind::kRepeat);
    out->least = least;
    out->most = most;
    out->parts.push_back(std::move(part));
    part = std::move(out);
    return true;
  }
  bool repeats_again() {
    int least = 0, most = 0;
    return comes("*") || comes("+") || comes("?") || counted(least, most);
  }

  /// {n}, {n,} or {n,m}; anything else is text.
  bool counted(int& least, int& most) {
    if (!comes("{")) return false;
    size_t i = at_ + 1;
    const auto number = [&](int& out) {
      const size_t first = i;
      for (out = 0; i < text_.size() && text_[i] >= '0' && text_[i] <= '9'; ++i) {
        out = std::min(kMostRepeats + 1, out * 10 + (text_[i] - '0'));
      }
      return i > first;
    };
    int low = 0, high = 0;
    if (!number(low)) return false;
    high = low;
    if (i < text_.size() && text_[i] == ',') {
      ++i;
      if (!number(high)) high = -1;
    }
    if (i >= text_.size() || text_[i] != '}') return false;
    if (low > kMostRepeats || high > kMostRepeats || (high >= 0 && high < low)) {
      invalid(cat("the repetition ", quote(text_.substr(at_, i + 1 - at_))));
    }
    at_ = i + 1;
    least = low;
    most = high;
    return true;
  }

  NodeRef literal(uint32_t code) const { return of_ranges(folded({{code, code}})); }

  /// Null where flags were set, and nothing is to match.
  NodeRef atom(int depth) {
    if (skip("(")) return group(depth);
    if (skip("[")) return of_ranges(bracket());
    if (skip(".")) {
      if (flags_.dot_newline) return of_ranges({{0, kMostCode}});
      return of_ranges({{0, '\n' - 1}, {'\n' + 1, kMostCode}});
    }
    if (skip("^")) return assertion(flags_.multiline ? Assertion::kBeginLine : Assertion::kBeginText);
    if (skip("$")) return assertion(flags_.multiline ? Assertion::kEndLine : Assertion::kEndText);
    if (comes("*") || comes("+") || comes("?")) invalid(cat("nothing that ", quote(text_.substr(at_, 1)), " repeats"));
    if (skip("\\")) return escape();
    return literal(take());
  }

  NodeRef group(int depth) {
    const Flags outer = flags_;
    if (skip("?P<") || (comes("?<") && !comes("?<=") && !comes("?<!") && skip("?<"))) {
      const size_t end = text_.find('>', at_);
      if (end == std::string_view::npos || end == at_) invalid("a group whose name does not end");
      at_ = end + 1;
    } else if (skip("?")) {
      bool on = true, any = false;
      for (; more() && !comes(")") && !comes(":"); any = true) {
        if (skip("-")) {
          if (!on) invalid("a group of unknown flags");
          on = false;
        } else if (skip("i")) {
          flags_.fold = on;
        } else if (skip("m")) {
          flags_.multiline = on;
        } else if (skip("s")) {
          flags_.dot_newline = on;
        } else if (!skip("U")) {  // it turns greedy and lazy around, which match the same text
          invalid(cat("the group ", quote(text_.substr(at_ > 2 ? at_ - 2 : 0, 8)),
                      ", which RE2 does not know (look-around and back-references take more than linear time)"));
        }
      }
      if (skip(")")) {  // to the end of the group around it
        if (!any) invalid("an empty group of flags");
        return nullptr;
      }
      if (!skip(":")) invalid("a group that does not end");
    }
    NodeRef out = alternatives(depth + 1);
    if (!skip(")")) invalid("a group that does not end");
    flags_ = outer;
    return out;
  }

  NodeRef escape() {
    if (skip("A")) return assertion(Assertion::kBeginText);
    if (skip("z")) return assertion(Assertion::kEndText);
    if (skip("b")) return assertion(Assertion::kWordBoundary);
    if (skip("B")) return assertion(Assertion::kNoWordBoundary);
    Ranges ranges;
    if (perl_class(ranges) || unicode_class(ranges)) return of_ranges(std::move(ranges));
    return literal(escaped_code());
  }

  /// \d, \s, \w and what they leave out; the backslash is read.
  bool perl_class(Ranges& out) {
    static const Ranges& kDigits = immortal(Ranges{{'0', '9'}});
    static const Ranges& kSpaces = immortal(Ranges{{'\t', '\n'}, {'\f', '\r'}, {' ', ' '}});
    static const Ranges& kWord = immortal(Ranges{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
    constexpr std::string_view kNames = "dswDSW";
    const size_t which = more() ? kNames.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) return false;
    ++at_;
    const Ranges& positive = which % 3 == 0 ? kDigits : which % 3 == 1 ? kSpaces : kWord;
    const Ranges found = which < 3 ? positive : others(positive);
    out.insert(out.end(), found.begin(), found.end());
    return true;
  }

  /// \pL, \p{Lu}, \p{^Greek} and, with a P, what they leave out; the backslash is read.
  bool unicode_class(Ranges& out) {
    if (!comes("p") && !comes("P")) return false;
    const size_t from = at_;
    bool negated = text_[at_++] == 'P';
    if (!more()) invalid("a \\p without a name");
    std::string_view name = text_.substr(at_, 1);
    if (skip("{")) {
      const size_t end = text_.find('}', at_);
      if (end == std::string_view::npos) invalid("a \\p{ that does not end");
      if (skip("^")) negated = !negated;
      name = text_.substr(at_, end - at_);
      at_ = end + 1;
    } else {
      ++at_;
    }
    const std::vector<CharacterRange> found = characters_of(name);
    const std::string_view written = text_.substr(from, at_ - from);
    if (found.empty()) {
      if (name.size() <= 2) invalid(cat("the unknown class of characters \\", written));
      unsupported(cat("the class of characters \\", written,
                      ", which inferkit does not support: there are Unicode's general categories and the scripts in "
                      "common use"));
    }
    if (flags_.fold && name != "Any") {
      unsupported(cat("\\", written, " together with (?i), which inferkit does not support"));
    }
    Ranges ranges;
    for (const auto& [first, last] : found) ranges.push_back({first, last});
    if (negated) ranges = others(ranges);
    out.insert(out.end(), ranges.begin(), ranges.end());
    return true;
  }

  /// The character that an escape stands for; the backslash is read.
  uint32_t escaped_code() {
    if (!more()) invalid("a backslash at its end");
    const uint32_t c = take();
    constexpr std::string_view kNames = "afnrtv";
    constexpr std::string_view kCodes = "\a\f\n\r\t\v";
    if (c < 128) {
      const size_t which = kNames.find(static_cast<char>(c));
      if (which != std::string_view::npos) return static_cast<uint32_t>(kCodes[which]);
    }
    if (c == 'x') return hex_code();
    if (c >= '0' && c <= '7') {
      // \1 to \7 alone would be back-references.
      if (c != '0' && !(more() && text_[at_] >= '0' && text_[at_] <= '7')) invalid("a back-reference");
      uint32_t code = c - '0';
      for (int i = 0; i < 2 && more() && text_[at_] >= '0' && text_[at_] <= '7'; ++i) code = code * 8 + (take() - '0');
      return code;
    }
    if (c == 'C' || c == 'X') {
      unsupported(cat("\\", std::string(1, static_cast<char>(c)), ", which inferkit does not support"));
    }
    const bool letter = c < 128 && is_alphanumeric(c);
    if (letter || c >= 128) invalid(cat("the escape ", quote(text_.substr(at_ - 2, 2))));
    return c;
  }

  static bool is_alphanumeric(uint32_t c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  }

  uint32_t hex_code() {
    const bool braced = skip("{");
    uint32_t code = 0;
    size_t digits = 0;
    for (; more() && (braced || digits < 2); ++digits) {
      const char c = text_[at_];
      const uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                             : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                             : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                                    : 16;
      if (digit == 16) break;
      ++at_;
      code = code * 16 + digit;
      if (code > kMostCode) invalid("a character beyond U+10FFFF");
    }
    if (digits == 0 || (braced && !skip("}")) || (!braced && digits != 2)) invalid("an \\x without its digits");
    return code;
  }

  /// Up to its closing bracket; the opening one is read.
  Ranges bracket() {
    const bool negated = skip("^");
    Ranges ranges;  // folded where that is asked for
    for (bool first = true; first || !comes("]"); first = false) {
      if (!more()) invalid("a [ that is not closed");
      if (comes("[:")) {
        posix_class(ranges);
        continue;
      }
      if (skip("\\")) {
        if (perl_class(ranges) || unicode_class(ranges)) continue;
        --at_;
      }
      const uint32_t low = class_code();
      uint32_t high = low;
      if (comes("-") && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        high = class_code();
        if (high < low) invalid("a range of characters that ends before it begins");
      }
      const Ranges found = folded({{low, high}});
      ranges.insert(ranges.end(), found.begin(), found.end());
    }
    ++at_;
    ranges = united(std::move(ranges));
    return negated ? others(ranges) : ranges;
  }
  uint32_t class_code() {
    if (!more()) invalid("a [ that is not closed");
    return skip("\\") ? escaped_code() : take();
  }

  void posix_class(Ranges& out) {
    struct Named {
      std::string_view name;
      Ranges ranges;
    };
    static const std::vector<Named>& kNamed = immortal(std::vector<Named>{
        {"alnum", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}},
        {"alpha", {{'A', 'Z'}, {'a', 'z'}}},
        {"ascii", {{0, 127}}},
        {"blank", {{'\t', '\t'}, {' ', ' '}}},
        {"cntrl", {{0, 31}, {127, 127}}},
        {"digit", {{'0', '9'}}},
        {"graph", {{'!', '~'}}},
        {"lower", {{'a', 'z'}}},
        {"print", {{' ', '~'}}},
        {"punct", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}},
        {"space", {{'\t', '\r'}, {' ', ' '}}},
        {"upper", {{'A', 'Z'}}},
        {"word", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
        {"xdigit", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}},
    });
    const size_t end = text_.find(":]", at_ + 2);
    std::string_view name = end == std::string_view::npos ? "" : text_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    const auto found = std::ranges::find(kNamed, name, &Named::name);
    if (found == kNamed.end()) invalid(cat("the class of characters ", quote(text_.substr(at_, 12))));
    at_ = end + 2;
    Ranges ranges = found->ranges;
    if (flags_.fold) ranges = united(folded(std::move(ranges)));
    if (negated) ranges = others(ranges);
    out.insert(out.end(), ranges.begin(), ranges.end());
  }

  // Sets of characters

  static Ranges united(Ranges ranges) {
    std::ranges::sort(ranges, {}, &Range::first);
    Ranges out;
    for (const Range& range : ranges) {
      if (!out.empty() && range.first <= out.back().last + 1) {
        out.back().last = std::max(out.back().last, range.last);
      } else {
        out.push_back(range);
      }
    }
    return out;
  }
  /// All but these, which are in order and apart.
  static Ranges others(const Ranges& ranges) {
    Ranges out;
    uint32_t next = 0;
    for (const Range& range : ranges) {
      if (range.first > next) out.push_back({next, range.first - 1});
      next = range.last + 1;
    }
    if (next <= kMostCode) out.push_back({next, kMostCode});
    return out;
  }
  /// With the other case of each letter, where that is asked for.
  Ranges folded(Ranges ranges) const {
    if (!flags_.fold) return ranges;
    Ranges out = ranges;
    for (const Range& range : ranges) {
      if (range.last > 127) unsupported("(?i) for characters beyond ASCII, which inferkit does not support");
      for (uint32_t c = range.first; c <= range.last; ++c) {
        const bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (letter) out.push_back({c ^ 0x20, c ^ 0x20});
        if ((c | 0x20) == 'k' && letter) out.push_back({0x212a, 0x212a});  // the sign of kelvin
        if ((c | 0x20) == 's' && letter) out.push_back({0x17f, 0x17f});    // the long s
      }
    }
    return united(std::move(out));
  }

  // Writing

  uint32_t here() const { return static_cast<uint32_t>(out_.program_.size()); }
  uint32_t add(const Regex::Instruction& instruction) {
    if (out_.program_.size() >= kMostInstructions) unsupported("repetitions that make it too long");
    out_.program_.push_back(instruction);
    return here() - 1;
  }

  void emit_class(const Ranges& ranges) {
    Regex::CharClass found;
    for (const Range& range : ranges) {
      for (uint32_t c = range.first; c <= std::min(range.last, 127u); ++c)
        found.ascii[c / 64] |= uint64_t{1} << (c % 64);
      if (range.last > 127) found.ranges.push_back({std::max(range.first, 128u), range.last});
    }
    add({Regex::Op::kClass, Assertion::kBeginText, static_cast<uint32_t>(out_.classes_.size())});
    out_.classes_.push_back(std::move(found));
  }

  void emit(const Node& n) {
    switch (n.kind) {
      case Node::Kind::kClass:
        return emit_class(n.ranges);
      case Node::Kind::kAssert:
        add({Regex::Op::kAssert, n.assertion});
        return;
      case Node::Kind::kAll:
        for (const NodeRef& part : n.parts) emit(*part);
        return;
      case Node::Kind::kAny:
        return emit_any(n.parts);
      case Node::Kind::kRepeat:
        return emit_repeat(n);
    }
  }

  void emit_any(const std::vector<NodeRef>& parts) {
    std::vector<uint32_t> jumps;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const uint32_t split = add({Regex::Op::kSplit});
      out_.program_[split].to = here();
      emit(*parts[i]);
      jumps.push_back(add({Regex::Op::kJump}));
      out_.program_[split].other = here();
    }
    emit(*parts.back());
    for (const uint32_t jump : jumps) out_.program_[jump].to = here();
  }

  void emit_repeat(const Node& n) {
    const Node& part = *n.parts[0];
    for (int i = 0; i < n.least; ++i) {
      const uint32_t before = here();
      emit(part);
      if (here() == before) break;  // nothing, again and again
    }
    if (n.most < 0) {
      const uint32_t split = add({Regex::Op::kSplit});
      out_.program_[split].to = here();
      emit(part);
      add({Regex::Op::kJump, Assertion::kBeginText, split});
      out_.program_[split].other = here();
      return;
    }
    std::vector<uint32_t> splits;
    for (int i = n.least; i < n.most; ++i) {
      splits.push_back(add({Regex::Op::kSplit}));
      out_.program_[splits.back()].to = here();
      emit(part);
    }
    for (const uint32_t split : splits) out_.program_[split].other = here();
  }

  const std::string_view text_;
  Regex& out_;
  size_t at_ = 0;
  Flags flags_;

  friend class Regex;
};

Regex::Regex(std::string_view pattern) {
  if (pattern.size() > RegexParser::kMostPattern) throw RegexError{"the pattern is too long", true};
  RegexParser(pattern, *this).run();
}

}  // namespace inferkit
