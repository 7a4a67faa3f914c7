// Packing of adapter factors, compiled for each width of vectors under the names that CK_PACK gives.
// Plain loops over fixed numbers of elements, which the compiler turns into vectors; the bytes are
// the same at each width.

/// Elements that are converted at a time.
#define GROUP 16

typedef struct CK_PACK(group) {
    uint32_t words[GROUP];
} CK_PACK(group);

/// The bits of 16 elements as f32, exact.
static inline CK_PACK(group) CK_PACK(widen_group)(const uint8_t *src, const ck_element element) {
    CK_PACK(group) group;
    if (element == CK_ELEMENT_F32) {
        memcpy(group.words, src, sizeof group.words);
        return group;
    }
    uint16_t halves[GROUP];
    memcpy(halves, src, sizeof halves);
    if (element == CK_ELEMENT_BF16) {
        for (size_t i = 0; i < GROUP; i++) group.words[i] = (uint32_t)halves[i] << 16;
        return group;
    }
    for (size_t i = 0; i < GROUP; i++) {
        // The half's exponent and fraction in the places of f32's: too small by 2^112, which the
        // product makes good also for subnormals. Infinity and NaN keep the largest exponent.
        uint32_t magnitude = (uint32_t)(halves[i] & 0x7fff) << 13;
        float value;
        memcpy(&value, &magnitude, 4);
        value *= 0x1p112f;
        uint32_t word;
        memcpy(&word, &value, 4);
        word |= magnitude >= 0x0f800000 ? 0x7f800000 : 0;
        group.words[i] = word | (uint32_t)(halves[i] & 0x8000) << 16;
    }
    return group;
}

/// The same for fewer than 16 elements; the rest is zeros.
static inline CK_PACK(group) CK_PACK(widen_some)(const uint8_t *src, const ck_element element,
                                                 size_t count) {
    uint8_t padded[GROUP * 4] = {0};
    memcpy(padded, src, count * (element == CK_ELEMENT_F32 ? 4 : 2));
    return CK_PACK(widen_group)(padded, element);
}

static inline void CK_PACK(store_group)(const CK_PACK(group) *group, const ck_format format,
                                        const float *inverse, uint8_t *dst) {
    if (format == CK_FORMAT_F32) {
        memcpy(dst, group->words, sizeof group->words);
    } else if (format == CK_FORMAT_BF16) {
        uint16_t rounded[GROUP];
        for (size_t i = 0; i < GROUP; i++) {
            // As ck_bf16_from_f32 does it.
            uint32_t word = group->words[i];
            uint32_t near = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
            uint32_t quiet = word >> 16 | 0x40;
            rounded[i] = (uint16_t)((word & 0x7fffffff) > 0x7f800000 ? quiet : near);
        }
        memcpy(dst, rounded, sizeof rounded);
    } else {
        int8_t numbers[GROUP];
        for (size_t i = 0; i < GROUP; i++) {
            float value;
            memcpy(&value, &group->words[i], 4);
            numbers[i] = (int8_t)ck_nearest(value * inverse[i]);
        }
        memcpy(dst, numbers, sizeof numbers);
    }
}

/// largest[i] = max(largest[i], |group[i]|), as bits, which have the order of the numbers.
static inline void CK_PACK(note_largest)(const CK_PACK(group) *group, uint32_t *largest) {
    for (size_t i = 0; i < GROUP; i++) {
        uint32_t magnitude = group->words[i] & 0x7fffffff;
        largest[i] = magnitude > largest[i] ? magnitude : largest[i];
    }
}

// A: a line of 64 or 32 bytes after the other, each from consecutive inputs of one rank.

static inline void CK_PACK(shrink_row)(const uint8_t *row, const ck_element element,
                                       size_t in_features, const ck_format format, float inverse,
                                       uint8_t *line, size_t line_stride) {
    const size_t width = element == CK_ELEMENT_F32 ? 4 : 2;
    const size_t groups = format == CK_FORMAT_F32 ? 1 : 2;
    const size_t group_bytes = GROUP * element_bytes(format);
    float inverses[GROUP];
    for (size_t i = 0; i < GROUP; i++) inverses[i] = inverse;
    size_t step = groups * GROUP;
    size_t i = 0;
    for (; i + step <= in_features; i += step, line += line_stride) {
        for (size_t g = 0; g < groups; g++) {
            CK_PACK(group) group =
                CK_PACK(widen_group)(row + (i + g * GROUP) * width, element);
            CK_PACK(store_group)(&group, format, inverses, line + g * group_bytes);
        }
    }
    for (size_t g = 0; i < in_features && g < groups; g++) {
        size_t start = i + g * GROUP;
        size_t left = start < in_features ? in_features - start : 0;
        CK_PACK(group) group = CK_PACK(widen_some)(row + (left ? start * width : 0), element,
                                                   left < GROUP ? left : GROUP);
        CK_PACK(store_group)(&group, format, inverses, line + g * group_bytes);
    }
}

static inline uint32_t CK_PACK(largest_of_row)(const uint8_t *row, const ck_element element,
                                               size_t count) {
    uint32_t lanes[GROUP] = {0};
    const size_t width = element == CK_ELEMENT_F32 ? 4 : 2;
    size_t i = 0;
    for (; i + GROUP <= count; i += GROUP) {
        CK_PACK(group) group = CK_PACK(widen_group)(row + i * width, element);
        CK_PACK(note_largest)(&group, lanes);
    }
    if (i < count) {
        CK_PACK(group) group = CK_PACK(widen_some)(row + i * width, element, count - i);
        CK_PACK(note_largest)(&group, lanes);
    }
    uint32_t largest = 0;
    for (size_t l = 0; l < GROUP; l++) largest = lanes[l] > largest ? lanes[l] : largest;
    return largest;
}

static inline void CK_PACK(shrink_ranks)(const ck_factor *a, const ck_element element,
                                         size_t rank_start, size_t rank_count,
                                         const ck_format format, uint8_t *packed, float *scales) {
    size_t steps = ck_shrink_step_count(a->features, format);
    size_t line_bytes = step_inputs(format) * element_bytes(format);
    size_t row_bytes = a->features * (element == CK_ELEMENT_F32 ? 4 : 2);
    for (size_t r = 0; r < rank_count; r++) {
        const uint8_t *row = (const uint8_t *)a->bytes + r * row_bytes;
        size_t j = rank_start + r;
        float inverse = 0;
        if (format == CK_FORMAT_INT8) {
            uint32_t largest = CK_PACK(largest_of_row)(row, element, a->features);
            inverse = note_scale(largest, &scales[j]);
        }
        size_t tile = j / CK_RANK_TILE * CK_RANK_TILE;
        size_t width = a->rank - tile < CK_RANK_TILE ? a->rank - tile : CK_RANK_TILE;
        CK_PACK(shrink_row)(row, element, a->features, format, inverse,
                            packed + (tile * steps + j - tile) * line_bytes, width * line_bytes);
    }
}

// B: a panel's 16 outputs side by side; 16 ranks at a time are converted and transposed.

/// Transposes 8 × 8 words; the strides are in bytes.
static inline void CK_PACK(transpose)(const uint8_t *src, size_t src_stride, uint8_t *dst,
                                      size_t dst_stride) {
    typedef uint32_t vector __attribute__((vector_size(32)));
    vector a[8], b[8];
    for (size_t i = 0; i < 8; i++) memcpy(&a[i], src + i * src_stride, 32);
    for (size_t i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (size_t i = 0; i < 8; i += 4)
        for (size_t k = i; k < i + 2; k++) {
            a[k] = __builtin_shufflevector(b[k], b[k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            a[k + 2] = __builtin_shufflevector(b[k], b[k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (size_t i = 0; i < 4; i++) {
        b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    for (size_t i = 0; i < 8; i++) memcpy(dst + i * dst_stride, &b[i], 32);
}

/// What a group of ranks takes in a panel: a word of f32 or bf16, or half a word of int8, for each
/// output and one or two ranks.
static inline void CK_PACK(expand_group)(const uint8_t *rows, size_t row_bytes, size_t row_count,
                                         size_t rank_count, const ck_element element,
                                         const ck_format format, const float *inverse,
                                         uint8_t *dst) {
    uint8_t lines[CK_LANES][GROUP * 4];
    uint32_t words[GROUP][CK_LANES];
    const size_t line_bytes = GROUP * element_bytes(format);
    if (row_count < CK_LANES) memset(lines, 0, sizeof lines);
    for (size_t o = 0; o < row_count; o++) {
        CK_PACK(group) group =
            rank_count == GROUP ? CK_PACK(widen_group)(rows + o * row_bytes, element)
                                : CK_PACK(widen_some)(rows + o * row_bytes, element, rank_count);
        CK_PACK(store_group)(&group, format, inverse, lines[o]);
    }
    for (size_t block = 0; block * 32 < line_bytes; block++)
        for (size_t half = 0; half < 2; half++)
            CK_PACK(transpose)(lines[half * 8] + block * 32, sizeof lines[0],
                               (uint8_t *)words[block * 8] + half * 32, sizeof words[0]);
    const size_t depth = format == CK_FORMAT_F32 ? 1 : 2;
    size_t units = (rank_count + depth - 1) / depth;
    if (format != CK_FORMAT_INT8) {
        if (units == GROUP / depth) memcpy(dst, words, GROUP / depth * sizeof words[0]);
        else memcpy(dst, words, units * sizeof words[0]);
        return;
    }
    uint16_t pairs[GROUP / 2][CK_LANES];
    for (size_t p = 0; p < GROUP / 4; p++)
        for (size_t o = 0; o < CK_LANES; o++) {
            pairs[2 * p][o] = (uint16_t)words[p][o];
            pairs[2 * p + 1][o] = (uint16_t)(words[p][o] >> 16);
        }
    memcpy(dst, pairs, units * sizeof pairs[0]);
}

static inline void CK_PACK(expand_scales)(const ck_factor *b, const ck_element element,
                                          size_t rank_start, size_t rank_count, float *scales,
                                          float *inverse) {
    const size_t width = element == CK_ELEMENT_F32 ? 4 : 2;
    const uint8_t *row = (const uint8_t *)b->bytes + rank_start * width;
    uint32_t largest[GROUP] = {0};
    for (size_t o = 0; o < b->features; o++, row += b->rank * width) {
        CK_PACK(group) group = rank_count == GROUP
                                   ? CK_PACK(widen_group)(row, element)
                                   : CK_PACK(widen_some)(row, element, rank_count);
        CK_PACK(note_largest)(&group, largest);
    }
    for (size_t j = 0; j < rank_count; j++) inverse[j] = note_scale(largest[j], &scales[j]);
}

static inline void CK_PACK(expand_panels)(const ck_factor *b, const ck_element element,
                                          const ck_format format, uint8_t *packed,
                                          float *scales) {
    const size_t width = element == CK_ELEMENT_F32 ? 4 : 2;
    size_t row_bytes = b->rank * width;
    size_t depth = format == CK_FORMAT_F32 ? 1 : 2;
    size_t lane_bytes = element_bytes(format) * CK_LANES;
    size_t panel_bytes = (b->rank + depth - 1) / depth * depth * lane_bytes;
    for (size_t j = 0; j < b->rank; j += GROUP) {
        size_t rank_count = b->rank - j < GROUP ? b->rank - j : GROUP;
        float inverse[GROUP] = {0};
        if (format == CK_FORMAT_INT8)
            CK_PACK(expand_scales)(b, element, j, rank_count, scales + j, inverse);
        for (size_t o = 0; o < b->features; o += CK_LANES) {
            size_t row_count = b->features - o < CK_LANES ? b->features - o : CK_LANES;
            CK_PACK(expand_group)((const uint8_t *)b->bytes + o * row_bytes + j * width,
                                  row_bytes, row_count, rank_count, element, format, inverse,
                                  packed + o / CK_LANES * panel_bytes + j * lane_bytes);
        }
    }
}

// One copy of the loops for each pair of types, so that nothing is decided inside.
#define FOR_ELEMENT(call, element, format)                                                         \
    switch (element) {                                                                             \
    case CK_ELEMENT_F32: call(CK_ELEMENT_F32, format); break;                                      \
    case CK_ELEMENT_F16: call(CK_ELEMENT_F16, format); break;                                      \
    case CK_ELEMENT_BF16: call(CK_ELEMENT_BF16, format); break;                                    \
    }
#define FOR_TYPES(call, element, format)                                                           \
    switch (format) {                                                                              \
    case CK_FORMAT_F32: FOR_ELEMENT(call, element, CK_FORMAT_F32) break;                           \
    case CK_FORMAT_BF16: FOR_ELEMENT(call, element, CK_FORMAT_BF16) break;                         \
    default: FOR_ELEMENT(call, element, CK_FORMAT_INT8) break;                                     \
    }

static void CK_PACK(shrink)(const ck_factor *a, size_t rank_start, size_t rank_count,
                            uint8_t *packed, float *scales) {
#define CALL(element, format)                                                                      \
    CK_PACK(shrink_ranks)(a, element, rank_start, rank_count, format, packed, scales)
    FOR_TYPES(CALL, a->element, a->format)
#undef CALL
}

static void CK_PACK(expand)(const ck_factor *b, uint8_t *packed, float *scales) {
#define CALL(element, format) CK_PACK(expand_panels)(b, element, format, packed, scales)
    FOR_TYPES(CALL, b->element, b->format)
#undef CALL
}

/// Whether no f32 or 16-bit element has all bits of the exponent set.
static bool CK_PACK(is_finite)(const uint8_t *src, ck_element element, size_t count) {
    size_t i = 0;
    uint32_t found = 0;
    if (element == CK_ELEMENT_F32) {
        for (; i < count; i++) {
            uint32_t word;
            memcpy(&word, src + i * 4, 4);
            found |= (word & 0x7f800000) == 0x7f800000;
        }
    } else {
        const uint16_t exponent = element == CK_ELEMENT_F16 ? 0x7c00 : 0x7f80;
        uint16_t any = 0;
        for (; i < count; i++) {
            uint16_t half;
            memcpy(&half, src + i * 2, 2);
            any |= (half & exponent) == exponent;
        }
        found = any;
    }
    return !found;
}

#undef FOR_TYPES
#undef FOR_ELEMENT
#undef GROUP
