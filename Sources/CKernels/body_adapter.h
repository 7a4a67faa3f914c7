// Segmented adapter operators for one segment. Included once per level, after body_matmul.h.

/// ROWS rows × RANKS rows of A, each pair one vector accumulator over the inputs.
CK_INLINE void shrink_tile(const int rows, const int ranks, const ck_format format,
                           const ck_shrink *s, size_t row, size_t rank) {
    v16 sum[4][8];
    const float *x[4];
    size_t count = s->in_features;
    CK_UNROLL for (int r = 0; r < rows; r++) x[r] = s->x + (row + r) * s->x_stride;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int j = 0; j < ranks; j++) sum[r][j] = splat(0);
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES) {
        v16 in[4];
        CK_UNROLL for (int r = 0; r < rows; r++) in[r] = load16(x[r] + i);
        CK_UNROLL for (int j = 0; j < ranks; j++) {
            v16 factor = load_as(s->a, (rank + j) * count + i, format);
            CK_UNROLL for (int r = 0; r < rows; r++) sum[r][j] = fma16(in[r], factor, sum[r][j]);
        }
    }
    if (i < count) {
        v16 in[4];
        CK_UNROLL for (int r = 0; r < rows; r++) in[r] = load_part(x[r] + i, count - i);
        CK_UNROLL for (int j = 0; j < ranks; j++) {
            v16 factor = load_part_as(s->a, (rank + j) * count + i, count - i, format);
            CK_UNROLL for (int r = 0; r < rows; r++) sum[r][j] = fma16(in[r], factor, sum[r][j]);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int j = 0; j < ranks; j++)
            s->v[(row + r) * s->v_stride + rank + j] = sum_lanes(sum[r][j]);
}

#define CK_TILE(R, J)                                                                          \
    case (R) * 16 + (J):                                                                       \
        if ((R) <= CK_SHRINK_ROWS && (R) * (J) <= CK_SHRINK_ACCUMULATORS) {                    \
            if (s->format == CK_FORMAT_F32) shrink_tile(R, J, CK_FORMAT_F32, s, row, rank);    \
            else shrink_tile(R, J, CK_FORMAT_BF16, s, row, rank);                              \
        }                                                                                      \
        break;

static void shrink_tile_of(size_t rows, size_t ranks, const ck_shrink *s, size_t row,
                           size_t rank) {
    switch (rows * 16 + ranks) {
        CK_TILE(1, 8) CK_TILE(2, 8)
        CK_TILE(1, 4) CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE

static void shrink(const ck_shrink *s, size_t rank_start, size_t rank_end, size_t row_start,
                   size_t row_end) {
    size_t tallest = tile_rows(row_end - row_start, CK_SHRINK_ROWS);
    for (size_t rank = rank_start; rank < rank_end;) {
        size_t ranks = 8;
        while (ranks > 1
               && (ranks * tallest > CK_SHRINK_ACCUMULATORS || ranks > rank_end - rank))
            ranks /= 2;
        for (size_t row = row_start; row < row_end;) {
            size_t rows = tile_rows(row_end - row, CK_SHRINK_ROWS);
            shrink_tile_of(rows, ranks, s, row, rank);
            row += rows;
        }
        rank += ranks;
    }
}

/// Most columns of y that expand_row sums at a time.
#define CK_EXPAND_RUN 2048

/// ROWS rows × WIDTH vectors of columns held in registers over the ranks. `part` is the number of
/// columns of a last, narrower vector; 0 for whole ones.
CK_INLINE void expand_tile(const int rows, const int width, const ck_format format,
                           const ck_expand *e, size_t row, size_t column, size_t part) {
    v16 sum[6][8];
    const float *v[6];
    CK_UNROLL for (int r = 0; r < rows; r++) v[r] = e->v + (row + r) * e->v_stride;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < width; p++) sum[r][p] = splat(0);
    for (size_t j = 0; j < e->rank; j++) {
        CK_UNROLL for (int p = 0; p < width; p++) {
            size_t index = j * e->out_features + column + (size_t)p * CK_LANES;
            v16 factor = part ? load_part_as(e->b, index, part, format)
                              : load_as(e->b, index, format);
            CK_UNROLL for (int r = 0; r < rows; r++)
                sum[r][p] = fma16(splat(v[r][j]), factor, sum[r][p]);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++) {
        CK_UNROLL for (int p = 0; p < width; p++) {
            float *y = e->y + (row + r) * e->y_stride + column + p * CK_LANES;
            if (part) store_part(y, fma16(splat(e->scale), sum[r][p], load_part(y, part)), part);
            else store16(y, fma16(splat(e->scale), sum[r][p], load16(y)));
        }
    }
}

#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if ((R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS) {                          \
            if (e->format == CK_FORMAT_F32) expand_tile(R, P, CK_FORMAT_F32, e, row, column, 0);\
            else expand_tile(R, P, CK_FORMAT_BF16, e, row, column, 0);                         \
        }                                                                                      \
        break;

static void expand_tile_of(size_t rows, size_t width, const ck_expand *e, size_t row,
                           size_t column) {
    switch (rows * 16 + width) {
        CK_TILE(1, 8) CK_TILE(2, 8) CK_TILE(3, 8)
        CK_TILE(1, 4) CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1) CK_TILE(5, 1) CK_TILE(6, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE

/// One row over a long run of whole vectors: B's rows are read as few long streams, four at a
/// time, and the sums wait in the first-level cache. The order of an element's chain is as in
/// expand_tile.
CK_INLINE void expand_row(const ck_format format, const ck_expand *e, size_t row, size_t column,
                          size_t count) {
    _Alignas(64) float sum[CK_EXPAND_RUN];
    const float *v = e->v + row * e->v_stride;
    float *y = e->y + row * e->y_stride + column;
    memset(sum, 0, count * sizeof(float));
    size_t j = 0;
    for (; j + 4 <= e->rank; j += 4) {
        size_t index = j * e->out_features + column;
        for (size_t c = 0; c < count; c += CK_LANES) {
            v16 s = load16(sum + c);
            CK_UNROLL for (int i = 0; i < 4; i++)
                s = fma16(splat(v[j + i]), load_as(e->b, index + i * e->out_features + c, format),
                          s);
            store16(sum + c, s);
        }
    }
    for (; j < e->rank; j++)
        for (size_t c = 0; c < count; c += CK_LANES)
            store16(sum + c, fma16(splat(v[j]),
                                   load_as(e->b, j * e->out_features + column + c, format),
                                   load16(sum + c)));
    for (size_t c = 0; c < count; c += CK_LANES)
        store16(y + c, fma16(splat(e->scale), load16(sum + c), load16(y + c)));
}

static void expand(const ck_expand *e, size_t column_start, size_t column_end, size_t row_start,
                   size_t row_end) {
    if (row_end - row_start == 1) {
        while (column_end - column_start >= CK_LANES) {
            size_t count = ck_min(column_end - column_start, CK_EXPAND_RUN) / CK_LANES * CK_LANES;
            if (e->format == CK_FORMAT_F32)
                expand_row(CK_FORMAT_F32, e, row_start, column_start, count);
            else
                expand_row(CK_FORMAT_BF16, e, row_start, column_start, count);
            column_start += count;
        }
    }
    size_t tallest = tile_rows(row_end - row_start, CK_MAX_ROWS);
    for (size_t column = column_start; column < column_end;) {
        size_t whole = (column_end - column) / CK_LANES;
        size_t part = whole ? 0 : column_end - column;
        size_t width = tile_width(tallest, ck_max(whole, 1));
        for (size_t row = row_start; row < row_end;) {
            if (part) {
                if (e->format == CK_FORMAT_F32)
                    expand_tile(1, 1, CK_FORMAT_F32, e, row, column, part);
                else
                    expand_tile(1, 1, CK_FORMAT_BF16, e, row, column, part);
                row += 1;
            } else {
                size_t rows = tile_rows(row_end - row, CK_MAX_ROWS);
                expand_tile_of(rows, width, e, row, column);
                row += rows;
            }
        }
        column += part ? part : width * CK_LANES;
    }
}
