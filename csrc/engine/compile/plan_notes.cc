#include "engine/compile/plan_notes.h"

#include "engine/compile/compiler.h"

namespace inferkit {
namespace {

size_t bytes_of(const TensorFacts& f) { return TensorView{f.dtype, f.shape, nullptr}.bytes(); }

}  // namespace

void Compiler::note_node(size_t n, const NodeFacts& known, size_t first_step, size_t scratch_bytes, double work) {
  const auto fused = fused_.find(n);
  const Node& node = fused == fused_.end() ? graph().nodes[n] : fused->second;
  const Choice& choice = choices_[n];
  const auto name_of = [&](ValueId id) { return graph().values[static_cast<size_t>(id)].name; };
  const auto has_slot = [&](ValueId id) {
    return value_slot_[0][static_cast<size_t>(id)] >= 0 || value_slot_[1][static_cast<size_t>(id)] >= 0;
  };
  NodeNote note;
  note.op = node.domain.empty() ? node.op_type : node.domain + "." + node.op_type;
  note.name = node.name;
  note.origins = node.origins();
  note.lowering = choice.lowering;
  note.why = choice.why;
  if (!node.outputs.empty() && node.outputs[0] != kNoValue)
    note.layout = value_layout_[static_cast<size_t>(node.outputs[0])];
  note.considered = std::move(considered_[n]);
  note.first_step = first_step;
  note.steps = plan_->steps.size() - first_step;
  note.scratch_bytes = scratch_bytes;
  if (const auto lack = lacks_.find(n); lack != lacks_.end()) note.fallback = lack->second;
  note.nanos = work + nanos_per_step(is_on_host(*note.lowering)) * static_cast<double>(note.steps);
  for (size_t i = 0; i < known.in.size(); ++i) {
    const TensorFacts* f = known.in[i];
    if (!f) continue;
    if (fused != fused_.end() && !f->constant && !has_slot(node.inputs[i])) continue;  // computed within the step
    note.inputs.push_back({name_of(node.inputs[i]), f->dtype, f->shape});
    if (note.steps == 0) continue;
    note.read_bytes += bytes_of(*f);
    if (f->constant) options_.notes->constants.emplace(f->constant->data.place(), bytes_of(*f));
  }
  for (const auto& [attribute, value] : node.attributes) {  // such as the trees of a forest
    const auto* constant = std::get_if<Tensor>(&value);
    if (!constant || note.steps == 0) continue;
    note.read_bytes += constant->bytes();
    options_.notes->constants.emplace(constant->data, constant->bytes());
  }
  for (size_t i = 0; i < known.out.size(); ++i) {
    const ValueId id = node.outputs[i];
    if (id == kNoValue || !has_slot(id)) continue;  // nobody reads it
    note.outputs.push_back({name_of(id), known.out[i].dtype, known.out[i].shape});
    if (note.steps != 0) note.written_bytes += bytes_of(known.out[i]);
  }
  options_.notes->nodes.push_back(std::move(note));
}

void Compiler::note_copy(ValueId id, std::optional<DeviceKind> to) {
  const TensorFacts& f = known(id);
  const ValueNote value{graph().values[static_cast<size_t>(id)].name, f.dtype, f.shape};
  NodeNote note;
  note.op = "copy";
  note.name = value.name;
  note.inputs = note.outputs = {value};
  note.read_bytes = note.written_bytes = bytes_of(f);
  note.first_step = plan_->steps.size() - 1;
  note.steps = 1;
  const bool on_host = plan_->steps.back().on_host;
  note.device = on_host ? DeviceKind::kCpu : options_.device->kind();
  note.to = to;
  note.nanos = static_cast<double>(bytes_of(f)) / kCopiedPerNano + nanos_per_step(on_host);
  options_.notes->nodes.push_back(std::move(note));
}

void Compiler::note_kernels() {
  for (NodeNote& note : options_.notes->nodes) {
    for (const Step& step : std::span(plan_->steps).subspan(note.first_step, note.steps)) {
      if (step.on_host) continue;
      for (KernelNote& kernel : options_.device->kernels(*plan_, step)) note.kernels.push_back(std::move(kernel));
    }
  }
}

}  // namespace inferkit
