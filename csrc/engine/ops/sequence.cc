// Sequences and optionals of tensors. Where it is known what is in a sequence, its operators are spelled out as others
// when a plan is compiled; where only a run tells (what a loop carries), those that look at no element run on values,
// between two plans.
#include <algorithm>
#include <limits>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/indices.h"
#include "graph/draws.h"
#include "graph/onnx_tensor.h"
#include "graph/tensor_list.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

// --- Shape rules look at attributes alone: what follows is for who knows the sequences.

[[noreturn]] void only_sequences_tell(const NodeContext& c) {
  throw NeedsValue(0, cat(c.node().label(), ": depends on what is in a sequence"));
}

void infer_nothing(InferContext& c) { only_sequences_tell(c); }

DType type_of_empty(const NodeContext& c) {
  const auto code = static_cast<int32_t>(c.attr_int("dtype", 1));
  const auto dtype = onnx::dtype_of(code);
  if (!dtype) c.unsupported("dtype " + onnx::dtype_text(code));
  return *dtype;
}
void infer_empty(InferContext& c) {
  type_of_empty(c);
  only_sequences_tell(c);
}

void infer_split(InferContext& c) {
  c.attr_int("axis", 0);
  c.attr_int("keepdims", 1);
  only_sequences_tell(c);
}

void infer_concat(InferContext& c) {
  if (!c.has_attr("axis")) c.wrong("has no axis");
  c.attr_int("axis", 0);
  const int64_t stacked = c.attr_int("new_axis", 0);
  if (stacked != 0 && stacked != 1) c.wrong(cat("new_axis is ", stacked));
  only_sequences_tell(c);
}

const Graph& body_of(const NodeContext& c) {
  const auto it = c.node().attributes.find("body");
  const auto* body = it == c.node().attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&it->second);
  if (!body) c.wrong("the attribute 'body' must be a graph");
  const Graph& graph = **body;
  if (graph.inputs.size() != c.node().inputs.size() || graph.outputs.size() < c.node().outputs.size()) {
    c.wrong(cat("the body has ", counted(graph.inputs.size(), "input"), " and ",
                counted(graph.outputs.size(), "output"), ", for ", c.node().inputs.size(), " and ",
                c.node().outputs.size(), " of the node"));
  }
  // Each element would draw the same.
  if (std::ranges::any_of(graph.nodes, draws)) c.unsupported("random draws in the body");
  return graph;
}
void infer_map(InferContext& c) {
  body_of(c);
  only_sequences_tell(c);
}

// --- Sequences that are known

std::vector<int64_t> integers(const NodeContext& c, size_t i) {
  const DType dtype = c.input(i).dtype;
  if (dtype != DType::kI64 && dtype != DType::kI32) {
    c.wrong(cat("input ", i, " must be int64 or int32, not ", dtype_name(dtype)));
  }
  return c.const_ints(i);
}

/// The value of input i, or `fallback` where it is left out, in [-count, end).
size_t position(const NodeContext& c, size_t i, int64_t fallback, size_t count, size_t end) {
  int64_t at = fallback;
  const auto n = static_cast<int64_t>(count);
  if (c.has_input(i)) {
    const std::vector<int64_t> given = integers(c, i);
    if (given.size() != 1) c.fail(cat("the position must be one number, not ", given.size()));
    at = given[0];
  }
  if (at < -n || at >= static_cast<int64_t>(end)) {
    c.fail(cat("position ", at, " is out of range for a sequence of ", counted(count, "tensor")));
  }
  return static_cast<size_t>(at < 0 ? at + n : at);
}

void require_type_of_list(const NodeContext& c, std::optional<DType> list, DType tensor) {
  if (list && *list != tensor) {
    c.wrong(cat("a tensor of ", dtype_name(tensor), " for a sequence of ", dtype_name(*list)));
  }
}

const ListFacts& sequence(const ListContext& c, size_t i) {
  const ListFacts& list = c.list(i);
  if (list.none) c.fail("the optional is empty");
  return list;
}

void resolve_empty(ListContext& c) { c.give_list(0, {.none = false, .dtype = type_of_empty(c), .items = {}}); }

void resolve_construct(ListContext& c) {
  ListFacts list{.none = false, .dtype = c.tensor(0).dtype, .items = {}};
  for (size_t i = 0; i < c.count(); ++i) {
    require_type_of_list(c, list.dtype, c.tensor(i).dtype);
    list.items.push_back(c.in(i));
  }
  c.give_list(0, std::move(list));
}

void resolve_insert(ListContext& c) {
  ListFacts list = sequence(c, 0);
  require_type_of_list(c, list.dtype, c.tensor(1).dtype);
  list.dtype = c.tensor(1).dtype;
  const size_t n = list.items.size();
  const size_t at = position(c, 2, static_cast<int64_t>(n), n, n + 1);
  list.items.insert(list.items.begin() + static_cast<std::ptrdiff_t>(at), c.in(1));
  c.give_list(0, std::move(list));
}

void resolve_erase(ListContext& c) {
  ListFacts list = sequence(c, 0);
  const size_t n = list.items.size();
  const size_t at = position(c, 1, static_cast<int64_t>(n) - 1, n, n);
  list.items.erase(list.items.begin() + static_cast<std::ptrdiff_t>(at));
  c.give_list(0, std::move(list));
}

void resolve_at(ListContext& c) {
  const ListFacts& list = sequence(c, 0);
  if (!c.has_input(1)) c.wrong("input 1 is missing");
  c.give(0, list.items[position(c, 1, 0, list.items.size(), list.items.size())]);
}

Tensor length_of(size_t count) {
  const auto length = static_cast<int64_t>(count);
  return make_tensor<int64_t>({}, {&length, 1});
}
void resolve_length(ListContext& c) { c.give(0, c.constant(length_of(sequence(c, 0).items.size()))); }

/// The lengths of the pieces of `dim`.
std::vector<int64_t> pieces_of(const ListContext& c, int64_t dim) {
  if (!c.has_input(1) || (c.tensor(1).shape.rank() == 0)) {
    const int64_t each = c.has_input(1) ? integers(c, 1).at(0) : 1;
    if (each < 1) c.fail(cat("pieces of length ", each));
    if (dim / each > static_cast<int64_t>(kMostItems)) c.fail(cat("a sequence of ", counted(dim / each, "tensor")));
    std::vector<int64_t> out;
    for (int64_t at = 0; at < dim; at += each) out.push_back(std::min(each, dim - at));
    return out;
  }
  std::vector<int64_t> out = integers(c, 1);
  int64_t left = dim;
  for (const int64_t piece : out) {
    if (piece < 0 || piece > left) c.fail(cat("pieces that do not add up to the dimension, which is ", dim));
    left -= piece;
  }
  if (left != 0) c.fail(cat("pieces that do not add up to the dimension, which is ", dim));
  return out;
}

void resolve_split(ListContext& c) {
  const TensorFacts& x = c.tensor(0);
  const int64_t axis = c.attr_axis(0, static_cast<int64_t>(x.shape.rank()));
  const std::vector<int64_t> pieces = pieces_of(c, x.shape[static_cast<size_t>(axis)]);
  ListFacts list{.none = false, .dtype = x.dtype, .items = {}};
  if (pieces.empty()) return c.give_list(0, std::move(list));
  const ValueId sizes =
      c.constant(make_tensor<int64_t>({static_cast<int64_t>(pieces.size())}, std::span<const int64_t>(pieces)));
  list.items = c.add("Split", 13, {c.in(0), sizes}, pieces.size(), {{"axis", axis}});
  if (!c.has_input(1) && c.attr_int("keepdims", 1) == 0) {
    const ValueId axes = c.constant(make_tensor<int64_t>({1}, {&axis, 1}));
    for (ValueId& id : list.items) id = c.add("Squeeze", 13, {id, axes}, 1)[0];
  }
  c.give_list(0, std::move(list));
}

void resolve_concat(ListContext& c) {
  std::vector<ValueId> items = sequence(c, 0).items;
  if (items.empty()) c.fail("the sequence is empty");
  const int64_t axis = c.attr_int("axis", 0);
  if (c.attr_int("new_axis", 0) != 0) {
    const ValueId axes = c.constant(make_tensor<int64_t>({1}, {&axis, 1}));
    for (ValueId& id : items) id = c.add("Unsqueeze", 13, {id, axes}, 1)[0];
  }
  c.give(0, c.add("Concat", 13, std::move(items), 1, {{"axis", axis}})[0]);
}

void resolve_map(ListContext& c) {
  const Graph& body = body_of(c);
  const size_t n = sequence(c, 0).items.size();
  std::vector<ListFacts> out(c.node().outputs.size());
  for (size_t o = 0; o < out.size(); ++o) {
    out[o].dtype = body.values[static_cast<size_t>(body.outputs[o])].dtype;  // exporters may leave it out
  }
  for (size_t i = 0; i < n; ++i) {
    std::vector<ValueId> inputs;
    for (size_t k = 0; k < c.count(); ++k) {
      if (k != 0 && !c.is_list(k)) {
        inputs.push_back(c.in(k));
        continue;
      }
      const ListFacts& list = sequence(c, k);
      if (list.items.size() != n) c.fail(cat("sequences of ", n, " and ", counted(list.items.size(), "tensor")));
      inputs.push_back(list.items[i]);
    }
    const std::vector<ValueId> results = c.add_body(body, inputs);
    for (size_t o = 0; o < out.size(); ++o) out[o].items.push_back(results[o]);
  }
  for (size_t o = 0; o < out.size(); ++o) c.give_list(o, std::move(out[o]));
}

// --- Optionals: one with something in it is what is in it

void resolve_optional(ListContext& c) {
  if (c.in(0) == kNoValue) {
    c.give_list(0, {.none = true, .dtype = std::nullopt, .items = {}});
  } else if (c.is_list(0)) {
    c.give_list(0, c.list(0));
  } else {
    c.give(0, c.in(0));
  }
}

Tensor truth_of(bool value) { return make_tensor<bool>({}, {&value, 1}); }
void resolve_has_element(ListContext& c) {
  const bool none = c.in(0) == kNoValue || (c.is_list(0) && c.list(0).none);
  c.give(0, c.constant(truth_of(!none)));
}

void resolve_get_element(ListContext& c) {
  if (!c.is_list(0)) return c.give(0, c.in(0));
  c.give_list(0, sequence(c, 0));
}

// --- Sequences of a run

const Tensor& value_of(const NodeContext& c, size_t i) { return c.known_value(i); }

const TensorItems& items_of(const NodeContext& c, size_t i) {
  const Tensor& value = value_of(c, i);
  if (!value.list) c.wrong(cat("input ", i, " must be a sequence, not a tensor"));
  if (value.list->none) c.fail("the optional is empty");
  return value.list->items;
}

const Tensor& tensor_of(const NodeContext& c, size_t i) {
  const Tensor& value = value_of(c, i);
  if (value.list) c.wrong(cat("input ", i, " must be a tensor, not a sequence"));
  return value;
}

/// What a sequence holds must outlive the plan that computed it.
Tensor owned(const Tensor& value, DynamicContext& run) {
  if (value.owner) return value;
  void* data = nullptr;
  Tensor out = run.allocate(value.dtype, value.shape, &data);
  if (value.bytes() != 0) copy_in_blocks(data, value.data, value.bytes());
  RunControl::check();
  return out;
}

Tensor list_tensor(const NodeContext& c, DType dtype, TensorList list) {
  if (list.items.size() > kMostItems) c.fail(cat("a sequence of more than ", kMostItems, " tensors"));
  Tensor out;
  out.dtype = dtype;
  out.shape = {0};
  out.list = std::make_shared<const TensorList>(std::move(list));
  return out;
}

std::vector<Tensor> one(Tensor value) {
  std::vector<Tensor> out;
  out.push_back(std::move(value));
  return out;
}

std::vector<Tensor> run_list(const NodeContext& c, DynamicContext& run) {
  std::vector<Tensor> items;
  for (size_t i = 0; i < c.input_count(); ++i) items.push_back(owned(tensor_of(c, i), run));
  const DType dtype = items.empty() ? static_cast<DType>(c.attr_int("type", 0)) : items[0].dtype;
  const bool any_type = items.empty() && c.attr_int("any_type", 0) != 0;
  TensorList list{.none = c.attr_int("none", 0) != 0, .any_type = any_type, .items = TensorItems(std::move(items))};
  return one(list_tensor(c, dtype, std::move(list)));
}

std::vector<Tensor> run_empty(const NodeContext& c, DynamicContext&) {
  return one(list_tensor(c, type_of_empty(c), {}));
}

std::vector<Tensor> run_construct(const NodeContext& c, DynamicContext& run) {
  std::vector<Tensor> items;
  const DType dtype = tensor_of(c, 0).dtype;
  for (size_t i = 0; i < c.input_count(); ++i) {
    require_type_of_list(c, dtype, tensor_of(c, i).dtype);
    items.push_back(owned(tensor_of(c, i), run));
  }
  return one(list_tensor(c, dtype, {.none = false, .items = TensorItems(std::move(items))}));
}

std::vector<Tensor> run_insert(const NodeContext& c, DynamicContext& run) {
  const TensorItems& items = items_of(c, 0);
  const Tensor& value = tensor_of(c, 1);
  if (!value_of(c, 0).list->any_type) require_type_of_list(c, value_of(c, 0).dtype, value.dtype);
  const size_t n = items.size();
  const size_t at = position(c, 2, static_cast<int64_t>(n), n, n + 1);
  return one(list_tensor(c, value.dtype, {.none = false, .items = items.with(at, owned(value, run))}));
}

std::vector<Tensor> run_erase(const NodeContext& c, DynamicContext&) {
  const TensorItems& items = items_of(c, 0);
  const size_t n = items.size();
  const size_t at = position(c, 1, static_cast<int64_t>(n) - 1, n, n);
  return one(list_tensor(c, value_of(c, 0).dtype, {.none = false, .items = items.without(at)}));
}

std::vector<Tensor> run_at(const NodeContext& c, DynamicContext&) {
  const TensorItems& items = items_of(c, 0);
  if (!c.has_input(1)) c.wrong("input 1 is missing");
  return one(items[position(c, 1, 0, items.size(), items.size())]);
}

std::vector<Tensor> run_length(const NodeContext& c, DynamicContext&) { return one(length_of(items_of(c, 0).size())); }

std::vector<Tensor> run_optional(const NodeContext& c, DynamicContext& run) {
  if (!c.has_input(0)) return one(list_tensor(c, DType::kF32, {.none = true, .items = {}}));
  const Tensor& value = value_of(c, 0);
  return one(value.list ? value : owned(value, run));
}

std::vector<Tensor> run_has_element(const NodeContext& c, DynamicContext&) {
  return one(truth_of(c.has_input(0) && !(value_of(c, 0).list && value_of(c, 0).list->none)));
}

std::vector<Tensor> run_get_element(const NodeContext& c, DynamicContext& run) {
  const Tensor& value = value_of(c, 0);
  if (value.list) items_of(c, 0);
  return one(value.list ? value : owned(value, run));
}

void add(OpRegistry& r, std::string_view name, int since, int min_inputs, int max_inputs, ResolveFn resolve,
         DynamicFn dynamic, InferFn infer = infer_nothing) {
  r.add_lists({.name = name,
               .since = since,
               .min_inputs = min_inputs,
               .max_inputs = max_inputs,
               .max_outputs = 1,
               .infer = infer,
               .takes_lists = true},
              resolve, dynamic);
}

}  // namespace

void register_sequence(OpRegistry& r) {
  constexpr int kAny = std::numeric_limits<int>::max();
  add(r, "SequenceEmpty", 11, 0, 0, resolve_empty, run_empty, infer_empty);
  add(r, "SequenceConstruct", 11, 1, kAny, resolve_construct, run_construct);
  add(r, "SequenceInsert", 11, 2, 3, resolve_insert, run_insert);
  add(r, "SequenceErase", 11, 1, 2, resolve_erase, run_erase);
  add(r, "SequenceAt", 11, 2, 2, resolve_at, run_at);
  add(r, "SequenceLength", 11, 1, 1, resolve_length, run_length);
  add(r, "SplitToSequence", 11, 1, 2, resolve_split, nullptr, infer_split);
  add(r, "ConcatFromSequence", 11, 1, 1, resolve_concat, nullptr, infer_concat);
  r.add_lists({.name = "SequenceMap", .since = 17, .min_inputs = 1, .infer = infer_map, .takes_lists = true},
              resolve_map, nullptr);
  add(r, "Optional", 15, 0, 1, resolve_optional, run_optional);
  add(r, "OptionalHasElement", 15, 0, 1, resolve_has_element, run_has_element);
  add(r, "OptionalGetElement", 15, 1, 1, resolve_get_element, run_get_element);
  r.add_lists({.domain = kInternal, .name = kListOp, .max_outputs = 1, .infer = infer_nothing, .takes_lists = true},
              nullptr, run_list);
}

}  // namespace inferkit
