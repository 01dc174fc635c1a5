// One model under many threads: shapes come and go, arenas are trimmed, some runs fail. Run under TSan in .ci/full.
#include <atomic>
#include <thread>

#include "engine/graphs.h"
#include "engine/model/model.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr int64_t kWidth = 96, kTable = 7;

/// y = sin(table[i] W), with an intermediate in the arena; an index out of range fails in the middle of a run.
ModelFile lookup_model() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId i = g.add_value("i"), table = g.add_value("table"), w = g.add_value("w");
  const ValueId picked = g.add_value("picked"), product = g.add_value("product"), y = g.add_value("y");
  g.values[0].dtype = DType::kI64;
  g.values[0].shape = Shape{Shape::kFree};
  std::vector<float> rows(kTable * kWidth), weights(kWidth * kWidth);
  for (size_t k = 0; k < rows.size(); ++k) rows[k] = static_cast<float>(k % 13) / 8;
  for (size_t k = 0; k < weights.size(); ++k) weights[k] = static_cast<float>(k % 11) / 64 - 0.07f;
  g.constants.emplace(table, make_tensor<float>({kTable, kWidth}, std::span<const float>(rows)));
  g.constants.emplace(w, make_tensor<float>({kWidth, kWidth}, std::span<const float>(weights)));
  g.nodes = {make_node("Gather", {table, i}, {picked}), make_node("MatMul", {picked, w}, {product}),
             make_node("Sin", {product}, {y})};
  g.inputs = {i};
  g.outputs = {y};
  file.opsets[""] = 17;
  return file;
}

std::vector<int64_t> indices_of(size_t rows, int64_t first) {
  std::vector<int64_t> out(rows);
  for (size_t r = 0; r < rows; ++r) out[r] = (first + static_cast<int64_t>(r)) % kTable;
  return out;
}

Status run(Model& model, const std::vector<int64_t>& indices, VectorSink& sink) {
  const TensorView in{DType::kI64, {static_cast<int64_t>(indices.size())}, indices.data()};
  return model.run({&in, 1}, sink);
}

}  // namespace

TEST(threads_share_a_model_whose_plans_come_and_go) {
  for (const size_t max_plans : {size_t{1}, size_t{3}}) {
    ModelOptions options;
    options.max_plans = max_plans;
    options.pool = std::make_shared<BufferPool>();
    const auto pool = options.pool;
    auto model = std::make_shared<Model>(lookup_model(), options, "");
    std::vector<VectorSink> expected(kTable);
    for (int64_t k = 0; k < kTable; ++k) CHECK(run(*model, {k}, expected[static_cast<size_t>(k)]).ok());

    std::atomic<int> wrong{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t, held = model] {
        for (int n = 0; n < 150; ++n) {
          const size_t rows = static_cast<size_t>((n * 7 + t) % 5) * 60 + 1;
          auto indices = indices_of(rows, n);
          const bool bad = n % 4 == 3;
          if (bad) indices[rows / 2] = kTable;
          VectorSink sink;
          const Status status = run(*held, indices, sink);
          if (status.ok() == bad || (bad && status.code != ErrorCode::kInference)) ++wrong;
          for (size_t r = 0; !bad && r < rows; ++r) {
            const float* one = expected[static_cast<size_t>(indices[r])].floats(0);
            if (!std::equal(one, one + kWidth, sink.floats(0) + r * kWidth)) ++wrong;
          }
        }
      });
    }
    std::thread meddler([&, held = model] {
      while (!done) {
        held->trim();
        if (held->memory().plans.plans > max_plans) ++wrong;
        const Shape shape{1};
        if (held->estimate_nanos({&shape, 1}) < 0) ++wrong;
        std::this_thread::yield();
      }
    });
    model.reset();  // the threads' own references keep it
    for (auto& thread : threads) thread.join();
    done = true;
    meddler.join();
    CHECK_EQ(wrong.load(), 0);
    CHECK_EQ(pool->stats().outstanding, size_t{0});
  }
}

TEST(a_lease_survives_the_eviction_and_the_trimming_of_its_plan) {
  ModelOptions options;
  options.max_plans = 1;
  Model model(lookup_model(), options, "");
  const Shape shape{3};
  const auto lease = model.acquire({&shape, 1});
  for (size_t rows = 4; rows < 8; ++rows) {
    VectorSink sink;
    CHECK(run(model, indices_of(rows, 0), sink).ok());
  }
  model.trim();
  const auto indices = indices_of(3, 2);
  std::vector<float> y(3 * kWidth);
  const void* in[] = {indices.data()};
  void* out[] = {y.data()};
  lease.session().run(in, out, {});
  VectorSink sink;
  CHECK(run(model, indices, sink).ok());
  CHECK(std::equal(y.begin(), y.end(), sink.floats(0)));
}

TEST(a_shape_is_there_after_its_first_run) {
  Model model(lookup_model(), {}, "");
  const Shape shape{3};
  CHECK(!model.try_acquire({&shape, 1}).has_value());
  {
    const auto lease = model.acquire({&shape, 1});
  }
  CHECK(model.try_acquire({&shape, 1}).has_value());
  CHECK_EQ(model.memory().plans.sessions, size_t{1});
}
