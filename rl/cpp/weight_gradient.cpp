// grad [U, N] transposed times x [U, K]: the weight's gradient of a linear layer, in bfloat16.
//
// torch makes this product, long in U and small otherwise, at 0.7 to 1.5 TF/s where the other two
// of a layer run at 2.7 (SmolLM2-135M, two cores with AMX). Here its operands are laid out for the
// kernel of oneDNN that torch has for blocks (brgemm).
#include <ATen/ATen.h>
#include <ATen/native/CPUBlas.h>
#include <torch/library.h>

#include "tiles.h"

namespace {
constexpr int64_t WIDTH = 64;   // of a panel of x
constexpr int64_t DEPTH = 512;  // places at once: a panel of them stays near
constexpr int64_t LINE = DEPTH + 32;
constexpr int64_t ROWS = 288, COLUMNS = 576;  // most of the result at once: in the second cache

// x in pairs of rows, panels of columns one behind the other, filled up with zeros.
void panels(const BFloat16* x, BFloat16* to, int64_t U, int64_t K) {
  const int64_t depth = round_up(U, 32);
#pragma omp parallel for
  for (int64_t k = 0; k < K; k += WIDTH) {
    pair_rows(x + k, K, to + k * depth, WIDTH, U, WIDTH);
    const int64_t done = round_up(U, 2);
    std::memset((void*)(to + k * depth + done * WIDTH), 0, (depth - done) * WIDTH * 2);
  }
}

at::Tensor weight_gradient(const at::Tensor& strided_grad, const at::Tensor& strided_x) {
  const at::Tensor grad = strided_grad.contiguous(), x = strided_x.contiguous();
  const int64_t U = grad.size(0), N = grad.size(1), K = x.size(1), depth = round_up(U, 32);
  TORCH_CHECK(x.size(0) == U && N % 32 == 0 && K % WIDTH == 0);
  const at::Tensor out = at::empty({N, K}, x.options());
  const at::Tensor packed = at::empty({K * depth}, x.options());
  BFloat16* b = packed.data_ptr<BFloat16>();
  panels(x.data_ptr<BFloat16>(), b, U, K);
  const BFloat16* g = grad.data_ptr<BFloat16>();
  BFloat16* to = out.data_ptr<BFloat16>();
  const int64_t share = (N - 1) / omp_get_max_threads() + 1;  // of a thread
  const int64_t rows = round_up((share - 1) / ((share - 1) / ROWS + 1) + 1, 32);
#pragma omp parallel
  {
    std::vector<BFloat16> a(rows * LINE);
    std::vector<float> c(rows * COLUMNS);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t n = 0; n < N; n += rows)
      for (int64_t k = 0; k < K; k += COLUMNS) {
        const int64_t high = std::min(rows, N - n), wide = std::min(COLUMNS, K - k);
        for (int64_t u = 0; u < depth; u += DEPTH) {
          const int64_t here = std::min(DEPTH, depth - u), real = std::min(here, U - u);
          if (real < here) std::fill(a.begin(), a.end(), BFloat16(0));
          transpose(g + u * N + n, N, a.data(), LINE, real, high);
          for (int64_t i = 0; i < wide; i += WIDTH)
            at::native::cpublas::brgemm(high, WIDTH, here, LINE, WIDTH, COLUMNS, u > 0, a.data(),
                                        b + (k + i) * depth + u * WIDTH, c.data() + i);
        }
        for (int64_t r = 0; r < high; r++)
          for (int64_t i = 0; i < wide; i += 16)
            store_bfloat16(to + (n + r) * K + k + i, Vec::loadu(c.data() + r * COLUMNS + i));
      }
    at::native::cpublas::brgemm_release();
  }
  return out;
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(groupwise, m) {
  m.def("weight_gradient(Tensor grad, Tensor x) -> Tensor",
        torch::dispatch(c10::DispatchKey::CPU, weight_gradient));
}
