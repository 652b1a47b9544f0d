// A block of logits [N, B] in bfloat16: what softmax needs of it, and its gradient written over it.
//
// Two passes over a row that stays in the first cache, where separate operators make nine.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "tiles.h"

namespace {
constexpr float NOWHERE = -1e30f;  // a logit behind the row's end

Vec logits_at(const BFloat16* row, int64_t column, int64_t columns) {
  const __mmask16 real = (__mmask16)(0xffff >> std::max<int64_t>(0, column + 16 - columns));
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(real, row + column));
  const __m512 read = _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  return _mm512_mask_blend_ps(real, _mm512_set1_ps(NOWHERE), read);
}

// Of each row x / temperature: the target's into `picked` if it is one of these columns, log sum
// exp, and the entropy of the softmax over these columns.
void statistics(const at::Tensor& logits, const at::Tensor& targets, double temperature,
                at::Tensor& picked, at::Tensor& normalisers, at::Tensor& entropies) {
  const int64_t N = logits.size(0), B = logits.size(1);
  const BFloat16* x = logits.data_ptr<BFloat16>();
  const int64_t* target = targets.data_ptr<int64_t>();
  float *at_target = picked.data_ptr<float>(), *sums = normalisers.data_ptr<float>();
  float* spread = entropies.data_ptr<float>();
  const float scale = 1.0 / temperature;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    const BFloat16* row = x + n * B;
    Vec most(NOWHERE), sum(0.0f), mean(0.0f);
    for (int64_t b = 0; b < B; b += 16) most = at::vec::maximum(most, logits_at(row, b, B));
    const float top = _mm512_reduce_max_ps(most) * scale;
    for (int64_t b = 0; b < B; b += 16) {
      const Vec below = logits_at(row, b, B) * Vec(scale) - Vec(top), share = below.exp_u20();
      sum = sum + share;
      mean = mean + share * below;
    }
    const float total = _mm512_reduce_add_ps(sum);
    sums[n] = top + std::log(total);
    spread[n] = std::log(total) - _mm512_reduce_add_ps(mean) / total;
    if (target[n] >= 0 && target[n] < B) at_target[n] = scale * (float)row[target[n]];
  }
}

// By x: p (weight + pull (log p + H)) / -temperature, and weight / temperature more at the target.
void gradient(at::Tensor& logits, const at::Tensor& targets, double temperature,
              const at::Tensor& normalisers, const at::Tensor& entropies, const at::Tensor& weights,
              const at::Tensor& pulls) {
  const int64_t N = logits.size(0), B = logits.size(1);
  BFloat16* x = logits.data_ptr<BFloat16>();
  const int64_t* target = targets.data_ptr<int64_t>();
  const float *sums = normalisers.data_ptr<float>(), *spread = entropies.data_ptr<float>();
  const float *weight = weights.data_ptr<float>(), *pull = pulls.data_ptr<float>();
  const float scale = 1.0 / temperature;
#pragma omp parallel for
  for (int64_t n = 0; n < N; n++) {
    BFloat16* row = x + n * B;
    const auto slope = [&](Vec logprob) {
      return logprob.exp_u20() * Vec(-scale) * (Vec(weight[n]) + Vec(pull[n]) * (logprob + Vec(spread[n])));
    };
    const bool here = target[n] >= 0 && target[n] < B;
    float aimed = 0.0f;
    if (here) {
      const float logprob = scale * (float)row[target[n]] - sums[n];
      aimed = _mm512_cvtss_f32(slope(Vec(logprob))) + scale * weight[n];
    }
    for (int64_t b = 0; b < B; b += 16) {
      const Vec found = slope(logits_at(row, b, B) * Vec(scale) - Vec(sums[n]));
      const __mmask16 real = (__mmask16)(0xffff >> std::max<int64_t>(0, b + 16 - B));
      _mm256_mask_storeu_epi16(row + b, real, (__m256i)_mm512_cvtneps_pbh(found));
    }
    if (here) row[target[n]] = aimed;
  }
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(groupwise, m) {
  m.def("logits_statistics(Tensor logits, Tensor targets, float temperature, Tensor(a!) picked, "
        "Tensor(b!) normalisers, Tensor(c!) entropies) -> ()",
        torch::dispatch(c10::DispatchKey::CPU, statistics));
  m.def("logits_gradient(Tensor(a!) logits, Tensor targets, float temperature, Tensor normalisers, "
        "Tensor entropies, Tensor weights, Tensor pulls) -> ()",
        torch::dispatch(c10::DispatchKey::CPU, gradient));
}
