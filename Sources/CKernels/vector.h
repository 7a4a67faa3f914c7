// The vector vocabulary that the kernel bodies are written in: 16 lanes of f32 whatever the level.
// The compiler maps a vector to one AVX-512, two AVX or four SSE/NEON registers, so that levels
// with fused multiply-add give the same bits.
//
// A level file defines, before it includes the bodies:
//   CK_FUSED              1 where the level has fused multiply-add
//   CK_AVX2, CK_AVX512, CK_VNNI, CK_BF16, CK_I8MM
//                         1 where a body may use these instructions by name
//   CK_MAX_ROWS           most rows of a register tile
//   CK_MAX_ACCUMULATORS   most 16-lane accumulators that fit the registers beside the operands
//   CK_INTEGER_ACCUMULATORS
//                         the same where each is a pair, of integers and of f32
#pragma once

#include "ckernels.h"
#include "rounding.h"

#ifndef CK_AVX2
#define CK_AVX2 0
#endif
#ifndef CK_AVX512
#define CK_AVX512 0
#endif
#ifndef CK_VNNI
#define CK_VNNI 0
#endif
#ifndef CK_BF16
#define CK_BF16 0
#endif
#ifndef CK_I8MM
#define CK_I8MM 0
#endif

#include <math.h>
#include <string.h>

#pragma clang diagnostic ignored "-Wpsabi"

#define CK_INLINE static inline __attribute__((always_inline))
#define CK_UNROLL _Pragma("clang loop unroll(full)")

// A cast from one of these types to another keeps the bits.
typedef float v16 __attribute__((ext_vector_type(16)));
typedef int32_t i16 __attribute__((ext_vector_type(16)));
typedef uint32_t u16 __attribute__((ext_vector_type(16)));
typedef uint16_t h16 __attribute__((ext_vector_type(16)));

typedef float v16_at __attribute__((ext_vector_type(16), aligned(4), may_alias));
typedef uint32_t u16_at __attribute__((ext_vector_type(16), aligned(4), may_alias));
typedef uint16_t h16_at __attribute__((ext_vector_type(16), aligned(2), may_alias));

CK_INLINE size_t ck_min(size_t a, size_t b) { return a < b ? a : b; }
CK_INLINE size_t ck_max(size_t a, size_t b) { return a > b ? a : b; }

CK_INLINE v16 splat(float x) { return (v16)x; }

CK_INLINE v16 load16(const float *p) { return *(const v16_at *)p; }
CK_INLINE void store16(float *p, v16 x) { *(v16_at *)p = x; }

/// Loads `count` < 16 floats; the other lanes are 0.
CK_INLINE v16 load_part(const float *p, size_t count) {
#if CK_AVX512
    return (v16)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#else
    float lanes[CK_LANES] = {0};
    memcpy(lanes, p, count * sizeof(float));
    return load16(lanes);
#endif
}
/// Elements i on of `count`; what lies past them is 0.
CK_INLINE v16 load_some(const float *x, size_t i, size_t count) {
    if (i + CK_LANES <= count) return load16(x + i);
    return i < count ? load_part(x + i, count - i) : splat(0);
}
CK_INLINE void store_part(float *p, v16 x, size_t count) {
#if CK_AVX512
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#else
    float lanes[CK_LANES];
    store16(lanes, x);
    memcpy(p, lanes, count * sizeof(float));
#endif
}

CK_INLINE v16 fma16(v16 a, v16 b, v16 c) {
#if CK_FUSED
    return __builtin_elementwise_fma(a, b, c);
#else
    return a * b + c;
#endif
}

CK_INLINE v16 widen_bf16(h16 x) {
    return (v16)(__builtin_convertvector(x, u16) << 16);
}

/// Element `index` on of an f32 or bf16 array, 16 lanes.
CK_INLINE v16 load_as(const void *p, size_t index, const ck_format format) {
    if (format == CK_FORMAT_F32) return load16((const float *)p + index);
    return widen_bf16(*(const h16_at *)((const uint16_t *)p + index));
}
CK_INLINE v16 load_part_as(const void *p, size_t index, size_t count, const ck_format format) {
    if (format == CK_FORMAT_F32) return load_part((const float *)p + index, count);
    uint16_t lanes[CK_LANES] = {0};
    memcpy(lanes, (const uint16_t *)p + index, count * sizeof(uint16_t));
    return widen_bf16(*(const h16_at *)lanes);
}

CK_INLINE v16 larger(v16 a, v16 b) { return a > b ? a : b; }

/// Sums the lanes in a fixed tree.
CK_INLINE float sum_lanes(v16 x) {
    typedef float v8 __attribute__((ext_vector_type(8)));
    typedef float v4 __attribute__((ext_vector_type(4)));
    v8 a = x.lo + x.hi;
    v4 b = a.lo + a.hi;
    return (b.x + b.z) + (b.y + b.w);
}

CK_INLINE float max_lanes(v16 x) {
    typedef float v8 __attribute__((ext_vector_type(8)));
    typedef float v4 __attribute__((ext_vector_type(4)));
    v8 a = x.lo > x.hi ? x.lo : x.hi;
    v4 b = a.lo > a.hi ? a.lo : a.hi;
    float c = b.x > b.z ? b.x : b.z;
    float d = b.y > b.w ? b.y : b.w;
    return c > d ? c : d;
}

/// The nearest integers, ties to even; |x| < 2^22.
CK_INLINE i16 round_lanes(v16 x) {
    return (i16)(x + splat(CK_ROUNDING_SHIFT)) - (i16)splat(CK_ROUNDING_SHIFT);
}

/// e^x as fraction · 2^n; the low bits of `shifted` are n.
typedef struct scaled_exponential {
    v16 fraction;
    v16 shifted;
} scaled_exponential;

/// x = n·ln2 + r with |r| ≤ ln2/2, and a polynomial of degree 6 fitted to e^r (relative error 4e-9
/// before rounding). For 0 the fraction is exactly 1.
CK_INLINE scaled_exponential scale_exponential(v16 x) {
    v16 shifted = fma16(x, splat(0x1.715476p+0f), splat(CK_ROUNDING_SHIFT));
    v16 n = shifted - splat(CK_ROUNDING_SHIFT);
    v16 r = fma16(n, splat(-0x1.62e400p-1f), x);
    r = fma16(n, splat(-0x1.7f7d1cp-20f), r);
    v16 q = splat(0x1.6a243ap-10f);
    q = fma16(q, r, splat(0x1.1239e0p-7f));
    q = fma16(q, r, splat(0x1.5558f2p-5f));
    q = fma16(q, r, splat(0x1.555492p-3f));
    q = fma16(q, r, splat(0x1.fffffcp-2f));
    return (scaled_exponential){fma16(r * r, q, r) + splat(1.0f), shifted};
}

/// e^x, with 2^n in two halves so that results underflow to 0 and overflow to infinity. exp16(0) is
/// exactly 1.
CK_INLINE v16 exp16(v16 x) {
    x = x < splat(-105.0f) ? splat(-105.0f) : x;
    x = x > splat(89.0f) ? splat(89.0f) : x;
    scaled_exponential e = scale_exponential(x);
    i16 whole = (i16)e.shifted - (i16)splat(CK_ROUNDING_SHIFT);
    i16 half = whole >> 1;
    v16 first = (v16)((half + 127) << 23);
    v16 second = (v16)((whole - half + 127) << 23);
    return (e.fraction * first) * second;
}

/// e^x for x ≤ 0, but 0 below e^-87.7: a weight that is too small to count.
CK_INLINE v16 weight16(v16 x) {
    scaled_exponential e = scale_exponential(larger(x, splat(-88.0f)));
    // n ends up in the exponent; -127 there is the factor 0.
    return e.fraction * (v16)(((i16)e.shifted << 23) + (127 << 23));
}
