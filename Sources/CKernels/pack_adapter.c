// Packing of adapter factors (see ck_shrink and ck_expand for the layouts).
#include "ckernels.h"

#include "rounding.h"

#include <math.h>
#include <string.h>

static size_t element_bytes(ck_format format) {
    switch (format) {
    case CK_FORMAT_F32: return 4;
    case CK_FORMAT_BF16: return 2;
    default: return 1;
    }
}

static size_t step_inputs(ck_format format) { return format == CK_FORMAT_F32 ? 16 : 32; }

/// The step of a rank's multiples: its largest magnitude becomes 127.
static float scale_of(float largest) { return largest > 0 ? largest / 127.0f : 0; }

static void store_element(void *packed, size_t index, float value, ck_format format,
                          float inverse) {
    switch (format) {
    case CK_FORMAT_F32: ((float *)packed)[index] = value; break;
    case CK_FORMAT_BF16: ((uint16_t *)packed)[index] = ck_bf16_from_f32(value); break;
    default: ((int8_t *)packed)[index] = (int8_t)ck_nearest(value * inverse); break;
    }
}

size_t ck_shrink_step_count(size_t in_features, ck_format format) {
    size_t inputs = step_inputs(format);
    return (in_features + inputs - 1) / inputs;
}

size_t ck_shrink_byte_count(size_t rank, size_t in_features, ck_format format) {
    return rank * ck_shrink_step_count(in_features, format) * step_inputs(format)
           * element_bytes(format);
}

void ck_pack_shrink(const float *a, size_t rank, size_t in_features, ck_format format,
                    void *packed, float *scales) {
    size_t steps = ck_shrink_step_count(in_features, format);
    size_t inputs = step_inputs(format);
    memset(packed, 0, ck_shrink_byte_count(rank, in_features, format));
    for (size_t j = 0; j < rank; j++) {
        const float *row = a + j * in_features;
        float inverse = 0;
        if (format == CK_FORMAT_INT8 && scales) {
            float largest = 0;
            for (size_t i = 0; i < in_features; i++) largest = fmaxf(largest, fabsf(row[i]));
            scales[j] = scale_of(largest);
            inverse = scales[j] > 0 ? 127.0f / largest : 0;
        }
        size_t tile = j / CK_RANK_TILE * CK_RANK_TILE;
        size_t width = rank - tile < CK_RANK_TILE ? rank - tile : CK_RANK_TILE;
        for (size_t i = 0; i < in_features; i++) {
            size_t line = tile * steps + i / inputs * width + j - tile;
            store_element(packed, line * inputs + i % inputs, row[i], format, inverse);
        }
    }
}

size_t ck_expand_byte_count(size_t rank, size_t out_features, ck_format format) {
    size_t ranks = format == CK_FORMAT_F32 ? rank : (rank + 1) / 2 * 2;
    return (out_features + CK_LANES - 1) / CK_LANES * CK_LANES * ranks * element_bytes(format);
}

void ck_pack_expand(const float *b, size_t rank, size_t out_features, ck_format format,
                    void *packed, float *scales) {
    size_t depth = format == CK_FORMAT_F32 ? 1 : 2;
    size_t panel = (rank + depth - 1) / depth * depth * CK_LANES;
    memset(packed, 0, ck_expand_byte_count(rank, out_features, format));
    for (size_t j = 0; j < rank; j++) {
        float inverse = 0;
        if (format == CK_FORMAT_INT8 && scales) {
            float largest = 0;
            for (size_t o = 0; o < out_features; o++)
                largest = fmaxf(largest, fabsf(b[o * rank + j]));
            scales[j] = scale_of(largest);
            inverse = scales[j] > 0 ? 127.0f / largest : 0;
        }
        for (size_t o = 0; o < out_features; o++) {
            size_t index = o / CK_LANES * panel + j / depth * depth * CK_LANES
                           + o % CK_LANES * depth + j % depth;
            store_element(packed, index, b[o * rank + j], format, inverse);
        }
    }
}
