// Which code runs: for every kernel family, the tier that its functions say they were compiled for.
#pragma once
#include <string>
#include <vector>

namespace inferkit::kernels {

struct FamilyReport {
  std::string family;  // "gemm", ...
  std::string tier;    // "avx2", from the compiler's own macros
};

/// One row per family, for the tier in use.
std::vector<FamilyReport> active_kernels();

}  // namespace inferkit::kernels
