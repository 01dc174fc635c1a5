// Long products, and packing of much, are made in parts where they can be stopped: the same bits.
#include <cstring>
#include <vector>

#include "kernels/cpu/gemm/gemm.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::kernels;

namespace {

class Control final : public RunControl {
 public:
  explicit Control(bool off) : off_(off) {}

 protected:
  bool look(Nanos) override { return off_; }

 private:
  const bool off_;
};

std::vector<float> numbers(int64_t count, uint32_t seed) {
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<float>(seed >> 16) / 65536.0f - 0.5f;
  }
  return out;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Product {
  int64_t m, n, k;
  std::vector<float> a = numbers(m * k, 1), b = numbers(k * n, 2), bias = numbers(n, 3);

  GemmArgs args(const std::vector<float>& packed, std::vector<float>& c) const {
    GemmArgs g;
    g.m = m, g.n = n, g.k = k;
    g.a = a.data(), g.lda = k;
    g.c = c.data(), g.ldc = n;
    g.bias = bias.data(), g.bias_kind = BiasKind::kPerColumn;
    use_packed_b(g, packed.data());
    return g;
  }
};

}  // namespace

TEST(a_product_in_parts_has_the_same_bits) {
  // Wide, with a last panel that is not full; tall; and so narrow that K is summed in shorter chunks.
  for (const Product& p : {Product{200, 1003, 1400}, Product{2900, 50, 2000}, Product{9000, 15, 2100}}) {
    std::vector<float> packed(packed_b_elements(p.k, p.n));
    pack_b(p.b.data(), p.n, p.k, p.n, packed.data());
    std::vector<float> whole(static_cast<size_t>(p.m * p.n)), parts = whole, threads = whole;
    gemm_f32(p.args(packed, whole));
    Control control(false);
    const RunControl::Scope scope(&control);
    gemm_f32(p.args(packed, parts));
    CHECK(same(whole, parts));
    ThreadPool pool(2);
    gemm_f32_parallel(p.args(packed, threads), &pool, 2);
    CHECK(same(whole, threads));
  }
}

TEST(a_product_that_is_stopped_is_not_begun) {
  const Product p{600, 700, 700};
  const std::vector<float> packed(packed_b_elements(p.k, p.n));
  std::vector<float> c(static_cast<size_t>(p.m * p.n), 7.0f);
  Control control(true);
  const RunControl::Scope scope(&control);
  gemm_f32(p.args(packed, c));
  CHECK(same(c, std::vector<float>(c.size(), 7.0f)));
}

TEST(packing_in_parts_has_the_same_bits) {
  const int64_t k = 4200, n = 4099;
  const std::vector<float> b = numbers(k * n, 4);
  std::vector<float> whole(packed_b_elements(k, n)), parts = whole;
  gemm_kernels().pack_b(b.data(), n, k, n, whole.data());
  pack_b(b.data(), n, k, n, parts.data());
  CHECK(same(whole, parts));
  gemm_kernels().pack_b_transposed(b.data(), k, k, n, whole.data());
  pack_b_transposed(b.data(), k, k, n, parts.data());
  CHECK(same(whole, parts));
}
