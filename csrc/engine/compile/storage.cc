#include "engine/compile/storage.h"

#include <algorithm>
#include <utility>

#include "graph/memory_planner.h"
#include "platform/stoppable.h"

namespace inferkit {

int32_t Storage::add(const Slot& slot) {
  slots_.push_back(slot);
  return static_cast<int32_t>(slots_.size() - 1);
}

int32_t Storage::root(int32_t id) const {
  while (slots_[static_cast<size_t>(id)].alias_of >= 0) id = slots_[static_cast<size_t>(id)].alias_of;
  return id;
}

bool Storage::view(int32_t id, int32_t target, size_t offset) {
  Slot& whole = slots_[static_cast<size_t>(root(target))];
  if (whole.kind != Operand::Kind::kArena || offset % kPlanAlignment != 0) return false;
  Slot& part = slots_[static_cast<size_t>(id)];
  part.alias_of = target;
  part.alias_offset = offset;
  whole.has_views = true;
  return true;
}

void Storage::touch(int32_t id, int step) {
  Slot& slot = slots_[static_cast<size_t>(root(id))];
  if (slot.first < 0) slot.first = step;
  slot.operands_of_last = step == slot.last ? slot.operands_of_last + 1 : 1;
  slot.last = step;
}

void Storage::apply_in_place() {
  // In the order of the steps, so that a chain of in-place steps shares one piece of memory.
  const std::vector<InPlace> wishes = std::exchange(in_place_, {});
  for (const InPlace& wish : stoppable(wishes)) {
    const int32_t out = root(wish.out), in = root(wish.in);
    if (out == in) continue;
    Slot& o = slots_[static_cast<size_t>(out)];
    Slot& i = slots_[static_cast<size_t>(in)];
    const bool both_arena = o.kind == Operand::Kind::kArena && i.kind == Operand::Kind::kArena;
    // A step that reads the memory through another operand too may still need what it would write over.
    // And one that sees part of the memory would write over the rest.
    if (!both_arena || i.operands_of_last != 1 || o.bytes != i.bytes || o.first < 0 || i.last != o.first ||
        i.first == o.first || slots_[static_cast<size_t>(wish.in)].bytes != i.bytes)
      continue;
    i.last = o.last;
    i.operands_of_last = o.operands_of_last;
    o.alias_of = in;
  }
}

size_t Storage::place(bool on_host) {
  apply_in_place();
  std::vector<Interval> intervals;
  std::vector<int32_t> owners;
  for (const size_t i : stoppable_indices(slots_.size())) {
    const Slot& slot = slots_[i];
    if (slot.kind != Operand::Kind::kArena || slot.alias_of >= 0 || slot.first < 0 || slot.on_host != on_host) continue;
    intervals.push_back({slot.bytes, slot.first, slot.last});
    owners.push_back(static_cast<int32_t>(i));
  }
  const MemoryPlan plan = plan_memory(intervals);
  for (size_t i = 0; i < owners.size(); ++i) slots_[static_cast<size_t>(owners[i])].offset = plan.offsets[i];
  return plan.total;
}

Operand Storage::operand(int32_t id) const {
  size_t from = 0;
  for (int32_t at = id; at >= 0; at = slots_[static_cast<size_t>(at)].alias_of) {
    from += slots_[static_cast<size_t>(at)].alias_offset;
  }
  const Slot& slot = slots_[static_cast<size_t>(root(id))];
  const size_t bytes = slot.kind == Operand::Kind::kConstant ? slot.bytes : 0;
  return {slot.kind, slot.index, slot.offset + from, slot.pointer, bytes, slot.on_host};
}

}  // namespace inferkit
