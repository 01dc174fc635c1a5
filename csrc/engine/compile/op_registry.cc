#include "engine/compile/op_registry.h"

#include <algorithm>
#include <tuple>

#include "base/immortal.h"

namespace inferkit {

#define INFERKIT_OP_FAMILY(name) void register_##name(OpRegistry& registry);
#include "op_families.inc"
#undef INFERKIT_OP_FAMILY
#define INFERKIT_CUDA_FAMILY(name) void register_cuda_##name(OpRegistry& registry);
#include "cuda_families.inc"
#undef INFERKIT_CUDA_FAMILY

namespace {

std::string key_of(std::string_view domain, std::string_view name) {
  std::string key(domain);
  key += ':';
  key += name;
  return key;
}

OpRegistry make_registry() {
  OpRegistry registry;
#define INFERKIT_OP_FAMILY(name) \
  registry.begin_family(#name);  \
  register_##name(registry);
#include "op_families.inc"
#undef INFERKIT_OP_FAMILY
#define INFERKIT_CUDA_FAMILY(name) register_cuda_##name(registry);
#include "cuda_families.inc"
#undef INFERKIT_CUDA_FAMILY
  return registry;
}

}  // namespace

const OpRegistry& OpRegistry::instance() {
  static const OpRegistry& registry = immortal(make_registry());
  return registry;
}

void OpRegistry::add(OpDef def) {
  const OpSchema& schema = def.schema;
  auto& rows = ops_[key_of(schema.domain, schema.name)];
  for (const OpDef& row : rows) {
    if (schema.since <= row.schema.until && row.schema.since <= schema.until) {
      throw std::logic_error(cat("operator ", schema.name, " is registered twice for opset ", schema.since));
    }
  }
  for (size_t i = 0; i < def.lowerings.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (def.lowerings[i].name != def.lowerings[j].name) continue;
      throw std::logic_error(cat("operator ", schema.name, " has two lowerings '", def.lowerings[i].name, "'"));
    }
  }
  def.family = family_;
  rows.push_back(std::move(def));
}

void OpRegistry::add_lowering(std::string_view domain, std::string_view name, const Lowering& lowering) {
  const auto it = ops_.find(key_of(domain, name));
  if (it == ops_.end()) throw std::logic_error(cat("there is no operator ", name, " to add a lowering to"));
  for (OpDef& row : it->second) row.lowerings.push_back(lowering);
}

const OpDef* OpRegistry::find(std::string_view domain, std::string_view name, int version) const {
  const auto it = ops_.find(key_of(domain, name));
  if (it == ops_.end()) return nullptr;
  for (const OpDef& row : it->second) {
    if (row.schema.since <= version && version <= row.schema.until) return &row;
  }
  return nullptr;
}

std::vector<const OpDef*> OpRegistry::all() const {
  std::vector<const OpDef*> out;
  for (const auto& [key, rows] : ops_) {
    for (const OpDef& row : rows) out.push_back(&row);
  }
  std::sort(out.begin(), out.end(), [](const OpDef* a, const OpDef* b) {
    return std::tie(a->schema.domain, a->schema.name, a->schema.since) <
           std::tie(b->schema.domain, b->schema.name, b->schema.since);
  });
  return out;
}

}  // namespace inferkit
