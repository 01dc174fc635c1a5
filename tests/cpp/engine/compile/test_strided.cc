#include <algorithm>
#include <array>
#include <vector>

#include "engine/compile/strided.h"
#include "platform/run_control.h"
#include "test.h"

using namespace inferkit;

namespace {

/// Says stop once it was asked so often.
class StopsAt final : public RunControl {
 public:
  explicit StopsAt(int64_t asked) : RunControl(First::kAtOnce), left_(asked) {}

 protected:
  bool look(Nanos) override { return --left_ < 0; }

 private:
  int64_t left_;
};

constexpr int64_t kOften = int64_t{1} << 40;

/// A transposed operand, so that lines do not merge: element (i, j) of [lines, line] lies at j * lines + i.
LoopNest<2> transposed(int64_t lines, int64_t line) {
  return make_nest<2>(Shape{lines, line}, {Strides{1, lines}, Strides{line, 1}});
}

/// Both offsets of every element that for_each_piece names, in its order; at most so many elements at once in
/// `longest`.
std::vector<std::array<int64_t, 2>> visited(const LoopNest<2>& nest, int64_t nanos, int64_t* longest) {
  std::vector<std::array<int64_t, 2>> found;
  *longest = 0;
  for_each_piece(
      nest,
      [&](const std::array<int64_t, 2>& at, int64_t n) {
        *longest = std::max(*longest, n);
        for (int64_t i = 0; i < n; ++i) {
          found.push_back({at[0] + i * nest.inner_stride(0), at[1] + i * nest.inner_stride(1)});
        }
      },
      nanos);
  return found;
}

}  // namespace

TEST(pieces_are_all_elements_in_order_whether_lines_are_cut_or_not) {
  struct Given {
    int64_t lines, line, nanos;
  };
  for (const Given& g : {Given{1, 1, 1},
                         {5, 7, 1},
                         {3, WorkMeter::kBlockNanos, 1},
                         {3, WorkMeter::kBlockNanos + 1, 1},
                         {2, 2 * WorkMeter::kBlockNanos + 5, 1},
                         {4, 10, WorkMeter::kBlockNanos},
                         {0, 5, 1},
                         {5, 0, 1}}) {
    const LoopNest<2> nest = transposed(g.lines, g.line);
    for (const bool controlled : {false, true}) {
      StopsAt control(kOften);
      const RunControl::Scope scope(controlled ? &control : nullptr);
      int64_t longest = 0;
      const auto found = visited(nest, g.nanos, &longest);
      CHECK_EQ(static_cast<int64_t>(found.size()), g.lines * g.line);
      int64_t wrong = 0;
      for (size_t k = 0; k < found.size(); ++k) {
        const auto i = static_cast<int64_t>(k) / g.line, j = static_cast<int64_t>(k) % g.line;
        wrong += found[k][0] != j * g.lines + i || found[k][1] != static_cast<int64_t>(k);
      }
      CHECK_EQ(wrong, 0);
      if (controlled) CHECK(longest * g.nanos <= WorkMeter::kBlockNanos || longest == 1);
    }
  }
}

TEST(pieces_of_a_stopped_run_are_left_out) {
  StopsAt control(0);
  const RunControl::Scope scope(&control);
  int64_t longest = 0;
  const int64_t line = 40 * WorkMeter::kBlockNanos;  // beyond what a meter lets pass before it asks
  CHECK(static_cast<int64_t>(visited(transposed(2, line), 1, &longest).size()) < 2 * line);
}
