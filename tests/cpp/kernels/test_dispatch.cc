#include "kernels/cpu/affine/affine.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/gemm64/gemm64.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/half/half.h"
#include "kernels/cpu/igemm/igemm.h"
#include "kernels/cpu/pool/pool.h"
#include "kernels/cpu/quantize/quantize.h"
#include "kernels/cpu/recurrent/recurrent.h"
#include "kernels/cpu/report.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"
#include "platform/tile_permission.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;

// The names come from the compiler's own macros, so a tier whose file got the wrong flags shows here.
TEST(dispatch_each_tier_is_what_it_says) {
  for (const Isa isa : available_isas()) {
    CHECK_EQ(std::string(gemm_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(vmath_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(binary_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(row_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(conv_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(pool_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(affine_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(recurrent_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(quantize_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(igemm_kernels(isa, {}).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(half_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(gemm64_kernels(isa).compiled_isa()), isa_name(isa));
    CHECK_EQ(std::string(gemm_bf16_kernels(isa, {}).compiled_isa()), isa_name(isa));
  }
}

TEST(dispatch_report_names_the_active_tier) {
  const auto report = active_kernels();
  CHECK_EQ(report.size(), 13u);
  for (const auto& row : report) CHECK_EQ(row.tier.substr(0, isa_name(active_isa()).size()), isa_name(active_isa()));
}

TEST(dispatch_takes_the_best_that_the_features_allow) {
  for (const Isa isa : available_isas()) {
    const IsaFeatures features = available_features(isa);
    const auto has = [&](IsaFeature feature) { return features.covers(feature); };
    const bool tiles = (has(IsaFeature::kAmxInt8) || has(IsaFeature::kAmxBf16)) && may_use_tiles();
    const auto named = [&](bool amx, bool feature, const char* name) {
      return std::string(isa_name(isa)) + (feature ? (amx && tiles ? "amx" : name) : "");
    };
    const std::string bytes = igemm_kernels(isa, features).compiled_isa();
    CHECK_EQ(bytes, named(has(IsaFeature::kAmxInt8), has(IsaFeature::kVnni), "vnni"));
    CHECK(&igemm_kernels(isa, features.without(IsaFeature::kVnni)) == &igemm_kernels(isa, {}));
    const std::string pairs = gemm_bf16_kernels(isa, features).compiled_isa();
    CHECK_EQ(pairs, named(has(IsaFeature::kAmxBf16), has(IsaFeature::kBf16), "bf16"));
    CHECK(&gemm_bf16_kernels(isa, features.without(IsaFeature::kBf16)) == &gemm_bf16_kernels(isa, {}));
  }
}

TEST(dispatch_refuses_a_missing_tier) {
  if (available_isas().back() == Isa::kAvx512) return;
  CHECK_THROWS(gemm_kernels(Isa::kAvx512), std::invalid_argument);
}

TEST(dispatch_every_function_is_there) {
  for (const Isa isa : available_isas()) {
    for (const auto f : vmath_kernels(isa).unary) CHECK(f != nullptr);
    for (const auto& forms : binary_kernels(isa).fn) {
      for (const auto f : forms) CHECK(f != nullptr);
    }
    for (const auto f : row_kernels(isa).reduce) CHECK(f != nullptr);
  }
}
