// Conversions between element types, panel packing and KV writes: bound by memory, the same for
// all levels.
#include "ckernels.h"

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
    return format == CK_FORMAT_F32 ? in_features * 64 : (in_features + 1) / 2 * 64;
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

#define CK_PACK(E)                                                                             \
    case E:                                                                                    \
        if (format == CK_FORMAT_F32)                                                           \
            pack_lanes(panel, CK_FORMAT_F32, E, in_features, s, s->column_stride);             \
        else                                                                                   \
            pack_lanes(panel, CK_FORMAT_BF16, E, in_features, s, s->column_stride);            \
        break;

void ck_pack_panel(void *panel, ck_format format, size_t in_features, const ck_panel_source *s) {
    switch (s->element) {
        CK_PACK(CK_ELEMENT_F32)
        CK_PACK(CK_ELEMENT_F16)
        CK_PACK(CK_ELEMENT_BF16)
    }
}

void ck_unpack_lane(const void *panel, ck_format format, size_t in_features, size_t lane,
                    float *dst) {
    if (format == CK_FORMAT_F32) {
        const float *in = (const float *)panel + lane;
        for (size_t k = 0; k < in_features; k++) dst[k] = in[k * CK_LANES];
    } else {
        const uint16_t *in = (const uint16_t *)panel + lane * 2;
        for (size_t k = 0; k < in_features; k++)
            dst[k] = f32_from_bf16(in[k / 2 * 2 * CK_LANES + k % 2]);
    }
}
