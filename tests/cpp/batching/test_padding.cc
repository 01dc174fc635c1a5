// Requests of different lengths in one batch: lengths, filling up, cutting back, and the proof that it changes nothing.
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>

#include "batching/batch_run.h"
#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "batching/pad_trial.h"
#include "batching/padding.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

BatcherOptions padded(std::vector<int64_t> lengths = {}, float with = 0) {
  BatcherOptions options;
  PaddedInput input{1, {}};
  std::memcpy(input.element.data(), &with, sizeof with);
  options.pad = {{input}, std::move(lengths), 0};
  return options;
}

struct PadRig : Rig {
  explicit PadRig(BatcherOptions options = padded()) : Rig(std::move(options), {Shape::kFree, Shape::kFree}) {}
  /// 1, 2, 3, ...
  RequestRef text(int64_t length, float first = 1) {
    std::vector<float> values(static_cast<size_t>(length));
    std::iota(values.begin(), values.end(), first);
    return submit(values, {length});
  }
  bool answered(const RequestRef& request, float first = 1) {
    if (batcher->wait(*request) != Waited::kDone || request->phase() != Phase::kResult) return false;
    const std::vector<float> got = answer(*request);
    bool right = request->length == 0 || got.size() == static_cast<size_t>(request->length);
    for (size_t i = 0; i < got.size(); ++i) right &= got[i] == 2 * (first + static_cast<float>(i)) + 1;
    return right;
  }
};

}  // namespace

TEST(padding_lengths_are_a_quarter_of_a_power_of_two_apart) {
  const std::array<int64_t, 14> first{8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80};
  int64_t length = 1;
  for (const int64_t want : first) {
    CHECK_EQ(length_above(length), want);
    CHECK_EQ(length_above(want), want);
    length = want + 1;
  }
  for (int64_t l = 8; l < 5000; ++l) {
    const int64_t above = length_above(l);
    CHECK(above >= l && above >= length_above(l - 1) && 5 * (above - l) < above);
  }
  CHECK(length_above(int64_t{1} << 40) == int64_t{1} << 40);
}

TEST(padding_lengths_that_are_given_are_the_only_ones) {
  const PortSpec port{"x", DType::kF32, {Shape::kFree, Shape::kFree}};
  const Padding some({{{1, {}}}, {16, 64}, 0}, {&port, 1});
  CHECK_EQ(some.length_for(1), 16);
  CHECK_EQ(some.length_for(16), 16);
  CHECK_EQ(some.length_for(17), 64);
  CHECK_EQ(some.length_for(65), 65);
  CHECK_EQ(some.length_for(0), 0);
  CHECK((some.lengths(0) == std::vector<int64_t>{16, 64}));
  const Padding bounded({{{1, {}}}, {}, 30}, {&port, 1});
  CHECK((bounded.lengths(0) == std::vector<int64_t>{8, 10, 12, 14, 16, 20, 24, 28, 30}));
  CHECK_EQ(bounded.length_for(29), 30);
  CHECK_EQ(bounded.length_for(31), 31);
  CHECK((bounded.lengths(11) == std::vector<int64_t>{8, 10, 12}));
  const Padding any({{{1, {}}}, {}, 0}, {&port, 1});
  CHECK(any.lengths(0).empty());
}

TEST(padding_has_a_longest_length) {
  const PortSpec port{"x", DType::kF32, {Shape::kFree, Shape::kFree}};
  constexpr int64_t kLongest = Padding::kLongest, kMost = std::numeric_limits<int64_t>::max();
  const Padding any({{{1, {}}}, {}, 0}, {&port, 1});
  CHECK_EQ(any.length_for(kLongest - 1), kLongest);
  CHECK_EQ(any.length_for(kLongest + 1), kLongest + 1);
  CHECK_EQ(any.length_for(kMost), kMost);
  CHECK_EQ(any.lengths(kMost).back(), kLongest);
  const Padding given({{{1, {}}}, {8, kLongest}, 0}, {&port, 1});
  CHECK((given.lengths(kMost) == std::vector<int64_t>{8, kLongest}));
  for (const PadOptions& options : {PadOptions{{{1, {}}}, {8, kLongest + 1}, 0}, PadOptions{{{1, {}}}, {}, kMost}}) {
    CHECK_THROWS(Padding(options, {&port, 1}), std::invalid_argument);
  }
}

TEST(padding_to_more_than_there_is_memory_for_is_refused) {
  Batcher batcher(std::make_shared<FakeRunner>(Shape{Shape::kFree, Shape::kFree, Shape::kFree}),
                  padded({Padding::kLongest}), std::make_shared<BufferPool>());
  const auto check = [&](Shape shape) {  // asks for shapes alone
    const float value = 0;
    return batcher.check(std::vector{StridedView::contiguous({DType::kF32, shape, &value})});
  };
  CHECK_EQ(check({1, 1, 1}).layout->length, Padding::kLongest);
  const Status status = error_of([&] { check({1, 1, int64_t{1} << 30}); });
  CHECK(status.reason == Reason::kTooLarge);
  CHECK(status.message.find("would have 1 x (2147483647, 1073741824) elements once it is padded") != std::string::npos);
  // One such row is a number of bytes, a batch of many is not.
  const Checked one = check({1, 1, int64_t{1} << 22});
  CHECK_EQ(one.layout->most_rows, 128);
}

TEST(padding_is_tried_on_requests_that_the_model_can_run) {
  FakeRunner model({Shape::kFree, Shape::kFree});
  BufferPool pool;
  const Padding padding(padded().pad, model.inputs());
  const std::vector<Shape> rows{{Shape::kFree}};
  const auto tried = [&](std::vector<int64_t> lengths, TrialLimits limits = {64, 0}) {
    return try_padding(model, pool, padding, rows, lengths, limits, [](const Status&) { return false; });
  };
  CHECK(tried({8}).empty());
  const std::vector<Shape> usual{{5, 8}, {1, 1}, {1, 7}, {1, 4}, {1, 2}};  // the last one has nothing to pad
  const std::vector<Shape> large{{4, 8}, {1, 7}, {1, 7}, {1, 4}, {1, 4}};
  std::vector<Shape> all = usual;
  all.insert(all.end(), large.begin(), large.end());
  CHECK(model.batches() == all);
  const size_t before = model.batches().size();
  CHECK(tried({8}, {64, 7}).empty());  // of which no batch has room for one
  CHECK_EQ(model.batches().size(), before);
  model.longest = 7;  // padded it does not run: nothing is said
  CHECK(tried({8}).empty());
  model.longest = 0;
  model.sees_neighbours = true;
  CHECK(tried({8}).find("output 'y' of a request of length 1 is not the same") == 0);
  // What asks to stop is passed on, and nothing runs after it.
  model.longest = 3;
  const size_t runs = model.batches().size();
  const Status status = error_of([&] {
    try_padding(model, pool, padding, rows, std::vector<int64_t>{8, 16}, {1, 0},
                [](const Status& s) { return s.message == "too long"; });
  });
  CHECK(status.message == "too long");
  CHECK_EQ(model.batches().size(), runs + 1);
  CHECK_EQ(pool.stats().outstanding, 0u);
}

TEST(padding_refuses_what_cannot_be_padded) {
  const auto refuses = [](PortSpec port, PadOptions options) {
    try {
      const Padding made(std::move(options), {&port, 1});
      return false;
    } catch (const std::invalid_argument&) {
      return true;
    }
  };
  const PortSpec free{"x", DType::kF32, {Shape::kFree, Shape::kFree}};
  CHECK(!refuses(free, {{{1, {}}}, {}, 0}));
  CHECK(refuses(free, {{{2, {}}}, {}, 0}));
  CHECK(refuses(free, {{{0, {}}}, {}, 0}));
  CHECK(refuses(free, {{{1, {}}}, {8, 8}, 0}));
  CHECK(refuses(free, {{{1, {}}}, {0, 8}, 0}));
  CHECK(refuses({"x", DType::kF32, {Shape::kFree, 7}}, {{{1, {}}}, {}, 0}));
  CHECK(refuses({"x", DType::kF32, {4, Shape::kFree}}, {{{1, {}}}, {}, 0}));
  CHECK(refuses({"x", DType::kString, {Shape::kFree, Shape::kFree}}, {{{1, {}}}, {}, 0}));
}

// What is filled up and cut back is what it was, for any shape, axis, type and length.
TEST(padding_is_undone_by_cutting_back) {
  std::mt19937 rng(7);
  const auto draw = [&](int64_t most) { return std::uniform_int_distribution<int64_t>(0, most)(rng); };
  for (int round = 0; round < 500; ++round) {
    const DType dtype = std::array{DType::kU8, DType::kF16, DType::kF32, DType::kI64}[static_cast<size_t>(draw(3))];
    const size_t size = dtype_size(dtype);
    Shape row;
    const auto rank = static_cast<size_t>(1 + draw(3));
    for (size_t i = 0; i < rank; ++i) row.push_back(1 + draw(4));
    const auto axis = static_cast<size_t>(draw(static_cast<int64_t>(rank) - 1));
    const int64_t length = row[axis], count = 1 + draw(3);
    Shape long_row = row;
    long_row[axis] = length + draw(5);
    PaddedInput input{axis + 1, {}};
    for (std::byte& b : input.element) b = static_cast<std::byte>(1 + draw(1));
    std::vector<std::byte> from(static_cast<size_t>(count * row.elements()) * size);
    for (std::byte& b : from) b = static_cast<std::byte>(3 + draw(200));
    std::vector<std::byte> to(static_cast<size_t>(count * long_row.elements()) * size);
    fill_up(input, dtype, long_row, count, length, from.data(), to.data());
    size_t filled = 0;
    for (size_t at = 0; at < to.size(); at += size) filled += std::memcmp(&to[at], input.element.data(), size) == 0;
    CHECK_EQ(filled, static_cast<size_t>(count * (long_row.elements() - row.elements())));
    Shape all = long_row;
    all.insert(0, count);
    cut_back(to.data(), all, static_cast<Axes>(1u << (axis + 1)), length, size);
    CHECK(std::memcmp(from.data(), to.data(), from.size()) == 0);
    CHECK_EQ(cut_shape(all, static_cast<Axes>(1u << (axis + 1)), length).elements(), count * row.elements());
  }
}

TEST(padding_cuts_several_axes) {  // the weights of attention: [rows, heads, length, length]
  const Shape shape{2, 2, 4, 4};
  std::vector<float> v(64);
  std::iota(v.begin(), v.end(), 0.0f);
  const std::vector<float> all = v;
  cut_back(reinterpret_cast<std::byte*>(v.data()), shape, 0b1100, 3, sizeof(float));
  size_t at = 0;
  for (size_t head = 0; head < 4; ++head) {
    for (size_t i = 0; i < 3; ++i) {
      for (size_t j = 0; j < 3; ++j) CHECK_EQ(v[at++], all[head * 16 + i * 4 + j]);
    }
  }
}

TEST(padding_lets_requests_of_different_lengths_share_a_batch) {
  PadRig rig;
  CHECK(rig.answered(rig.text(5)));
  // Padded, and then as it came: once for each of the first few of a length.
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 8}, {1, 5}}));
  rig.model->shut();
  const RequestRef blocker = rig.text(30);
  rig.model->wait_for_runs(3);
  const RequestRef a = rig.text(3), b = rig.text(8, 50), c = rig.text(7, 100), other = rig.text(9, 9);
  rig.model->open();
  CHECK(rig.answered(blocker) && rig.answered(a) && rig.answered(b, 50) && rig.answered(c, 100) &&
        rig.answered(other, 9));
  CHECK_EQ(a->batch_rows, 3);
  CHECK(a->batch_id == b->batch_id && a->batch_id == c->batch_id && a->batch_id != other->batch_id);
  const BatcherStats stats = rig.batcher->stats();
  CHECK_EQ(stats.elements, 8u + 32 + 24 + 10);
  CHECK_EQ(stats.padding, 3u + 2 + 6 + 1);
  CHECK(stats.padding_refusal.empty());
}

TEST(padding_is_proven_a_few_times_for_each_length_and_then_costs_nothing) {
  PadRig rig(padded({16, 32}));
  for (int i = 0; i < 6; ++i) CHECK(rig.answered(rig.text(9 + i)));
  size_t alone = 0;
  for (const Shape& run : rig.model->batches()) alone += run[1] != 16;
  CHECK_EQ(alone, static_cast<size_t>(PadProof::kSamples));
  CHECK(rig.answered(rig.text(20)));
  CHECK((rig.model->batches().back() == Shape{1, 20}));
}

TEST(padding_gives_way_where_answers_would_differ) {
  PadRig rig;
  rig.model->sees_neighbours = true;  // the last place of a request sees the padding
  rig.model->shut();
  const RequestRef blocker = rig.text(40);  // nothing to pad
  rig.model->wait_for_runs(1);
  const std::vector<RequestRef> requests{rig.text(3), rig.text(5), rig.text(8)};
  rig.model->open();
  for (const RequestRef& request : requests) {
    CHECK(rig.batcher->wait(*request) == Waited::kDone && request->phase() == Phase::kResult);
    const std::vector<float> got = answer(*request);
    CHECK_EQ(got.size(), static_cast<size_t>(request->length));
    CHECK_EQ(got.back(), 2.0f * static_cast<float>(request->length) + 1 + 1);  // and the first: alone in its run
  }
  const BatcherStats stats = rig.batcher->stats();
  CHECK(stats.padding_refusal.find("output 'y' of a request of length 3 is not the same") == 0);
  CHECK_EQ(stats.failed, 0u);
  const size_t runs = rig.model->batches().size();
  rig.batcher->wait(*rig.text(6));
  CHECK((rig.model->batches().back() == Shape{1, 6}));  // and nothing is tried any more
  CHECK_EQ(rig.model->batches().size(), runs + 1);
}

TEST(padding_stops_at_a_length_that_the_model_cannot_run) {
  PadRig rig(padded({8, 64}));
  rig.model->longest = 40;
  CHECK(rig.answered(rig.text(30)));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 64}, {1, 30}}));
  CHECK(rig.batcher->stats().padding_refusal.empty());  // it may have been bad luck
  CHECK(rig.answered(rig.text(20)));
  CHECK_EQ(rig.model->batches().size(), 4u);
  CHECK(rig.answered(rig.text(25)));
  CHECK_EQ(rig.model->batches().size(), 5u);
  CHECK((rig.model->batches().back() == Shape{1, 25}));
  CHECK(rig.answered(rig.text(5)));
  CHECK((rig.model->batches()[5] == Shape{1, 8}));
  CHECK_EQ(rig.batcher->stats().padding_refusal,
           "no request is padded to the length 64: the model failed at it twice, and ran those requests as they came: "
           "too long");
  const RequestRef too_long = rig.text(50);
  CHECK(rig.batcher->wait(*too_long) == Waited::kDone && too_long->phase() == Phase::kError);
}

TEST(padding_tries_a_length_once_more_where_a_run_failed) {
  PadRig rig;
  std::atomic<int> failing{1};
  rig.model->on_run = [&] {
    if (failing-- > 0) throw Error(ErrorCode::kInference, "bad luck");
  };
  CHECK(rig.answered(rig.text(5)));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 8}, {1, 5}}));
  CHECK(rig.answered(rig.text(6)));  // which runs, so that what went before does not count
  failing = 1;
  CHECK(rig.answered(rig.text(7)));
  CHECK(rig.answered(rig.text(7)) && rig.answered(rig.text(6)));
  const std::vector<Shape> want{{1, 8}, {1, 5}, {1, 8}, {1, 6}, {1, 8}, {1, 7}, {1, 8}, {1, 7}, {1, 8}, {1, 6}};
  CHECK(rig.model->batches() == want);
  CHECK(rig.batcher->stats().padding_refusal.empty());
  CHECK_EQ(rig.batcher->stats().failed, 0u);
}

TEST(padding_asks_once_for_each_batch_whether_a_length_runs) {
  PadRig rig(padded({64}));
  rig.model->longest = 40;
  for (size_t batch = 0; batch < 3; ++batch) {
    rig.model->shut();
    const size_t before = rig.model->batches().size();
    const RequestRef blocker = rig.text(64, 1);  // fails by itself, and has nothing to pad
    rig.model->wait_for_runs(before + 1);
    const std::vector<RequestRef> requests{rig.text(3), rig.text(5), rig.text(7)};
    rig.model->open();
    for (const RequestRef& request : requests) CHECK(rig.answered(request));
    // The batch, one by itself and as it came, the two others as they came; in the end, all as they came.
    CHECK_EQ(rig.model->batches().size() - before, batch < 2 ? 6u : 4u);
  }
}

TEST(padding_lets_a_bad_request_fail_alone_and_leaves_nothing_behind) {
  PadRig rig;
  CHECK(rig.answered(rig.text(5)) && rig.answered(rig.text(6)) && rig.answered(rig.text(7)));
  rig.model->shut();
  const RequestRef blocker = rig.text(40);
  rig.model->wait_for_runs(7);
  RequestRef good = rig.text(3), poisoned = rig.text(4, FakeRunner::kPoison), cancelled = rig.text(5),
             late = rig.text(6);
  CHECK(rig.batcher->cancel(*cancelled));
  rig.model->open();
  CHECK(rig.answered(blocker) && rig.answered(good) && rig.answered(late));
  CHECK(rig.batcher->wait(*poisoned) == Waited::kDone && poisoned->phase() == Phase::kError);
  CHECK(poisoned->status.message == "poisoned");
  CHECK(cancelled->phase() == Phase::kCancelled);
  good = poisoned = cancelled = late = nullptr;
  rig.batcher->close(true);
  CHECK_EQ(rig.pool->stats().outstanding, 1u);  // the answer of `blocker`
}

TEST(padding_does_not_hide_what_a_caller_sends) {
  PadRig rig(padded({}, std::nanf("")));  // the padding is no value of the caller's, and is not checked
  CHECK(rig.answered(rig.text(5)));
  CHECK(error_of([&] { rig.submit({1, std::nanf("")}, {2}); }).reason == Reason::kNonFinite);
  // What comes out of padding is nobody's answer.
  CHECK(rig.batcher->stats().padding_refusal.empty());
}

TEST(padding_needs_the_same_length_of_all_inputs_of_a_request) {
  struct Two final : Runner {
    std::vector<PortSpec> in{{"a", DType::kF32, {-1, -1}}, {"b", DType::kF32, {-1, 3, -1}}};
    std::vector<PortSpec> out{{"y", DType::kF32, {-1}}};
    std::span<const PortSpec> inputs() const override { return in; }
    std::span<const PortSpec> outputs() const override { return out; }
    Status run(std::span<const TensorView>, OutputSink&) noexcept override { return {}; }
    bool needs_gil() const override { return false; }
    int64_t estimate_nanos(std::span<const Shape>) const override { return 1; }
  };
  BatcherOptions options;
  options.pad.inputs = {{1, {}}, {2, {}}};
  Batcher batcher(std::make_shared<Two>(), options, std::make_shared<BufferPool>());
  const std::vector<float> values(64);
  const auto check = [&](Shape a, Shape b) {
    return batcher.check(std::vector{StridedView::contiguous({DType::kF32, a, values.data()}),
                                     StridedView::contiguous({DType::kF32, b, values.data()})});
  };
  for (const bool single : {true, false}) {
    const Checked found = single ? check({5}, {3, 5}) : check({1, 5}, {1, 3, 5});
    CHECK_EQ(found.length, 5);
    CHECK((found.layout->rows == std::vector<Shape>{{8}, {3, 8}}));
    CHECK_EQ(found.layout->padded_elements(2, 5), 2u * (5 + 15));
    CHECK_EQ(found.layout->offset(2, 1, 5), 64u + 64u);
  }
  const Status status = error_of([&] { check({5}, {3, 6}); });
  CHECK(status.reason == Reason::kShape);
  CHECK(status.message.find("input 'a' has 5 along axis 1 and input 'b' has 6 along axis 2") != std::string::npos);
}

TEST(a_batch_has_no_more_elements_than_it_may) {
  BatcherOptions options;
  options.max_batch_elements = 24;
  PadRig rig(options);
  rig.model->shut();
  const RequestRef blocker = rig.text(3);
  rig.model->wait_for_runs(1);
  std::vector<RequestRef> requests;
  for (int i = 0; i < 7; ++i) requests.push_back(rig.text(8));
  for (int i = 0; i < 5; ++i) requests.push_back(rig.text(24));
  rig.model->open();
  for (const RequestRef& request : requests) CHECK(rig.answered(request));
  CHECK_EQ(answer(*requests.back()).size(), 24u);
  const std::vector<Shape> want{{1, 3}, {3, 8}, {3, 8}, {1, 8}, {1, 24}, {1, 24}, {1, 24}, {1, 24}, {1, 24}};
  CHECK(rig.model->batches() == want);
  const Status one = error_of([&] { rig.text(25); });
  CHECK(one.reason == Reason::kTooLarge && one.message.find("max_batch_elements=24: raise") != std::string::npos);
  const Status several = error_of([&] { rig.submit(std::vector<float>(26), {2, 13}); });
  CHECK(several.reason == Reason::kTooLarge && several.message.find("2 rows of 13 elements") != std::string::npos);
}

TEST(padding_counts_among_the_elements_of_a_batch) {
  BatcherOptions options = padded({16});
  options.max_batch_elements = 40;
  PadRig rig(options);
  rig.model->shut();
  const RequestRef blocker = rig.text(16);
  rig.model->wait_for_runs(1);
  std::vector<RequestRef> requests;
  for (int i = 0; i < 5; ++i) requests.push_back(rig.text(9));
  rig.model->open();
  for (const RequestRef& request : requests) CHECK(rig.answered(request));
  CHECK_EQ(requests[0]->batch_rows, 2);
  CHECK(error_of([&] { rig.submit(std::vector<float>(27), {3, 9}); }).message.find("with its padding") !=
        std::string::npos);
}

TEST(padding_learns_nothing_of_a_model_that_was_replaced) {
  PadProof proof;
  const Follows second{Axes{2}};
  for (int i = 0; i < PadProof::kSamples; ++i) {
    CHECK(proof.learn(4, second) != nullptr);
    proof.passed(4, 8);
  }
  // A worker that began with the model before comes to its end.
  CHECK(proof.learn(2, {Axes{4}}) == nullptr);
  proof.passed(2, 8);
  proof.cannot_run(2, 8, 1, "no");
  proof.cannot_run(2, 8, 2, "no");
  proof.refuse(2, "the old one");
  const PadProof::Look now = proof.look(4, 8), before = proof.look(2, 8), later = proof.look(6, 8);
  CHECK(!now.apart && !now.wants && now.follows && *now.follows == second);
  CHECK(before.apart && before.wants && !before.follows);
  CHECK(!later.apart && later.wants && !later.follows);
  CHECK(proof.refusal(4).empty() && proof.refusal(2).empty());
  // Who compares at the same time as another goes by what the first has found.
  CHECK(*proof.learn(4, {Axes{4}}) == second);
  proof.refuse(6, "the next one");
  CHECK(proof.refusal(6) == "the next one" && proof.look(4, 8).apart);
}

// Another worker, which began with the model before, writes down what it found while a batch runs on the new one.
TEST(padding_is_cut_back_whatever_is_found_of_a_model_that_was_replaced) {
  const auto runs = [](const std::function<void(PadProof&, FakeRunner&)>& meanwhile, uint64_t proven) {
    PadRig rig;
    PadProof proof;
    for (int i = 0; i < PadProof::kSamples; ++i) {
      proof.learn(proven, {Axes{2}});
      proof.passed(proven, 8);
    }
    rig.model->number = 4;
    Recorder recorder(SteadyClock::instance(), 0, [] { return uint64_t{0}; });
    Predictor predictor(*rig.model);
    RowProof rows;
    PadCost cost;
    BatchRun tools(*rig.model, *rig.pool, rig.batcher->options(), SteadyClock::instance(), recorder, predictor, rows,
                   proof, cost);
    Batch batch;
    for (const int64_t length : {5, 6}) {
      std::vector<float> values(static_cast<size_t>(length));
      std::iota(values.begin(), values.end(), 1.0f);
      const Checked checked =
          rig.batcher->check(std::vector{StridedView::contiguous({DType::kF32, {length}, values.data()})});
      RequestRef request(new Request(checked.layout, 1, true, {}, checked.length));
      request->inputs = rig.pool->acquire(checked.layout->offset(1, 1, length), "request");
      std::memcpy(request->inputs.data(), values.data(), values.size() * sizeof(float));
      CHECK(request->advance(Phase::kWaiting, Phase::kQueued) && request->advance(Phase::kQueued, Phase::kRunning));
      batch.layout = checked.layout;
      batch.rows += 1;
      batch.requests.push_back(std::move(request));
    }
    rig.model->on_run = [&] { meanwhile(proof, *rig.model); };
    tools.run(batch, 1, [](Request& request, Phase end) { request.publish(end); });
    for (const RequestRef& request : batch.requests) CHECK(rig.answered(request));
    return rig.model->batches();
  };
  CHECK((runs([](PadProof&, FakeRunner&) {}, 4) == std::vector<Shape>{{2, 8}}));
  const auto late = [](PadProof& proof, FakeRunner&) {
    proof.learn(2, {Axes{0}});
    proof.passed(2, 8);
    proof.refuse(2, "the old one");
  };
  CHECK((runs(late, 4) == std::vector<Shape>{{2, 8}}));
  // And where the model is swapped while the batch runs, all of it is of the one that it began with.
  int times = 0;
  const auto swapped = [&](PadProof& proof, FakeRunner& model) {
    if (++times > 1) return;
    model.number = 6;
    proof.learn(6, {Axes{2}});
    proof.refuse(4, "the old one");
  };
  CHECK((runs(swapped, 4) == std::vector<Shape>{{2, 8}}));
  // Of that, nothing is learnt any more: what was not proven by then runs again, on the other, and is compared there.
  times = 0;
  CHECK((runs(swapped, 2) == std::vector<Shape>{{2, 8}, {1, 5}, {1, 8}, {1, 5}, {1, 8}, {1, 6}}));
}
