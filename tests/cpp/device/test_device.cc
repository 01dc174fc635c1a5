#include <atomic>
#include <cfenv>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "device/device.h"
#include "device/step_trace.h"
#include "platform/float_environment.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"
#include "subnormals.h"
#include "test.h"

namespace inferkit {
namespace {

struct Scale {
  float by;
};

/// io: y, x, addend.
void scale_and_add(const void* params, std::byte* const* io, const ExecContext&) {
  const float by = static_cast<const Scale*>(params)->by;
  const auto* x = reinterpret_cast<const float*>(io[1]);
  const auto* addend = reinterpret_cast<const float*>(io[2]);
  for (int i = 0; i < 4; ++i) reinterpret_cast<float*>(io[0])[i] = by * x[i] + addend[i];
}

void fails(const void*, std::byte* const*, const ExecContext&) { throw Error(ErrorCode::kInference, "it fails"); }

/// y = 3 (2 x + c) + x with the inner sum in the arena.
struct TwoSteps {
  const float constant[4] = {1, 2, 3, 4};
  const Scale two{2}, three{3};
  Program program;

  TwoSteps() {
    using Kind = Operand::Kind;
    program.operands = {{.kind = Kind::kArena, .offset = 64},           {.kind = Kind::kInput, .index = 0},
                        {.kind = Kind::kConstant, .pointer = constant}, {.kind = Kind::kOutput, .index = 0},
                        {.kind = Kind::kArena, .offset = 64},           {.kind = Kind::kInput, .index = 0}};
    program.input_slots = {1, 5};
    program.output_slots = {3};
    program.arena_bytes = 128;
    program.labels = {"node 'a' (First)", "node 'b' (Second)"};
    program.steps = {{scale_and_add, &two, 0, 0}, {scale_and_add, &three, 3, 1}};
  }
};

TEST(cpu_runs_a_program_on_any_values) {
  const TwoSteps two;
  const auto execution = cpu_device().prepare(two.program, *BufferPool::process_default());
  for (const float x : {0.0f, 1.0f, -5.0f}) {
    const std::vector<float> in(4, x);
    std::vector<float> out(4);
    const void* inputs[] = {in.data()};
    void* outputs[] = {out.data()};
    execution->run(inputs, outputs, {});
    for (size_t i = 0; i < 4; ++i) CHECK_EQ(out[i], 3 * (2 * x + two.constant[i]) + x);
  }
}

TEST(cpu_executions_of_one_program_share_nothing_that_changes) {
  const TwoSteps two;
  const auto first = cpu_device().prepare(two.program, *BufferPool::process_default());
  const auto second = cpu_device().prepare(two.program, *BufferPool::process_default());
  const std::vector<float> in(4, 1), other(4, 2);
  std::vector<float> out(4), other_out(4);
  const void* inputs[] = {in.data()};
  const void* other_inputs[] = {other.data()};
  void* outputs[] = {out.data()};
  void* other_outputs[] = {other_out.data()};
  first->run(inputs, outputs, {});
  second->run(other_inputs, other_outputs, {});
  CHECK_EQ(out[0], 10.0f);
  CHECK_EQ(other_out[0], 17.0f);
}

TEST(cpu_names_the_step_that_fails) {
  TwoSteps two;
  two.program.steps[1].fn = fails;
  const auto execution = cpu_device().prepare(two.program, *BufferPool::process_default());
  const std::vector<float> in(4);
  std::vector<float> out(4);
  const void* inputs[] = {in.data()};
  void* outputs[] = {out.data()};
  try {
    execution->run(inputs, outputs, {});
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInference);
    CHECK_EQ(std::string(error.what()), "node 'b' (Second): it fails");
  }
}

/// What a step finds, in its own thread and in those that help it.
struct Found {
  std::atomic<int> looks{0}, others{0};
};

bool is_ours() {
  // Sticky flags are each thread's own.
  return ((FloatEnvironment::current() ^ FloatEnvironment::kOurs) & ~FloatEnvironment::Word{0x3f}) == 0;
}

void look(const void* params, std::byte* const*, const ExecContext& context) {
  auto* found = *static_cast<Found* const*>(params);
  const auto count = [&](int64_t) {
    ++found->looks;
    if (!is_ours()) ++found->others;
  };
  count(0);
  if (context.pool) context.pool->parallel_for(64, context.max_threads, count);
}

class NeverStops final : public RunControl {
  bool look(Nanos) override { return false; }
};

TEST(cpu_steps_run_in_our_floating_point_environment_whoever_calls) {
  if (!testing::can_flush_subnormals()) return;
  Found found;
  Found* const params = &found;
  Program program;
  program.labels = {"node 'a' (Look)"};
  program.steps = {{look, &params, 0, 0}, {look, &params, 0, 0}};
  program.estimated_nanos = 1'000'000;
  const auto execution = cpu_device().prepare(program, *BufferPool::process_default());
  ThreadPool pool(4);
  const auto callers = FloatEnvironment::current();
  const auto run_everywhere = [&] {
    const auto before = FloatEnvironment::current();
    execution->run({}, {}, {});
    execution->run({}, {}, {&pool, 4});
    {
      NeverStops control;
      const RunControl::Scope scope(&control);
      execution->run({}, {}, {&pool, 4});
    }
    trace_steps(true, 64);
    execution->run({}, {}, {&pool, 4});
    trace_steps(false, 64);
    CHECK(FloatEnvironment::current() == before);
  };
  for (const int rounding : {FE_UPWARD, FE_TOWARDZERO, FE_DOWNWARD, FE_TONEAREST}) {
    std::fesetround(rounding);
    run_everywhere();
  }
  FloatEnvironment::set(FloatEnvironment::kOurs);
  run_everywhere();
  FloatEnvironment::set(callers);
  CHECK_EQ(found.others.load(), 0);
  CHECK_EQ(found.looks.load(), 5 * 2 * (1 + 65 + 65 + 65));

  // What a step throws leaves the caller's as it was, too.
  program.steps = {{fails, nullptr, 0, 0}};
  const auto failing = cpu_device().prepare(program, *BufferPool::process_default());
  std::fesetround(FE_UPWARD);
  const auto upward = FloatEnvironment::current();
  CHECK_THROWS(failing->run({}, {}, {}), Error);
  CHECK(FloatEnvironment::current() == upward);
  FloatEnvironment::set(callers);
}

TEST(devices_have_names) {
  CHECK_EQ(device_kind_name(cpu_device().kind()), "cpu");
  CHECK_EQ(device_kind_name(null_device().kind()), "null");
}

TEST(null_runs_nothing) {
  const Program empty;
  CHECK_THROWS(null_device().prepare(empty, *BufferPool::process_default()), Error);
}

}  // namespace
}  // namespace inferkit
