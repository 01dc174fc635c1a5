// What a device runs: a flat list of steps over a table of operands. Immutable once built, shared by all threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace inferkit {

class ThreadPool;
class LaunchQueue;

/// What a step may use besides its operands.
struct ExecContext {
  ThreadPool* pool = nullptr;  // nullptr: this run stays on its thread
  int max_threads = 1;
  LaunchQueue* queue = nullptr;  // of a CUDA device: what steps put their launches into
};

/// Runs one step of a program; on a CUDA device it is called once, and says what runs instead. `io` holds the operands
/// in the order in which the lowering named them; `params` is the struct that it gave. Throws Error(kInference) where
/// the data make the operation impossible (an index out of range).
using StepFn = void (*)(const void* params, std::byte* const* io, const ExecContext& context);

struct Step {
  StepFn fn = nullptr;
  const void* params = nullptr;  // lives as long as the program
  uint32_t first_operand = 0;    // its pointers are table[first_operand...]
  uint32_t node = 0;             // index into Program::labels
  bool on_host = false;          // of a device with memory of its own: the CPU runs it, on operands that are on_host
};

/// Where an operand's memory is.
struct Operand {
  enum class Kind : uint8_t { kConstant, kArena, kInput, kOutput };
  Kind kind = Kind::kConstant;
  uint32_t index = 0;             // of the input or output
  size_t offset = 0;              // into the arena, the input or the output
  const void* pointer = nullptr;  // of a constant, in the host's memory
  size_t bytes = 0;               // of a constant, where its lowering has told
  static constexpr size_t kUnknownBytes = SIZE_MAX;
  bool on_host = false;  // of a device with memory of its own: it is in the host's, where steps of the CPU find it
};

/// Of a device's copy step: io[1] becomes io[0].
struct DeviceCopy {
  size_t bytes;
};

/// Of a device's answer step, which writes the bytes at io[1] as 32-bit values, each with the word at io[2] as its
/// upper half, to the 64-bit words at io[0]: the host sees of each whether it is there. What is behind the last byte,
/// up to three of them, is nobody's.
struct DeviceAnswer {
  size_t bytes;
};

struct Program {
  std::vector<Step> steps;
  std::vector<Operand> operands;                    // the table that an execution resolves into pointers
  std::vector<uint32_t> input_slots, output_slots;  // operands that each run sets
  std::vector<size_t> input_bytes, output_bytes;    // of each input and output
  size_t arena_bytes = 0, host_arena_bytes = 0;     // of operands of the device, and of those that are on_host
  StepFn answer = nullptr;                          // of the device; null where it has none
  int64_t estimated_nanos = 0;                      // a guess at one run's duration on one thread
  std::vector<std::string> labels;                  // what runs, for traces
  std::map<uint32_t, std::string> in_file;          // of a node that a rewrite made, what the file has, for errors

  const std::string& error_label(uint32_t node) const {
    const auto it = in_file.find(node);
    return it == in_file.end() ? labels[node] : it->second;
  }
};

}  // namespace inferkit
