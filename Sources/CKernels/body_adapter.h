// Segmented adapter operators for one segment. Included once per level, after vector.h.

#include "operands.h"

/// Bytes of a factor that are fetched ahead for a row alone, which waits for memory.
#define CK_FACTOR_AHEAD 2176
/// Prepared inputs that a tile of rows has on the stack: some rows' part, or one long row.
#define CK_SHRINK_INPUTS 12288
/// Ranks whose sums wait while the parts of long rows pass.
#define CK_SHRINK_BLOCK 64

/// Whether tiles of this width are compiled: where there are many registers, not every one, since
/// a level's code is all tiles of all formats.
#define CK_WIDTH(P) (CK_MAX_ACCUMULATORS >= 24 ? (P) != 2 : (P) != 8)

/// The widest that so many rows of accumulators leave room for.
CK_INLINE size_t fitting_width(size_t rows, size_t available, size_t accumulators) {
    for (size_t width = 8; width > 1; width /= 2)
        if (CK_WIDTH(width) && width * rows <= accumulators && width <= available) return width;
    return 1;
}

/// Some inputs of a tile's rows, prepared, and where their sums wait.
typedef struct shrink_part {
    const uint8_t *x;
    size_t row_bytes;
    size_t steps;                // vectors of A per rank
    size_t first_step;
    bool is_first;
    bool is_last;
    const float *steps_of_words; // per row, int8 only
    v16 (*sums)[CK_SHRINK_BLOCK];
} shrink_part;

/// ROWS rows × RANKS rows of A, each pair one vector accumulator over the inputs.
CK_INLINE void shrink_tile(const int rows, const int ranks, const ck_format format,
                           const ck_shrink *s, const shrink_part *in, size_t row, size_t rank,
                           size_t place) {
    v16 sum[6][8];
    const uint8_t *x[6];
    const size_t bytes = operand_bytes(format);
    const size_t x_bytes = lane_elements(format) * CK_LANES * prepared_bytes(format);
    size_t group = rank / CK_RANK_TILE * CK_RANK_TILE;
    size_t width = ck_min(s->rank - group, CK_RANK_TILE);
    const uint8_t *a = (const uint8_t *)s->a
                       + (group * s->step_count + in->first_step * width + rank - group) * bytes;
    CK_UNROLL for (int r = 0; r < rows; r++) x[r] = in->x + r * in->row_bytes;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int j = 0; j < ranks; j++)
            sum[r][j] = in->is_first ? splat(0) : in->sums[r][place + j];
    for (size_t i = 0; i < in->steps; i++) {
        lanes input[6];
        CK_UNROLL for (int r = 0; r < rows; r++)
            input[r] = load_prepared(x[r] + i * x_bytes, format);
        CK_UNROLL for (int j = 0; j < ranks; j++) {
            lanes factor = load_operand(a + (i * width + j) * bytes, format);
            if (rows == 1)
                __builtin_prefetch(a + (i * width + j) * bytes + CK_FACTOR_AHEAD, 0, 3);
            CK_UNROLL for (int r = 0; r < rows; r++)
                sum[r][j] = add_products(sum[r][j], input[r], factor, format);
        }
    }
    if (!in->is_last) {
        CK_UNROLL for (int r = 0; r < rows; r++)
            CK_UNROLL for (int j = 0; j < ranks; j++) in->sums[r][place + j] = sum[r][j];
        return;
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int j = 0; j < ranks; j++) {
            float total = sum_lanes(finish(sum[r][j], format));
            if (format == CK_FORMAT_INT8)
                total *= in->steps_of_words[r] * s->scales[rank + j];
            s->v[(row + r) * s->v_stride + rank + j] = total;
        }
}

#define CK_TILE(R, J)                                                                          \
    case (R) * 16 + (J):                                                                       \
        if (CK_WIDTH(J) && (R) <= CK_SHRINK_ROWS && (R) * (J) <= CK_SHRINK_ACCUMULATORS)       \
            shrink_tile(R, J, format, s, in, row, rank, place);                                \
        break;

CK_INLINE void shrink_tile_of(size_t rows, size_t ranks, const ck_format format,
                              const ck_shrink *s, const shrink_part *in, size_t row, size_t rank,
                              size_t place) {
    switch (rows * 16 + ranks) {
        CK_TILE(1, 8) CK_TILE(2, 8) CK_TILE(3, 8)
        CK_TILE(1, 4) CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1) CK_TILE(5, 1) CK_TILE(6, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE

/// A tile of rows over all inputs and up to CK_SHRINK_BLOCK ranks.
CK_INLINE void shrink_rows(const ck_format format, const ck_shrink *s, size_t rank_start,
                           size_t rank_end, size_t row, size_t rows) {
    _Alignas(64) uint8_t x[CK_SHRINK_INPUTS * 4 + 6 * 64];
    v16 sums[6][CK_SHRINK_BLOCK];
    word_scale words[6] = {{0, 0}};
    float steps_of_words[6];
    const size_t step = lane_elements(format) * CK_LANES;
    if (format == CK_FORMAT_INT8)
        for (size_t r = 0; r < rows; r++) {
            const float *from = s->x + (row + r) * s->x_stride;
            words[r] = scale_words(largest_magnitude(from, s->in_features),
                                   word_limit(2 * s->step_count));
            steps_of_words[r] = words[r].step;
        }
    // The extra line keeps rows from falling into the same cache sets.
    size_t most = CK_SHRINK_INPUTS / rows / 32 * 32;
    size_t row_bytes = ck_min(most, (s->in_features + 31) / 32 * 32) * prepared_bytes(format) + 64;
    shrink_part in = {.x = x, .row_bytes = row_bytes, .steps_of_words = steps_of_words,
                      .sums = sums};
    for (size_t i = 0; i < s->in_features; i += most) {
        size_t count = ck_min(most, s->in_features - i);
        for (size_t r = 0; r < rows; r++)
            prepare_apart(s->x + (row + r) * s->x_stride + i, count, format, words[r].inverse,
                          x + r * row_bytes);
        in.first_step = i / step;
        in.steps = (count + step - 1) / step;
        in.is_first = i == 0;
        in.is_last = i + count == s->in_features;
        for (size_t rank = rank_start; rank < rank_end;) {
            size_t left = CK_RANK_TILE - rank % CK_RANK_TILE;
            size_t ranks =
                fitting_width(rows, ck_min(left, rank_end - rank), CK_SHRINK_ACCUMULATORS);
            shrink_tile_of(rows, ranks, format, s, &in, row, rank, rank - rank_start);
            rank += ranks;
        }
    }
}

CK_INLINE void shrink_as(const ck_format format, const ck_shrink *s, size_t rank_start,
                         size_t rank_end, size_t row_start, size_t row_end) {
    for (size_t row = row_start; row < row_end;) {
        size_t rows = tile_rows(row_end - row, CK_SHRINK_ROWS);
        for (size_t rank = rank_start; rank < rank_end; rank += CK_SHRINK_BLOCK)
            shrink_rows(format, s, rank, ck_min(rank + CK_SHRINK_BLOCK, rank_end), row, rows);
        row += rows;
    }
}

static void shrink(const ck_shrink *s, size_t rank_start, size_t rank_end, size_t row_start,
                   size_t row_end) {
    if (s->format == CK_FORMAT_F32)
        shrink_as(CK_FORMAT_F32, s, rank_start, rank_end, row_start, row_end);
    else if (s->format == CK_FORMAT_BF16)
        shrink_as(CK_FORMAT_BF16, s, rank_start, rank_end, row_start, row_end);
    else
        shrink_as(CK_FORMAT_INT8, s, rank_start, rank_end, row_start, row_end);
}

/// A tile's rows of v, prepared.
typedef struct expand_rows {
    const uint8_t *v;
    size_t row_bytes;
    const float *factors;        // per row: scale, for int8 times the step of the row's words
} expand_rows;

/// ROWS rows × WIDTH panels of B held in registers over the ranks.
CK_INLINE void expand_tile(const int rows, const int width, const ck_format format,
                           const ck_expand *e, const expand_rows *in, size_t row, size_t panel) {
    v16 sum[6][8];
    const uint8_t *v[6];
    const uint8_t *b[8];
    const size_t bytes = operand_bytes(format);
    const size_t element = lane_elements(format);
    size_t steps = (e->rank + element - 1) / element;
    CK_UNROLL for (int r = 0; r < rows; r++) v[r] = in->v + r * in->row_bytes;
    CK_UNROLL for (int p = 0; p < width; p++)
        b[p] = (const uint8_t *)e->b + (panel + p) * steps * bytes;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < width; p++) sum[r][p] = splat(0);
    for (size_t j = 0; j < steps; j++) {
        lanes factor[8];
        CK_UNROLL for (int p = 0; p < width; p++) {
            factor[p] = load_operand(b[p] + j * bytes, format);
            if (rows == 1) __builtin_prefetch(b[p] + j * bytes + CK_FACTOR_AHEAD, 0, 3);
        }
        CK_UNROLL for (int r = 0; r < rows; r++) {
            lanes input = splat_prepared(v[r] + j * element * prepared_bytes(format), format);
            CK_UNROLL for (int p = 0; p < width; p++)
                sum[r][p] = add_products(sum[r][p], input, factor[p], format);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++) {
        v16 scale = splat(in->factors[r]);
        CK_UNROLL for (int p = 0; p < width; p++) {
            size_t column = (panel + p) * CK_LANES;
            float *y = e->y + (row + r) * e->y_stride + column;
            v16 total = finish(sum[r][p], format);
            if (column + CK_LANES <= e->out_features) {
                store16(y, fma16(scale, total, load16(y)));
            } else {
                size_t part = e->out_features - column;
                store_part(y, fma16(scale, total, load_part(y, part)), part);
            }
        }
    }
}

#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if (CK_WIDTH(P) && (R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS)             \
            expand_tile(R, P, format, e, in, row, panel);                                      \
        break;

CK_INLINE void expand_tile_of(size_t rows, size_t width, const ck_format format,
                              const ck_expand *e, const expand_rows *in, size_t row,
                              size_t panel) {
    switch (rows * 16 + width) {
        CK_TILE(2, 8) CK_TILE(3, 8)
        CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
        CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1) CK_TILE(5, 1) CK_TILE(6, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE

/// Prepares one row of v; returns the factor of its sums.
CK_INLINE float prepare_v(const ck_format format, const ck_expand *e, size_t row, uint8_t *out) {
    const float *v = e->v + row * e->v_stride;
    if (format != CK_FORMAT_INT8) {
        prepare(v, e->rank, format, 0, out);
        return e->scale;
    }
    // B's scales are the ranks': they go into v.
    float scaled[CK_MAX_RANK];
    for (size_t j = 0; j < e->rank; j++) scaled[j] = v[j] * e->scales[j];
    word_scale words =
        scale_words(largest_magnitude(scaled, e->rank), word_limit((e->rank + 1) / 2 * 2));
    prepare(scaled, e->rank, format, words.inverse, out);
    return e->scale * words.step;
}

CK_INLINE void expand_as(const ck_format format, const ck_expand *e, size_t panel_start,
                         size_t panel_end, size_t row_start, size_t row_end) {
    _Alignas(64) uint8_t v[CK_MAX_ROWS * (CK_MAX_RANK * 4 + 64)];
    float factors[CK_MAX_ROWS];
    size_t row_bytes = (e->rank + 31) / 32 * 32 * prepared_bytes(format) + 64;
    expand_rows in = {v, row_bytes, factors};
    for (size_t row = row_start; row < row_end;) {
        size_t rows = tile_rows(row_end - row, CK_MAX_ROWS);
        for (size_t r = 0; r < rows; r++)
            factors[r] = prepare_v(format, e, row + r, v + r * row_bytes);
        for (size_t panel = panel_start; panel < panel_end;) {
            // A row alone waits for memory: panels one after the other are one long stream.
            size_t width =
                rows == 1 ? 1 : fitting_width(rows, panel_end - panel, CK_MAX_ACCUMULATORS);
            expand_tile_of(rows, width, format, e, &in, row, panel);
            panel += width;
        }
        row += rows;
    }
}

static void expand(const ck_expand *e, size_t panel_start, size_t panel_end, size_t row_start,
                   size_t row_end) {
    if (e->format == CK_FORMAT_F32)
        expand_as(CK_FORMAT_F32, e, panel_start, panel_end, row_start, row_end);
    else if (e->format == CK_FORMAT_BF16)
        expand_as(CK_FORMAT_BF16, e, panel_start, panel_end, row_start, row_end);
    else
        expand_as(CK_FORMAT_INT8, e, panel_start, panel_end, row_start, row_end);
}
