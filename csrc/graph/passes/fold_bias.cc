// A constant that is added to each channel of a convolution becomes its bias.
#include <algorithm>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// The output channels of a convolution without a bias, whose weights are a constant; 0 of other nodes.
int64_t channels_of(const Rewriter& r, const Node& node) {
  const bool turned = is_op(node, "ConvTranspose");
  if ((!is_op(node, "Conv") && !turned) || node.inputs.size() < 2 || node.outputs.size() != 1) return 0;
  if (node.inputs.size() > 2 && node.inputs[2] != kNoValue) return 0;
  const Tensor* w = r.f32_constant(node.inputs[1]);
  if (!w || w->shape.rank() < 3) return 0;
  return turned ? w->shape[1] * std::max<int64_t>(int_attr(node, "group", 1), 1) : w->shape[0];
}

/// Is it [channels, 1, 1...] beside an image of `rank` dimensions, with ones before it or none?
bool is_per_channel(const Shape& shape, size_t rank, int64_t channels) {
  if (shape.rank() > rank || shape.rank() + 1 < rank || shape.elements() != channels) return false;
  return shape[shape.rank() + 1 - rank] == channels;
}

}  // namespace

bool fold_bias(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (!r.alive(n)) continue;
    const Node& conv = r.node(n);
    const int64_t channels = channels_of(r, conv);
    if (channels == 0) continue;
    const int reader = r.only_reader(conv.outputs[0]);
    if (reader < 0 || !is_op(r.node(reader), "Add") || r.node(reader).version < 7) continue;
    const ValueId other = Rewriter::other_input(r.node(reader), conv.outputs[0]);
    const Tensor* bias = other == kNoValue ? nullptr : r.f32_constant(other);
    const size_t rank = r.f32_constant(conv.inputs[1])->shape.rank();
    if (!bias || !is_per_channel(bias->shape, rank, channels)) continue;
    Tensor flat = *bias;
    flat.shape = {channels};
    Node out = conv;
    out.inputs.resize(2);
    out.inputs.push_back(r.add_constant(graph.values[static_cast<size_t>(other)].name, std::move(flat)));
    out.outputs = r.node(reader).outputs;
    r.replace(reader, std::move(out));
    r.remove(n);
  }
  return r.finish();
}

}  // namespace inferkit
