// What lowerings for CUDA share: launches with typed parameters, nests, and the names of rows.
#pragma once
#include <algorithm>
#include <span>

#include "device/cuda/queue.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "kernels/cuda/kernels.h"

namespace inferkit::cuda {

namespace device = kernels::cuda;
using device::Element;
using device::Kernel;

inline constexpr std::string_view kLowering = "cuda";

/// A row for an operator; `cost` says of a node why it cannot be run, and is null where every node can.
inline void add(OpRegistry& r, std::string_view domain, std::string_view name, LowerFn lower, CostFn cost = nullptr,
                Precision precision = Precision::kAny) {
  r.add_lowering(
      domain, name,
      {.name = kLowering, .lower = lower, .cost = cost, .precision = precision, .device = DeviceKind::kCuda});
}
/// The same for one that the CPU does in less time than it takes to bring values over and back.
inline void add_light(OpRegistry& r, std::string_view domain, std::string_view name, LowerFn lower,
                      CostFn cost = nullptr, Precision precision = Precision::kAny) {
  r.add_lowering(domain, name,
                 {.name = kLowering,
                  .lower = lower,
                  .cost = cost,
                  .precision = precision,
                  .device = DeviceKind::kCuda,
                  .is_light = true});
}
/// The same for one whose output is memory of its first input.
inline void add_view(OpRegistry& r, std::string_view domain, std::string_view name, LowerFn lower, CostFn cost) {
  r.add_lowering(domain, name,
                 {.name = kLowering, .lower = lower, .cost = cost, .device = DeviceKind::kCuda, .is_view = true});
}

struct Blocks {
  int64_t x = 1, y = 1, z = 1;
  int64_t count() const { return x * y * z; }
};

/// What a large device has multiprocessors for, nearly: with fewer tiles than that, chunks of a tile are summed side by
/// side. With twice as many wide tiles as it has, few of them wait for the last.
inline constexpr int64_t kEnoughBlocks = 128, kManyBlocks = 264;

/// The warps of a block that sum chunks side by side.
inline int slices_of(int64_t k, int64_t chunk) {
  return static_cast<int>(std::clamp<int64_t>((k + chunk - 1) / chunk, 1, device::kMostSlices));
}

/// A grid beyond what a device takes is cut: kernels go on from the last block to the first.
template <class Params>
void launch(const ExecContext& context, Kernel kernel, const Blocks& blocks, unsigned threads, size_t shared_bytes,
            const Params& params) {
  const device::KernelInfo& info = device::kKernels[static_cast<size_t>(kernel)];
  const auto cut = [](int64_t n, int64_t most) { return static_cast<unsigned>(std::clamp<int64_t>(n, 1, most)); };
  const KernelLaunch what{static_cast<size_t>(kernel),
                          info.name,
                          {cut(blocks.x, 1 << 30), cut(blocks.y, 65535), cut(blocks.z, 65535)},
                          threads,
                          shared_bytes};
  context.queue->launch(what, std::as_bytes(std::span(&params, 1)));
}

/// For a kernel that loops over n elements: enough blocks to fill a large device, no more.
template <class Params>
void launch_elements(const ExecContext& context, Kernel kernel, int64_t n, const Params& params) {
  constexpr int64_t kThreads = 256, kMostBlocks = 2048;
  if (n == 0) return;
  launch(context, kernel, {std::min((n + kThreads - 1) / kThreads, kMostBlocks)}, kThreads, 0, params);
}

/// The same where a thread takes four neighbours.
template <class Params>
void launch_fours(const ExecContext& context, Kernel kernel, int64_t n, const Params& params) {
  launch_elements(context, kernel, (n + 3) / 4, params);
}
template <class Params>
void launch_nest(const ExecContext& context, Kernel kernel, const Params& params) {
  launch_elements(context, kernel, params.nest.by_fours ? (params.nest.n + 3) / 4 : params.nest.n, params);
}

/// For a kernel in which a warp takes a row.
template <class Params>
void launch_rows(const ExecContext& context, Kernel kernel, int64_t rows, const Params& params) {
  launch(context, kernel, {(rows + device::kRowsOfBlock - 1) / device::kRowsOfBlock}, device::kRowThreads, 0, params);
}

/// False where kernels have no such elements.
inline bool find_element(DType dtype, Element& out) {
  switch (dtype) {
    case DType::kF32:
      out = Element::kF32;
      return true;
    case DType::kI32:
      out = Element::kI32;
      return true;
    case DType::kI64:
      out = Element::kI64;
      return true;
    case DType::kBool:
      out = Element::kBool;
      return true;
    default:
      return false;
  }
}
inline Element element_of(const NodeContext& c, DType dtype) {
  Element out{};
  if (!find_element(dtype, out)) c.unsupported(cat("elements of ", dtype_name(dtype)));
  return out;
}

template <size_t N>
device::Nest<static_cast<int>(N)> nest_of(const LoopNest<N>& from) {
  static_assert(Shape::kMaxRank == device::kMostDims);
  device::Nest<static_cast<int>(N)> out{};
  out.n = from.elements();
  out.rank = from.rank;
  std::ranges::copy(from.dims, out.dims);
  for (size_t i = 0; i < N; ++i) std::ranges::copy(from.strides[i], out.strides[i]);
  device::prepare(out);
  return out;
}

/// The operands of a node, broadcast to its output.
template <size_t N>
device::Nest<static_cast<int>(N)> broadcast_nest(const NodeContext& c) {
  std::array<Strides, N> strides;
  for (size_t i = 0; i < N; ++i) strides[i] = broadcast_strides(c.input(i).shape, c.output(0).shape);
  return nest_of(make_nest<N>(c.output(0).shape, strides));
}

/// Pointers of a step, which are addresses of the device.
template <class T>
T* at(std::byte* const* io, size_t i) {
  return reinterpret_cast<T*>(io[i]);
}

}  // namespace inferkit::cuda
