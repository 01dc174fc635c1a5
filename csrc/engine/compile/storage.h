// Where the values of a plan live while it is compiled: slots, their aliases and lifetimes, and in the end offsets in
// the arena, or in the two that a device with memory of its own and the host have.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/plan/plan.h"

namespace inferkit {

struct Slot {
  Operand::Kind kind = Operand::Kind::kArena;
  uint32_t index = 0;             // kInput, kOutput
  const void* pointer = nullptr;  // kConstant
  size_t bytes = 0;
  size_t offset = 0;  // kArena, after place()
  int32_t alias_of = -1;
  size_t alias_offset = 0;    // bytes from where alias_of begins
  bool has_views = false;     // parts of it are values, too
  int first = -1, last = -1;  // steps that touch it
  int operands_of_last = 0;   // how many operands of the last one are in this memory
  bool steady = false;        // read by a step that relies on nobody else writing it
  bool on_host = false;       // as Operand::on_host
};

class Storage {
 public:
  int32_t add(const Slot& slot);
  Slot& operator[](int32_t id) { return slots_[static_cast<size_t>(id)]; }
  /// The slot whose memory `id` uses.
  int32_t root(int32_t id) const;
  /// `id` uses the memory of `target` from now on.
  void alias(int32_t id, int32_t target) { slots_[static_cast<size_t>(id)].alias_of = target; }
  /// `id` uses part of the memory of `target` from now on, from byte `offset` on; false, and nothing has changed, where
  /// that is not the plan's own or the part would be less aligned than memory of its own.
  bool view(int32_t id, int32_t target, size_t offset);
  void touch(int32_t id, int step);
  void suggest_in_place(int32_t out, int32_t in) { in_place_.push_back({out, in}); }

  /// Gives every arena slot that is on_host, or not, its offset; returns the arena's size.
  size_t place(bool on_host = false);
  Operand operand(int32_t id) const;

 private:
  struct InPlace {
    int32_t out, in;
  };
  void apply_in_place();

  std::vector<Slot> slots_;
  std::vector<InPlace> in_place_;
};

}  // namespace inferkit
