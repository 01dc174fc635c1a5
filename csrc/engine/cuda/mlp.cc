// Small Linear layers that follow each other, as one kernel.
#include "engine/cuda/functions.h"
#include "engine/cuda/launch.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

using device::MlpLayer;
using device::MlpParams;

// Every block reads all weights from the L2, of which a multiprocessor takes some 64 bytes in a cycle: 0.5 MB in about
// 4.5 us, whatever the rows of a block are. Two products of few rows take longer than that, beyond it they do not; nor
// where their tiles fill the device. Counted, not measured.
constexpr int64_t kMostWeights = 128 << 10, kMostRows = 1024;

/// The rows of a block, which cost it little beside the weights up to four, and with eight as much as these. More
/// blocks than kEnoughReaders would take what the L2 gives from each other.
struct Way {
  Kernel kernel;
  int64_t rows;
  unsigned threads;
};
constexpr Way kWays[] = {{Kernel::mlp_rows_1, 1, 1024}, {Kernel::mlp_rows_4, 4, 512}, {Kernel::mlp_rows_8, 8, 512}};
constexpr int64_t kEnoughReaders = 64;
const Way& way_of(int64_t rows) {
  for (const Way& way : kWays) {
    if (rows <= way.rows * kEnoughReaders) return way;
  }
  return kWays[std::size(kWays) - 1];
}

/// Where several blocks read a line of the host's memory they take turns, more than a microsecond each.
constexpr int64_t kHostLine = 128;

size_t count_of(const NodeContext& c) { return c.attr_strings("activations").size(); }
size_t weights_at(size_t layer) { return 1 + 2 * layer; }
size_t bias_at(size_t layer) { return 2 + 2 * layer; }

struct MlpStep {
  MlpParams mlp;  // all but its pointers
  size_t shared_bytes;
};
MlpStep params_of(const NodeContext& c) {
  const auto activations = c.attr_strings("activations");
  const auto alphas = c.attr_floats("alphas"), betas = c.attr_floats("betas");
  const Shape& x = c.input(0).shape;
  MlpParams p{};
  p.m = x.elements(0, x.rank() - 1);
  p.count = static_cast<int32_t>(activations.size());
  const auto rows = static_cast<int32_t>(way_of(p.m).rows);
  int64_t k = x.back();
  int32_t inputs = 0, parts = 0;
  for (size_t i = 0; i < activations.size(); ++i) {
    const int64_t n = c.input(weights_at(i)).shape.elements() / k;
    const Function f = *find_function(activations[i], alphas[i], betas[i]);  // each layer has been asked for it
    MlpLayer& l = p.layers[i];
    l.k = static_cast<int32_t>(k);
    l.n = static_cast<int32_t>(n);
    l.chunk = static_cast<int32_t>(kernels::sum_chunk(k, n));
    l.act = f.op;
    l.alpha = f.alpha;
    l.beta = f.beta;
    device::cut_layer(l);
    inputs = std::max(inputs, rows * l.chunks * l.room);
    parts = std::max(parts, rows * l.chunks * l.wide);
    k = n;
  }
  p.parts = device::kMlpHead + inputs;
  return {p, static_cast<size_t>(p.parts + parts) * sizeof(float)};
}

Cost mlp_cost(const NodeContext& c) {
  const size_t count = count_of(c);
  if (count > device::kMostMlpLayers) return Cost::cannot("it has too many layers for one kernel");
  int64_t weights = 0;
  for (size_t i = 0; i < count; ++i) weights += c.input(weights_at(i)).shape.elements();
  if (weights == 0 || weights > kMostWeights) return Cost::cannot("it has too many weights for one block");
  const Shape& x = c.input(0).shape;
  if (x.elements(0, x.rank() - 1) > kMostRows) return Cost::cannot("tiles of its products fill the device");
  if (params_of(c).shared_bytes > device::kMostShared)
    return Cost::cannot("it is too wide for a block's shared memory");
  return Cost(0);
}

/// io: y, x, then w and bias of each layer.
void run_mlp(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& step = *static_cast<const MlpStep*>(params);
  MlpParams p = step.mlp;
  if (p.m == 0) return;
  p.y = at<float>(io, 0);
  p.x = at<float>(io, 1);
  for (int32_t i = 0; i < p.count; ++i) {
    p.layers[i].w = at<float>(io, static_cast<size_t>(2 + 2 * i));
    p.layers[i].bias = at<float>(io, static_cast<size_t>(3 + 2 * i));
  }
  const Way& way = way_of(p.m);
  const int64_t blocks = (p.m + way.rows - 1) / way.rows;
  const auto bytes_of = [&p](int32_t columns) { return static_cast<size_t>(p.m * columns) * sizeof(float); };
  if (const auto answer = context.queue->take_answer(p.y, bytes_of(p.layers[p.count - 1].n))) {
    p.words = answer->words;
    p.run = answer->run;
    const bool shares_lines =
        blocks > 1 && way.rows * p.layers[0].k * static_cast<int64_t>(sizeof(float)) % kHostLine != 0;
    const auto given = shares_lines ? std::nullopt : context.queue->take_input(p.x, bytes_of(p.layers[0].k), blocks);
    if (given) {
      p.x = reinterpret_cast<const float*>(given->data);
      p.run = given->run;
      p.run_step = LaunchQueue::kRunStep;
    }
  }
  launch(context, way.kernel, {blocks}, way.threads, step.shared_bytes, p);
}

/// The weights of a layer as [k][wide].
Ref weights_of(LowerContext& c, size_t i, const MlpLayer& l, bool transposed) {
  if (!transposed && l.n == l.wide) return c.in(weights_at(i));
  const Tensor& w = c.known_value(weights_at(i));
  const Packing packing{
      cat("cuda-mlp-", l.k, "-", l.n, transposed ? "-transposed" : ""), DType::kF32, int64_t{l.k} * l.wide, {}};
  return c.packed({&w}, packing, [&](void* to) {
    auto* out = static_cast<float*>(to);
    const int64_t row = transposed ? 1 : l.n, column = transposed ? l.k : 1;
    for (int64_t k = 0; k < l.k; ++k, out += l.wide) {
      for (int64_t n = 0; n < l.n; ++n) out[n] = w.as<float>()[k * row + n * column];
      std::fill(out + l.n, out + l.wide, 0.0f);
    }
  });
}

void lower_mlp(LowerContext& c) {
  const MlpStep params = params_of(c);
  const auto transposed = c.attr_ints("transposed");
  std::vector<Ref> io{c.out(0), c.in(0)};
  for (size_t i = 0; i < transposed.size(); ++i) {
    io.push_back(weights_of(c, i, params.mlp.layers[i], transposed[i] != 0));
    io.push_back(c.has_input(bias_at(i)) ? c.in(bias_at(i)) : Ref{});
  }
  c.step(run_mlp, params, std::span<const Ref>(io));
}

}  // namespace
}  // namespace cuda

void register_cuda_mlp(OpRegistry& r) {
  cuda::add(r, kInternal, "Mlp", cuda::lower_mlp, cuda::mlp_cost, Precision::kFloat32);
}

}  // namespace inferkit
