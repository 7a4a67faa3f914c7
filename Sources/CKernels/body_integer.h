// Matmul over int8 and int4 panels with quantized rows. Included once per level, after body_matmul.h.
//
// Integer sums are exact, so that they are the same at every level and in every order; the sums of
// a group of 32 inputs are scaled and added to f32 in the order of the groups.

/// Quads of inputs (four bytes of a lane) in a group that shares a scale.
#define CK_GROUP_QUADS (CK_GROUP / 4)

/// sum[lane] += Σ_{i<4} w[lane].byte[i] · a[lane].byte[i], w unsigned, a signed.
CK_INLINE i16 dot_bytes(i16 sum, u16 w, i16 a) {
#if CK_VNNI
    return (i16)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)a);
#elif CK_AVX512
    // Bytes 0 and 2, then 1 and 3, as pairs of 16-bit numbers.
    __m512i even = _mm512_madd_epi16((__m512i)(w & 0x00ff00ffu),
                                     _mm512_srai_epi16(_mm512_slli_epi16((__m512i)a, 8), 8));
    __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16((__m512i)w, 8),
                                    _mm512_srai_epi16((__m512i)a, 8));
    return sum + (i16)even + (i16)odd;
#elif CK_AVX2
    typedef int32_t i8 __attribute__((ext_vector_type(8)));
    const __m256i low_bytes = _mm256_set1_epi16(0xff);
    i8 half[2] = {sum.lo, sum.hi};
    __m256i weights[2] = {(__m256i)w.lo, (__m256i)w.hi};
    __m256i row[2] = {(__m256i)a.lo, (__m256i)a.hi};
    CK_UNROLL for (int h = 0; h < 2; h++) {
        __m256i even = _mm256_madd_epi16(_mm256_and_si256(weights[h], low_bytes),
                                         _mm256_srai_epi16(_mm256_slli_epi16(row[h], 8), 8));
        __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(weights[h], 8),
                                        _mm256_srai_epi16(row[h], 8));
        half[h] += (i8)even + (i8)odd;
    }
    sum.lo = half[0];
    sum.hi = half[1];
    return sum;
#elif CK_I8MM
    int32x4_t parts[4];
    uint8x16_t weights[4];
    int8x16_t row[4];
    memcpy(parts, &sum, sizeof parts);
    memcpy(weights, &w, sizeof weights);
    memcpy(row, &a, sizeof row);
    CK_UNROLL for (int i = 0; i < 4; i++) parts[i] = vusdotq_s32(parts[i], weights[i], row[i]);
    memcpy(&sum, parts, sizeof parts);
    return sum;
#else
    CK_UNROLL for (int byte = 0; byte < 4; byte++)
        sum += (i16)((w >> (8 * byte)) & 0xffu) * ((a << (24 - 8 * byte)) >> 24);
    return sum;
#endif
}

/// Bytes of a panel's block of 64 inputs: the weights, then 2 × 16 scales in bf16.
CK_INLINE size_t integer_block_bytes(const ck_format format) {
    return format == CK_FORMAT_INT8 ? CK_INT8_BLOCK_BYTES : CK_INT4_BLOCK_BYTES;
}

/// ROWS rows × PANELS panels held in registers over all inputs, a block of 64 at a time.
///
/// A tile with few sums has two for each: one alone would wait for its own last product. The sums
/// are exact, so that it makes no difference to the result.
CK_INLINE void integer_tile(const int rows, const int panels, const ck_format format,
                            const tile_fetch fetch, const ck_matmul *m, tile_ahead ahead,
                            size_t row, size_t panel) {
    v16 sum[4][3];
    const ck_row_block *x[4];
    const uint8_t *w[3];
    const size_t block_bytes = integer_block_bytes(format);
    const bool splits = rows * panels <= 4 && rows * panels * 2 <= CK_INTEGER_ACCUMULATORS;
    CK_UNROLL for (int r = 0; r < rows; r++)
        x[r] = (const ck_row_block *)((const uint8_t *)m->rows + (row + r) * m->row_stride);
    size_t blocks = (m->in_features + CK_BLOCK - 1) / CK_BLOCK;
    CK_UNROLL for (int p = 0; p < panels; p++)
        w[p] = (const uint8_t *)m->weights + (panel + p) * blocks * block_bytes;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < panels; p++)
            sum[r][p] = splat(*(const float *)(x[r] + blocks));

    for (size_t block = 0; block < blocks; block++) {
        fetch_ahead(fetch, &ahead, w[0], block_bytes);
        CK_UNROLL for (int g = 0; g < CK_BLOCK / CK_GROUP; g++) {
            i16 total[4][3];
            i16 other[4][3];
            CK_UNROLL for (int r = 0; r < rows; r++)
                CK_UNROLL for (int p = 0; p < panels; p++)
                    total[r][p] = (i16)x[r][block].start[g], other[r][p] = (i16)0;
            if (format == CK_FORMAT_INT8) {
                CK_UNROLL for (int quad = 0; quad < CK_GROUP_QUADS; quad++) {
                    i16 a[4];
                    CK_UNROLL for (int r = 0; r < rows; r++)
                        a[r] = (i16)x[r][block].quads[g * CK_GROUP_QUADS + quad];
                    CK_UNROLL for (int p = 0; p < panels; p++) {
                        u16 weight = *(const u16_at *)(w[p] + g * 512 + quad * 64);
                        CK_UNROLL for (int r = 0; r < rows; r++) {
                            i16 *sum_of = quad % 2 && splits ? &other[r][p] : &total[r][p];
                            *sum_of = dot_bytes(*sum_of, weight, a[r]);
                        }
                    }
                }
            } else {
                CK_UNROLL for (int pair = 0; pair < CK_GROUP_QUADS / 2; pair++) {
                    CK_UNROLL for (int nibble = 0; nibble < 2; nibble++) {
                        i16 a[4];
                        CK_UNROLL for (int r = 0; r < rows; r++)
                            a[r] = (i16)x[r][block].quads[g * CK_GROUP_QUADS + 2 * pair + nibble];
                        CK_UNROLL for (int p = 0; p < panels; p++) {
                            u16 weight = *(const u16_at *)(w[p] + g * 256 + pair * 64);
                            weight = (weight >> (4 * nibble)) & 0x0f0f0f0fu;
                            CK_UNROLL for (int r = 0; r < rows; r++) {
                                i16 *sum_of = nibble && splits ? &other[r][p] : &total[r][p];
                                *sum_of = dot_bytes(*sum_of, weight, a[r]);
                            }
                        }
                    }
                }
            }
            CK_UNROLL for (int p = 0; p < panels; p++) {
                const uint8_t *scales = w[p] + block_bytes - 64 + g * 32;
                v16 of_weights = widen_bf16(*(const h16_at *)scales);
                CK_UNROLL for (int r = 0; r < rows; r++) {
                    i16 both = splits ? total[r][p] + other[r][p] : total[r][p];
                    i16 of_row = (i16)x[r][block].scale[g];
                    v16 scale = format == CK_FORMAT_INT8 ? of_weights * (v16)of_row
                                                         : (v16)((i16)of_weights + of_row);
                    sum[r][p] = fma16(__builtin_convertvector(both, v16), scale, sum[r][p]);
                }
            }
        }
        CK_UNROLL for (int p = 0; p < panels; p++) w[p] += block_bytes;
    }

    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < panels; p++)
            store_y(m, row + r, panel + p, sum[r][p], true);
}

#define CK_TILE_OF(R, P, FETCH)                                                                \
    if (m->format == CK_FORMAT_INT8)                                                           \
        integer_tile(R, P, CK_FORMAT_INT8, FETCH, m, ahead, row, panel);                       \
    else                                                                                       \
        integer_tile(R, P, CK_FORMAT_INT4, FETCH, m, ahead, row, panel);
#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if ((R) * (P) <= CK_INTEGER_ACCUMULATORS) {                                            \
            if (fetch == CK_FETCH_NEXT) {                                                      \
                CK_TILE_OF(R, P, CK_FETCH_NEXT)                                                \
            } else {                                                                           \
                CK_TILE_OF(R, P, CK_FETCH_NOTHING)                                             \
            }                                                                                  \
        }                                                                                      \
        break;
#define CK_STREAM(R)                                                                           \
    case (R) * 16 + 1:                                                                         \
        if ((R) <= CK_INTEGER_ACCUMULATORS) {                                                  \
            if (fetch == CK_FETCH_STREAM) {                                                    \
                CK_TILE_OF(R, 1, CK_FETCH_STREAM)                                              \
            } else {                                                                           \
                CK_TILE_OF(R, 1, CK_FETCH_NOTHING)                                             \
            }                                                                                  \
        }                                                                                      \
        break;

static void integer_tile_of(size_t rows, size_t panels, tile_fetch fetch, const ck_matmul *m,
                            tile_ahead ahead, size_t row, size_t panel) {
    switch (rows * 16 + panels) {
        CK_STREAM(1) CK_STREAM(2) CK_STREAM(3) CK_STREAM(4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2)
        CK_TILE(1, 3) CK_TILE(2, 3) CK_TILE(3, 3) CK_TILE(4, 3)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE
#undef CK_STREAM
#undef CK_TILE_OF
