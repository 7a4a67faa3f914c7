// Conversions between element types, panel packing and KV writes: bound by memory, the same for
// all levels.
#include "ckernels.h"

#include "rounding.h"

#include <float.h>
#include <math.h>
#include <string.h>

float ck_f32_from_f16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = (bits >> 10) & 0x1f;
    uint32_t fraction = bits & 0x3ff;
    uint32_t word;
    if (exponent == 0x1f) {
        word = sign | 0x7f800000 | fraction << 13;
    } else if (exponent != 0) {
        word = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        // A subnormal half is fraction · 2^-24, which f32 holds exactly.
        float value = (float)fraction * 0x1p-24f;
        memcpy(&word, &value, 4);
        word |= sign;
    }
    float result;
    memcpy(&result, &word, 4);
    return result;
}

uint16_t ck_bf16_from_f32(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    // Keeps NaN a NaN when its payload lies in the bits cut off.
    if ((word & 0x7fffffff) > 0x7f800000) return (uint16_t)(word >> 16 | 0x40);
    return (uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

static inline float f32_from_bf16(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float result;
    memcpy(&result, &word, 4);
    return result;
}

// Source tensors in mapped files may lie at any address.
static inline uint16_t load_u16(const void *src, size_t index) {
    uint16_t bits;
    memcpy(&bits, (const uint8_t *)src + index * 2, 2);
    return bits;
}
static inline float load_f32(const void *src, size_t index) {
    float value;
    memcpy(&value, (const uint8_t *)src + index * 4, 4);
    return value;
}

static inline float widen_one(const void *src, size_t index, const ck_element element) {
    switch (element) {
    case CK_ELEMENT_F32:
        return load_f32(src, index);
    case CK_ELEMENT_F16:
        return ck_f32_from_f16(load_u16(src, index));
    case CK_ELEMENT_BF16:
        return f32_from_bf16(load_u16(src, index));
    }
}

static inline uint16_t narrow_one(const void *src, size_t index, const ck_element element) {
    if (element == CK_ELEMENT_BF16) return load_u16(src, index);
    return ck_bf16_from_f32(widen_one(src, index, element));
}

void ck_widen(const void *src, ck_element element, size_t count, float *dst) {
    switch (element) {
    case CK_ELEMENT_F32:
        memcpy(dst, src, count * sizeof(float));
        break;
    case CK_ELEMENT_F16:
        for (size_t i = 0; i < count; i++) dst[i] = widen_one(src, i, CK_ELEMENT_F16);
        break;
    case CK_ELEMENT_BF16:
        for (size_t i = 0; i < count; i++) dst[i] = widen_one(src, i, CK_ELEMENT_BF16);
        break;
    }
}

void ck_narrow(const void *src, ck_element element, size_t count, uint16_t *dst) {
    switch (element) {
    case CK_ELEMENT_F32:
        for (size_t i = 0; i < count; i++) dst[i] = narrow_one(src, i, CK_ELEMENT_F32);
        break;
    case CK_ELEMENT_F16:
        for (size_t i = 0; i < count; i++) dst[i] = narrow_one(src, i, CK_ELEMENT_F16);
        break;
    case CK_ELEMENT_BF16:
        memcpy(dst, src, count * sizeof(uint16_t));
        break;
    }
}

size_t ck_panel_byte_count(size_t in_features, ck_format format) {
    size_t blocks = (in_features + CK_BLOCK - 1) / CK_BLOCK;
    switch (format) {
    case CK_FORMAT_F32:
        return in_features * 64;
    case CK_FORMAT_BF16:
        return (in_features + 1) / 2 * 64;
    case CK_FORMAT_INT8:
        return blocks * CK_INT8_BLOCK_BYTES;
    case CK_FORMAT_INT4:
        return blocks * CK_INT4_BLOCK_BYTES;
    }
}

size_t ck_row_byte_count(size_t in_features, ck_row_form form) {
    switch (form) {
    case CK_ROWS_F32:
        return in_features * sizeof(float);
    case CK_ROWS_BF16:
        return (in_features + 1) / 2 * 4;
    case CK_ROWS_INT8:
        return (in_features + CK_BLOCK - 1) / CK_BLOCK * sizeof(ck_row_block) + sizeof(float);
    }
}

static inline __attribute__((always_inline)) void
pack_lanes(void *panel, const ck_format format, const ck_element element, size_t in_features,
           const ck_panel_source *s, const size_t column_stride) {
    // Inputs are visited in short spans so that the panel's lines stay in the first-level cache
    // while all lanes of a span are written.
    const size_t span = 64;
    for (size_t start = 0; start < in_features; start += span) {
        size_t end = start + span < in_features ? start + span : in_features;
        for (size_t row = 0; row < s->row_count; row++) {
            size_t base = row * s->row_stride;
            size_t lane = s->lane + row;
            if (format == CK_FORMAT_F32) {
                float *out = (float *)panel + lane;
                for (size_t k = start; k < end; k++)
                    out[k * CK_LANES] = widen_one(s->bytes, base + k * column_stride, element);
            } else {
                uint16_t *out = (uint16_t *)panel + lane * 2;
                for (size_t k = start; k < end; k++)
                    out[k / 2 * 2 * CK_LANES + k % 2] =
                        narrow_one(s->bytes, base + k * column_stride, element);
            }
        }
    }
}

/// The next larger number that bf16 holds exactly, or `value` itself.
static inline float up_to_bf16(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    return f32_from_bf16((uint16_t)((word + 0xffff) >> 16));
}

/// Whether all of a group are smaller than `bound`, which NaN never is.
static bool are_below(const float *x, float bound) {
    bool all = true;
    for (size_t i = 0; i < CK_GROUP; i++) {
        float size = x[i] < 0 ? -x[i] : x[i];
        if (!(size < bound)) all = false;
    }
    return all;
}

/// q[i] = x[i] / scale with |q| ≤ 127 and the smallest scale that bf16 holds; x is finite.
static float quantize_int8(const float *x, int8_t *q) {
    float largest = 0;
    for (size_t i = 0; i < CK_GROUP; i++) {
        float size = x[i] < 0 ? -x[i] : x[i];
        if (size > largest) largest = size;
    }
    memset(q, 0, CK_GROUP);
    float scale = up_to_bf16(largest / 127.0f);
    if (scale < FLT_MIN) return 0;
    float inverse = 1.0f / scale;
    for (size_t i = 0; i < CK_GROUP; i++) q[i] = (int8_t)ck_nearest(x[i] * inverse);
    return scale;
}

/// q[i] = x[i] / scale in -8 ... 7, with the scale of least squared error among some: the element
/// of largest size goes to -8 or thereabouts, and the scale is then fitted to the q. x is below
/// CK_INT4_BOUND. The scale of a group that counts as zero is not 0: kernels add to its exponent.
/// (Lanes past the last output have scales of 0; what comes of them is not stored.)
static float quantize_int4(const float *x, int8_t *q) {
    float extreme = 0;
    for (size_t i = 0; i < CK_GROUP; i++) {
        float size = x[i] < 0 ? -x[i] : x[i];
        float most = extreme < 0 ? -extreme : extreme;
        if (size > most) extreme = x[i];
    }
    memset(q, 0, CK_GROUP);
    const float least = 0x1p-50f;
    if (extreme < least && extreme > -least) return least;
    // In units of the extreme, so that squares neither overflow nor vanish.
    float units[CK_GROUP];
    for (size_t i = 0; i < CK_GROUP; i++) units[i] = x[i] / extreme;
    float best_gain = 0;
    float best_scale = 0;
    for (int candidate = -4; candidate <= 4; candidate++) {
        float inverse = -8.0f + 0.2f * (float)candidate;
        int8_t trial[CK_GROUP];
        float product = 0, square = 0;
        for (size_t i = 0; i < CK_GROUP; i++) {
            int32_t number = ck_nearest(units[i] * inverse);
            number = number < -8 ? -8 : number > 7 ? 7 : number;
            trial[i] = (int8_t)number;
            product += units[i] * (float)number;
            square += (float)(number * number);
        }
        // With the fitted scale product / square the squared error is
        // Σ units² - product² / square.
        float gain = square > 0 ? product * product / square : 0;
        if (gain <= best_gain) continue;
        best_gain = gain;
        best_scale = product / square;
        memcpy(q, trial, CK_GROUP);
    }
    return f32_from_bf16(ck_bf16_from_f32(best_scale * extreme));
}

/// Quantizes rows into the lanes of int8 or int4 blocks. False where a group cannot be.
static inline __attribute__((always_inline)) bool
quantize_lanes(uint8_t *panel, const ck_format format, const ck_element element,
               size_t in_features, const ck_panel_source *s) {
    const bool wide = format == CK_FORMAT_INT8;
    const size_t block_bytes = wide ? CK_INT8_BLOCK_BYTES : CK_INT4_BLOCK_BYTES;
    size_t groups = (in_features + CK_BLOCK - 1) / CK_BLOCK * (CK_BLOCK / CK_GROUP);
    bool can_be = true;
    for (size_t group = 0; group < groups; group++) {
        uint8_t *block = panel + group / 2 * block_bytes;
        size_t first = group * CK_GROUP;
        for (size_t row = 0; row < s->row_count; row++) {
            size_t lane = s->lane + row;
            float x[CK_GROUP];
            int8_t q[CK_GROUP];
            for (size_t i = 0; i < CK_GROUP; i++)
                x[i] = first + i < in_features
                           ? widen_one(s->bytes, row * s->row_stride + (first + i) * s->column_stride,
                                       element)
                           : 0;
            if (!are_below(x, wide ? INFINITY : CK_INT4_BOUND)) {
                can_be = false;
                memset(x, 0, sizeof x);
            }
            float scale = wide ? quantize_int8(x, q) : quantize_int4(x, q);
            uint16_t bits = ck_bf16_from_f32(scale);
            memcpy(block + block_bytes - 64 + (group % 2 * CK_LANES + lane) * 2, &bits, 2);
            for (size_t i = 0; i < CK_GROUP; i++) {
                size_t unit = group % 2 * CK_GROUP + i;
                if (wide) {
                    block[unit / 4 * 64 + lane * 4 + unit % 4] = (uint8_t)(q[i] + CK_INT8_OFFSET);
                } else {
                    uint8_t *byte = block + unit / 8 * 64 + lane * 4 + unit % 4;
                    uint8_t number = (uint8_t)(q[i] + CK_INT4_OFFSET);
                    *byte = unit % 8 < 4 ? number : (uint8_t)(*byte | number << 4);
                }
            }
        }
    }
    return can_be;
}

#define CK_PACK(E)                                                                             \
    case E:                                                                                    \
        if (format == CK_FORMAT_F32)                                                           \
            pack_lanes(panel, CK_FORMAT_F32, E, in_features, s, s->column_stride);             \
        else if (format == CK_FORMAT_BF16)                                                     \
            pack_lanes(panel, CK_FORMAT_BF16, E, in_features, s, s->column_stride);            \
        else                                                                                   \
            return quantize_lanes(panel, format, E, in_features, s);                           \
        break;

bool ck_pack_panel(void *panel, ck_format format, size_t in_features, const ck_panel_source *s) {
    switch (s->element) {
        CK_PACK(CK_ELEMENT_F32)
        CK_PACK(CK_ELEMENT_F16)
        CK_PACK(CK_ELEMENT_BF16)
    }
    return true;
}

static void unpack_integers(const uint8_t *panel, ck_format format, size_t in_features,
                            size_t lane, float *dst) {
    const bool wide = format == CK_FORMAT_INT8;
    const size_t block_bytes = wide ? CK_INT8_BLOCK_BYTES : CK_INT4_BLOCK_BYTES;
    for (size_t k = 0; k < in_features; k++) {
        const uint8_t *block = panel + k / CK_BLOCK * block_bytes;
        size_t unit = k % CK_BLOCK;
        int number;
        if (wide) {
            number = block[unit / 4 * 64 + lane * 4 + unit % 4] - CK_INT8_OFFSET;
        } else {
            uint8_t byte = block[unit / 8 * 64 + lane * 4 + unit % 4];
            number = (unit % 8 < 4 ? byte & 15 : byte >> 4) - CK_INT4_OFFSET;
        }
        const uint8_t *scales = block + block_bytes - 64;
        dst[k] = (float)number * f32_from_bf16(load_u16(scales, unit / CK_GROUP * CK_LANES + lane));
    }
}

void ck_unpack_lane(const void *panel, ck_format format, size_t in_features, size_t lane,
                    float *dst) {
    switch (format) {
    case CK_FORMAT_F32: {
        const float *in = (const float *)panel + lane;
        for (size_t k = 0; k < in_features; k++) dst[k] = in[k * CK_LANES];
        break;
    }
    case CK_FORMAT_BF16: {
        const uint16_t *in = (const uint16_t *)panel + lane * 2;
        for (size_t k = 0; k < in_features; k++)
            dst[k] = f32_from_bf16(in[k / 2 * 2 * CK_LANES + k % 2]);
        break;
    }
    case CK_FORMAT_INT8:
    case CK_FORMAT_INT4:
        unpack_integers(panel, format, in_features, lane, dst);
        break;
    }
}
