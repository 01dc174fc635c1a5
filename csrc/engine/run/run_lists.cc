#include "engine/run/run_lists.h"

#include <algorithm>

#include "graph/tensor_list.h"

namespace inferkit {
namespace {

const Tensor& input(const Continuation& next, const RunValues& values, size_t i) { return values[next.rest.inputs[i]]; }

bool is_known(const Continuation& next, size_t i) { return std::ranges::binary_search(next.known, i); }

}  // namespace

std::vector<std::pair<ValueId, std::optional<Tensor>>> plan_inputs(const Continuation& next, const RunValues& values) {
  const auto count = [&](size_t i) {
    const Tensor& value = input(next, values, i);
    if (!value.list) return kNoList;
    return is_known(next, i) ? static_cast<int64_t>(value.list->items.size()) : 0;
  };
  std::vector<std::pair<ValueId, std::optional<Tensor>>> out;
  for_each_plan_input(next.rest, count, [&](ValueId id, size_t i, int64_t k) {
    auto& [at, item] = out.emplace_back(id, std::nullopt);
    if (k >= 0) item = input(next, values, i).list->items[static_cast<size_t>(k)];
  });
  return out;
}

std::string lists_key(const Continuation& next, const RunValues& values) {
  std::string key;
  for (size_t i = 0; i < next.rest.inputs.size(); ++i) {
    const Tensor& value = input(next, values, i);
    if (!value.list) continue;
    const std::string of = !is_known(next, i) ? "?" : value.list->none ? "none" : cat(value.list->items.size());
    key += cat("[", i, " ", dtype_name(value.dtype), " ", of, "]");
  }
  return key;
}

std::shared_ptr<const ListInput> list_facts(const TensorList& list) {
  auto out = std::make_shared<ListInput>();
  out->none = list.none;
  for (size_t i = 0; i < list.items.size(); ++i) {
    const Tensor& item = list.items[i];
    out->items.push_back({item.dtype, item.shape, nullptr, /*foreign=*/false});
  }
  return out;
}

}  // namespace inferkit
