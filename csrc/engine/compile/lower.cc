// The last part of a compilation: each node's steps, and the memory that they name.
#include "engine/compile/lower.h"

#include <algorithm>
#include <cstring>

#include "base/subnormals.h"
#include "engine/compile/compiler.h"
#include "engine/compile/layouts.h"
#include "platform/run_control.h"

namespace inferkit {
class NodeLowering final : public LowerContext {
 public:
  NodeLowering(Compiler& compiler, const Node& node, size_t index, std::span<const TensorFacts* const> in,
               std::span<TensorFacts> out, const OpSchema& schema, bool on_host)
      : LowerContext(node, in, out),
        compiler_(compiler),
        index_(index),
        required_inputs_(static_cast<size_t>(schema.min_inputs)),
        required_outputs_(static_cast<size_t>(schema.min_outputs)),
        on_host_(on_host) {}

  Ref in(size_t i) override {
    if (!has_input(i)) return place(i);
    const DType dtype = input(i).dtype;
    return dtype == DType::kI64 || dtype == DType::kI32 || dtype == DType::kBool ? steady(i) : place(i);
  }
  Ref steady(size_t i) override {
    const Ref ref = place(i);
    return ref.valid() ? Ref{compiler_.steady_slot(ref.id, index_)} : ref;
  }
  Ref in_bytes(size_t i) override {
    const Tensor* constant = has_input(i) ? input(i).constant : nullptr;
    if (!constant || !constant->data.odd() || constant->data.odd()->copied()) return in(i);
    return this->constant(constant->data.place(), constant->owner, constant->bytes());
  }
  Lying lying(size_t i) override {
    if (!has_input(i)) return {};
    const ValueId id = node_.inputs[i];
    const Ref here{compiler_.slot_of(id, on_host_)}, other{compiler_.reordered_slot_[static_cast<size_t>(id)]};
    const bool blocks = compiler_.value_layout_[static_cast<size_t>(id)] == Layout::kBlocks;
    return other.valid() && !blocks ? Lying{other, Layout::kBlocks}
                                    : Lying{here, blocks ? Layout::kBlocks : Layout::kPlain};
  }
  Layout wanted(size_t o) override { return compiler_.value_layout_[static_cast<size_t>(node_.outputs[o])]; }
  /// Value `id` in that layout, turned into it where its node wrote the other.
  Ref in_layout(ValueId id, Layout layout) {
    if (compiler_.value_layout_[static_cast<size_t>(id)] == layout) return {compiler_.slot_of(id, on_host_)};
    int32_t& slot = compiler_.reordered_slot_[static_cast<size_t>(id)];
    if (slot < 0) {
      const TensorFacts& f = *compiler_.facts(id);
      slot = compiler_.storage_.add({.bytes = TensorView{f.dtype, f.shape, nullptr}.bytes()});
      OpRegistry::instance().reorder()(*this, f.shape, Ref{compiler_.slot_of(id, on_host_)}, Ref{slot}, layout);
    }
    return {slot};
  }
  Ref out(size_t i) override {
    if (!has_output(i)) return {};
    const ValueId id = node_.outputs[i];
    // What the operator always gives, its steps always write: it has memory even where nobody reads it.
    if (!compiler_.value_needed_[static_cast<size_t>(id)] && i >= required_outputs_) return {};
    return {compiler_.slot_of(id, on_host_)};
  }
  Ref scratch(size_t bytes) override {
    compiler_.scratch_bytes_ += bytes;
    return {compiler_.storage_.add({.bytes = bytes, .on_host = on_host_})};
  }
  Ref constant(const void* data, std::shared_ptr<const void> owner, size_t bytes) override {
    compiler_.plan_->owners.push_back(std::move(owner));
    return {compiler_.storage_.add(
        {.kind = Operand::Kind::kConstant, .pointer = data, .bytes = bytes, .on_host = on_host_})};
  }
  void alias(size_t o, size_t i) override {
    const Ref target = out(o);
    if (target.valid()) compiler_.storage_.alias(target.id, place(i).id);
  }
  bool view(size_t o, size_t i, size_t offset) override {
    const Ref target = out(o);
    return !target.valid() || compiler_.storage_.view(target.id, place(i).id, offset);
  }
  void in_place(size_t o, size_t i) override {
    const Ref target = out(o), source = in(i);
    if (target.valid() && source.valid()) compiler_.storage_.suggest_in_place(target.id, source.id);
  }
  Ref packed(std::initializer_list<const Tensor*> constants, const Packing& packing,
             const std::function<void(void*)>& fill) override;
  ModelCache& cache() override { return compiler_.cache_; }
  int threads() const override { return compiler_.options_.threads; }

 protected:
  void add_step(StepFn fn, const void* params, size_t bytes, std::span<const Ref> operands, double work) override {
    compiler_.add_step(fn, params, bytes, operands, index_, work, on_host_);
  }

 private:
  /// Where input i lies.
  Ref place(size_t i) {
    if (has_input(i)) {
      const bool alike = compiler_.choices_[index_].lowering->alike_cost != nullptr;
      const bool lies_so = alike ? may_have_blocks(*inputs_[i]) : inputs_[i]->shape == outputs_[0].shape;
      const bool blocks = compiler_.in_blocks_[index_] && lies_so;
      return in_layout(node_.inputs[i], blocks ? Layout::kBlocks : Layout::kPlain);
    }
    if (i < required_inputs_) fail(cat("input ", i, " is missing"));  // its steps would read it
    return {};
  }

  Compiler& compiler_;
  const size_t index_, required_inputs_, required_outputs_;
  const bool on_host_;
};

Ref NodeLowering::packed(std::initializer_list<const Tensor*> constants, const Packing& packing,
                         const std::function<void(void*)>& fill) {
  // The size is part of it, so that nobody is ever handed less than it asked for.
  PackedKey key{{}, cat(packing.kind, " ", packing.elements), packing.precision, packing.tier};
  for (const Tensor* constant : constants) {
    key.from.push_back(constant->id);
    key.kind += cat(" ", dtype_name(constant->dtype), " ", constant->shape.str());
  }
  const auto make = [&]() -> std::shared_ptr<const void> {
    void* data = nullptr;
    const Tensor tensor = make_tensor(packing.precision, {packing.elements}, &data);
    fill(data);
    flush_subnormals(packing.precision, data, packing.elements);  // as runs do, which need not meet them then
    return {tensor.owner, tensor.data};
  };
  // What folding has made for this plan has no id, and ends with it.
  const bool lasting = std::ranges::find(key.from, uint64_t{0}) == key.from.end();
  const size_t bytes = static_cast<size_t>(packing.elements) * dtype_size(packing.precision);
  const auto held =
      lasting ? compiler_.cache_.get_bytes(key, {constants.begin(), constants.end()}, make, bytes) : make();
  return constant(held.get(), held, bytes);
}

/// What a node is told that works element by element over tensors in blocks.
void Compiler::view_in_blocks(NodeFacts& known, std::vector<TensorFacts>& views) {
  const Shape whole = known.out[0].shape;
  views.reserve(known.in.size());
  for (const TensorFacts*& f : known.in) {
    if (!f || f->shape.elements() == 1) continue;
    views.push_back({f->dtype, blocks_view(f->shape, whole)});
    f = &views.back();
  }
  known.out[0].shape = blocks_view(whole, whole);
}

void Compiler::lower() {
  reordered_slot_.assign(graph().values.size(), -1);
  std::vector<bool> is_result(graph().values.size());
  for (const PlanResult& result : plan_->results) {
    if (result.value != kNoValue) is_result[static_cast<size_t>(result.value)] = true;
  }
  for (const bool on_host : {false, true}) {
    std::vector<int32_t>& slots = value_slot_[on_host];
    slots.assign(graph().values.size(), -1);
    if (on_host && !options_.fallback) continue;
    for (size_t i = 0; i < graph().inputs.size(); ++i) {
      slots[static_cast<size_t>(graph().inputs[i])] =
          storage_.add({.kind = Operand::Kind::kInput, .index = static_cast<uint32_t>(i), .on_host = on_host});
    }
  }
  const auto node_at = [&](size_t n) -> const Node& {
    const auto fused = fused_.find(n);
    return fused == fused_.end() ? graph().nodes[n] : fused->second;
  };
  // Label n is that of node n; those of copies come behind.
  for (size_t n = 0; n < graph().nodes.size(); ++n) {
    const Node& node = node_at(n);
    plan_->labels.push_back(node.step_label());
    if (!node.stands_for.empty()) plan_->in_file.emplace(static_cast<uint32_t>(n), node.label());
  }
  for (size_t n = 0; n < graph().nodes.size(); ++n) {
    const Node& node = node_at(n);
    RunControl::check();
    const Lowering* lowering = choices_[n].lowering;
    if (!lowering) continue;
    NodeFacts known = node_facts(node);
    std::vector<TensorFacts> views;
    if (in_blocks_[n] && !lowering->alike_cost) view_in_blocks(known, views);
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    const bool on_host = is_on_host(*lowering);
    NodeLowering context(*this, node, n, known.in, known.out, def->schema, on_host);
    if (options_.fallback) bring_inputs(node, on_host);
    const size_t first_step = plan_->steps.size(), scratch_bytes = scratch_bytes_;
    const double work = work_;
    guarded(n, [&] { lowering->lower(context); });
    for (const ValueId id : node.outputs) {  // what leaves the plan is plain
      if (id == kNoValue || value_layout_[static_cast<size_t>(id)] == Layout::kPlain) continue;
      if (is_result[static_cast<size_t>(id)]) context.in_layout(id, Layout::kPlain);
    }
    if (in_blocks_[n]) known = node_facts(node);
    if (options_.notes) note_node(n, known, first_step, scratch_bytes_ - scratch_bytes, work_ - work);
  }
}

int32_t Compiler::constant_slot(const Tensor& tensor, bool on_host) {
  if (tensor.owner) plan_->owners.push_back(tensor.owner);
  return storage_.add(
      {.kind = Operand::Kind::kConstant, .pointer = tensor.data, .bytes = tensor.bytes(), .on_host = on_host});
}

int32_t Compiler::slot_of(ValueId id, bool on_host) {
  int32_t& slot = value_slot_[on_host][static_cast<size_t>(id)];
  if (slot >= 0) return slot;
  const TensorFacts& f = *facts(id);
  slot = f.constant ? constant_slot(*f.constant, on_host)
                    : storage_.add({.bytes = TensorView{f.dtype, f.shape, nullptr}.bytes(), .on_host = on_host});
  return slot;
}

/// Copies what a node reads and the other side made, once for all who read it there.
void Compiler::bring_inputs(const Node& node, bool on_host) {
  for (const ValueId id : node.inputs) {
    if (id == kNoValue || value_slot_[on_host][static_cast<size_t>(id)] >= 0) continue;
    const TensorFacts& f = *facts(id);
    const size_t bytes = TensorView{f.dtype, f.shape, nullptr}.bytes();
    const int32_t made = value_slot_[!on_host][static_cast<size_t>(id)];
    if (f.constant || made < 0 || bytes == 0) continue;
    const Ref refs[] = {{slot_of(id, on_host)}, {made}};
    const DeviceCopy params{bytes};
    plan_->labels.push_back(cat("the copy of '", graph().values[static_cast<size_t>(id)].name, "'"));
    add_step(options_.device->copy_step(), &params, sizeof(params), refs, plan_->labels.size() - 1,
             static_cast<double>(bytes) / kCopiedPerNano);
    if (options_.notes) note_copy(id, on_host ? DeviceKind::kCpu : options_.device->kind());
  }
}

/// `slot`, or where it is the caller's memory a copy of that which is made once a run, before whoever asks first.
int32_t Compiler::steady_slot(int32_t slot, size_t node) {
  const int32_t root = storage_.root(slot);
  storage_[root].steady = true;  // never to become an output, which is the caller's too
  if (storage_[root].kind != Operand::Kind::kInput) return slot;
  const InputFacts& input = inputs_[storage_[root].index];
  const size_t bytes = TensorView{input.dtype, input.shape, nullptr}.bytes();
  if (!input.foreign || bytes == 0 || !options_.device->borrows_inputs()) return slot;
  const auto [it, fresh] = snapshots_.try_emplace(root, -1);
  if (fresh) {
    it->second = storage_.add({.bytes = bytes});
    const Ref refs[] = {{it->second}, {root}};
    const DeviceCopy params{bytes};
    add_step(options_.device->copy_step(), &params, sizeof(params), refs, node,
             static_cast<double>(bytes) / kCopiedPerNano);
  }
  return it->second;
}

void Compiler::add_step(StepFn fn, const void* params, size_t bytes, std::span<const Ref> operands, size_t node,
                        double work, bool on_host) {
  auto copy = std::make_unique<std::byte[]>(bytes);
  std::memcpy(copy.get(), params, bytes);
  const int index = static_cast<int>(plan_->steps.size());
  for (Ref ref : operands) {
    if (ref.valid()) storage_.touch(ref.id, index);
  }
  plan_->steps.push_back({fn, copy.get(), 0, static_cast<uint32_t>(node), on_host});
  plan_->params.push_back(std::move(copy));
  step_refs_.emplace_back(operands.begin(), operands.end());
  work_ += work;
}

void Compiler::bind_outputs() {
  for (size_t i = 0; i < plan_->results.size(); ++i) {
    const ValueId id = plan_->results[i].value;
    const TensorFacts& f = known(id);
    plan_->outputs.push_back({f.dtype, f.shape});
    const bool blocks = value_layout_[static_cast<size_t>(id)] == Layout::kBlocks;
    const bool on_host = made_on_host_[static_cast<size_t>(id)];
    const int32_t source = blocks ? reordered_slot_[static_cast<size_t>(id)] : slot_of(id, on_host);
    Slot& root = storage_[storage_.root(source)];
    const size_t bytes = TensorView{f.dtype, f.shape, nullptr}.bytes();
    if (root.kind == Operand::Kind::kArena && root.first >= 0 && !root.steady && !root.has_views) {
      root.kind = Operand::Kind::kOutput;
      root.index = static_cast<uint32_t>(i);
      continue;
    }
    // A constant, an input, memory that already is another output, has parts, or must stay the run's own.
    const int32_t target =
        storage_.add({.kind = Operand::Kind::kOutput, .index = static_cast<uint32_t>(i), .on_host = on_host});
    const Ref refs[] = {{target}, {source}};
    const DeviceCopy params{bytes};
    plan_->labels.push_back(cat("output '", graph().values[static_cast<size_t>(id)].name, "'"));
    Device& device = on_host ? cpu_device() : *options_.device;
    add_step(device.copy_step(), &params, sizeof(params), refs, plan_->labels.size() - 1,
             static_cast<double>(bytes) / kCopiedPerNano, on_host);
    if (options_.notes) note_copy(id);
  }
}

}  // namespace inferkit
