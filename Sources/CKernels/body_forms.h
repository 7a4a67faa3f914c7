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

/// Quantizes up to 32 inputs: scale = max |x| / 127, q = x / scale to the nearest, ties to even.
CK_INLINE void quantize_group(const float *x, size_t count, int32_t offset, ck_row_block *block,
                              size_t group) {
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
    if (!(sum_lanes(probe) == 0)) {
        block->scale[group] = NAN;
        block->start[group] = 0;
        memset((uint8_t *)block->quads + group * CK_GROUP, 0, CK_GROUP);
        return;
    }
    // Of smaller numbers the inverse would overflow; such a group counts as zero.
    float inverse = largest >= 0x1p-119f ? 127.0f / largest : 0;
    i16 total = 0;
    CK_UNROLL for (size_t i = 0; i < 2; i++) {
        i16 q = round_lanes(in[i] * splat(inverse));
        total += q;
        b16 bytes = __builtin_convertvector(q, b16);
        memcpy((uint8_t *)block->quads + group * CK_GROUP + i * CK_LANES, &bytes, sizeof bytes);
    }
    block->scale[group] = largest / 127.0f;
    block->start[group] = -offset * __builtin_reduce_add(total);
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
    case CK_ROWS_INT8: {
        ck_row_block *blocks = row;
        int32_t offset = format == CK_FORMAT_INT8 ? CK_INT8_OFFSET : CK_INT4_OFFSET;
        for (size_t i = 0; i < (in_features + CK_BLOCK - 1) / CK_BLOCK * CK_BLOCK; i += CK_GROUP)
            quantize_group(x + i, i < in_features ? ck_min(in_features - i, CK_GROUP) : 0, offset,
                           blocks + i / CK_BLOCK, i / CK_GROUP % 2);
        break;
    }
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
