// Attention of short sequences that share prompts, forward and backward, in bfloat16.
//
// One thread takes a key head of a family: its prompt and completions, in blocks of queries. Scores
// stand transposed, keys by queries, so that softmax runs along the vectors' lanes and no score is
// ever transposed; they are float32 and are computed again in backward.
//
// Shapes: U places, Q heads, H key heads, g = Q / H, D head size. A run is a row (start, stop,
// prompt) of `runs`: places of queries that see the first `prompt` keys of the family and their own;
// a family (first run, end of runs, prompt's start) is a row of `families`.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "tiles.h"

namespace {
constexpr int64_t BLOCK = 128;  // most rows, queries times g, at once

struct Shape {
  int64_t Q, H, D, g;
  float scaling;
};

// The queries of a block, one row for each of g heads, and what they see.
struct Block {
  int64_t start, tokens, rows, wide;  // wide: rows filled up
  int64_t prompt, first;              // keys seen by all; own tokens before the block
  int64_t keys, deep;                 // seen by the last query; filled up
  // Rows before this one do not see the key.
  int64_t hidden(int64_t key, int64_t g) const {
    return std::max<int64_t>(0, key - prompt - first) * g;
  }
  __mmask16 mask(int64_t key, int64_t r, int64_t g) const {
    const int64_t none = std::clamp<int64_t>(hidden(key, g) - r, 0, 16);
    return (__mmask16)(0xffff << none);
  }
};

// Buffers of one thread, for at most `keys` keys and `wide` rows.
struct Work {
  std::vector<BFloat16> key, value, turned;      // [keys, D] twice, [D, keys]
  std::vector<BFloat16> flat;                    // [wide, D]
  std::vector<BFloat16> query, outer;            // in pairs of columns: [D / 2, wide, 2]
  std::vector<BFloat16> query_rows, outer_rows;  // in pairs of rows: [wide / 2, D, 2]
  std::vector<BFloat16> pairs, shares, slopes;   // [keys / 2, wide, 2], [keys, wide] twice
  std::vector<float> scores, rising, found, grad_key, grad_value, line, inverse, normaliser;
  Work(int64_t keys, int64_t wide, int64_t D)
      : key(keys * D), value(keys * D), turned(D * keys), flat(wide * D), query(D * wide),
        outer(D * wide), query_rows(wide * D), outer_rows(wide * D), pairs(keys * wide),
        shares(keys * wide), slopes(keys * wide), scores(keys * wide), rising(keys * wide),
        found(D * wide), grad_key(keys * D), grad_value(keys * D), line(wide * D), inverse(wide),
        normaliser(wide) {}
};

void copy_rows(const BFloat16* from, int64_t ld, BFloat16* to, int64_t rows, int64_t D) {
  for (int64_t r = 0; r < rows; r++) std::memcpy((void*)(to + r * D), from + r * ld, 2 * D);
}

// A block's rows of [U, Q, D] in pairs of columns, and where `rows` in pairs of rows; zeros behind.
void lay(const BFloat16* from, const Block& b, const Shape& s, int64_t head, BFloat16* flat,
         BFloat16* pairs, BFloat16* rows) {
  copy_rows(from + (b.start * s.Q + head * s.g) * s.D, s.Q * s.D, flat, b.tokens, s.g * s.D);
  std::memset((void*)(flat + b.rows * s.D), 0, 2 * (b.wide - b.rows) * s.D);
  pair_transposed(flat, s.D, pairs, b.wide, b.wide, s.D);
  if (rows) pair_rows(flat, s.D, rows, s.D, b.wide, s.D);
}

// From [D, rows] to the block's rows of [U, Q, D], times each row's factor.
void unlay(Work& w, const float* factors, const Block& b, const Shape& s, int64_t head,
           BFloat16* to) {
  at::vec::transpose_mxn<float>(w.found.data(), b.wide, w.line.data(), s.D, s.D, b.wide);
  for (int64_t r = 0; r < b.rows; r++) {
    BFloat16* row = to + ((b.start + r / s.g) * s.Q + head * s.g + r % s.g) * s.D;
    const Vec factor(factors ? factors[r] : s.scaling);
    for (int64_t d = 0; d < s.D; d += 16)
      store_bfloat16(row + d, Vec::loadu(w.line.data() + r * s.D + d) * factor);
  }
}

// Softmax of [keys, rows] scores into pairs of unnormalised bfloat16; 1 / sum and log sum of rows.
void softmax(Work& w, const Block& b, const Shape& s) {
  const Vec scaling(s.scaling);
  for (int64_t r = 0; r < b.wide; r += 16) {
    const float* column = w.scores.data() + r;
    const Vec hidden(-INFINITY);
    const int64_t seen_by_all = b.prompt + b.first;
    Vec most = hidden, sum(0.0f);
    const auto score = [&](int64_t key) {
      if (key < seen_by_all) return Vec::loadu(column + key * b.wide);
      return Vec(_mm512_mask_loadu_ps(hidden, b.mask(key, r, s.g), column + key * b.wide));
    };
    for (int64_t key = 0; key < b.keys; key++) most = at::vec::maximum(most, score(key));
    const Vec shift = most * scaling;
    for (int64_t key = 0; key < b.deep; key += 2) {
      Vec share[2] = {Vec(0.0f), Vec(0.0f)};
      for (int64_t i = 0; i < 2 && key + i < b.keys; i++) {
        share[i] = (score(key + i) * scaling - shift).exp_u20();
        sum = sum + share[i];
      }
      _mm512_storeu_si512(w.pairs.data() + key * b.wide + 2 * r, to_bfloat16(share[0], share[1]));
    }
    (Vec(1.0f) / sum).store(w.inverse.data() + r);
    (shift + sum.log()).store(w.normaliser.data() + r);
  }
}

// Shares and the scores' gradients of [keys, rows], from scores and what arrives at shares.
void softmax_backward(Work& w, const Block& b, const Shape& s) {
  const Vec scaling(s.scaling), none(0.0f);
  for (int64_t r = 0; r < b.wide; r += 16) {
    float *scores = w.scores.data() + r, *rising = w.rising.data() + r;
    const Vec shift = Vec::loadu(w.normaliser.data() + r);
    Vec mean = none;
    for (int64_t key = 0; key < b.keys; key++) {
      const Vec share = (Vec::loadu(scores + key * b.wide) * scaling - shift).exp_u20();
      const Vec seen = _mm512_maskz_mov_ps(b.mask(key, r, s.g), share);
      seen.store(scores + key * b.wide);
      mean = mean + seen * Vec::loadu(rising + key * b.wide);
    }
    for (int64_t key = 0; key < b.deep; key += 2) {
      Vec slope[2] = {none, none};
      for (int64_t i = 0; i < 2; i++) {
        const int64_t at = (key + i) * b.wide;
        Vec share = none;
        if (key + i < b.keys) {
          share = Vec::loadu(scores + at);
          slope[i] = share * (Vec::loadu(rising + at) - mean);
        }
        store_bfloat16(w.shares.data() + at + r, share);
        store_bfloat16(w.slopes.data() + at + r, slope[i]);
      }
      _mm512_storeu_si512(w.pairs.data() + key * b.wide + 2 * r, to_bfloat16(slope[0], slope[1]));
    }
  }
}

// Calls `each(work, buffers' keys, key head, block)` for every block with its keys in place, and
// `end(work, key head, places of a run's keys)` after each run.
template <typename Each, typename End>
void blocks(const at::Tensor& key, const at::Tensor& value, const at::Tensor& runs,
            const at::Tensor& families, const Shape& s, bool turn_key, Each each, End end) {
  const BFloat16 *k = key.data_ptr<BFloat16>(), *v = value.data_ptr<BFloat16>();
  const int64_t *run = runs.data_ptr<int64_t>(), *family = families.data_ptr<int64_t>();
  const int64_t line = s.H * s.D, tokens = std::max<int64_t>(1, BLOCK / s.g);
  int64_t most = 0;
  for (int64_t i = 0; i < runs.size(0); i++)
    most = std::max(most, run[3 * i + 2] + run[3 * i + 1] - run[3 * i]);
  const int64_t size = round_up(most, 32);
#pragma omp parallel
  {
    Tiles tiles;
    Work w(size, round_up(tokens * s.g, 32), s.D);
    std::vector<int64_t> places(size);
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < families.size(0) * s.H; item++) {
      const int64_t head = item % s.H, *f = family + item / s.H * 3;
      for (int64_t i = f[0]; i < f[1]; i++) {
        const int64_t start = run[3 * i], own = run[3 * i + 1] - start, prompt = run[3 * i + 2];
        const int64_t all = prompt + own, filled = round_up(all, 32);
        places.resize(all);
        for (int64_t j = 0; j < all; j++) places[j] = j < prompt ? f[2] + j : start + j - prompt;
        for (int64_t j = 0; j < filled; j++) {
          const auto put = [&](const BFloat16* from, BFloat16* to) {
            if (j < all) std::memcpy((void*)to, from + places[j] * line + head * s.D, 2 * s.D);
            else std::memset((void*)to, 0, 2 * s.D);
          };
          put(k, w.key.data() + j * s.D);
          put(v, w.value.data() + j * s.D);
        }
        transpose((turn_key ? w.key : w.value).data(), s.D, w.turned.data(), size, filled, s.D);
        std::memset(w.grad_key.data(), 0, filled * s.D * 4);
        std::memset(w.grad_value.data(), 0, filled * s.D * 4);
        for (int64_t at = 0; at < own; at += tokens) {
          Block b{start + at, std::min(tokens, own - at), 0, 0, prompt, at, 0, 0};
          b.rows = b.tokens * s.g, b.wide = round_up(b.rows, 32);
          b.keys = prompt + at + b.tokens, b.deep = round_up(b.keys, 32);
          each(w, size, head, b);
        }
        end(w, head, places);
      }
    }
  }
}

Shape shape(const at::Tensor& query, const at::Tensor& key, double scaling) {
  const int64_t Q = query.size(1), H = key.size(1), D = query.size(2);
  TORCH_CHECK(D % 32 == 0 && key.size(2) == D && Q % H == 0);
  return {Q, H, D, Q / H, (float)scaling};
}

void forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
             const at::Tensor& runs, const at::Tensor& families, double scaling, at::Tensor& out,
             at::Tensor& normaliser) {
  const Shape s = shape(query, key, scaling);
  const BFloat16* q = query.data_ptr<BFloat16>();
  BFloat16* to = out.data_ptr<BFloat16>();
  float* sums = normaliser.data_ptr<float>();
  const int64_t rows = query.size(0) * s.g;
  const auto each = [&](Work& w, int64_t size, int64_t head, const Block& b) {
    lay(q, b, s, head, w.flat.data(), w.query.data(), nullptr);
    product(b.deep, b.wide, s.D, w.key.data(), s.D, w.query.data(), b.wide, w.scores.data(), b.wide,
            false);
    softmax(w, b, s);
    product(s.D, b.wide, b.deep, w.turned.data(), size, w.pairs.data(), b.wide, w.found.data(),
            b.wide, false);
    unlay(w, w.inverse.data(), b, s, head, to);
    std::copy_n(w.normaliser.data(), b.rows, sums + head * rows + b.start * s.g);
  };
  blocks(key, value, runs, families, s, false, each, [](Work&, int64_t, const auto&) {});
}

void backward(const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key,
              const at::Tensor& value, const at::Tensor& runs, const at::Tensor& families,
              double scaling, const at::Tensor& normaliser, at::Tensor& grad_query,
              at::Tensor& grad_key, at::Tensor& grad_value) {
  const Shape s = shape(query, key, scaling);
  const BFloat16 *q = query.data_ptr<BFloat16>(), *o = grad.data_ptr<BFloat16>();
  BFloat16* to = grad_query.data_ptr<BFloat16>();
  const float* sums = normaliser.data_ptr<float>();
  const int64_t rows = query.size(0) * s.g;
  const auto each = [&](Work& w, int64_t size, int64_t head, const Block& b) {
    lay(q, b, s, head, w.flat.data(), w.query.data(), w.query_rows.data());
    lay(o, b, s, head, w.flat.data(), w.outer.data(), w.outer_rows.data());
    std::fill_n(w.normaliser.data(), b.wide, INFINITY);  // no share of what fills up
    std::copy_n(sums + head * rows + b.start * s.g, b.rows, w.normaliser.data());
    product(b.deep, b.wide, s.D, w.key.data(), s.D, w.query.data(), b.wide, w.scores.data(), b.wide,
            false);
    product(b.deep, b.wide, s.D, w.value.data(), s.D, w.outer.data(), b.wide, w.rising.data(),
            b.wide, false);
    softmax_backward(w, b, s);
    product(b.deep, s.D, b.wide, w.shares.data(), b.wide, w.outer_rows.data(), s.D,
            w.grad_value.data(), s.D, true);
    product(b.deep, s.D, b.wide, w.slopes.data(), b.wide, w.query_rows.data(), s.D,
            w.grad_key.data(), s.D, true);
    product(s.D, b.wide, b.deep, w.turned.data(), size, w.pairs.data(), b.wide, w.found.data(),
            b.wide, false);
    unlay(w, nullptr, b, s, head, to);
  };
  const auto end = [&](Work& w, int64_t head, const std::vector<int64_t>& places) {
    const auto add = [&](const std::vector<float>& from, at::Tensor& grads, float factor) {
      float* start = grads.data_ptr<float>() + head * s.D;
      for (size_t j = 0; j < places.size(); j++)
        for (int64_t d = 0; d < s.D; d++)
          start[places[j] * s.H * s.D + d] += factor * from[j * s.D + d];
    };
    add(w.grad_key, grad_key, s.scaling);
    add(w.grad_value, grad_value, 1.0f);
  };
  blocks(key, value, runs, families, s, true, each, end);
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(groupwise, m) {
  m.def("attention(Tensor query, Tensor key, Tensor value, Tensor runs, Tensor families, "
        "float scaling, Tensor(a!) out, Tensor(b!) normaliser) -> ()",
        torch::dispatch(c10::DispatchKey::CPU, forward));
  m.def("attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor runs, "
        "Tensor families, float scaling, Tensor normaliser, Tensor(a!) grad_query, "
        "Tensor(b!) grad_key, Tensor(c!) grad_value) -> ()",
        torch::dispatch(c10::DispatchKey::CPU, backward));
}
