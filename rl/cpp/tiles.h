// Products of bfloat16 matrices into float32 on AMX tiles, and the layouts that they want.
//
// A is row-major. B is in pairs: rows 2i and 2i + 1 interleaved, element (k, n) at
// [k / 2][n][k % 2]. Sizes: M in 16s, N and K in 32s; callers fill with zeros.
#pragma once
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <vector>

using c10::BFloat16;
using Vec = at::vec::Vectorized<float>;

inline int64_t round_up(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

// Eight tiles of 16 rows of 64 bytes, for as long as it lives; every thread needs its own.
struct Tiles {
  Tiles() {
    alignas(64) uint8_t config[64] = {1};
    for (int tile = 0; tile < 8; tile++) {
      config[16 + 2 * tile] = 64;
      config[48 + tile] = 16;
    }
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
};

// C [M, N] = A [M, K] times B [K, N] in pairs, plus C where `add`; `ldb` counts pairs.
inline void product(int64_t M, int64_t N, int64_t K, const BFloat16* A, int64_t lda,
                    const BFloat16* B, int64_t ldb, float* C, int64_t ldc, bool add) {
  __asm__ volatile("" ::: "memory");  // tile loads do not tell the compiler that they read memory
  for (int64_t n = 0; n < N; n += 32) {
    for (int64_t m = 0; m < M; m += 32) {
      const bool both = m + 16 < M;
      float *top = C + m * ldc + n, *low = top + 16 * ldc;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      if (add) {
        _tile_loadd(0, top, ldc * 4);
        _tile_loadd(1, top + 16, ldc * 4);
      }
      if (add && both) {
        _tile_loadd(2, low, ldc * 4);
        _tile_loadd(3, low + 16, ldc * 4);
      }
      for (int64_t k = 0; k < K; k += 32) {
        const BFloat16 *a = A + m * lda + k, *b = B + k * ldb + 2 * n;
        _tile_loadd(4, a, lda * 2);
        _tile_loadd(6, b, ldb * 4);
        _tile_loadd(7, b + 32, ldb * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
          _tile_loadd(5, a + 16 * lda, lda * 2);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, top, ldc * 4);
      _tile_stored(1, top + 16, ldc * 4);
      if (both) {
        _tile_stored(2, low, ldc * 4);
        _tile_stored(3, low + 16, ldc * 4);
      }
    }
  }
}

inline __m512i to_bfloat16(Vec even, Vec odd) {  // interleaved, as a pair of rows wants it
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

inline void store_bfloat16(BFloat16* to, Vec x) {
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x));
}

// Rows [rows, columns] to pairs of rows, `ld_to` pairs apart; an odd last row gets zeros beside it.
inline void pair_rows(const BFloat16* from, int64_t ld_from, BFloat16* to, int64_t ld_to,
                      int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += 2) {
    const BFloat16 *even = from + r * ld_from, *odd = even + ld_from;
    for (int64_t c = 0; c < columns; c += 16) {
      const __m256i low = _mm256_loadu_si256((const __m256i*)(even + c));
      const __m256i high = r + 1 < rows ? _mm256_loadu_si256((const __m256i*)(odd + c))
                                        : _mm256_setzero_si256();
      _mm512_storeu_si512(to + r * ld_to + 2 * c,
                          _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                                          _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)));
    }
  }
}

// Rows [rows, columns] transposed and in pairs of columns: what K transposed times Q wants of Q.
inline void pair_transposed(const BFloat16* from, int64_t ld_from, BFloat16* to, int64_t ld_to,
                            int64_t rows, int64_t columns) {
  at::vec::transpose_mxn<float>((const float*)from, ld_from / 2, (float*)to, ld_to, rows,
                                columns / 2);
}

inline void transpose(const BFloat16* from, int64_t ld_from, BFloat16* to, int64_t ld_to,
                      int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += 32)
    for (int64_t c = 0; c < columns; c += 32)
      at::vec::transpose_mxn<BFloat16>(from + r * ld_from + c, ld_from, to + c * ld_to + r, ld_to,
                                       std::min<int64_t>(32, rows - r),
                                       std::min<int64_t>(32, columns - c));
}
