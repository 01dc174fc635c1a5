#include "device/cuda/cuda.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "base/cat.h"
#include "base/error.h"
#include "device/cuda/cuda_pool.h"
#include "device/cuda/own_process.h"
#include "device/cuda/uploads.h"
#include "device/host_steps.h"
#include "platform/pause.h"

namespace inferkit {
namespace {

constexpr size_t kAlign = 256;  // of what lies in one block of memory

// Inputs up to so many bytes in all go over in one copy: each copy is a node of a graph, which takes longer than they
// do.
constexpr size_t kMostGathered = size_t{64} << 10;
// Outputs up to so many bytes in all, and so few, are words that the host polls for. That saves the end of a graph and
// a copy, some 4 us on an H100, and takes the host some nanoseconds for each word and the device a kernel for each
// output.
constexpr size_t kMostAnswered = size_t{8} << 10, kMostAnswers = 4;
// An input of a program of one kernel up to so many bytes stays in pinned memory, where the kernel reads it: a copy is
// a node of the graph, which takes longer than that.
constexpr size_t kMostInPlace = size_t{16} << 10;
// How often a run looks for a word in vain before it waits as the driver does: for a tenth of a millisecond or so.
constexpr int kMostLooks = 2048;
size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

/// What the executions of one device share.
struct Shared {
  Shared(std::unique_ptr<CudaBackend> of, const Clock& clock) : backend(std::move(of)), activity(clock) {}
  const std::unique_ptr<CudaBackend> backend;
  ActivityMeter activity;
  CudaPool memory{*backend, CudaPool::Kind::kDevice}, pinned{*backend, CudaPool::Kind::kPinned};
  Uploads uploads{*backend, memory};
  const OwnProcess process;

  void note_failure(std::string_view what) {
    activity.note_failure();
    const std::scoped_lock lock(mutex);
    failure = what;
    failed.store(true, std::memory_order_relaxed);
  }
  void note_success() {
    // Relaxed: who has failed meanwhile says so after this, or before.
    if (!failed.load(std::memory_order_relaxed)) [[likely]]
      return;
    const std::scoped_lock lock(mutex);
    failure.clear();
    failed.store(false, std::memory_order_relaxed);
  }
  /// Memory of arrays that were let go, which another library may still work on until the point in its stream.
  struct Leaving {
    CudaBlock block;
    std::unique_ptr<CudaMark> until;
  };
  /// Takes back what nobody works on any more; with `all`, waits for the rest. Whether there was something.
  bool take_back(bool all) noexcept {
    std::vector<Leaving> over;
    {
      const std::scoped_lock lock(leaving_mutex);
      if (!all) return std::erase_if(leaving, [](const Leaving& one) { return one.until->is_over(); }) > 0;
      over.swap(leaving);
    }
    for (const Leaving& one : over) one.until->wait();
    return !over.empty();
  }
  void leave(CudaBlock block, bool used, bool elsewhere) noexcept {
    if (!process.is_this()) return;
    if (elsewhere) block.never_again();
    if (!used || elsewhere) return;
    std::unique_ptr<CudaMark> until = backend->mark(kLegacyStream);
    if (!until) return block.never_again();
    Leaving one{std::move(block), std::move(until)};
    try {
      const std::scoped_lock lock(leaving_mutex);
      leaving.push_back(std::move(one));
    } catch (const std::bad_alloc&) {  // it has not been moved
      one.block.never_again();
    }
  }
  CudaBlock array_memory(size_t bytes) {
    take_back(/*all=*/false);
    try {
      return memory.acquire(bytes, "array");
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kPoolExhausted || !take_back(/*all=*/true)) throw;
    }
    return memory.acquire(bytes, "array");
  }
  std::mutex leaving_mutex;  // for leaving; the driver is asked under it
  std::vector<Leaving> leaving;
  std::mutex lanes_mutex;  // for lanes
  std::vector<std::unique_ptr<CudaLane>> lanes;

  std::mutex mutex;     // for failure
  std::string failure;  // what the last run said that failed on the device, until one goes well
  std::atomic<bool> failed{false};
};

class PooledArray final : public CudaArray {
 public:
  PooledArray(Shared& shared, size_t bytes) : shared_(shared), block_(shared.array_memory(bytes)) {}
  ~PooledArray() override {
    shared_.leave(std::move(block_), used_.load(std::memory_order_relaxed), elsewhere_.load(std::memory_order_relaxed));
  }
  PooledArray(const PooledArray&) = delete;
  PooledArray& operator=(const PooledArray&) = delete;
  void* data() const override { return block_.data(); }
  void give(uintptr_t stream) override {
    // Relaxed: the end of the last owner comes after all of them. A stream that its owner may have destroyed by then
    // must not be named to the driver, and that of a thread means another one in each.
    if (stream != kLegacyStream) elsewhere_.store(true, std::memory_order_relaxed);
    used_.store(true, std::memory_order_relaxed);
  }

 private:
  Shared& shared_;
  CudaBlock block_;
  std::atomic<bool> used_{false}, elsewhere_{false};
};

/// Counts what goes over to the device and back.
class CountingQueue final : public LaunchQueue {
 public:
  CountingQueue(LaunchQueue& queue, std::span<const std::byte> host) : queue_(queue), host_(host) {}
  void launch(const KernelLaunch& launch, std::span<const std::byte> params) override { queue_.launch(launch, params); }
  void copy(void* to, const void* from, size_t bytes) override {
    if (is_of_host(from) && !is_of_host(to)) in_bytes += bytes;
    if (is_of_host(to) && !is_of_host(from)) out_bytes += bytes;
    queue_.copy(to, from, bytes);
  }
  void mark(size_t number) override { queue_.mark(number); }

  uint64_t in_bytes = 0, out_bytes = 0;

 private:
  bool is_of_host(const void* memory) const {
    return !std::less<>()(memory, static_cast<const void*>(host_.data())) &&
           std::less<>()(memory, static_cast<const void*>(host_.data() + host_.size()));
  }
  LaunchQueue& queue_;
  const std::span<const std::byte> host_;
};

/// Writes down what a step puts into it.
class NotingQueue final : public LaunchQueue {
 public:
  void launch(const KernelLaunch& what, std::span<const std::byte>) override {
    KernelNote note{what.name, what.blocks, what.threads, what.shared_bytes};
    if (!notes.empty()) note.times = notes.back().times;
    if (!notes.empty() && note == notes.back()) {
      ++notes.back().times;
      return;
    }
    note.times = 1;
    notes.push_back(std::move(note));
  }
  void copy(void*, const void*, size_t) override {}
  void mark(size_t) override {}

  std::vector<KernelNote> notes;
};

/// A program runs in parts: a graph for steps of the device that follow each other, and steps of the host between them.
/// Each part is over when the next begins, so steps of both sides come in the order of the program.
class CudaExecution final : public Execution {
 public:
  CudaExecution(const Program& program, Shared& shared, Nanos* taken)
      : program_(program), shared_(shared), taken_(taken) {}

  void run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context) override {
    shared_.process.require();
    try {
      run_parts(inputs, outputs, context);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kDevice) shared_.note_failure(error.what());
      throw;
    }
  }

  bool run_placed(std::span<PlacedInput> inputs, std::span<void* const> outputs, CudaLane& lane,
                  const ExecContext& context) override {
    shared_.process.require();
    try {
      const bool good = run_placed_parts(inputs, outputs, lane, context);
      shared_.note_success();
      return good;
    } catch (const Error& error) {
      drain(lane);
      if (error.code() == ErrorCode::kDevice) shared_.note_failure(error.what());
      throw;
    } catch (...) {
      drain(lane);
      throw;
    }
  }

 private:
  static void drain(CudaLane& lane) noexcept {
    try {
      lane.wait();
    } catch (const Error&) {  // the device has failed: nothing runs there
    }
  }
  bool run_placed_parts(std::span<PlacedInput> inputs, std::span<void* const> outputs, CudaLane& lane,
                        const ExecContext& context) {
    if (!pinned_) prepare();
    if (!placed_) prepare_placed();
    for (size_t i = 0; i <= inputs.size(); ++i) fault()[i] = 0;
    uint64_t in_bytes = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      PlacedInput& input = inputs[i];
      const size_t bytes = program_.input_bytes[i];
      std::byte *const here = pinned_.data() + in_[i], *const there = places_.ports + in_[i];
      if (bytes == 0) continue;
      const bool reads = is_used(Operand::Kind::kInput, i), host_reads = is_used(Operand::Kind::kInput, i, true);
      if (!input.on_device) {
        copy(here, input.data, bytes);
        if (reads) lane.copy(there, here, bytes);
        if (reads) in_bytes += bytes;
        continue;
      }
      // What is looked at is what is computed with, whatever its owner does meanwhile.
      if (reads || input.scan || host_reads) lane.copy(there, input.data, bytes);
      if (host_reads) lane.copy(here, there, bytes);
      if (input.scan) input.scan(lane, there, bytes, input.allowed, const_cast<uint32_t*>(fault()) + 1 + i);
    }
    const auto wait = [&] {
      lane.wait();
      bool good = true;
      for (size_t i = 0; i < inputs.size(); ++i) {
        inputs[i].refused = fault()[1 + i] != 0;
        good &= !inputs[i].refused;
      }
      if (good) check_fault();
      return good;
    };
    bool first = true;
    for (size_t p = 0; p < parts_.size(); ++p) {
      const Part& part = parts_[p];
      if (!part.placed) {
        if (first && !wait()) return false;
        run_host_steps(program_, part.first, part.last, table_.data(), context, nullptr);
      } else {
        const ActivityMeter::Launch launch(shared_.activity, std::exchange(in_bytes, 0), 0);
        part.placed->start(lane);
        // The last one's outputs follow in the lane.
        if (p + 1 == parts_.size()) {
          copy_outputs(outputs, lane);
          return wait();
        }
        if (!wait()) return false;
      }
      first = false;
    }
    copy_outputs(outputs, lane);
    return wait();
  }
  void copy_outputs(std::span<void* const> outputs, CudaLane& lane) const {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const std::byte* const from = (is_used(Operand::Kind::kOutput, i) ? places_.ports : places_.host_ports) + out_[i];
      lane.copy(outputs[i], from, program_.output_bytes[i]);
    }
  }
  /// The same graphs without what takes inputs from the host and brings outputs there.
  void prepare_placed() {
    std::vector<std::unique_ptr<CudaGraph>> graphs;
    for (Part& part : parts_) {
      graphs.emplace_back();
      if (!part.graph) continue;
      Part other{.first = part.first, .last = part.last};
      graphs.back() = capture([&](LaunchQueue& queue) { record(queue, other, places_, false, false); }, 0);
    }
    for (size_t p = 0; p < parts_.size(); ++p) parts_[p].placed = std::move(graphs[p]);
    placed_ = true;
  }

  void run_parts(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context) {
    // At the first run and not before: constants are read, which may lie in a file that only runs guard.
    if (!pinned_) prepare();
    *fault() = 0;
    if (++run_ == 0) ++run_;  // 0 is what words hold at first
    *reinterpret_cast<volatile uint32_t*>(pinned_.data() + run_at_) = run_;
    for (int i = 0; i < readers_; ++i) {
      *static_cast<volatile uint32_t*>(places_.runs + i * LaunchQueue::kRunStep) = run_;
    }
    bool answered = false;
    for (size_t i = 0; i < inputs.size(); ++i) copy(pinned_.data() + in_[i], inputs[i], program_.input_bytes[i]);
    for (const Part& part : parts_) {
      if (part.graph) {
        {
          const ActivityMeter::Launch launch(shared_.activity, part.in_bytes, part.out_bytes);
          if (part.answers) {
            part.graph->begin();
            take_answers(*part.graph, outputs);
            answered = true;
          } else {
            part.graph->run();
          }
        }
        shared_.note_success();
        check_fault();
        for (size_t s = part.first; taken_ && s < part.last; ++s) {
          taken_[s] = part.graph->between(s - part.first, s - part.first + 1);
        }
      } else {
        run_host_steps(program_, part.first, part.last, table_.data(), context, taken_);
      }
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (answered && is_used(Operand::Kind::kOutput, i)) continue;
      copy(outputs[i], pinned_.data() + out_[i], program_.output_bytes[i]);
    }
  }

  /// Polls for the words of a run, and waits for its graph where they do not come, so that an error of the device is
  /// told and nothing hangs. Relaxed: a word says all of itself, and nothing else is read for its sake. When the last
  /// one is there, so is all that came before the kernels that write them; the end of the graph itself may be on its
  /// way, and the next run of it, or its end, is put behind that.
  void take_answers(CudaGraph& graph, std::span<void* const> outputs) const {
    int looks = 0;
    bool over = false;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!is_used(Operand::Kind::kOutput, i)) continue;
      auto* const words = reinterpret_cast<uint64_t*>(pinned_.data() + answers_[i]);
      auto* const to = static_cast<std::byte*>(outputs[i]);
      const size_t bytes = program_.output_bytes[i];
      for (size_t from = 0; from < bytes; from += sizeof(uint32_t)) {
        const std::atomic_ref<uint64_t> word(words[from / sizeof(uint32_t)]);
        uint64_t seen = word.load(std::memory_order_relaxed);
        while (seen >> 32 != run_) {
          if (over) throw Error(ErrorCode::kDevice, "the CUDA device has ended a run without its answers");
          if (++looks <= kMostLooks) {
            pause_core();
          } else {
            graph.wait();
            over = true;
          }
          seen = word.load(std::memory_order_relaxed);
        }
        const auto value = static_cast<uint32_t>(seen);
        std::memcpy(to + from, &value, std::min(bytes - from, sizeof(value)));
      }
    }
  }

  /// Steps [first, last), on the device where there is a graph.
  struct Part {
    size_t first = 0, last = 0;
    std::unique_ptr<CudaGraph> graph = nullptr, placed = nullptr;
    bool answers = false;                  // its outputs are words that the host polls for
    uint64_t in_bytes = 0, out_bytes = 0;  // that go over with the graph
    int readers = 0;                       // blocks that find the run's number in pinned memory
  };

  static void copy(void* to, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  /// The word for faults, then one for each input's scan. Kernels write them, so the compiler must not think it knows
  /// what they hold.
  volatile uint32_t* fault() const { return reinterpret_cast<volatile uint32_t*>(pinned_.data()); }
  void check_fault() const {
    const uint32_t word = *fault();
    if (word == 0) return;
    const Step& step = program_.steps[(word & ~LaunchQueue::kDividesByZero) - 1];
    throw Error(ErrorCode::kInference, cat(program_.error_label(step.node), ": ",
                                           word & LaunchQueue::kDividesByZero
                                               ? "integer division by zero"
                                               : "an index is out of range for the dimension that it counts along"));
  }

  /// What is made here is kept only when all of it is there.
  void prepare() {
    // The device's arena, then inputs and outputs, in one block of its memory; the words for faults, the number of the
    // run, inputs and outputs, then the words of answers and the host's arena in one of pinned memory. What both have
    // lies equally far from where the words for faults begin.
    size_t at = aligned(sizeof(uint32_t) * (1 + program_.input_bytes.size()));
    run_at_ = std::exchange(at, at + aligned(sizeof(uint32_t)));
    in_.clear();
    out_.clear();
    for (const size_t bytes : program_.input_bytes) in_.push_back(std::exchange(at, at + aligned(bytes)));
    for (const size_t bytes : program_.output_bytes) out_.push_back(std::exchange(at, at + aligned(bytes)));
    const size_t arena = aligned(program_.arena_bytes);
    answers_.clear();
    size_t pinned_end = at;
    for (const size_t bytes : program_.output_bytes) {
      answers_.push_back(std::exchange(pinned_end, pinned_end + (can_answer() ? aligned(2 * bytes) : 0)));
    }
    const size_t runs_at = pinned_end;
    if (may_read_in_place()) pinned_end += sizeof(uint32_t) * LaunchQueue::kRunStep * LaunchQueue::kMostReaders;
    CudaBlock pinned = shared_.pinned.acquire(pinned_end + program_.host_arena_bytes, "run");
    // The pool's memory may hold words of somebody else's run.
    std::memset(pinned.data() + at, 0, pinned_end - at);
    CudaBlock memory = shared_.memory.acquire(arena + at, "run");
    const Places places{memory.data(),
                        memory.data() + arena,
                        pinned.data() + pinned_end,
                        pinned.data(),
                        {pinned.data(), pinned_end + program_.host_arena_bytes},
                        reinterpret_cast<uint32_t*>(pinned.data() + runs_at)};
    Constants constants;
    table_.clear();
    for (const Operand& operand : program_.operands) table_.push_back(address(operand, places, constants));
    std::vector<Part> parts = cut();
    for (Part& part : parts) {
      if (part.first == part.last || program_.steps[part.first].on_host) continue;
      const bool is_first = &part == first_of_device(parts), is_last = &part == last_of_device(parts);
      part.graph = capture([&](LaunchQueue& queue) { record(queue, part, places, is_first, is_last); },
                           taken_ ? part.last - part.first + 1 : 0);
    }
    places_ = places;
    readers_ = 0;
    for (const Part& part : parts) readers_ = std::max(readers_, part.readers);
    pinned_ = std::move(pinned);
    memory_ = std::move(memory);
    constants_ = std::move(constants);
    parts_ = std::move(parts);
  }

  /// A graph takes memory of the driver's own: what the pools keep may be what it lacks.
  std::unique_ptr<CudaGraph> capture(const FunctionRef<void(LaunchQueue&)>& record_part, size_t marks) const {
    try {
      return shared_.backend->capture(record_part, marks);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kPoolExhausted || shared_.memory.trim() + shared_.pinned.trim() == 0) throw;
    }
    return shared_.backend->capture(record_part, marks);
  }

  using Constants = std::vector<std::shared_ptr<const Uploads::Constant>>;
  struct Places {
    std::byte *arena, *ports, *host_arena, *host_ports;
    std::span<const std::byte> host;  // all of it
    uint32_t* runs;                   // for blocks that read inputs in pinned memory
  };

  std::vector<Part> cut() const {
    std::vector<Part> out;
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      const bool goes_on = s > 0 && program_.steps[s].on_host == program_.steps[s - 1].on_host;
      if (!goes_on) out.push_back({.first = s});
      out.back().last = s + 1;
    }
    return out;
  }
  bool is_on_device(const Part& part) const { return !program_.steps[part.first].on_host; }
  const Part* first_of_device(const std::vector<Part>& parts) const {
    return &*std::ranges::find_if(parts, [&](const Part& part) { return is_on_device(part); });
  }
  const Part* last_of_device(const std::vector<Part>& parts) const {
    return &*std::find_if(parts.rbegin(), parts.rend(), [&](const Part& part) { return is_on_device(part); });
  }

  /// The first graph brings the inputs that the device reads, the last takes the outputs that it has made.
  void record(LaunchQueue& into, Part& part, const Places& places, bool is_first, bool is_last) const {
    CountingQueue queue(into, places.host);
    queue.set_fault(reinterpret_cast<uint32_t*>(places.host_ports));
    if (is_first && may_read_in_place() && reads_in_place(places)) {
      offer_inputs(queue, places);
    } else if (is_first) {
      bring(queue, into, places);
    }
    const ExecContext context{.queue = &queue};
    if (taken_) queue.mark(0);
    for (size_t s = part.first; s < part.last; ++s) {
      const Step& step = program_.steps[s];
      queue.set_step(static_cast<uint32_t>(s));
      // Of the last step, whose output nobody reads on the device.
      if (is_last && s + 1 == part.last && can_answer() && !queue.may_fault()) offer_answers(queue, places);
      step.fn(step.params, table_.data() + step.first_operand, context);
      if (taken_) queue.mark(s - part.first + 1);
    }
    // What a kernel says in the word for faults is there when the graph is over, which words of answers are not.
    part.answers = is_last && can_answer() && !queue.may_fault();
    for (size_t i = 0; is_last && i < out_.size(); ++i) {
      if (!is_used(Operand::Kind::kOutput, i)) continue;
      if (!part.answers) {
        queue.copy(places.host_ports + out_[i], places.ports + out_[i], program_.output_bytes[i]);
        continue;
      }
      if (queue.has_taken(places.ports + out_[i])) {
        queue.out_bytes += program_.output_bytes[i];
        continue;
      }
      const DeviceAnswer params{program_.output_bytes[i]};
      std::byte* const io[] = {places.host_ports + answers_[i], places.ports + out_[i], places.ports + run_at_};
      program_.answer(&params, io, context);
      queue.out_bytes += params.bytes;
    }
    part.in_bytes = queue.in_bytes;
    part.out_bytes = queue.out_bytes;
    part.readers = queue.readers();
    if (part.readers > 0) part.in_bytes = program_.input_bytes[0];
  }
  /// The inputs that steps read, and the number of the run: one copy where they are small.
  void bring(CountingQueue& queue, LaunchQueue& into, const Places& places) const {
    const std::vector<size_t>& bytes = program_.input_bytes;
    size_t end = run_at_ + sizeof(uint32_t);
    uint64_t used = 0;
    for (size_t i = 0; i < in_.size(); ++i) {
      if (!is_used(Operand::Kind::kInput, i)) continue;
      end = in_[i] + bytes[i];
      used += bytes[i];
    }
    if (used > 0 && end - run_at_ > kMostGathered) {
      for (size_t i = 0; i < in_.size(); ++i) {
        if (is_used(Operand::Kind::kInput, i)) queue.copy(places.ports + in_[i], places.host_ports + in_[i], bytes[i]);
      }
      used = 0;
      end = run_at_ + sizeof(uint32_t);
    }
    queue.in_bytes += used;
    if (used > 0 || can_answer()) into.copy(places.ports + run_at_, places.host_ports + run_at_, end - run_at_);
  }
  /// Whether a kernel might read the input where the host puts it: one input, one step, and answers that say of which
  /// run they are.
  bool may_read_in_place() const {
    return program_.steps.size() == 1 && program_.input_bytes.size() == 1 && can_answer() &&
           is_used(Operand::Kind::kInput, 0) && program_.input_bytes[0] <= kMostInPlace;
  }
  /// Whether the step does, and makes all answers itself.
  bool reads_in_place(const Places& places) const {
    NotingQueue queue;
    offer_inputs(queue, places);
    offer_answers(queue, places);
    const Step& step = program_.steps[0];
    step.fn(step.params, table_.data() + step.first_operand, {.queue = &queue});
    bool all = queue.readers() > 0 && queue.notes.size() == 1;
    for (size_t i = 0; i < out_.size(); ++i) {
      all = all && (!is_used(Operand::Kind::kOutput, i) || queue.has_taken(places.ports + out_[i]));
    }
    return all;
  }
  void offer_inputs(LaunchQueue& queue, const Places& places) const {
    queue.offer_inputs({{places.ports + in_[0], program_.input_bytes[0], places.host_ports + in_[0], places.runs}});
  }
  void offer_answers(LaunchQueue& queue, const Places& places) const {
    std::vector<LaunchQueue::Answer> all;
    for (size_t i = 0; i < out_.size(); ++i) {
      if (!is_used(Operand::Kind::kOutput, i)) continue;
      all.push_back({places.ports + out_[i], program_.output_bytes[i],
                     reinterpret_cast<uint64_t*>(places.host_ports + answers_[i]),
                     reinterpret_cast<const uint32_t*>(places.ports + run_at_)});
    }
    queue.offer_answers(std::move(all));
  }
  /// Whether outputs are words that the host polls for, if no step may fail for its data. There must be one to poll
  /// for, and the CPU must not go on with other values of the device. Not where it measures: events are told when all
  /// is over.
  bool can_answer() const {
    if (!program_.answer || taken_ || program_.steps.empty() || program_.steps.back().on_host) return false;
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < program_.output_bytes.size(); ++i) {
      if (!is_used(Operand::Kind::kOutput, i)) continue;
      ++count;
      bytes += program_.output_bytes[i];
    }
    return count > 0 && count <= kMostAnswers && bytes <= kMostAnswered;
  }
  /// Whether steps have input or output i in the device's memory.
  bool is_used(Operand::Kind kind, size_t i, bool on_host = false) const {
    const size_t bytes = (kind == Operand::Kind::kInput ? program_.input_bytes : program_.output_bytes)[i];
    return bytes > 0 && std::ranges::any_of(program_.operands, [&](const Operand& operand) {
             return operand.kind == kind && operand.index == i && operand.on_host == on_host;
           });
  }

  std::byte* address(const Operand& operand, const Places& places, Constants& constants) const {
    switch (operand.kind) {
      case Operand::Kind::kArena:
        return (operand.on_host ? places.host_arena : places.arena) + operand.offset;
      case Operand::Kind::kInput:
        return (operand.on_host ? places.host_ports : places.ports) + in_[operand.index] + operand.offset;
      case Operand::Kind::kOutput:
        return (operand.on_host ? places.host_ports : places.ports) + out_[operand.index] + operand.offset;
      case Operand::Kind::kConstant:
        break;
    }
    if (!operand.pointer) return nullptr;  // left out
    // Steps never write through a constant operand: lowering hands those out as inputs only.
    if (operand.on_host) return const_cast<std::byte*>(static_cast<const std::byte*>(operand.pointer));
    if (operand.bytes == Operand::kUnknownBytes) throw Error(ErrorCode::kDevice, "a constant of unknown size");
    constants.push_back(shared_.uploads.get(operand.pointer, operand.bytes));
    return constants.back()->data();
  }

  const Program& program_;
  Shared& shared_;
  Nanos* const taken_;            // how long each step of a run took; null where nobody asks
  std::vector<size_t> in_, out_;  // where each input and output begins
  std::vector<size_t> answers_;   // and the words of each output, in pinned memory
  size_t run_at_ = 0;             // where the number of the run is
  uint32_t run_ = 0;
  int readers_ = 0;  // of Part
  std::vector<std::byte*> table_;
  CudaBlock pinned_, memory_;
  Constants constants_;
  Places places_{};
  bool placed_ = false;
  std::vector<Part> parts_;  // its graphs end before the memory that they name
};

void copy_on_device(const void* params, std::byte* const* io, const ExecContext& context) {
  context.queue->copy(io[0], io[1], static_cast<const DeviceCopy*>(params)->bytes);
}

class ProgramDevice final : public CudaDevice {
 public:
  ProgramDevice(std::unique_ptr<CudaBackend> backend, const Clock& clock) : shared_(std::move(backend), clock) {}
  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::unique_ptr<Execution> prepare(const Program& program, BufferPool&, Nanos* taken) override {
    return std::make_unique<CudaExecution>(program, shared_, taken);
  }
  std::vector<KernelNote> kernels(const Program& program, const Step& step) const override {
    // A step looks at no more of its operands than whether they are there.
    alignas(kAlign) static std::byte anywhere[kAlign];
    std::vector<std::byte*> table;
    const size_t end = &step == &program.steps.back() ? program.operands.size() : (&step)[1].first_operand;
    for (size_t i = step.first_operand; i < end; ++i) {
      const Operand& operand = program.operands[i];
      table.push_back(operand.kind == Operand::Kind::kConstant && !operand.pointer ? nullptr : anywhere);
    }
    NotingQueue queue;
    step.fn(step.params, table.data(), {.queue = &queue});
    return std::move(queue.notes);
  }
  StepFn copy_step() const override { return copy_on_device; }
  bool borrows_inputs() const override { return false; }
  CudaMemory memory() const override {
    return {shared_.memory.stats(), shared_.pinned.stats(), shared_.uploads.bytes()};
  }
  CudaActivity activity() const override {
    CudaActivity now = shared_.activity.now();
    now.uploaded_bytes = shared_.uploads.uploaded_bytes();
    return now;
  }
  std::vector<LeakRow> leaks() const override { return shared_.memory.leaks(); }
  size_t trim() override {
    shared_.process.require();
    shared_.take_back(/*all=*/true);
    return shared_.memory.trim() + shared_.pinned.trim();
  }
  void limit(size_t max_bytes) override { shared_.memory.limit(max_bytes); }
  int number() const override { return shared_.backend->number(); }
  std::unique_ptr<CudaLane> take_lane() override {
    shared_.process.require();
    {
      const std::scoped_lock lock(shared_.lanes_mutex);
      if (!shared_.lanes.empty()) {
        std::unique_ptr<CudaLane> out = std::move(shared_.lanes.back());
        shared_.lanes.pop_back();
        return out;
      }
    }
    return shared_.backend->lane();
  }
  void give_lane(std::unique_ptr<CudaLane> lane) noexcept override {
    constexpr size_t kMostLanes = 16;
    const std::scoped_lock lock(shared_.lanes_mutex);
    if (shared_.lanes.size() < kMostLanes) shared_.lanes.push_back(std::move(lane));
  }
  std::shared_ptr<CudaArray> new_array(size_t bytes) override {
    return std::make_shared<PooledArray>(shared_, std::max<size_t>(bytes, 1));
  }
  int device_of(const void* memory) noexcept override { return shared_.backend->device_of(memory); }
  void download(void* to, const void* from, size_t bytes, CudaLane& lane) override {
    if (bytes == 0) return;
    const CudaBlock pinned = shared_.pinned.acquire(bytes, "array");
    lane.copy(pinned.data(), from, bytes);
    lane.wait();
    std::memcpy(to, pinned.data(), bytes);
  }
  void upload(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) shared_.backend->upload(to, from, bytes);
  }
  std::string failure() const override {
    try {
      shared_.process.require();
    } catch (const Error& error) {  // nothing runs here any more
      return error.what();
    }
    const std::scoped_lock lock(shared_.mutex);
    return shared_.failure;
  }

 private:
  mutable Shared shared_;
};

}  // namespace

std::unique_ptr<CudaDevice> make_cuda_device(std::unique_ptr<CudaBackend> backend, const Clock& clock) {
  return std::make_unique<ProgramDevice>(std::move(backend), clock);
}

}  // namespace inferkit
