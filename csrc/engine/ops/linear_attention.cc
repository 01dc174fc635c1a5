// LinearAttention: a matrix of state per head, which each token decays, corrects, writes and reads. In float, token by
// token; a sequence's bits depend on that sequence alone. What a token reads is a sum over the keys' elements; what
// tokens write to the state is no sum, but goes on from the last token's, so that a sequence may be cut anywhere.
#include <cmath>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr TypeSet kTypes = types(DType::kF32, DType::kF16, DType::kBF16);
enum Input : size_t { kQuery, kKey, kValue, kPast, kDecay, kBeta };

struct LinearAttentionParams {
  int64_t batch, tokens, heads, kv_heads, key_size, value_size;
  int64_t decays, betas;  // per token; 0 for none
  float scale;
};

LinearAttentionParams read_params(const NodeContext& c) {
  LinearAttentionParams p{};
  p.heads = c.attr_int("q_num_heads", 0);
  p.kv_heads = c.attr_int("kv_num_heads", 0);
  if (p.heads < 1 || p.kv_heads < 1 || p.heads % p.kv_heads != 0) {
    c.fail(cat("q_num_heads ", p.heads, " is no multiple of kv_num_heads ", p.kv_heads));
  }
  const std::string rule = c.attr_string("update_rule", "gated_delta");
  const bool gated = rule == "gated" || rule == "gated_delta", delta = rule == "delta" || rule == "gated_delta";
  if (!gated && !delta && rule != "linear") c.unsupported(cat("update_rule '", rule, "'"));
  if (c.has_input(kDecay) != gated || c.has_input(kBeta) != delta) {
    c.fail(cat("update_rule '", rule, "' needs ", gated ? "a" : "no", " decay and ", delta ? "a" : "no", " beta"));
  }
  const Shape &q = c.input(kQuery).shape, &k = c.input(kKey).shape, &v = c.input(kValue).shape;
  if (q.rank() != 3 || k.rank() != 3 || v.rank() != 3 || q[2] % p.heads != 0 || v[2] % p.kv_heads != 0) {
    c.fail(cat("queries ", q.str(), ", keys ", k.str(), " and values ", v.str(), " for ", p.heads, " and ",
               counted(p.kv_heads, "head")));
  }
  p.batch = q[0];
  p.tokens = q[1];
  p.key_size = q[2] / p.heads;
  p.value_size = v[2] / p.kv_heads;
  if (k != Shape{p.batch, p.tokens, p.kv_heads * p.key_size} || v[0] != p.batch || v[1] != p.tokens) {
    c.fail(cat("queries ", q.str(), ", keys ", k.str(), " and values ", v.str(), " do not fit"));
  }
  const auto per_token = [&](size_t i, int64_t other) {
    const Shape& s = c.input(i).shape;
    if (s.rank() != 3 || s[0] != p.batch || s[1] != p.tokens || (s[2] != p.kv_heads && s[2] != other)) {
      c.fail(cat("input ", i, " has shape ", s.str()));
    }
    return s[2];
  };
  if (gated) p.decays = per_token(kDecay, p.kv_heads * p.key_size);
  if (delta) p.betas = per_token(kBeta, 1);
  if (c.has_input(kPast) && c.input(kPast).shape != Shape{p.batch, p.kv_heads, p.key_size, p.value_size}) {
    c.fail(cat("past_state has shape ", c.input(kPast).shape.str()));
  }
  const float scale = c.attr_float("scale", 0);
  p.scale = scale == 0 ? 1 / std::sqrt(static_cast<float>(p.key_size)) : scale;
  return p;
}

struct ExpParams {
  int64_t count;
};
void exp_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto* x = reinterpret_cast<const float*>(io[1]);
  auto* y = reinterpret_cast<float*>(io[0]);
  in_blocks(static_cast<const ExpParams*>(params)->count, [&](int64_t first, int64_t last) {
    kernels::unary_fn(kernels::Unary::kExp)(x + first, y + first, last - first, 0, 0);
  });
}

/// out[m] = the sum of x[d] state[d][m]; `part` is room for dv.
void read_state(const float* x, const float* state, int64_t dk, int64_t dv, float* out, float* part) {
  const int64_t chunk = kernels::sum_chunk(dk);
  std::fill_n(out, dv, 0.0f);
  for (int64_t first = 0; first < dk; first += chunk) {
    float* const to = first == 0 ? out : part;
    if (to == part) std::fill_n(part, dv, 0.0f);
    for (int64_t d = first; d < std::min(dk, first + chunk); ++d) {
      for (int64_t m = 0; m < dv; ++m) to[m] += x[d] * state[d * dv + m];
    }
    for (int64_t m = 0; to == part && m < dv; ++m) out[m] += part[m];
  }
}

/// io: out, state (past or zeros at first, present at last), q, k, v, past, exp(decay), beta, room for two values per
/// head.
void linear_attention_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const LinearAttentionParams*>(params);
  const auto at = [&](size_t i) { return reinterpret_cast<float*>(io[i]); };
  const int64_t dk = p.key_size, dv = p.value_size, group = p.heads / p.kv_heads;
  const auto run = [&](int64_t b, int64_t h) {
    WorkMeter meter;
    const int64_t head = b * p.kv_heads + h;
    float *state = at(1) + head * dk * dv, *update = at(8) + 2 * head * dv, *part = update + dv;
    if (io[5]) {
      std::copy_n(at(5) + head * dk * dv, dk * dv, state);
    } else {
      std::fill_n(state, dk * dv, 0.0f);
    }
    for (int64_t t = 0; t < p.tokens && meter.go_on(3 * dk * dv); ++t) {
      const int64_t token = b * p.tokens + t;
      const float *k = at(3) + (token * p.kv_heads + h) * dk, *v = at(4) + (token * p.kv_heads + h) * dv;
      if (p.decays > 0) {
        const float* decay = at(6) + token * p.decays + (p.decays == p.kv_heads ? h : h * dk);
        for (int64_t d = 0; d < dk; ++d) {
          const float factor = decay[p.decays == p.kv_heads ? 0 : d];
          for (int64_t m = 0; m < dv; ++m) state[d * dv + m] *= factor;
        }
      }
      std::copy_n(v, dv, update);
      if (p.betas > 0) {
        read_state(k, state, dk, dv, update, part);
        const float beta = at(7)[token * p.betas + (p.betas == 1 ? 0 : h)];
        for (int64_t m = 0; m < dv; ++m) update[m] = beta * (v[m] - update[m]);
      }
      for (int64_t d = 0; d < dk; ++d) {
        for (int64_t m = 0; m < dv; ++m) state[d * dv + m] += k[d] * update[m];
      }
      for (int64_t g = h * group; io[0] && g < (h + 1) * group; ++g) {
        const float* q = at(2) + (token * p.heads + g) * dk;
        float* out = at(0) + (token * p.heads + g) * dv;
        read_state(q, state, dk, dv, out, part);
        for (int64_t m = 0; m < dv; ++m) out[m] *= p.scale;
      }
    }
  };
  const int64_t each = std::max<int64_t>(1, p.tokens * dk * dv * (3 + group));
  for_ranges(context, p.batch * p.kv_heads, (int64_t{1} << 17) / each, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) run(i / p.kv_heads, i % p.kv_heads);
  });
}

void infer_linear_attention(InferContext& c) {
  for (size_t i = kQuery; i <= kBeta; ++i) {
    if (!c.has_input(i)) continue;
    require_type(c, i, kTypes);
    if (i != kPast) require_same_type(c, kQuery, i);
  }
  const LinearAttentionParams p = read_params(c);
  c.set_output(0, c.input(kQuery).dtype, {p.batch, p.tokens, p.heads * p.value_size});
  c.set_output(1, c.input(c.has_input(kPast) ? kPast : kQuery).dtype, {p.batch, p.kv_heads, p.key_size, p.value_size});
}

void lower_linear_attention(LowerContext& c) {
  const LinearAttentionParams p = read_params(c);
  const auto input = [&](size_t i) {
    if (!c.has_input(i)) return Ref{};
    return converted(c, c.in(i), c.input(i).dtype, DType::kF32, c.input(i).shape.elements());
  };
  const auto room = [&](int64_t count) { return c.scratch(static_cast<size_t>(count) * sizeof(float)); };
  Ref decay = input(kDecay);
  if (decay.valid()) {
    const int64_t count = c.input(kDecay).shape.elements();
    const Ref factors = room(count);
    c.step(exp_step, ExpParams{count}, {factors, decay}, static_cast<double>(count));
    decay = factors;
  }
  const Ref out = begin_output(c, 0, DType::kF32);
  const Ref present = c.has_output(1) ? begin_output(c, 1, DType::kF32) : Ref{};
  const int64_t heads = p.batch * p.kv_heads, state = p.key_size * p.value_size;
  c.step(linear_attention_step, p,
         {out, present.valid() ? present : room(heads * state), input(kQuery), input(kKey), input(kValue), input(kPast),
          decay, input(kBeta), room(2 * heads * p.value_size)},
         multiplied(heads, p.tokens, state));
  end_output(c, 0, out, DType::kF32);
  end_output(c, 1, present, DType::kF32);
}

}  // namespace

void register_linear_attention(OpRegistry& r) {
  r.add({.name = "LinearAttention",
         .since = 27,
         .min_inputs = 3,
         .max_inputs = 6,
         .min_outputs = 2,
         .max_outputs = 2,
         .infer = infer_linear_attention,
         .mixed_axes = behind_first_axis},
        lower_linear_attention);
}

}  // namespace inferkit
