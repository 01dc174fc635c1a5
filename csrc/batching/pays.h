// How many rows a batch needs, where more of them make none cheaper.
#pragma once
#include <cstdint>

#include "batching/cut.h"

namespace inferkit {

/// What a batch costs besides its run: to wake whoever computes it and those who wait for it. So rows that cost alike
/// are batched all the same where they cost little.
inline constexpr Nanos kHandOver = 100'000;

/// The sizes that stand for those between them: the largest of each class of a CostCurve up to `most`, and that.
template <class Visit>
void for_each_size(int64_t most, Visit&& visit) {
  for (size_t c = 0; CostCurve::top_of(c) < most && c + 1 < CostCurve::kClasses; ++c) visit(CostCurve::top_of(c));
  visit(most);
}

/// The fewest rows with which a row is about as cheap as it can be, by what runs have been found to take: a pure
/// function. `most` where more rows go on making them cheaper, as far as anybody has seen, or where too little is
/// known. `before` is what it said last; it stays for as long as it is nearly as good, so that nothing goes back and
/// forth.
int64_t rows_that_pay(int64_t most, int64_t before, RunCost cost);

/// A size that is worth a try, as nothing is known of it: smaller ones than `pays`, where all batches have been as
/// large; else a larger one, as what is known of that may be out of date. 0: none.
int64_t rows_to_try(int64_t most, int64_t pays, RunCost cost);

}  // namespace inferkit
