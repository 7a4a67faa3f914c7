// The forms in which matmul takes its rows, and matmul itself. Included once per level, after the
// bodies of the tiles.

static ck_row_form row_form(ck_format format) {
    switch (format) {
    case CK_FORMAT_F32:
        return CK_ROWS_F32;
    case CK_FORMAT_BF16:
        return CK_BF16 ? CK_ROWS_BF16 : CK_ROWS_F32;
    case CK_FORMAT_INT8:
    case CK_FORMAT_INT4:
        return CK_ROWS_INT8;
    }
}

/// The scale of a group in a row, or 0 where its numbers are too small to count.
typedef struct group_scale {
    int32_t bits;                // as ck_row_block has them
    float inverse;
} group_scale;

/// scale = largest / 127
CK_INLINE group_scale exact_scale(float largest) {
    // Of smaller numbers the inverse would overflow.
    if (!(largest >= 0x1p-119f)) return (group_scale){0, 0};
    group_scale scale = {0, 127.0f / largest};
    float quotient = largest / 127.0f;
    memcpy(&scale.bits, &quotient, sizeof quotient);
    return scale;
}

/// The least power of two that is not below largest / 127; largest < CK_INT4_BOUND.
CK_INLINE group_scale power_of_two_scale(float largest) {
    if (!(largest >= 1 / CK_INT4_BOUND)) return (group_scale){0, 0};
    float quotient = largest / 127.0f;
    int32_t word;
    memcpy(&word, &quotient, sizeof word);
    int32_t exponent = ((word + 0x7fffff) >> 23) - 127;
    group_scale scale = {exponent << 23, 0};
    int32_t inverse = (127 - exponent) << 23;
    memcpy(&scale.inverse, &inverse, sizeof inverse);
    return scale;
}

/// Quantizes up to 32 inputs: q = x / scale to the nearest, ties to even. False, with zeros, where
/// one is no number.
CK_INLINE bool quantize_group(const float *x, size_t count, const ck_format format,
                              ck_row_block *block, size_t group) {
    typedef int8_t b16 __attribute__((ext_vector_type(16)));
    v16 in[2];
    CK_UNROLL for (size_t i = 0; i < 2; i++) {
        size_t start = i * CK_LANES;
        if (start + CK_LANES <= count) in[i] = load16(x + start);
        else in[i] = start < count ? load_part(x + start, count - start) : splat(0);
    }
    v16 most = larger(__builtin_elementwise_abs(in[0]), __builtin_elementwise_abs(in[1]));
    float largest = max_lanes(most);
    // A NaN or an infinity must not come out as a number: 0 · x is NaN for both.
    v16 probe = in[0] * splat(0) + in[1] * splat(0);
    bool is_number = sum_lanes(probe) == 0
                     && (format == CK_FORMAT_INT8 || largest < CK_INT4_BOUND);
    group_scale scale = {0, 0};
    if (is_number)
        scale = format == CK_FORMAT_INT8 ? exact_scale(largest) : power_of_two_scale(largest);
    i16 total = 0;
    CK_UNROLL for (size_t i = 0; i < 2; i++) {
        // Not 0 · x, which may be NaN.
        i16 q = is_number ? round_lanes(in[i] * splat(scale.inverse)) : (i16)0;
        total += q;
        b16 bytes = __builtin_convertvector(q, b16);
        memcpy((uint8_t *)block->quads + group * CK_GROUP + i * CK_LANES, &bytes, sizeof bytes);
    }
    const int32_t offset = format == CK_FORMAT_INT8 ? CK_INT8_OFFSET : CK_INT4_OFFSET;
    block->scale[group] = scale.bits;
    block->start[group] = -offset * __builtin_reduce_add(total);
    return is_number;
}

CK_INLINE void quantize_row(const float *x, size_t in_features, const ck_format format,
                            ck_row_block *blocks) {
    size_t count = (in_features + CK_BLOCK - 1) / CK_BLOCK;
    bool are_numbers = true;
    for (size_t i = 0; i < count * CK_BLOCK; i += CK_GROUP)
        are_numbers &= quantize_group(
            x + i, i < in_features ? ck_min(in_features - i, CK_GROUP) : 0, format,
            blocks + i / CK_BLOCK, i / CK_GROUP % 2);
    float start = are_numbers ? 0 : NAN;
    memcpy(blocks + count, &start, sizeof start);
}

static void prepare_row(const float *x, size_t in_features, ck_format format, void *row) {
    switch (row_form(format)) {
    case CK_ROWS_F32:
        memcpy(row, x, in_features * sizeof(float));
        break;
    case CK_ROWS_BF16: {
        size_t i = 0;
#if CK_BF16
        for (; i + 32 <= in_features; i += 32) {
            __m512bh pair = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
            memcpy((uint16_t *)row + i, &pair, sizeof pair);
        }
#endif
        ck_narrow(x + i, CK_ELEMENT_F32, in_features - i, (uint16_t *)row + i);
        if (in_features % 2) ((uint16_t *)row)[in_features] = 0;
        break;
    }
    case CK_ROWS_INT8:
        if (format == CK_FORMAT_INT8) quantize_row(x, in_features, CK_FORMAT_INT8, row);
        else quantize_row(x, in_features, CK_FORMAT_INT4, row);
        break;
    }
}

/// The tile kernel for a format; its steps are for `in_features`.
static tile_kernel tile_kernel_of(ck_format format, size_t in_features) {
    switch (row_form(format)) {
    case CK_ROWS_F32:
        break;
    case CK_ROWS_BF16:
#if CK_BF16
        return (tile_kernel){pair_tile_of, CK_PAIR_ROWS, CK_PAIR_ACCUMULATORS, 4,
                             (in_features + 1) / 2, 64};
#endif
        break;
    case CK_ROWS_INT8:
        return (tile_kernel){integer_tile_of, ck_min(CK_INTEGER_ACCUMULATORS, 4),
                             CK_INTEGER_ACCUMULATORS, 3,
                             (in_features + CK_BLOCK - 1) / CK_BLOCK,
                             integer_block_bytes(format)};
    }
    return (tile_kernel){NULL, CK_MAX_ROWS, CK_MAX_ACCUMULATORS, 8, 0, 0};
}

static size_t tile_panels(ck_format format, size_t row_count) {
    tile_kernel kernel = tile_kernel_of(format, 0);
    if (!kernel.run) return tile_width(tile_rows(row_count, kernel.most_rows), 8);
    return panels_beside(&kernel, row_count, 8);
}

static void matmul(const ck_matmul *m, size_t panel_start, size_t panel_end, size_t panel_ahead) {
    tile_kernel kernel = tile_kernel_of(m->format, m->in_features);
    if (kernel.run) tiled_matmul(&kernel, m, panel_start, panel_end, panel_ahead);
    else float_matmul(m, panel_start, panel_end);
}
