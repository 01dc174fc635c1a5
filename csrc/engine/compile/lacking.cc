#include "engine/compile/lacking.h"

#include "base/cat.h"
#include "engine/compile/place.h"

namespace inferkit {

std::string without_label(std::string_view what, const Node& node) {
  const std::string prefix = node.label() + ": ";
  if (what.starts_with(prefix)) what.remove_prefix(prefix.size());
  return std::string(what);
}

void Lacking::ask(const OpDef& def, const NodeContext& context) {
  const Node& node = context.node();
  std::string why;
  try {
    choose_lowering(def, device_, context, LoweringWishes());
  } catch (const NeedsValue&) {  // then a later stage has it, and asks again
    return;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupportedOp) throw;
    why = without_label(error.what(), node);
  }
  std::string op = node.domain.empty() ? node.op_type : cat(node.domain, ".", node.op_type);
  const std::string key = cat(op, "\n", node.name, "\n", node.outputs.empty() ? kNoValue : node.outputs[0]);
  const std::scoped_lock lock(mutex_);
  size_t& place = asked_[key];
  if (why.empty() || place != 0) return;
  lacks_.push_back({std::move(op), node.name, std::move(why)});
  place = lacks_.size();
}

std::vector<Lacking::Lack> Lacking::lacks() const {
  const std::scoped_lock lock(mutex_);
  return lacks_;
}

size_t Lacking::nodes() const {
  const std::scoped_lock lock(mutex_);
  return asked_.size();
}

}  // namespace inferkit
