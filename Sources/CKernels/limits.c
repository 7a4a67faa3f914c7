// What a machine can do at most: loops that only read memory or only compute in registers.
//
// Every accumulator passes through an empty assembler statement in each round, so that the compiler
// can neither shorten a loop nor keep a sum in memory.
#include "ckernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CK_KEEP(value) __asm__ volatile("" : "+x"(value))
#define CK_KEEP_WIDE(value) __asm__ volatile("" : "+v"(value))
#elif defined(__aarch64__)
#include <arm_neon.h>
#define CK_KEEP(value) __asm__ volatile("" : "+w"(value))
#endif

#define CK_UNROLL _Pragma("clang loop unroll(full)")

/// Defines a loop that updates `count` independent accumulators in each round.
#define CK_PEAK_LOOP(name, features, type, count, keep, start, operands, update)                   \
    static features void name(size_t rounds) {                                                     \
        type sums[count];                                                                          \
        operands;                                                                                  \
        CK_UNROLL for (size_t i = 0; i < (count); i++) sums[i] = start;                            \
        for (size_t round = 0; round < rounds; round++) {                                          \
            CK_UNROLL for (size_t i = 0; i < (count); i++) {                                       \
                update;                                                                            \
                keep(sums[i]);                                                                     \
            }                                                                                      \
        }                                                                                          \
    }

typedef float f32x4 __attribute__((vector_size(16)));

CK_PEAK_LOOP(f32_portable, , f32x4, 12, CK_KEEP, (f32x4){0},
             f32x4 a = {0.5f}; f32x4 b = {0.25f}; CK_KEEP(b),
             { CK_KEEP(a); sums[i] += a * b; })

static const ck_peak portable_f32 = {"multiply and add, 128 bits", 12 * 4 * 2, f32_portable};

#if defined(__x86_64__)

// Eight wide registers are left to operands and products.
#define CK_WIDE_SUMS 24
#define CK_SUMS 12

CK_PEAK_LOOP(int8_portable, , __m128i, CK_SUMS, CK_KEEP, _mm_setzero_si128(),
             __m128i a = _mm_set1_epi16(3); __m128i b = _mm_set1_epi16(5),
             { CK_KEEP(a); sums[i] = _mm_add_epi32(sums[i], _mm_madd_epi16(a, b)); })

#define CK_AVX2 __attribute__((target("avx2,fma")))
CK_PEAK_LOOP(f32_avx2, CK_AVX2, __m256, CK_SUMS, CK_KEEP, _mm256_setzero_ps(),
             __m256 a = _mm256_set1_ps(0.5f); __m256 b = _mm256_set1_ps(0.25f),
             sums[i] = _mm256_fmadd_ps(a, b, sums[i]))
CK_PEAK_LOOP(int8_avx2, CK_AVX2, __m256i, CK_SUMS, CK_KEEP, _mm256_setzero_si256(),
             __m256i a = _mm256_set1_epi8(3); __m256i b = _mm256_set1_epi8(5);
             __m256i ones = _mm256_set1_epi16(1),
             {
                 CK_KEEP(a);
                 __m256i pairs = _mm256_maddubs_epi16(a, b);
                 sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
             })

#define CK_AVX512 __attribute__((target("avx512f,avx512bw")))
CK_PEAK_LOOP(f32_avx512, CK_AVX512, __m512, CK_WIDE_SUMS, CK_KEEP_WIDE, _mm512_setzero_ps(),
             __m512 a = _mm512_set1_ps(0.5f); __m512 b = _mm512_set1_ps(0.25f),
             sums[i] = _mm512_fmadd_ps(a, b, sums[i]))
CK_PEAK_LOOP(int8_avx512, CK_AVX512, __m512i, CK_WIDE_SUMS, CK_KEEP_WIDE, _mm512_setzero_si512(),
             __m512i a = _mm512_set1_epi8(3); __m512i b = _mm512_set1_epi8(5);
             __m512i ones = _mm512_set1_epi16(1),
             {
                 CK_KEEP_WIDE(a);
                 __m512i pairs = _mm512_maddubs_epi16(a, b);
                 sums[i] = _mm512_add_epi32(sums[i], _mm512_madd_epi16(pairs, ones));
             })
CK_PEAK_LOOP(int8_vnni, __attribute__((target("avx512f,avx512vnni"))), __m512i, CK_WIDE_SUMS,
             CK_KEEP_WIDE, _mm512_setzero_si512(),
             __m512i a = _mm512_set1_epi8(3); __m512i b = _mm512_set1_epi8(5),
             sums[i] = _mm512_dpbusd_epi32(sums[i], a, b))
CK_PEAK_LOOP(bf16_avx512, __attribute__((target("avx512f,avx512bf16"))), __m512, CK_WIDE_SUMS,
             CK_KEEP_WIDE, _mm512_setzero_ps(),
             __m512 one = _mm512_set1_ps(1); __m512bh a = _mm512_cvtne2ps_pbh(one, one);
             __m512bh b = a,
             sums[i] = _mm512_dpbf16_ps(sums[i], a, b))

// A product counts as two operations: the multiplication and the addition.
static const ck_peak portable_int8 = {"pmaddwd + paddd", CK_SUMS * 8 * 2, int8_portable};
static const ck_peak avx2_f32 = {"vfmadd231ps, 256 bits", CK_SUMS * 8 * 2, f32_avx2};
static const ck_peak avx2_int8 = {"vpmaddubsw + vpmaddwd + vpaddd, 256 bits", CK_SUMS * 32 * 2,
                                  int8_avx2};
static const ck_peak avx512_f32 = {"vfmadd231ps, 512 bits", CK_WIDE_SUMS * 16 * 2, f32_avx512};
static const ck_peak avx512_int8 = {"vpmaddubsw + vpmaddwd + vpaddd, 512 bits",
                                    CK_WIDE_SUMS * 64 * 2, int8_avx512};
static const ck_peak vnni_int8 = {"vpdpbusd, 512 bits", CK_WIDE_SUMS * 64 * 2, int8_vnni};
static const ck_peak avx512_bf16 = {"vdpbf16ps, 512 bits", CK_WIDE_SUMS * 32 * 2, bf16_avx512};

#elif defined(__aarch64__)

CK_PEAK_LOOP(int8_portable, , int32x4_t, 12, CK_KEEP, vdupq_n_s32(0),
             int8x8_t a = vdup_n_s8(3); int8x8_t b = vdup_n_s8(5),
             { CK_KEEP(a); sums[i] = vpadalq_s16(sums[i], vmull_s8(a, b)); })

CK_PEAK_LOOP(int8_i8mm, __attribute__((target("dotprod,i8mm"))), int32x4_t, 12, CK_KEEP,
             vdupq_n_s32(0), uint8x16_t a = vdupq_n_u8(3); int8x16_t b = vdupq_n_s8(5),
             sums[i] = vusdotq_s32(sums[i], a, b))

static const ck_peak portable_int8 = {"smull + sadalp", 12 * 8 * 2, int8_portable};
static const ck_peak i8mm_int8 = {"usdot", 12 * 16 * 2, int8_i8mm};

#endif

const ck_peak *ck_peak_loop(ck_level level, ck_format format) {
    bool is_float = format == CK_FORMAT_F32 || format == CK_FORMAT_BF16;
#if defined(__x86_64__)
    switch (level) {
    case CK_LEVEL_PORTABLE:
    case CK_LEVEL_NEON_I8MM:
        break;
    case CK_LEVEL_AVX2:
        return is_float ? &avx2_f32 : &avx2_int8;
    case CK_LEVEL_AVX512:
        return is_float ? &avx512_f32 : &avx512_int8;
    case CK_LEVEL_AVX512_VNNI:
        return is_float ? &avx512_f32 : &vnni_int8;
    case CK_LEVEL_AVX512_BF16:
        if (format == CK_FORMAT_BF16) return &avx512_bf16;
        return is_float ? &avx512_f32 : &vnni_int8;
    }
#elif defined(__aarch64__)
    if (level == CK_LEVEL_NEON_I8MM && !is_float) return &i8mm_int8;
#else
    (void)level;
#endif
    return is_float ? &portable_f32 : &portable_int8;
}

/// The sum of a part, in four chains over 64-byte vectors.
#define CK_READ_LOOP(name, features)                                                               \
    static features uint64_t name(const uint64_t *words, size_t count) {                           \
        typedef uint64_t line __attribute__((vector_size(64)));                                    \
        line sums[4] = {0};                                                                        \
        const line *lines = (const line *)words;                                                   \
        for (size_t i = 0; i + 4 <= count / 8; i += 4) {                                           \
            CK_UNROLL for (size_t j = 0; j < 4; j++) sums[j] += lines[i + j];                      \
        }                                                                                          \
        line sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);                                      \
        uint64_t total = 0;                                                                        \
        for (size_t i = 0; i < 8; i++) total += sum[i];                                            \
        return total;                                                                              \
    }

CK_READ_LOOP(read_portable, )
#if defined(__x86_64__)
CK_READ_LOOP(read_avx2, CK_AVX2)
CK_READ_LOOP(read_avx512, CK_AVX512)
#endif

uint64_t ck_read(ck_level level, const uint64_t *words, size_t count) {
#if defined(__x86_64__)
    if (level >= CK_LEVEL_AVX512) return read_avx512(words, count);
    if (level >= CK_LEVEL_AVX2) return read_avx2(words, count);
#else
    (void)level;
#endif
    return read_portable(words, count);
}
