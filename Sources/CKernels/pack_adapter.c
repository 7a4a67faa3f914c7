// Packing of adapter factors (see ck_shrink and ck_expand for the layouts).
#include "ckernels.h"

#include "rounding.h"

#include <string.h>

static inline size_t element_bytes(const ck_format format) {
    switch (format) {
    case CK_FORMAT_F32: return 4;
    case CK_FORMAT_BF16: return 2;
    default: return 1;
    }
}

static inline size_t step_inputs(const ck_format format) {
    return format == CK_FORMAT_F32 ? 16 : 32;
}

size_t ck_shrink_step_count(size_t in_features, ck_format format) {
    size_t inputs = step_inputs(format);
    return (in_features + inputs - 1) / inputs;
}

size_t ck_shrink_byte_count(size_t rank, size_t in_features, ck_format format) {
    return rank * ck_shrink_step_count(in_features, format) * step_inputs(format)
           * element_bytes(format);
}

size_t ck_expand_byte_count(size_t rank, size_t out_features, ck_format format) {
    size_t ranks = format == CK_FORMAT_F32 ? rank : (rank + 1) / 2 * 2;
    return (out_features + CK_LANES - 1) / CK_LANES * CK_LANES * ranks * element_bytes(format);
}

/// Writes the step of a rank's multiples, which makes its largest magnitude 127; returns the
/// factor from numbers to multiples. The magnitude comes as the bits of an f32.
static inline float note_scale(uint32_t largest_bits, float *scale) {
    float largest;
    memcpy(&largest, &largest_bits, 4);
    *scale = largest > 0 ? largest / 127.0f : 0;
    return *scale > 0 ? 127.0f / largest : 0;
}

#define CK_PACK(name) portable_##name
#include "body_pack.h"
#undef CK_PACK

#if defined(__x86_64__)

#define CK_PACK(name) avx2_##name
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#include "body_pack.h"
#pragma clang attribute pop
#undef CK_PACK

// Wider vectors gain nothing more. A lower level of kernels makes no difference to bytes.
#define DISPATCH(name, ...)                                                                        \
    if (ck_level_table(CK_LEVEL_AVX2)) return avx2_##name(__VA_ARGS__);                            \
    return portable_##name(__VA_ARGS__)

#else

#define DISPATCH(name, ...) return portable_##name(__VA_ARGS__)

#endif

void ck_pack_shrink(const ck_factor *a, size_t rank_start, size_t rank_count, void *packed,
                    float *scales) {
    DISPATCH(shrink, a, rank_start, rank_count, packed, scales);
}

void ck_pack_expand(const ck_factor *b, void *packed, float *scales) {
    DISPATCH(expand, b, packed, scales);
}

bool ck_is_finite(const void *src, ck_element element, size_t count) {
    DISPATCH(is_finite, src, element, count);
}
