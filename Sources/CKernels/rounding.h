#pragma once

#include <stdint.h>
#include <string.h>

/// Rounds to nearest, ties to even, without a call; |x| < 128.
static inline int8_t ck_round_to_int8(float x) {
    const float magic = 0x1.8p23f;  // adding it rounds to an integer in the low mantissa bits
    float shifted = x + magic;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (int8_t)(uint8_t)bits;
}
