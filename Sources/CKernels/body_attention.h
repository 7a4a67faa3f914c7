// Paged attention for one KV head and a run of query rows. Included once per level, after
// body_matmul.h.

/// Query vectors (rows × heads of the group) that pass over the KV blocks together.
#define CK_QUERIES 64
/// KV blocks whose scores are computed together. Does not change any bits.
#define CK_SCORE_BLOCKS 4

/// State of the query vectors that share one pass.
typedef struct query_tile {
    size_t count;
    const float *q[CK_QUERIES];
    float *out[CK_QUERIES];        // the accumulator, then the result
    size_t low[CK_QUERIES];        // first and past-last position seen
    size_t high[CK_QUERIES];
    float largest[CK_QUERIES];     // of the scores so far
    float total[CK_QUERIES];       // Σ exp(score - largest) so far
    float rescale[CK_QUERIES];     // factor for the accumulator before this block
    float scores[CK_QUERIES][CK_SCORE_BLOCKS * CK_LANES];
} query_tile;

CK_INLINE const uint8_t *block_at(const ck_attention *a, size_t block) {
    return a->arena + (size_t)a->block_table[block] * a->block_byte_count;
}

CK_INLINE size_t head_byte_count(const ck_attention *a) {
    return a->head_dim * CK_LANES * (a->format == CK_FORMAT_F32 ? 4 : 2);
}

/// scores[m][p] = q[m] · keys of block p, for 16 tokens each.
///
/// A head's keys in a block are too short a run for the hardware's prefetcher: while they are read
/// the block's values, `ahead`, are fetched line by line, and while values are read the keys of a
/// block further on: to the second-level cache, since blocks lie a power of two apart and would
/// push each other out of the first.
CK_INLINE void score_tile(const int rows, const int blocks, const ck_format format,
                          const ck_attention *a, query_tile *t, size_t first,
                          const uint8_t *const *keys, ptrdiff_t ahead, size_t place) {
    const size_t step = format == CK_FORMAT_F32 ? 64 : 32;
    v16 sum[6][4];
    const float *q[6];
    const uint8_t *k[4];
    CK_UNROLL for (int r = 0; r < rows; r++) q[r] = t->q[first + r];
    CK_UNROLL for (int p = 0; p < blocks; p++) k[p] = keys[p];
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < blocks; p++) sum[r][p] = splat(0);
    for (size_t d = 0; d < a->head_dim; d++) {
        CK_UNROLL for (int p = 0; p < blocks; p++) {
            v16 key = load_as(k[p], d * CK_LANES, format);
            __builtin_prefetch(k[p] + ahead + d * step, 0, 2);
            CK_UNROLL for (int r = 0; r < rows; r++)
                sum[r][p] = fma16(splat(q[r][d]), key, sum[r][p]);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < blocks; p++)
            store16(&t->scores[first + r][place + (size_t)p * CK_LANES], sum[r][p]);
}

/// The tokens of one block that a run of queries sees.
typedef struct value_run {
    const uint8_t *values;
    const uint8_t *ahead;          // what is read some blocks later, fetched on the way
    size_t place;                  // of the block's weights in `scores`
    size_t from;
    size_t to;
} value_run;

/// out[m] = out[m] · rescale[m] + Σ_token p[m][token] · V[token], columns d on.
CK_INLINE void value_tile(const int rows, const int width, const ck_format format,
                          const ck_attention *a, query_tile *t, size_t first,
                          const value_run *run, size_t d, size_t part) {
    const size_t element = format == CK_FORMAT_F32 ? 4 : 2;
    v16 sum[6][8];
    float *out[6];
    const float *p[6];
    CK_UNROLL for (int r = 0; r < rows; r++) {
        out[r] = t->out[first + r] + d;
        p[r] = &t->scores[first + r][run->place];
        v16 factor = splat(t->rescale[first + r]);
        CK_UNROLL for (int c = 0; c < width; c++)
            sum[r][c] = (part ? load_part(out[r], part) : load16(out[r] + c * CK_LANES)) * factor;
    }
    for (size_t token = run->from; token < run->to; token++) {
        CK_UNROLL for (int c = 0; c < width; c++) {
            size_t index = token * a->head_dim + d + (size_t)c * CK_LANES;
            v16 value = part ? load_part_as(run->values, index, part, format)
                             : load_as(run->values, index, format);
            __builtin_prefetch(run->ahead + index * element, 0, 2);
            CK_UNROLL for (int r = 0; r < rows; r++)
                sum[r][c] = fma16(splat(p[r][token]), value, sum[r][c]);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int c = 0; c < width; c++) {
            if (part) store_part(out[r], sum[r][c], part);
            else store16(out[r] + c * CK_LANES, sum[r][c]);
        }
}

#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if ((R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS) {                          \
            if (a->format == CK_FORMAT_F32)                                                    \
                score_tile(R, P, CK_FORMAT_F32, a, t, first, keys, ahead, place);              \
            else                                                                               \
                score_tile(R, P, CK_FORMAT_BF16, a, t, first, keys, ahead, place);             \
        }                                                                                      \
        break;

static void score_tile_of(size_t rows, size_t blocks, const ck_attention *a, query_tile *t,
                          size_t first, const uint8_t *const *keys, ptrdiff_t ahead,
                          size_t place) {
    switch (rows * 16 + blocks) {
        CK_TILE(1, 4) CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1) CK_TILE(5, 1) CK_TILE(6, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE
#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if ((R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS) {                          \
            if (a->format == CK_FORMAT_F32)                                                    \
                value_tile(R, P, CK_FORMAT_F32, a, t, first, run, d, 0);                       \
            else                                                                               \
                value_tile(R, P, CK_FORMAT_BF16, a, t, first, run, d, 0);                      \
        }                                                                                      \
        break;

static void value_tile_of(size_t rows, size_t width, const ck_attention *a, query_tile *t,
                          size_t first, const value_run *run, size_t d) {
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

/// Scores of `blocks` blocks from `block` on, for all queries of the tile.
static void compute_scores(const ck_attention *a, query_tile *t, size_t kv_head, size_t block,
                           size_t blocks) {
    const uint8_t *keys[CK_SCORE_BLOCKS];
    for (size_t i = 0; i < blocks; i++)
        keys[i] = block_at(a, block + i) + a->key_offset + kv_head * head_byte_count(a);
    ptrdiff_t ahead = (ptrdiff_t)a->value_offset - (ptrdiff_t)a->key_offset;
    for (size_t first = 0; first < t->count;) {
        size_t rows = tile_rows(t->count - first, CK_MAX_ROWS);
        for (size_t i = 0; i < blocks;) {
            size_t width = tile_width(rows, ck_min(blocks - i, CK_SCORE_BLOCKS));
            score_tile_of(rows, width, a, t, first, keys + i, first ? 0 : ahead, i * CK_LANES);
            i += width;
        }
        first += rows;
    }
}

/// Turns query m's scores of one block into exp(score - largest) and updates its running state.
CK_INLINE void soften(const ck_attention *a, query_tile *t, size_t m, size_t place, size_t from,
                      size_t to) {
    v16 score = load16(&t->scores[m][place]) * splat(a->scale);
    if (a->softcap > 0) {
        // softcap · tanh(score / softcap), with tanh(z) = 1 - 2 / (e^2z + 1)
        v16 twice = exp16(score * splat(2.0f / a->softcap));
        score = splat(a->softcap) * (splat(1.0f) - splat(2.0f) / (twice + splat(1.0f)));
    }
    if (from > 0 || to < CK_LANES) {
        const i16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        i16 seen = (lane >= (i16)(int32_t)from) & (lane < (i16)(int32_t)to);
        score = seen ? score : splat(-INFINITY);
    }
    float before = t->largest[m];
    float most = max_lanes(score);
    float rescale = 1.0f;
    if (most > before) {
        v16 factor = exp16(splat(before - most));
        rescale = factor.x;
        t->largest[m] = most;
    } else {
        most = before;
    }
    v16 p = exp16(score - splat(most));
    store16(&t->scores[m][place], p);
    t->total[m] = t->total[m] * rescale + sum_lanes(p);
    t->rescale[m] = rescale;
}

static void weigh_values(const ck_attention *a, query_tile *t, size_t start, size_t end,
                         const value_run *run) {
    size_t whole = a->head_dim / CK_LANES;
    size_t part = a->head_dim % CK_LANES;
    for (size_t first = start; first < end;) {
        size_t rows = tile_rows(end - first, CK_MAX_ROWS);
        for (size_t c = 0; c < whole;) {
            size_t width = tile_width(rows, whole - c);
            value_tile_of(rows, width, a, t, first, run, c * CK_LANES);
            c += width;
        }
        first += rows;
    }
    if (part == 0) return;
    for (size_t m = start; m < end; m++) {
        if (a->format == CK_FORMAT_F32)
            value_tile(1, 1, CK_FORMAT_F32, a, t, m, run, whole * CK_LANES, part);
        else
            value_tile(1, 1, CK_FORMAT_BF16, a, t, m, run, whole * CK_LANES, part);
    }
}

/// One block's online-softmax step. Each query takes exactly the tokens that it sees, whatever
/// its neighbours see: queries that see the same tokens share a tile.
///
/// `later` is the block whose keys are worth fetching meanwhile.
static void absorb_block(const ck_attention *a, query_tile *t, size_t kv_head, size_t block,
                         size_t later, size_t place) {
    size_t base = block * CK_LANES;
    size_t head = kv_head * head_byte_count(a);
    value_run run = {block_at(a, block) + a->value_offset + head,
                     block_at(a, later) + a->key_offset + head, place, 0, 0};
    for (size_t m = 0; m < t->count;) {
        run.from = t->low[m] > base ? t->low[m] - base : 0;
        run.to = t->high[m] > base ? ck_min(t->high[m] - base, CK_LANES) : 0;
        size_t end = m;
        for (; end < t->count; end++) {
            size_t from = t->low[end] > base ? t->low[end] - base : 0;
            size_t to = t->high[end] > base ? ck_min(t->high[end] - base, CK_LANES) : 0;
            if (from != run.from || to != run.to) break;
            if (from < to) soften(a, t, end, place, from, to);
        }
        if (run.from < run.to) weigh_values(a, t, m, end, &run);
        m = end;
    }
}

static void attend(const ck_attention *a, query_tile *t, size_t kv_head) {
    size_t low = SIZE_MAX, high = 0;
    for (size_t m = 0; m < t->count; m++) {
        t->largest[m] = -INFINITY;
        t->total[m] = 0;
        low = ck_min(low, t->low[m]);
        high = ck_max(high, t->high[m]);
        memset(t->out[m], 0, a->head_dim * sizeof(float));
    }
    size_t last = (high + CK_LANES - 1) / CK_LANES;
    for (size_t block = low / CK_LANES; block < last;) {
        size_t blocks = ck_min(last - block, CK_SCORE_BLOCKS);
        compute_scores(a, t, kv_head, block, blocks);
        for (size_t i = 0; i < blocks; i++)
            absorb_block(a, t, kv_head, block + i,
                         ck_min(block + i + CK_SCORE_BLOCKS, last - 1), i * CK_LANES);
        block += blocks;
    }
    for (size_t m = 0; m < t->count; m++) {
        float inverse = 1.0f / t->total[m];
        for (size_t d = 0; d < a->head_dim; d++) t->out[m][d] *= inverse;
    }
}

static void attention(const ck_attention *a, size_t kv_head, size_t row_start, size_t row_end) {
    query_tile t;
    t.count = 0;
    for (size_t row = row_start; row < row_end; row++) {
        size_t high = a->start_position + row + 1;
        for (size_t h = 0; h < a->group_size; h++) {
            size_t head = kv_head * a->group_size + h;
            t.q[t.count] = a->q + row * a->q_stride + head * a->head_dim;
            t.out[t.count] = a->out + row * a->out_stride + head * a->head_dim;
            t.high[t.count] = high;
            t.low[t.count] = high > a->window ? high - a->window : 0;
            if (++t.count == CK_QUERIES) {
                attend(a, &t, kv_head);
                t.count = 0;
            }
        }
    }
    if (t.count) attend(a, &t, kv_head);
}
