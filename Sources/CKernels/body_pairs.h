// Matmul over bf16 panels with rows of bf16, for levels that have its dot product. Included after
// body_matmul.h.

#if CK_BF16

#define CK_PAIR_ROWS 6
#define CK_PAIR_ACCUMULATORS 24

/// ROWS rows × PANELS panels held in registers over all inputs, two at a time.
CK_INLINE void pair_tile(const int rows, const int panels, const tile_fetch fetch,
                         const ck_matmul *m, tile_ahead ahead, size_t row, size_t panel) {
    v16 sum[6][4];
    const float *x[6];
    const uint8_t *w[4];
    CK_UNROLL for (int r = 0; r < rows; r++)
        x[r] = (const float *)((const uint8_t *)m->rows + (row + r) * m->row_stride);
    size_t pairs = (m->in_features + 1) / 2;
    CK_UNROLL for (int p = 0; p < panels; p++)
        w[p] = (const uint8_t *)m->weights + (panel + p) * pairs * 64;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < panels; p++) sum[r][p] = splat(0);
    for (size_t k = 0; k < pairs; k++) {
        v16 weight[4];
        CK_UNROLL for (int p = 0; p < panels; p++)
            weight[p] = load16((const float *)(w[p] + k * 64));
        fetch_ahead(fetch, &ahead, w[0] + k * 64, 64);
        CK_UNROLL for (int r = 0; r < rows; r++) {
            v16 in = splat(x[r][k]);  // a pair of bf16
            CK_UNROLL for (int p = 0; p < panels; p++)
                sum[r][p] = (v16)_mm512_dpbf16_ps((__m512)sum[r][p], (__m512bh)in,
                                                  (__m512bh)weight[p]);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < panels; p++)
            store_y(m, row + r, panel + p, sum[r][p], true);
}

#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if (fetch == CK_FETCH_NEXT) pair_tile(R, P, CK_FETCH_NEXT, m, ahead, row, panel);      \
        else pair_tile(R, P, CK_FETCH_NOTHING, m, ahead, row, panel);                          \
        break;
#define CK_STREAM(R)                                                                           \
    case (R) * 16 + 1:                                                                         \
        if (fetch == CK_FETCH_STREAM) pair_tile(R, 1, CK_FETCH_STREAM, m, ahead, row, panel);  \
        else pair_tile(R, 1, CK_FETCH_NOTHING, m, ahead, row, panel);                          \
        break;

static void pair_tile_of(size_t rows, size_t panels, tile_fetch fetch, const ck_matmul *m,
                         tile_ahead ahead, size_t row, size_t panel) {
    switch (rows * 16 + panels) {
        CK_STREAM(1) CK_STREAM(2) CK_STREAM(3) CK_STREAM(4) CK_STREAM(5) CK_STREAM(6)
        CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(3, 3) CK_TILE(4, 3) CK_TILE(5, 3) CK_TILE(6, 3)
        CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE
#undef CK_STREAM

#endif
