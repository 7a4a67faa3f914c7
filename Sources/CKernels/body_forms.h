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

/// How a group of a row is scaled; 0 where its numbers are too small to count.
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

/// The smallest power of two that is not below largest / 127.
CK_INLINE group_scale power_of_two_scale(float largest) {
    if (!(largest >= 1 / CK_INT4_BOUND && largest < CK_INT4_BOUND)) return (group_scale){0, 0};
    float quotient = largest / 127.0f;
    int32_t word;
    memcpy(&word, &quotient, sizeof word);
    const int32_t one = 127 * (1 << 23);
    // The bits of the power of two: the fraction rounded up into the exponent.
    int32_t power = (int32_t)((uint32_t)(word + 0x7fffff) & 0xff800000u);
    group_scale scale = {power - one, 0};
    int32_t inverse = one - scale.bits;
    memcpy(&scale.inverse, &inverse, sizeof inverse);
    return scale;
}

// Lanes of a vector's lower and upper half, each rotated or swapped among themselves.
#define CK_SWAP_FOURS(X)                                                                       \
    __builtin_shufflevector(X, X, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define CK_SWAP_PAIRS(X)                                                                       \
    __builtin_shufflevector(X, X, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define CK_SWAP_LANES(X)                                                                       \
    __builtin_shufflevector(X, X, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)

/// Lanes 0 and 8: the largest lane of a, of b.
CK_INLINE u16 largest_of_two(u16 a, u16 b) {
    u16 most = __builtin_elementwise_max(
        __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
        __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30,
                                31));
    most = __builtin_elementwise_max(most, CK_SWAP_FOURS(most));
    most = __builtin_elementwise_max(most, CK_SWAP_PAIRS(most));
    return __builtin_elementwise_max(most, CK_SWAP_LANES(most));
}

/// Lanes 0 and 8: the sum of lanes 0 to 7, of lanes 8 to 15.
CK_INLINE i16 sum_halves(i16 x) {
    x += CK_SWAP_FOURS(x);
    x += CK_SWAP_PAIRS(x);
    return x + CK_SWAP_LANES(x);
}

#undef CK_SWAP_FOURS
#undef CK_SWAP_PAIRS
#undef CK_SWAP_LANES

/// The low bytes of 64 numbers, in order.
CK_INLINE i16 narrow_to_bytes(const i16 *numbers) {
    typedef int8_t b16 __attribute__((ext_vector_type(16)));
    typedef int8_t b32 __attribute__((ext_vector_type(32)));
    typedef int8_t b64 __attribute__((ext_vector_type(64)));
    b32 half[2];
    CK_UNROLL for (int h = 0; h < 2; h++) {
        half[h].lo = __builtin_convertvector(numbers[2 * h], b16);
        half[h].hi = __builtin_convertvector(numbers[2 * h + 1], b16);
    }
    b64 all;
    all.lo = half[0];
    all.hi = half[1];
    return (i16)all;
}

/// Quantizes up to 64 inputs: q = x / scale to the nearest, ties to even. False, with any bytes,
/// where one is no number.
CK_INLINE bool quantize_block(const float *x, size_t count, const ck_format format,
                              ck_row_block *block) {
    v16 in[4];
    u16 sizes[4];
    CK_UNROLL for (size_t i = 0; i < 4; i++) {
        in[i] = load_some(x, i * CK_LANES, count);
        // As bits, which have the order of the numbers, infinity and NaN last.
        sizes[i] = (u16)in[i] & 0x7fffffffu;
    }
    u16 largest = largest_of_two(__builtin_elementwise_max(sizes[0], sizes[1]),
                                 __builtin_elementwise_max(sizes[2], sizes[3]));
    group_scale scale[2];
    CK_UNROLL for (size_t g = 0; g < 2; g++) {
        float most = ((v16)largest)[g * 8];
        scale[g] = format == CK_FORMAT_INT8 ? exact_scale(most) : power_of_two_scale(most);
        block->scale[g] = scale[g].bits;
    }
    i16 q[4];
    CK_UNROLL for (size_t i = 0; i < 4; i++) {
        // The low byte is that of the nearest integer.
        v16 steps = in[i] * splat(scale[i / 2].inverse);
        q[i] = (i16)(steps + splat(CK_ROUNDING_SHIFT));
    }
    i16 quads = narrow_to_bytes(q);
    memcpy(block->quads, &quads, sizeof quads);
    i16 total = sum_halves(dot_bytes((i16)0, (u16)0x01010101u, quads));
    const int32_t offset = format == CK_FORMAT_INT8 ? CK_INT8_OFFSET : CK_INT4_OFFSET;
    block->start[0] = -offset * total[0];
    block->start[1] = -offset * total[8];
    const float bound = format == CK_FORMAT_INT8 ? INFINITY : CK_INT4_BOUND;
    return ((v16)largest)[0] < bound && ((v16)largest)[8] < bound;
}

CK_INLINE void quantize_row(const float *x, size_t in_features, const ck_format format,
                            ck_row_block *blocks) {
    bool are_numbers = true;
    size_t i = 0;
    for (; i + CK_BLOCK <= in_features; i += CK_BLOCK)
        are_numbers &= quantize_block(x + i, CK_BLOCK, format, blocks++);
    if (i < in_features) are_numbers &= quantize_block(x + i, in_features - i, format, blocks++);
    float start = are_numbers ? 0 : NAN;
    memcpy(blocks, &start, sizeof start);
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
