// What the ways of ConvInteger and QLinearConv share.
#pragma once
#include "engine/compile/lower.h"
#include "engine/compile/lowering.h"
#include "engine/compile/window.h"

namespace inferkit {

/// Where the operands stand among a node's inputs.
struct ConvOperands {
  size_t x, w, x_zero, w_zero;
};

struct IntegerConv {
  Window window;
  int64_t batch, groups, channels, filters;  // channels and filters of one group
  int64_t zero_stride;                       // of the weights' zero point over the filters
};

/// 0 where input i is one value, 1 where it has one per filter.
int64_t filter_stride(const NodeContext& c, size_t i, int64_t filters);
IntegerConv integer_conv(const NodeContext& c, const ConvOperands& at);

/// At stride 1 and with constant filters of int8: windows are read where they lie in a packed image.
Cost integer_windows_cost(const NodeContext& c, const IntegerConv& p, const ConvOperands& at);
void lower_integer_windows(LowerContext& c, const IntegerConv& p, Ref out, const ConvOperands& at);

/// What becomes of the sums: they are the answer (ConvInteger), or bytes are made of them (QLinearConv).
enum class PlanesGive : uint8_t { kSums, kU8, kI8 };

/// One channel a group: the depthwise kernel of float32, plane by plane.
Cost integer_planes_cost(const IntegerConv& p);
/// scale_stride: of the weights' scale over the filters, where bytes are made.
void lower_integer_planes(LowerContext& c, const IntegerConv& conv, Ref out, const ConvOperands& at, PlanesGive give,
                          int64_t scale_stride);

}  // namespace inferkit
