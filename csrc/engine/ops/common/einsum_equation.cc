#include "engine/ops/common/einsum_equation.h"

#include <algorithm>

#include "base/counted.h"

namespace inferkit {
namespace {

constexpr Label kEllipsis = -1;  // as written, before it is resolved against a rank

/// The labels of one term or of the output.
Labels read_labels(const NodeContext& c, std::string_view text) {
  Labels out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char ch = text[i];
    if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')) {
      out.push_back(ch);
    } else if (text.substr(i, 3) == "..." && std::count(out.begin(), out.end(), kEllipsis) == 0) {
      out.push_back(kEllipsis);
      i += 2;
    } else {
      c.fail(cat("the equation holds '", ch, "' where a letter is expected"));
    }
  }
  return out;
}

/// The ellipsis replaced by `count` labels.
Labels resolve(const Labels& written, size_t count) {
  Labels out;
  for (Label l : written) {
    if (l != kEllipsis) {
      out.push_back(l);
    } else {
      for (size_t i = count; i-- > 0;) out.push_back(kEllipsisLabel + static_cast<Label>(i));
    }
  }
  return out;
}

bool holds(const Labels& labels, Label l) { return std::find(labels.begin(), labels.end(), l) != labels.end(); }

/// What stands behind no arrow: the ellipsis, then the letters that occur once, sorted.
Labels implicit_output(const std::vector<Labels>& terms, size_t ellipsis) {
  std::map<Label, int> uses;
  for (const Labels& term : terms) {
    for (Label l : term) ++uses[l];
  }
  Labels out = resolve({kEllipsis}, ellipsis);
  for (const auto& [label, count] : uses) {
    if (label < kEllipsisLabel && count == 1) out.push_back(label);
  }
  return out;
}

}  // namespace

EinsumEquation einsum_equation(const NodeContext& c) {
  std::string text = c.attr_string("equation", "");
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  const size_t arrow = text.find("->");
  std::string_view rest = std::string_view(text).substr(0, arrow);
  std::vector<Labels> written;
  for (;;) {
    const size_t comma = rest.find(',');
    written.push_back(read_labels(c, rest.substr(0, comma)));
    if (comma == std::string_view::npos) break;
    rest = rest.substr(comma + 1);
  }
  if (written.size() != c.input_count()) {
    c.fail(cat("the equation '", text, "' has ", counted(written.size(), "term"), " for ",
               counted(c.input_count(), "input")));
  }
  Labels output;
  if (arrow != std::string::npos) output = read_labels(c, std::string_view(text).substr(arrow + 2));
  EinsumEquation e;
  size_t ellipsis = 0;
  for (size_t i = 0; i < written.size(); ++i) {
    const Shape& shape = c.input(i).shape;
    const bool open = holds(written[i], kEllipsis);
    const size_t letters = written[i].size() - (open ? 1 : 0);
    if (open ? shape.rank() < letters : shape.rank() != letters) {
      c.fail(cat("term ", i, " of the equation '", text, "' does not fit an input of shape ", shape.str()));
    }
    const size_t hidden = shape.rank() - letters;
    ellipsis = std::max(ellipsis, hidden);
    e.terms.push_back(resolve(written[i], hidden));
    for (size_t d = 0; d < shape.rank(); ++d) {
      auto [entry, fresh] = e.dims.emplace(e.terms[i][d], shape[d]);
      if (fresh || entry->second == shape[d] || shape[d] == 1) continue;
      if (entry->second != 1) {
        c.fail(cat("a dimension of the equation '", text, "' is ", entry->second, " in one input and ", shape[d],
                   " in another"));
      }
      entry->second = shape[d];
    }
  }
  if (arrow == std::string::npos) {
    e.out = implicit_output(e.terms, ellipsis);
  } else {
    if (ellipsis > 0 && !holds(output, kEllipsis)) c.unsupported("an output without the ellipsis that the inputs have");
    e.out = resolve(output, ellipsis);
  }
  for (size_t i = 0; i < e.out.size(); ++i) {
    if (std::count(e.out.begin(), e.out.end(), e.out[i]) != 1) c.fail("the output names a dimension twice");
    if (!e.dims.contains(e.out[i])) c.fail("the output names a dimension that no input has");
  }
  if (e.out.size() > Shape::kMaxRank) c.unsupported(cat("an output of ", counted(e.out.size(), "dimension")));
  return e;
}

}  // namespace inferkit
