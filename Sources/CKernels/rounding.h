#pragma once

#include <stdint.h>
#include <string.h>

/// Adding it to a small f32 rounds to an integer in the low mantissa bits.
#define CK_ROUNDING_SHIFT 0x1.8p23f

/// The nearest integer, ties to even, without a call; |x| < 2^22.
static inline int32_t ck_nearest(float x) {
    const float shift = CK_ROUNDING_SHIFT;
    float shifted = x + shift;
    int32_t bits, zero;
    memcpy(&bits, &shifted, sizeof bits);
    memcpy(&zero, &shift, sizeof zero);
    return bits - zero;
}
