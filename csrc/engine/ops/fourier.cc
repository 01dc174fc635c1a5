// DFT and STFT, in double. A length of small prime factors is split into them; any other becomes a convolution with a
// chirp (Bluestein), by transforms of a power of two.
#include <cmath>
#include <complex>
#include <numbers>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

using Complex = std::complex<double>;

/// Not operator*, which also cares for infinities.
Complex times(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

int64_t least_factor(int64_t n) {
  for (int64_t p = 2; p * p <= n; ++p) {
    if (n % p == 0) return p;
  }
  return n;
}
int64_t largest_factor(int64_t n) {
  int64_t largest = 1;
  while (n > 1) {
    const int64_t p = least_factor(n);
    largest = std::max(largest, p);
    n /= p;
  }
  return largest;
}

/// Elements [first, last) of each of the p transforms of m elements in `out` become elements of the one of p m.
inline void join(int64_t p, int64_t m, int64_t first, int64_t last, Complex* out, const Complex* roots, int64_t step,
                 Complex* spare) {
  if (p == 2) {
    for (int64_t k = first; k < last; ++k) {
      const Complex a = out[k], b = times(out[m + k], roots[k * step]);
      out[k] = a + b;
      out[m + k] = a - b;
    }
    return;
  }
  for (int64_t k = first; k < last; ++k) {
    spare[0] = out[k];
    for (int64_t r = 1; r < p; ++r) spare[r] = times(out[r * m + k], roots[r * k * step]);
    for (int64_t q = 0; q < p; ++q) {
      Complex sum = spare[0];
      for (int64_t r = 1; r < p; ++r) sum += times(spare[r], roots[r * q % p * m * step]);
      out[q * m + k] = sum;
    }
  }
}

/// out[k] = sum of in[j * stride] * w^(j k) for n elements, where w^i is roots[i * step]; `spare` holds one element for
/// each of the largest factor. Looks between short transforms whether to go on, not within them.
template <bool kShort = false>
void transform(int64_t n, const Complex* in, int64_t stride, Complex* out, const Complex* roots, int64_t step,
               Complex* spare, WorkMeter& meter) {
  constexpr int64_t kMostShort = 4096, kElementNanos = 30;
  if constexpr (!kShort) {
    if (n <= kMostShort) {
      if (meter.go_on(n * kElementNanos)) transform<true>(n, in, stride, out, roots, step, spare, meter);
      return;
    }
  }
  if (n == 1) {
    *out = *in;
    return;
  }
  if (n == 2) {
    const Complex a = in[0], b = in[stride];
    out[0] = a + b;
    out[1] = a - b;
    return;
  }
  const int64_t p = least_factor(n), m = n / p;
  for (int64_t r = 0; r < p; ++r) {
    transform<kShort>(m, in + r * stride, stride * p, out + r * m, roots, step * p, spare, meter);
  }
  if constexpr (kShort) {
    join(p, m, 0, m, out, roots, step, spare);
  } else {
    for_blocks(meter, 0, m, p * p * 4,
               [&](int64_t first, int64_t last) { join(p, m, first, last, out, roots, step, spare); });
  }
}

constexpr int64_t kMaxFactor = 31;

/// What a transform of one length needs, made when a plan is compiled.
struct Tables {
  std::vector<Complex> roots;   // exp(-+ 2 pi i j / n), or, with a chirp, exp(-2 pi i j / m)
  std::vector<Complex> chirp;   // exp(-+ pi i j^2 / n); empty where the factors are small
  std::vector<Complex> filter;  // the transform of the chirp's conjugate, divided by m
};

constexpr int64_t kRootNanos = 50;  // a sine and a cosine

std::vector<Complex> make_roots(int64_t n, double turn) {
  std::vector<Complex> roots;
  WorkMeter meter;
  for (int64_t j = 0; j < n; ++j) {
    meter.spend(kRootNanos);
    const double angle = turn * 2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(n);
    roots.emplace_back(std::cos(angle), std::sin(angle));
  }
  return roots;
}

std::shared_ptr<const Tables> make_tables(int64_t n, bool inverse) {
  auto t = std::make_shared<Tables>();
  if (largest_factor(n) <= kMaxFactor) {
    t->roots = make_roots(n, inverse ? 1 : -1);
    return t;
  }
  int64_t m = 1;
  while (m < 2 * n - 1) m *= 2;
  t->roots = make_roots(m, -1);
  std::vector<Complex> kernel(static_cast<size_t>(m));
  WorkMeter meter;
  for (int64_t j = 0; j < n; ++j) {
    meter.spend(kRootNanos);
    const double angle = std::numbers::pi * static_cast<double>(j * j % (2 * n)) / static_cast<double>(n);
    t->chirp.emplace_back(std::cos(angle), inverse ? std::sin(angle) : -std::sin(angle));
    kernel[static_cast<size_t>(j)] = kernel[static_cast<size_t>((m - j) % m)] = std::conj(t->chirp.back());
  }
  t->filter.resize(static_cast<size_t>(m));
  Complex spare[2];
  transform(m, kernel.data(), 1, t->filter.data(), t->roots.data(), 1, spare, meter);
  RunControl::check();
  for (Complex& f : t->filter) f /= static_cast<double>(m);
  return t;
}

/// The numbers that `run` needs as work: input and result, and room for the largest factor.
int64_t work_elements(const Tables& t) { return 2 * static_cast<int64_t>(t.roots.size()) + kMaxFactor; }

/// The transform of the n elements at `work`; the result lies at what it returns.
const Complex* run(const Tables& t, int64_t n, Complex* work, WorkMeter& meter) {
  const auto m = static_cast<int64_t>(t.roots.size());
  Complex *other = work + m, *spare = other + m;
  if (t.chirp.empty()) {
    transform(n, work, 1, other, t.roots.data(), 1, spare, meter);
    return other;
  }
  const Complex *chirp = t.chirp.data(), *filter = t.filter.data();
  for (int64_t j = 0; j < n; ++j) work[j] = times(work[j], chirp[j]);
  std::fill(work + n, work + m, Complex{});
  transform(m, work, 1, other, t.roots.data(), 1, spare, meter);
  // Back by the same transform: conjugate before and after.
  for (int64_t j = 0; j < m; ++j) other[j] = std::conj(times(other[j], filter[j]));
  transform(m, other, 1, work, t.roots.data(), 1, spare, meter);
  for (int64_t j = 0; j < n; ++j) work[j] = times(std::conj(work[j]), chirp[j]);
  return work;
}

struct FourierParams {
  int64_t n;           // of the transform
  int64_t lines;       // outer * inner, or batch * frames
  int64_t inner;       // elements between neighbours of a line
  int64_t given;       // elements of a line that are there; zeros follow
  int64_t written;     // of the result
  int64_t outer_step;  // between the lines of neighbouring outer indices, in elements of the input
  bool complex, inverse, real_out;
  bool hermitian;  // the second half of the input follows from the first
};

/// A line to its place; io: out, in, window (or null), tables, work.
template <class T>
void fourier_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const FourierParams*>(params);
  auto* out = reinterpret_cast<T*>(io[0]);
  const auto* window = reinterpret_cast<const T*>(io[2]);
  const auto& tables = *reinterpret_cast<const Tables*>(io[3]);
  auto* in = reinterpret_cast<Complex*>(io[4]);
  const int64_t parts = p.complex ? 2 : 1, out_parts = p.real_out ? 1 : 2;
  const double factor = p.inverse ? 1 / static_cast<double>(p.n) : 1;
  WorkMeter meter;
  for (int64_t line = 0; line < p.lines && meter.go_on(4 * p.n); ++line) {
    const int64_t outer = line / p.inner, inner = line % p.inner;
    const T* x = reinterpret_cast<const T*>(io[1]) + (outer * p.outer_step + inner) * parts;
    for (int64_t j = 0; j < p.n; ++j) {
      if (j >= p.given) {
        in[j] = 0;
        continue;
      }
      const T* at = x + j * p.inner * parts;
      const double w = window ? static_cast<double>(load(window[j])) : 1;
      in[j] = {w * static_cast<double>(load(at[0])), p.complex ? w * static_cast<double>(load(at[1])) : 0.0};
    }
    if (p.hermitian) {
      in[0] = in[0].real();
      if (p.n % 2 == 0) in[p.n / 2] = in[p.n / 2].real();
      for (int64_t j = p.n / 2 + 1; j < p.n; ++j) in[j] = std::conj(in[p.n - j]);
    }
    const Complex* result = run(tables, p.n, in, meter);
    T* y = out + (outer * p.written * p.inner + inner) * out_parts;
    for (int64_t j = 0; j < p.written; ++j, y += p.inner * out_parts) {
      y[0] = store<T>(static_cast<Compute<T>>(result[j].real() * factor));
      if (!p.real_out) y[1] = store<T>(static_cast<Compute<T>>(result[j].imag() * factor));
    }
  }
}

/// The step of `p`, whose lines are `lines` in all.
template <class Params>
void lower_lines(LowerContext& c, StepFn fn, const Params& p, int64_t n, int64_t lines, bool inverse, Ref window) {
  const auto tables = make_tables(n, inverse);
  const int64_t work = work_elements(*tables);
  c.step(fn, p,
         {c.out(0), c.in(0), window, c.constant(tables.get(), tables),
          c.scratch(static_cast<size_t>(work) * sizeof(Complex))},
         multiplied(lines, work) * 15);
}

/// The one element of an optional integer input.
int64_t scalar(const NodeContext& c, size_t i, int64_t fallback) {
  if (!c.has_input(i)) return fallback;
  const std::vector<int64_t> values = c.const_ints(i);
  if (values.size() != 1) c.fail(cat("input ", i, " must hold one number"));
  return values[0];
}

constexpr int64_t kMaxLength = int64_t{1} << 22;

// ---- DFT: [..., n, ..., 1 or 2] along one axis ----------------------------------------------------------------------

struct DftPlan {
  FourierParams p;
  Shape out;
};

int64_t axis_of_dft(const NodeContext& c) {
  const int64_t axis = c.version() >= 20 ? scalar(c, 2, -2) : c.attr_int("axis", 1);
  return c.resolve_axis(axis, static_cast<int64_t>(c.input(0).shape.rank()));
}

Axes mixed_by_dft(const NodeContext& c, size_t i) { return i == 0 ? one_axis(axis_of_dft(c)) : Axes{0}; }
Axes mixed_by_stft(const NodeContext&, size_t i) { return i == 0 ? one_axis(1) : Axes{0}; }

DftPlan read_dft(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  const auto rank = static_cast<int64_t>(x.rank());
  if (rank < 2 || (x.back() != 1 && x.back() != 2)) c.fail(cat("expected [..., 1 or 2], got ", x.str()));
  const int64_t axis = axis_of_dft(c);
  if (axis == rank - 1) c.fail("the axis is that of the parts of a number");
  const auto a = static_cast<size_t>(axis);
  const bool onesided = c.attr_int("onesided", 0) != 0;
  DftPlan plan{};
  FourierParams& p = plan.p;
  p.inverse = c.attr_int("inverse", 0) != 0;
  p.complex = x.back() == 2;
  p.hermitian = p.real_out = onesided && p.inverse;
  if (onesided && !p.inverse && p.complex) c.fail("onesided for complex numbers");
  if (p.hermitian && !p.complex) c.unsupported("an inverse onesided transform of real numbers");
  p.n = scalar(c, 1, p.hermitian ? 2 * (x[a] - 1) : x[a]);
  if (p.n < 1 || p.n > kMaxLength) c.fail(cat("a transform of length ", p.n));
  p.inner = x.elements(a + 1, x.rank() - 1);
  p.lines = x.elements(0, a) * p.inner;
  p.given = std::min(x[a], p.hermitian ? p.n / 2 + 1 : p.n);
  p.outer_step = x[a] * p.inner;
  p.written = onesided && !p.inverse ? p.n / 2 + 1 : p.n;
  plan.out = x;
  plan.out[a] = p.written;
  plan.out[x.rank() - 1] = p.real_out ? 1 : 2;
  return plan;
}

void infer_dft(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  const DftPlan plan = read_dft(c);
  if (!plan.out.checked_elements()) c.fail(cat("a result of shape ", plan.out.str()));
  c.set_output(0, c.input(0).dtype, plan.out);
}
void lower_dft(LowerContext& c) {
  const FourierParams p = read_dft(c).p;
  if (p.lines == 0) return;
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return fourier_step<T>; });
  lower_lines(c, fn, p, p.n, p.lines, p.inverse, Ref{});
}

// ---- STFT: signal [batch, n (, 1 or 2)], frame_step, window, frame_length--------------------------------------------

struct StftPlan {
  int64_t batch, samples, frames, length, hop, bins;
  bool complex;
};

StftPlan read_stft(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  StftPlan s{};
  // PyTorch's exporter leaves out the last axis of real signals, and ONNX Runtime takes that.
  if (x.rank() != 2 && (x.rank() != 3 || (x[2] != 1 && x[2] != 2))) {
    c.fail(cat("expected [batch, n] or [batch, n, 1 or 2], got ", x.str()));
  }
  s.batch = x[0];
  s.samples = x[1];
  s.complex = x.rank() == 3 && x[2] == 2;
  s.hop = scalar(c, 1, 0);
  if (c.has_input(2) && c.input(2).shape.rank() != 1) c.fail(cat("a window of shape ", c.input(2).shape.str()));
  s.length = scalar(c, 3, c.has_input(2) ? c.input(2).shape[0] : s.samples);
  if (c.has_input(2) && c.input(2).shape[0] != s.length) c.fail("a window of another length than the frame");
  if (s.length > kMaxLength) c.fail(cat("frames of ", s.length));
  if (s.hop < 1 || s.length < 1 || s.length > s.samples) {
    c.fail(cat("frames of ", s.length, " every ", s.hop, " in ", counted(s.samples, "sample")));
  }
  s.frames = 1 + (s.samples - s.length) / s.hop;
  const bool onesided = c.attr_int("onesided", 1) != 0;
  if (onesided && s.complex) c.fail("onesided for complex numbers");
  s.bins = onesided ? s.length / 2 + 1 : s.length;
  return s;
}

void infer_stft(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  if (c.has_input(2)) require_same_type(c, 0, 2);
  const StftPlan s = read_stft(c);
  const Shape out{s.batch, s.frames, s.bins, 2};
  if (!out.checked_elements()) c.fail(cat("a result of shape ", out.str()));
  c.set_output(0, c.input(0).dtype, out);
}

struct FrameParams {
  FourierParams fourier;  // of one signal
  int64_t batch, signal, result;
};
/// Frames overlap, so the lines of one signal begin `hop` apart.
template <class T>
void stft_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const FrameParams*>(params);
  WorkMeter meter;
  for (int64_t b = 0; b < p.batch && meter.go_on(p.fourier.lines * p.fourier.n); ++b) {
    std::byte* const operands[] = {io[0] + b * p.result * static_cast<int64_t>(sizeof(T)),
                                   io[1] + b * p.signal * static_cast<int64_t>(sizeof(T)), io[2], io[3], io[4]};
    fourier_step<T>(&p.fourier, operands, context);
  }
}

void lower_stft(LowerContext& c) {
  const StftPlan s = read_stft(c);
  FourierParams f{};
  f.n = f.given = s.length;
  f.lines = s.frames;
  f.inner = 1;
  f.written = s.bins;
  f.outer_step = s.hop;
  f.complex = s.complex;
  const FrameParams p{f, s.batch, s.samples * (s.complex ? 2 : 1), s.frames * s.bins * 2};
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return stft_step<T>; });
  lower_lines(c, fn, p, s.length, s.batch * s.frames, false, c.has_input(2) ? c.in(2) : Ref{});
}

}  // namespace

void register_fourier(OpRegistry& r) {
  OpSchema dft{.name = "DFT", .min_inputs = 1, .max_outputs = 1, .infer = infer_dft, .mixed_axes = mixed_by_dft};
  dft.since = 17;
  dft.until = 19;
  dft.max_inputs = 2;
  r.add(dft, lower_dft);
  dft.since = 20;
  dft.until = OpSchema{}.until;
  dft.max_inputs = 3;
  r.add(dft, lower_dft);
  r.add({.name = "STFT",
         .since = 17,
         .min_inputs = 2,
         .max_inputs = 4,
         .max_outputs = 1,
         .infer = infer_stft,
         .mixed_axes = mixed_by_stft},
        lower_stft);
}

}  // namespace inferkit
