// Lowering: how an operator family turns a node into steps. Shapes, dtypes and constants are known here, so everything
// that can be decided before the run is decided here.
#pragma once
#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/plan/plan.h"
#include "graph/op_schema.h"

namespace inferkit {

/// How the elements of a tensor lie: row-major in the order of its dimensions, or in blocks of sixteen channels, whose
/// values of a pixel lie side by side: [batch, channels / 16, spatial..., 16].
enum class Layout : uint8_t { kPlain, kBlocks };

/// A handle on memory that a step reads or writes; LowerContext gives it out.
struct Ref {
  int32_t id = -1;
  bool valid() const { return id >= 0; }
};

/// A value as it lies.
struct Lying {
  Ref ref;
  Layout layout = Layout::kPlain;
};

/// What is derived from constants, or from a node's attributes, is known by all that it depends on; by nothing that
/// ends with the process, so that it can be kept in a file.
struct PackedKey {
  std::vector<uint64_t> from;  // the constants (Tensor::id), or the node
  std::string kind;            // the arrangement, with its parameters
  DType precision = DType::kF32;
  std::string tier;  // whose kernels read it; empty where all do
  auto operator<=>(const PackedKey&) const = default;
};

/// Things made once per model and shared by all its plans: packed weights, tables. Thread-safe.
class ModelCache {
 public:
  virtual ~ModelCache() = default;
  using MakeFn = std::function<std::shared_ptr<const void>()>;
  /// The object under `key`, made by `make` at the first call; `bytes` is its size, for Model::memory().
  virtual std::shared_ptr<const void> get(const PackedKey& key, const MakeFn& make, size_t bytes) = 0;
  /// The same of so many plain bytes that were made of these constants, which live as long as the cache, and of nothing
  /// else but the key: a file may have them.
  virtual std::shared_ptr<const void> get_bytes(const PackedKey& key, std::span<const Tensor* const>,
                                                const MakeFn& make, size_t bytes) {
    return get(key, make, bytes);
  }
};

/// How constants are arranged for the steps that read them.
struct Packing {
  std::string kind;               // with everything that it depends on, but for the constants and what follows
  DType precision = DType::kF32;  // of its elements
  int64_t elements = 0;
  std::string tier;  // as PackedKey::tier
};

class LowerContext : public NodeContext {
 public:
  using NodeContext::NodeContext;
  virtual ~LowerContext() = default;

  /// Invalid where the input is left out. Bools and integers of 32 and 64 bits, which is what conditions, indices and
  /// lengths are, stand in memory that only the run writes: whoever reads one twice finds the same. Other values may be
  /// the caller's own, and change between two reads.
  virtual Ref in(size_t i) = 0;
  /// The same in memory that only the run writes, whatever the type: for values that decide an index, a size, a branch
  /// or an order. Costs a copy where they are the caller's.
  virtual Ref steady(size_t i) = 0;
  /// The same for steps that take its elements as bytes: a constant may lie at an odd address, and is not copied.
  virtual Ref in_bytes(size_t i) = 0;
  virtual Ref out(size_t i) = 0;  // invalid where the output is left out or nobody reads it
  /// For ways that have `blocks_nanos`: input i in whichever layout it lies, and the one in which output o is wanted.
  /// What in() and out() give is plain for all others; operators that take their tensors element by element do not see
  /// the difference. A way that has `alike_cost` is given its inputs as it is to write its outputs.
  virtual Lying lying(size_t i) = 0;
  virtual Layout wanted(size_t o) = 0;
  /// 64-byte aligned memory that lives from the first to the last step that names it.
  virtual Ref scratch(size_t bytes) = 0;
  /// Memory that `owner` keeps, as an operand; the plan keeps `owner`. Devices with memory of their own copy it, and
  /// need to know how much it is.
  virtual Ref constant(const void* data, std::shared_ptr<const void> owner, size_t bytes = Operand::kUnknownBytes) = 0;
  /// Output `o` is the same bytes as input `i`: no step, no copy (Reshape, Squeeze...).
  virtual void alias(size_t o, size_t i) = 0;
  /// Output `o` is part of input `i`, from byte `offset` on: true where that needs no step, which is where the input is
  /// memory of the run and the part begins as aligned as memory of its own would.
  virtual bool view(size_t o, size_t i, size_t offset) = 0;
  /// The memory planner may put output `o` where input `i` was, if nobody else reads that input later: for steps that
  /// read each element before they write it. Both must have the same number of bytes.
  virtual void in_place(size_t o, size_t i) = 0;
  /// What `fill` writes, from `constants` alone: once per model where they all belong to it, else for this plan.
  virtual Ref packed(std::initializer_list<const Tensor*> constants, const Packing& packing,
                     const std::function<void(void*)>& fill) = 0;
  virtual ModelCache& cache() = 0;
  /// How many threads a run of the plan may use: room for more is never used. The bits must not depend on it.
  virtual int threads() const = 0;

  /// Adds a step. `operands` become io[0], io[1]... in this order; an invalid Ref becomes nullptr. `work` is a rough
  /// count of nanoseconds on one thread: it decides about the GIL.
  template <class Params>
  void step(StepFn fn, const Params& params, std::initializer_list<Ref> operands, double work = 0) {
    static_assert(std::is_trivially_copyable_v<Params> && std::is_trivially_destructible_v<Params>);
    add_step(fn, &params, sizeof(Params), {operands.begin(), operands.size()}, work);
  }
  template <class Params>
  void step(StepFn fn, const Params& params, std::span<const Ref> operands, double work = 0) {
    static_assert(std::is_trivially_copyable_v<Params> && std::is_trivially_destructible_v<Params>);
    add_step(fn, &params, sizeof(Params), operands, work);
  }

 protected:
  virtual void add_step(StepFn fn, const void* params, size_t params_bytes, std::span<const Ref> operands,
                        double work) = 0;
};

/// The bytes of as many elements of `size` bytes as the product of `counts`, for scratch that is no value's: counts of
/// different shapes may give more than 64 bits hold, and a run is then refused for its size.
inline size_t room_for(std::initializer_list<int64_t> counts, size_t size) {
  constexpr size_t kMost = size_t{1} << 56;
  size_t bytes = size;
  for (const int64_t count : counts) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(count), &bytes) || bytes > kMost) bytes = kMost;
    if (count == 0) return 0;
  }
  return bytes;
}

/// The product of counts, for estimates: those of different shapes may give more than 64 bits hold.
template <std::integral... Counts>
constexpr double multiplied(Counts... counts) {
  return (1.0 * ... * static_cast<double>(counts));
}

using LowerFn = void (*)(LowerContext&);

}  // namespace inferkit
