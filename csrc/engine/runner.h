// What a batcher sees of a model: ports, and a call that runs one batch. Compiled models and wrapped Python callables
// are Runners; batching/ knows nothing else of them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/tensor_view.h"
#include "base/validation.h"

namespace inferkit {

/// Of a value that all rows of a run share: requests are told apart by it, so that each compares it.
inline constexpr size_t kMostSharedBytes = size_t{1} << 16;

/// A named input or output; free dimensions are Shape::kFree.
struct PortSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  bool sequence = false;  // of tensors of that type; the shape is not checked
  bool optional = false;  // there may be nothing
  /// Which shapes there are, not even their rank, only a run tells: the file declares none for the tensors of a
  /// sequence or optional, or for an output that no trial run has shown. `shape` is empty then.
  bool any_shape = false;
  /// One value for all rows of a run, although it has dimensions: none of them is the batch.
  bool shared = false;
  /// What stands for it where it is left out; null where it must be given.
  std::shared_ptr<const TensorView> fallback = nullptr;

  bool is_list() const { return sequence || optional; }
};

/// Where a run puts its outputs: the runner asks for each one's memory when it knows the shape, before it writes.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  /// Memory for output `index`, row-major, at least aligned to its element. May throw Error.
  virtual void* allocate(size_t index, DType dtype, const Shape& shape) = 0;
  /// Memory for the bytes of an output of strings, once its views have theirs: it lives as long as they do.
  virtual char* allocate_text(size_t index, size_t /*bytes*/) {
    throw Error(ErrorCode::kOutput, cat("output ", index, " is of strings, which are not taken here"));
  }
  /// Output `index` is a sequence of these tensors of one type; `none`: an optional with nothing in it. They live until
  /// this returns, the bytes of strings too.
  virtual void give_list(size_t index, DType /*dtype*/, std::span<const TensorView> /*items*/, bool /*none*/) {
    throw Error(ErrorCode::kOutput, cat("output ", index, " is a sequence, which is not taken here"));
  }
};

class Runner;

/// The model that a runner had at one moment, which lives until this ends, and its number: for who runs one several
/// times and compares, or writes down what it has found of it. Whatever takes the runner's place meanwhile, each of
/// these runs is of this model.
class HeldModel {
 public:
  /// With a `holder`, its let_go() gets `place` in the end.
  HeldModel(Runner& model, uint64_t generation_, Runner* holder = nullptr, void* place = nullptr) noexcept
      : generation(generation_), model_(model), holder_(holder), place_(place) {}
  inline ~HeldModel();
  HeldModel(const HeldModel&) = delete;
  HeldModel& operator=(const HeldModel&) = delete;

  Runner& operator*() const { return model_; }
  Runner* operator->() const { return &model_; }

  const uint64_t generation;

 private:
  Runner& model_;
  Runner* const holder_;
  void* const place_;
};

class Runner {
 public:
  virtual ~Runner() = default;
  virtual std::span<const PortSpec> inputs() const = 0;
  virtual std::span<const PortSpec> outputs() const = 0;

  /// What it gives a meaning to, of inputs that are usually a mistake: one for each input, or none of all.
  virtual std::span<const InputSense> senses() const { return {}; }

  /// Runs one batch: `inputs` in the order of inputs(), each contiguous, 64-byte aligned not required, its shape
  /// concrete and already checked against the spec; bools are 0 or 1, and do not change. Asks `sink` for every output
  /// exactly once and fills it; of strings, the views, whose bytes are the sink's as well. Strings are
  /// well-formed UTF-8; those of the inputs live as long as the run. Numbers that change meanwhile give an answer of
  /// old and new ones, and do no other harm. Safe to call from many threads at once. Never throws: what goes wrong is
  /// in the status.
  virtual Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept = 0;

  /// True where run() takes Python's GIL (a wrapped callable): the caller must not hold a lock that a thread with the
  /// GIL may want.
  virtual bool needs_gil() const = 0;

  /// A guess at the duration of a run on inputs of these shapes, in nanoseconds; decides whether it is worth giving up
  /// the GIL. Cheap to call.
  virtual int64_t estimate_nanos(std::span<const Shape> shapes) const = 0;

  /// True where not only the shapes of the inputs but their values, too, decide how long a run takes (a loop's trip
  /// count): then a prediction promises nothing.
  virtual bool values_decide() const { return false; }

  /// How many threads a run may use.
  virtual int threads() const { return 1; }

  /// True where the answer to a row depends on the other rows of its run (DynamicQuantizeLinear takes its range from
  /// all of them, a Softmax over the first axis its sum): a batcher then runs each request by itself, so that no answer
  /// hangs on who else came.
  virtual bool rows_mix() const { return false; }

  /// True where what is drawn at random for a row hangs on its place in a run: no trial could find that out for sure.
  virtual bool rows_draw() const { return false; }

  /// Of the model that runs now: a larger one after each time that another took its place. By the time that somebody
  /// looks at it, it may be another; who must know which model ran asks hold().
  virtual uint64_t generation() const { return 0; }
  /// The model that runs now, for as long as it is held.
  virtual HeldModel hold() noexcept { return {*this, generation()}; }

 private:
  friend class HeldModel;
  virtual void let_go(void*) noexcept {}
};

inline HeldModel::~HeldModel() {
  if (holder_) holder_->let_go(place_);
}

}  // namespace inferkit
