// Convolution kernels of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/conv/blocks_copy_impl.h"
#include "kernels/cpu/conv/blocks_impl.h"
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/conv/depthwise_channels_impl.h"
#include "kernels/cpu/conv/depthwise_impl.h"
#include "kernels/cpu/conv/pack_pixels_impl.h"
#include "kernels/cpu/conv/split_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const ConvKernels kConv;
const ConvKernels kConv = {compiled_isa,       pack_pixels, split_plane, depthwise,
                           depthwise_channels, conv_blocks, blocks_copy, blocks_to_planes};

}  // namespace inferkit::kernels::INFERKIT_TIER
