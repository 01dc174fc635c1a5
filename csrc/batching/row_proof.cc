#include "batching/row_proof.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/counted.h"
#include "base/text.h"
#include "batching/row_sink.h"

namespace inferkit {
namespace {

/// What stands beside the row that is looked at.
enum class Company { kZeros, kOthers };

float other_than(float v, float factor) { return v == 0 ? factor : v * factor; }
double other_than(double v, float factor) { return v == 0 ? double(factor) : v * double(factor); }
Half other_than(Half v, float factor) { return to_half(other_than(to_float(v), factor)); }
BFloat16 other_than(BFloat16 v, float factor) { return to_bfloat16(other_than(to_float(v), factor)); }
/// Bytes are no indices: what is small becomes large.
uint8_t other_than(uint8_t v, float) { return static_cast<uint8_t>(~v); }
int8_t other_than(int8_t v, float factor) { return static_cast<int8_t>(factor > 0 ? v ^ 0x7f : ~v); }
bool other_than(bool v, float) { return !v; }

template <class T>
void put_others(std::byte* to, const std::byte* row, size_t bytes, float factor) {
  for (size_t at = 0; at + sizeof(T) <= bytes; at += sizeof(T)) {
    T value;
    std::memcpy(&value, row + at, sizeof value);
    value = other_than(value, factor);
    std::memcpy(to + at, &value, sizeof value);
  }
}

/// One row of an input, at `to`. Wider integers may be indices, and strings words that are known: they stay as they
/// are.
void put_company(Company company, DType dtype, int64_t place, const std::byte* row, size_t bytes, std::byte* to) {
  const float factor = place % 2 == 0 ? 2 : -1;
  if (company == Company::kZeros) {
    std::memset(to, 0, bytes);
    return;
  }
  switch (dtype) {
    case DType::kF32:
      return put_others<float>(to, row, bytes, factor);
    case DType::kF64:
      return put_others<double>(to, row, bytes, factor);
    case DType::kF16:
      return put_others<Half>(to, row, bytes, factor);
    case DType::kBF16:
      return put_others<BFloat16>(to, row, bytes, factor);
    case DType::kU8:
      return put_others<uint8_t>(to, row, bytes, factor);
    case DType::kI8:
      return put_others<int8_t>(to, row, bytes, factor);
    case DType::kBool:
      return put_others<bool>(to, row, bytes, factor);
    default:
      std::memcpy(to, row, bytes);
  }
}

/// Whether the first row of the run has the same answer as the last one in that company.
bool same_in(Company company, Runner& runner, BufferPool& pool, const RowLayout& layout,
             std::span<const TensorView> inputs, std::span<const TensorView> outputs) {
  const int64_t count = layout.fixed_rows;
  const Buffer buffer = pool.acquire(layout.offset(inputs.size(), count), "batch input");
  std::vector<TensorView> views(inputs.begin(), inputs.end());
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::byte* at = buffer.data() + layout.offset(i, count);
    const auto* first = static_cast<const std::byte*>(inputs[i].data);
    const size_t bytes = layout.row_bytes[i];
    views[i].data = at;
    if (layout.is_shared(i)) {
      std::memcpy(at, first, layout.bytes(i, count));
      continue;
    }
    for (int64_t row = 0; row + 1 < count; ++row, at += bytes)
      put_company(company, inputs[i].dtype, row, first, bytes, at);
    std::memcpy(at, first, bytes);
  }
  PooledSink sink(runner.outputs(), pool);
  sink.prepare(count);
  if (!runner.run(views, sink).ok() || !sink.complete().ok()) return false;
  for (size_t o = 0; o < outputs.size(); ++o) {
    const TensorView& now = sink.views()[o];
    if (now.shape != outputs[o].shape) return false;
    const size_t bytes = now.bytes() / static_cast<size_t>(count);
    const auto* last = static_cast<const std::byte*>(now.data) + bytes * static_cast<size_t>(count - 1);
    if (now.dtype == DType::kString) {
      const auto *a = outputs[o].as<std::string_view>(), *b = reinterpret_cast<const std::string_view*>(last);
      if (!std::equal(a, a + bytes / sizeof *a, b)) return false;
    } else if (std::memcmp(outputs[o].data, last, bytes) != 0) {
      return false;
    }
  }
  return true;
}

/// Whether what stands beside it can differ from the row.
bool tells(const RowLayout& layout, std::span<const TensorView> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (layout.is_shared(i)) continue;
    const DType t = inputs[i].dtype;
    if (is_float(t) || t == DType::kU8 || t == DType::kI8 || t == DType::kBool) return true;
    const auto* first = static_cast<const std::byte*>(inputs[i].data);
    if (std::any_of(first, first + layout.row_bytes[i], [](std::byte b) { return b != std::byte{0}; })) return true;
  }
  return false;
}

}  // namespace

Status RowProof::refusal(int64_t rows, int64_t fixed) const {
  return {ErrorCode::kValidation, Reason::kShape,
          cat("the request has ", counted(rows, "row"), "; the model's first dimension is fixed at ", fixed,
              ", and the answer to a row depends on the others, so every request needs exactly that many"),
          nullptr};
}

bool RowProof::find_out(const HeldModel& model, BufferPool& pool, const RowLayout& layout,
                        std::span<const TensorView> inputs, std::span<const TensorView> outputs) {
  Runner& runner = *model;
  const bool by_chance = runner.rows_draw();              // two runs may be the same, too
  if (!by_chance && !tells(layout, inputs)) return true;  // the next one may
  const bool apart =
      !by_chance && (runner.needs_gil() || (same_in(Company::kZeros, runner, pool, layout, inputs, outputs) &&
                                            same_in(Company::kOthers, runner, pool, layout, inputs, outputs)));
  const uint64_t found = model.generation * kVerdicts + (apart ? kApart : kMix);
  uint64_t known = word_.load(std::memory_order_relaxed);
  // Who began on the model before may come to its end after others have found out about the new one. Of two verdicts on
  // one model, that rows mix stands.
  while (known < found && !word_.compare_exchange_weak(known, found, std::memory_order_relaxed)) {
  }
  return apart && !rows_mix(model.generation);
}

}  // namespace inferkit
