// What adapter factors, keys and values have in common: operands in f32, bf16 or int8 that meet a
// row of activations. A row is first prepared, in scratch memory, into the form in which the
// format's products take it:
//
//   format  level      row                    sum of products
//   f32     all        f32                    f32, one fused multiply-add
//   bf16    CK_BF16    bf16                   f32, the dot product of a pair in one instruction
//   bf16    others     f32                    f32, the pair one after the other
//   int8    all        int16 and one step     int32, exact, so the same on all levels
//
// bf16 and int8 come in pairs: a lane of 32 bits of the row meets two elements of the operand.
// Included once per level, after vector.h.

typedef int16_t word32 __attribute__((ext_vector_type(32)));
typedef int16_t word16 __attribute__((ext_vector_type(16)));
typedef int8_t byte32_at __attribute__((ext_vector_type(32), aligned(1), may_alias));

/// Elements of the operand that one lane meets at a time.
CK_INLINE size_t lane_elements(const ck_format format) { return format == CK_FORMAT_F32 ? 1 : 2; }

/// Bytes of an operand's vector: 16 lanes of 1 or 2 elements.
CK_INLINE size_t operand_bytes(const ck_format format) {
    return format == CK_FORMAT_INT8 ? 32 : 64;
}

/// 16 lanes of an operand or of a prepared row. `second` only where a pair takes two steps.
typedef struct lanes {
    v16 first;
    v16 second;
} lanes;

#if CK_BF16
#define CK_STEPS_BF16 1
#else
#define CK_STEPS_BF16 2
#endif

CK_INLINE lanes load_operand(const uint8_t *p, const ck_format format) {
    lanes result = {splat(0), splat(0)};
    if (format == CK_FORMAT_F32) {
        result.first = load16((const float *)p);
    } else if (format == CK_FORMAT_BF16) {
        u16 pair = *(const u16_at *)p;
        result.first = CK_STEPS_BF16 == 1 ? (v16)pair : (v16)(pair << 16);
        if (CK_STEPS_BF16 == 2) result.second = (v16)(pair & 0xffff0000u);
    } else {
        result.first = (v16)__builtin_convertvector(*(const byte32_at *)p, word32);
    }
    return result;
}

/// sum + a · b over 16 lanes of pairs of int16, in int32.
CK_INLINE v16 add_word_products(v16 sum, v16 a, v16 b) {
#if CK_VNNI
    return (v16)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif CK_AVX512
    return (v16)((i16)sum + (i16)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#else
    i16 x = (i16)a, y = (i16)b;
    i16 low = ((x << 16) >> 16) * ((y << 16) >> 16);
    return (v16)((i16)sum + low + (x >> 16) * (y >> 16));
#endif
}

/// sum + row · operand, lane by lane.
CK_INLINE v16 add_products(v16 sum, lanes row, lanes operand, const ck_format format) {
    if (format == CK_FORMAT_INT8) return add_word_products(sum, row.first, operand.first);
#if CK_BF16
    if (format == CK_FORMAT_BF16)
        return (v16)_mm512_dpbf16_ps((__m512)sum, (__m512bh)row.first, (__m512bh)operand.first);
#else
    if (format == CK_FORMAT_BF16)
        return fma16(row.second, operand.second, fma16(row.first, operand.first, sum));
#endif
    return fma16(row.first, operand.first, sum);
}

/// A finished sum as f32: as it is, or converted from int32.
CK_INLINE v16 finish(v16 sum, const ck_format format) {
    return format == CK_FORMAT_INT8 ? __builtin_convertvector((i16)sum, v16) : sum;
}

// Prepared rows.

/// The largest int16 that `count` products with int8 cannot overflow in int32.
CK_INLINE float word_limit(size_t count) {
    size_t most = INT32_MAX / (127 * ck_max(count, 1));
    return (float)ck_min(most, INT16_MAX);
}

/// The largest |x[i]|; NaN counts as 0.
CK_INLINE float largest_magnitude(const float *x, size_t count) {
    v16 most = splat(0);
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES)
        most = larger((v16)((u16)load16(x + i) & 0x7fffffffu), most);
    if (i < count) most = larger((v16)((u16)load_part(x + i, count - i) & 0x7fffffffu), most);
    return max_lanes(most);
}

/// How a row of f32 becomes int16: rounded multiples of `step`, which is 1 / `inverse`.
typedef struct word_scale {
    float step;
    float inverse;
} word_scale;

CK_INLINE word_scale scale_words(float largest, float limit) {
    // Below that the reciprocal would be infinite.
    if (!(largest > 0x1p-100f)) return (word_scale){0, 0};
    return (word_scale){largest / limit, limit / largest};
}

/// 32 floats as 32 bf16, in order.
CK_INLINE v16 narrow_pair(v16 low, v16 high) {
#if CK_BF16
    return (v16)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#else
    (void)high;
    return low;
#endif
}

CK_INLINE v16 narrow_words(v16 low, v16 high, float inverse) {
    word16 a = __builtin_convertvector(round_lanes(low * splat(inverse)), word16);
    word16 b = __builtin_convertvector(round_lanes(high * splat(inverse)), word16);
    return (v16)__builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
                                        31);
}

/// Bytes of a prepared element.
CK_INLINE size_t prepared_bytes(const ck_format format) {
    if (format == CK_FORMAT_INT8) return 2;
    return format == CK_FORMAT_BF16 && CK_STEPS_BF16 == 1 ? 2 : 4;
}

/// Prepares a row whose elements stay in their order, padded with zeros to a multiple of 32.
CK_INLINE void prepare(const float *x, size_t count, const ck_format format, float inverse,
                       uint8_t *out) {
    for (size_t i = 0; i < count; i += 2 * CK_LANES) {
        v16 low = load_some(x, i, count), high = load_some(x, i + CK_LANES, count);
        uint8_t *to = out + i * prepared_bytes(format);
        if (format == CK_FORMAT_INT8) {
            store16((float *)to, narrow_words(low, high, inverse));
        } else if (format == CK_FORMAT_BF16 && CK_STEPS_BF16 == 1) {
            store16((float *)to, narrow_pair(low, high));
        } else {
            store16((float *)to, low);
            store16((float *)to + CK_LANES, high);
        }
    }
}

/// As `prepare`, but f32 that meets bf16 has the even and the odd elements of each 32 apart.
CK_INLINE void prepare_apart(const float *x, size_t count, const ck_format format, float inverse,
                             uint8_t *out) {
    if (format != CK_FORMAT_BF16 || CK_STEPS_BF16 == 1) {
        prepare(x, count, format, inverse, out);
        return;
    }
    for (size_t i = 0; i < count; i += 2 * CK_LANES) {
        v16 low = load_some(x, i, count), high = load_some(x, i + CK_LANES, count);
        float *to = (float *)out + i;
        store16(to, __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22,
                                            24, 26, 28, 30));
        store16(to + CK_LANES, __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15, 17,
                                                       19, 21, 23, 25, 27, 29, 31));
    }
}

/// The next 16 lanes of a row from `prepare_apart`.
CK_INLINE lanes load_prepared(const uint8_t *p, const ck_format format) {
    lanes result = {load16((const float *)p), splat(0)};
    if (format == CK_FORMAT_BF16 && CK_STEPS_BF16 == 2)
        result.second = load16((const float *)p + CK_LANES);
    return result;
}

/// The elements of a row from `prepare` that one lane meets, in all 16 lanes.
CK_INLINE lanes splat_prepared(const uint8_t *p, const ck_format format) {
    const float *x = (const float *)p;
    lanes result = {splat(x[0]), splat(0)};
    if (format == CK_FORMAT_BF16 && CK_STEPS_BF16 == 2) result.second = splat(x[1]);
    return result;
}
