// LSTM, GRU and RNN with their usual activations: x W of all time steps is one product, then each step is a launch, or
// two. The bits are those of engine/ops/common/recurrent.h.
#include <cctype>

#include "engine/cuda/launch.h"
#include "engine/cuda/product.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

using device::RecurrentParams;
using device::RecurrentStep;
using kernels::Unary;

enum Input : size_t { kX, kW, kR, kB, kLengths, kH0, kC0, kP };

/// Of a node whose shape rule has accepted it.
struct Layer {
  int64_t steps, batch, in, hidden, gates, directions;
  bool batch_first, reverse, reset_after;
  RecurrentStep op;  // the first of a time step
  Unary act;         // of RNN

  int64_t rows() const { return gates * hidden; }
};

std::string lowercase(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

Layer layer_of(const NodeContext& c) {
  const std::string& op = c.node().op_type;
  const Shape &x = c.input(kX).shape, &r = c.input(kR).shape;
  Layer l{};
  l.batch_first = c.version() >= 14 && c.attr_int("layout", 0) != 0;
  l.steps = x[l.batch_first ? 1 : 0];
  l.batch = x[l.batch_first ? 0 : 1];
  l.in = x[2];
  l.hidden = r[2];
  l.gates = r[1] / r[2];
  const std::string direction = c.attr_string("direction", "forward");
  l.directions = direction == "bidirectional" ? 2 : 1;
  l.reverse = direction == "reverse";
  l.reset_after = op == "GRU" && c.attr_int("linear_before_reset", 0) != 0;
  l.op = op == "LSTM"    ? RecurrentStep::kLstm
         : op == "RNN"   ? RecurrentStep::kRnn
         : l.reset_after ? RecurrentStep::kGruAfter
                         : RecurrentStep::kGruReset;
  const auto names = c.attr_strings("activations");
  l.act = !names.empty() && lowercase(names[0]) == "relu" ? Unary::kRelu : Unary::kTanh;
  return l;
}

/// Whether each direction has the activations that the kernel has.
bool are_usual(const NodeContext& c) {
  const auto names = c.attr_strings("activations");
  const std::string& op = c.node().op_type;
  const size_t each = op == "LSTM" ? 3 : op == "GRU" ? 2 : 1;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string name = lowercase(names[i]);
    const bool gate = op != "RNN" && i % each == 0;
    if (op == "RNN" ? name != lowercase(names[0]) || (name != "tanh" && name != "relu")
                    : name != (gate ? "sigmoid" : "tanh")) {
      return false;
    }
  }
  return true;
}

Cost recurrent_cost(const NodeContext& c) {
  constexpr int64_t kMostSteps = 4096;  // each is a launch, or two
  for (const size_t i : {kW, kR, kB}) {
    if (c.has_input(i) && (!c.input(i).constant || c.input(i).dtype != DType::kF32)) {
      return Cost::cannot("W, R and B are no constants in float32");
    }
  }
  if (c.has_input(kLengths)) return Cost::cannot("it has sequence_lens");
  if (c.has_input(kP)) return Cost::cannot("it has peepholes");
  if (c.attr_float("clip", 0) != 0) return Cost::cannot("it clips");
  if (c.attr_int("input_forget", 0) != 0) return Cost::cannot("its input and forget gates are coupled");
  if (!are_usual(c)) return Cost::cannot("its activations are not the usual ones");
  const Layer l = layer_of(c);
  if (l.steps == 0 || l.steps > kMostSteps) return Cost::cannot("it has no time steps, or more than 4096");
  return Cost(0);
}

/// Rows of direction d of W or R, [directions, rows, depth], as columns.
Ref turned(LowerContext& c, size_t i, int64_t d, int64_t rows, int64_t depth) {
  const float* from = c.input(i).constant->as<float>() + d * rows * depth;
  const Packing packing{cat("cuda-recurrent-", d, "-", rows), DType::kF32, rows * depth, {}};
  return c.packed({c.input(i).constant}, packing, [&](void* to) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t row = 0; row < rows; ++row) static_cast<float*>(to)[k * rows + row] = from[row * depth + k];
    }
  });
}

/// The biases of W and R as one; with reset_after those of R's hidden rows follow behind.
Ref biases(LowerContext& c, const Layer& l, int64_t d) {
  if (!c.has_input(kB)) return {};
  const int64_t rows = l.rows(), apart = l.reset_after ? l.hidden : 0;
  const float* b = c.input(kB).constant->as<float>() + 2 * d * rows;
  const Packing packing{cat("cuda-recurrent-bias-", d, "-", apart), DType::kF32, rows + apart, {}};
  return c.packed({c.input(kB).constant}, packing, [&](void* to) {
    auto* out = static_cast<float*>(to);
    for (int64_t i = 0; i < rows; ++i) out[i] = i < rows - apart ? b[i] + b[rows + i] : b[i];
    std::copy(b + 2 * rows - apart, b + 2 * rows, out + rows);
  });
}

Ref zeros(LowerContext& c, int64_t elements) {
  const auto owner = std::make_shared<const std::vector<float>>(static_cast<size_t>(elements), 0.0f);
  return c.constant(owner->data(), owner, owner->size() * sizeof(float));
}

/// io: products, x, w, bias.
void run_inputs(const void* params, std::byte* const* io, const ExecContext& context) {
  launch_product(*static_cast<const device::GemmParams*>(params), io, context);
}

/// One direction. Elements from one row of the batch, or one time step, to the next; where the direction begins.
struct Walk {
  Layer layer;
  bool reverse;
  int64_t x_step, x_row, y_step, y_row, y_offset, state_row, state_offset;
  bool has_h0, has_c0, has_h, has_c;  // h0 and c0 are laid out as the outputs are, zeros as the scratch is
  int32_t chunk, last_chunk;
};

/// Where a state is read or written.
struct Place {
  float* at;
  int64_t row;
};

/// io: y, y_h, y_c, products, two states, two cells, spare, r, bias, h0, c0.
void run_walk(const void* params, std::byte* const* io, const ExecContext& context) {
  const Walk& w = *static_cast<const Walk*>(params);
  const Layer& l = w.layer;
  const auto port = [&](size_t i) { return Place{at<float>(io, i) + w.state_offset, w.state_row}; };
  const auto own = [&](size_t i) { return Place{at<float>(io, i), l.hidden}; };
  Place state = w.has_h0 ? port(11) : own(11), cell = w.has_c0 ? port(12) : own(12);
  const unsigned threads = device::kRecurrentThreads;
  const auto step = [&](RecurrentParams p) {
    p.gates = device::recurrent_gates(p.op);
    p.units = device::recurrent_units(p.op);
    const Blocks blocks{(l.hidden + p.units - 1) / p.units, l.batch};
    launch(context, Kernel::recurrent_step, blocks, threads, device::kRecurrentShared, p);
  };
  for (int64_t s = 0; s < l.steps; ++s) {
    const int64_t t = w.reverse ? l.steps - 1 - s : s;
    const auto parity = static_cast<size_t>(s % 2);
    const bool last = s + 1 == l.steps;
    const Place next = last && w.has_h ? port(1) : own(4 + parity);
    const Place next_cell = last && w.has_c ? port(2) : own(6 + parity);
    RecurrentParams p{};
    p.r = at<float>(io, 9);
    p.r_row = l.rows();
    p.bias = io[10] ? at<float>(io, 10) + l.rows() : nullptr;
    p.x = at<float>(io, 3) + t * w.x_step;
    p.x_row = w.x_row;
    p.times = p.state = state.at;
    p.times_row = p.state_row = state.row;
    p.cell = cell.at;
    p.cell_row = cell.row;
    p.next = next.at;
    p.next_row = next.row;
    p.next_cell = next_cell.at;
    p.next_cell_row = next_cell.row;
    p.y = io[0] ? at<float>(io, 0) + w.y_offset + t * w.y_step : nullptr;
    p.y_row = w.y_row;
    p.batch = l.batch;
    p.hidden = static_cast<int32_t>(l.hidden);
    p.chunk = w.chunk;
    p.last_chunk = w.last_chunk;
    p.act = l.act;
    p.op = l.op;
    if (l.op == RecurrentStep::kGruReset) {
      RecurrentParams reset = p;
      const Place spare = own(8);
      reset.next = spare.at;
      reset.next_row = spare.row;
      reset.y = nullptr;
      step(reset);
      p.op = RecurrentStep::kGruApply;
      p.r += 2 * l.hidden;
      p.x += 2 * l.hidden;
      p.times = spare.at;
      p.times_row = spare.row;
      p.chunk = w.last_chunk;
    }
    step(p);
    state = next;
    cell = next_cell;
  }
}

void lower_recurrent(LowerContext& c) {
  const Layer l = layer_of(c);
  const int64_t rows = l.rows(), line = l.directions * l.hidden;
  const auto bytes = [](int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); };
  const bool lstm = l.op == RecurrentStep::kLstm, gru = c.node().op_type == "GRU";
  const auto output = [&](size_t i) { return c.has_output(i) ? c.out(i) : Ref{}; };
  const Ref y = output(0), y_h = output(1), y_c = lstm ? output(2) : Ref{};
  if (l.batch == 0 || (!y.valid() && !y_h.valid() && !y_c.valid())) return;
  const int64_t in_state = l.batch * l.hidden;
  const Ref products = c.scratch(bytes(l.steps * l.batch * rows));
  const Ref states[] = {c.scratch(bytes(in_state)), c.scratch(bytes(in_state))};
  const Ref cells[] = {lstm ? c.scratch(bytes(in_state)) : Ref{}, lstm ? c.scratch(bytes(in_state)) : Ref{}};
  const Ref spare = l.op == RecurrentStep::kGruReset ? c.scratch(bytes(in_state)) : Ref{};
  const bool has_h0 = c.has_input(kH0), has_c0 = lstm && c.has_input(kC0);
  const Ref none = has_h0 && (has_c0 || !lstm) ? Ref{} : zeros(c, in_state);
  for (int64_t d = 0; d < l.directions; ++d) {
    const Ref bias = biases(c, l, d);
    device::GemmParams inputs = plain_product(l.steps * l.batch, rows, l.in, /*transposed=*/false);
    inputs.chunk = kernels::sum_chunk(l.in, rows);
    c.step(run_inputs, inputs, {products, c.in(kX), turned(c, kW, d, rows, l.in), bias});
    Walk w{};
    w.layer = l;
    w.reverse = l.reverse || d == 1;
    w.x_step = l.batch_first ? rows : l.batch * rows;
    w.x_row = l.batch_first ? l.steps * rows : rows;
    w.y_step = l.batch_first ? line : l.batch * line;
    w.y_row = l.batch_first ? l.steps * line : l.hidden;
    w.state_row = l.batch_first ? line : l.hidden;
    w.y_offset = w.state_offset = l.batch_first ? d * l.hidden : d * in_state;
    w.has_h0 = has_h0;
    w.has_c0 = has_c0;
    w.has_h = y_h.valid();
    w.has_c = y_c.valid();
    w.chunk = static_cast<int32_t>(kernels::sum_chunk(l.hidden, gru ? 2 * l.hidden : rows));
    w.last_chunk = static_cast<int32_t>(kernels::sum_chunk(l.hidden, l.hidden));
    c.step(run_walk, w,
           {y, y_h, y_c, products, states[0], states[1], cells[0], cells[1], spare, turned(c, kR, d, rows, l.hidden),
            l.reset_after ? bias : Ref{}, has_h0 ? c.in(kH0) : none,
            !lstm    ? Ref{}
            : has_c0 ? c.in(kC0)
                     : none});
  }
}

}  // namespace
}  // namespace cuda

void register_cuda_recurrent(OpRegistry& r) {
  using namespace cuda;
  for (const std::string_view name : {"LSTM", "GRU", "RNN"}) {
    add(r, kOnnx, name, lower_recurrent, recurrent_cost, Precision::kFloat32);
  }
}

}  // namespace inferkit
