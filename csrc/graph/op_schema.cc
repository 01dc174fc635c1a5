#include "graph/op_schema.h"

#include "base/counted.h"

namespace inferkit {
namespace {

template <class T>
const T* find_attr(const NodeContext& c, std::string_view name, const char* type) {
  const auto it = c.node().attributes.find(name);
  if (it == c.node().attributes.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (!value) c.wrong(cat("attribute '", name, "' is not ", type));
  return value;
}

}  // namespace

const TensorFacts kUnknownFacts;

const TensorFacts& NodeContext::input(size_t i) const {
  if (!has_input(i)) wrong(cat("input ", i, " is missing"));
  if (inputs_[i] == &kUnknownFacts) throw UnknownInput{};
  return *inputs_[i];
}

int64_t NodeContext::attr_int(std::string_view name, int64_t fallback) const {
  const auto* v = find_attr<int64_t>(*this, name, "an integer");
  return v ? *v : fallback;
}

float NodeContext::attr_float(std::string_view name, float fallback) const {
  const auto* v = find_attr<float>(*this, name, "a float");
  return v ? *v : fallback;
}

std::string NodeContext::attr_string(std::string_view name, std::string_view fallback) const {
  const auto* v = find_attr<std::string>(*this, name, "a string");
  return v ? *v : std::string(fallback);
}

std::vector<int64_t> NodeContext::attr_ints(std::string_view name) const {
  const auto* v = find_attr<std::vector<int64_t>>(*this, name, "a list of integers");
  return v ? *v : std::vector<int64_t>{};
}

std::vector<float> NodeContext::attr_floats(std::string_view name) const {
  const FloatList* v = find_attr<FloatList>(*this, name, "a list of floats");
  return v ? std::vector<float>(v->values().begin(), v->values().end()) : std::vector<float>{};
}

std::vector<std::string> NodeContext::attr_strings(std::string_view name) const {
  const auto* v = find_attr<std::vector<std::string>>(*this, name, "a list of strings");
  return v ? *v : std::vector<std::string>{};
}

const Tensor* NodeContext::attr_tensor(std::string_view name) const {
  return find_attr<Tensor>(*this, name, "a tensor");
}

int64_t NodeContext::resolve_axis(int64_t axis, int64_t rank) const {
  if (axis < -rank || axis >= rank) fail(cat("axis ", axis, " is out of range for ", counted(rank, "dimension")));
  return axis < 0 ? axis + rank : axis;
}

int64_t NodeContext::attr_axis(int64_t fallback, int64_t rank, std::string_view name) const {
  return resolve_axis(attr_int(name, fallback), rank);
}

const Tensor& NodeContext::known_value(size_t i) const {
  const TensorFacts& facts = input(i);
  if (!facts.constant) {
    throw NeedsValue(i, cat(node_.label(), ": the value of input ", i, " is needed and only known during a run"));
  }
  return *facts.constant;
}

std::vector<int64_t> NodeContext::const_ints(size_t i) const {
  const DType dtype = input(i).dtype;
  if (dtype != DType::kI64 && dtype != DType::kI32) {
    wrong(cat("input ", i, " must be int64 or int32, not ", dtype_name(dtype)));
  }
  const Tensor& value = known_value(i);
  const auto count = static_cast<size_t>(value.shape.elements());
  if (dtype == DType::kI64) return {value.as<int64_t>(), value.as<int64_t>() + count};
  return {value.as<int32_t>(), value.as<int32_t>() + count};
}

void NodeContext::fail(const std::string& message) const {
  throw Error(ErrorCode::kModel, cat(node_.label(), ": ", message));
}

void NodeContext::wrong(const std::string& message) const { throw WrongNode(cat(node_.label(), ": ", message)); }

void NodeContext::unsupported(const std::string& message) const {
  throw Error(ErrorCode::kUnsupportedOp, cat(node_.label(), ": ", message));
}

void InferContext::set_output(size_t i, DType dtype, const Shape& shape) {
  if (i >= outputs_.size()) fail(cat("has no output ", i));
  const auto count = shape.checked_elements();
  constexpr int64_t kMaxElements = int64_t{1} << 40;
  if (!count || *count > kMaxElements)
    fail(cat("output ", i, " would have shape ", shape.str(), ", which is impossible or too large"));
  outputs_[i] = {dtype, shape, nullptr};
}

void InferContext::set_constant(size_t i, Tensor value) {
  constants_.push_back(std::make_shared<Tensor>(std::move(value)));
  const Tensor& held = *constants_.back();
  set_output(i, held.dtype, held.shape);
  outputs_[i].constant = &held;
}

}  // namespace inferkit
