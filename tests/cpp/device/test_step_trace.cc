#include <string>

#include "device/step_trace.h"
#include "test.h"

namespace inferkit {
namespace {

TEST(step_names) {
  CHECK_EQ(StepName("node 'fc1' (Gemm)").view(), "Gemm fc1");
  CHECK_EQ(StepName("a node (Cast)").view(), "a node (Cast)");
  CHECK_EQ(StepName("node 'it's (odd)' (com.microsoft.Gelu)").view(), "com.microsoft.Gelu it's (odd)");
  const std::string scope = "jax2tf_get_logits_/pjit_get_logits_/a_model/block_";
  const std::string cut(StepName("node '" + scope + "7/MatMul' (MatMul)").view());
  CHECK_EQ(cut.size(), TraceRecord::kNameBytes);
  CHECK(cut.starts_with("MatMul .."));
  CHECK(cut.ends_with("block_7/MatMul"));
  CHECK_EQ(StepName("node 'n' (" + std::string(100, 'O') + ")").view(), std::string(TraceRecord::kNameBytes, 'O'));
  CHECK_EQ(StepName("").view(), "");
}

}  // namespace
}  // namespace inferkit
