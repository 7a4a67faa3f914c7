// Paged attention for one KV head and a run of query rows. Included once per level, after
// body_adapter.h.

/// Query vectors (rows × heads of the group) that pass over the KV blocks together.
#define CK_QUERIES 48
/// KV blocks that a softmax step takes: the 64 positions from a multiple of 64 on.
#define CK_STEP_BLOCKS 4
#define CK_STEP_TOKENS (CK_STEP_BLOCKS * CK_LANES)

/// State of the query vectors that share one pass.
typedef struct query_tile {
    size_t count;
    float *out[CK_QUERIES];        // the accumulator, then the result
    size_t low[CK_QUERIES];        // first and past-last position seen
    size_t high[CK_QUERIES];
    float largest[CK_QUERIES];     // of the scores so far
    float rescale[CK_QUERIES];     // factor for the accumulator before this step
    float factor[CK_QUERIES];      // of scores: scale, for int8 times the step of q's words
    float word_step[CK_QUERIES];   // of the weights' words, int8 only
    v16 total[CK_QUERIES];         // Σ exp(score - largest) so far, by token % 16
    // Scores of a step, then the weights in the form in which values take them.
    _Alignas(64) float scores[CK_QUERIES][CK_STEP_TOKENS];
    _Alignas(64) uint8_t q[CK_QUERIES * CK_MAX_HEAD_DIM * 4];
    size_t q_bytes;                // of one prepared query
} query_tile;

/// The blocks of one step.
typedef struct kv_step {
    const uint8_t *keys[CK_STEP_BLOCKS];
    const uint8_t *values[CK_STEP_BLOCKS];
    const float *key_scales[CK_STEP_BLOCKS];    // per token, int8 only
    const float *value_scales[CK_STEP_BLOCKS];
    const uint8_t *later[CK_STEP_BLOCKS];       // keys of the next step, fetched on the way
    size_t base;                                // first position, a multiple of CK_STEP_TOKENS
    size_t first;                               // blocks that any query sees
    size_t end;
} kv_step;

CK_INLINE const uint8_t *block_at(const ck_attention *a, size_t block) {
    return a->arena + (size_t)a->block_table[block] * a->block_byte_count;
}

/// Tokens that share a value's vector: pairs but for f32.
CK_INLINE size_t value_step_bytes(const ck_attention *a, const ck_format format) {
    return (a->head_dim + CK_LANES - 1) / CK_LANES * operand_bytes(format);
}

/// scores[m][p] = q[m] · keys of block p, for 16 tokens each.
///
/// A head's keys in a block are too short a run for the hardware's prefetcher: while the first
/// queries read them the block's values are fetched line by line, and while they read values the
/// keys of the next step: to the second-level cache, since blocks lie a power of two apart and
/// would push each other out of the first.
CK_INLINE void score_tile(const int rows, const int blocks, const ck_format format,
                          const ck_attention *a, query_tile *t, const kv_step *s, size_t first,
                          size_t block) {
    v16 sum[6][4];
    const uint8_t *q[6];
    const uint8_t *k[4];
    const uint8_t *ahead[4];
    const size_t bytes = operand_bytes(format);
    const size_t element = lane_elements(format);
    size_t steps = (a->head_dim + element - 1) / element;
    CK_UNROLL for (int r = 0; r < rows; r++) q[r] = t->q + (first + r) * t->q_bytes;
    CK_UNROLL for (int p = 0; p < blocks; p++) k[p] = s->keys[block + p];
    CK_UNROLL for (int p = 0; p < blocks; p++) ahead[p] = first ? k[p] : s->values[block + p];
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < blocks; p++) sum[r][p] = splat(0);
    for (size_t d = 0; d < steps; d++) {
        lanes key[4];
        CK_UNROLL for (int p = 0; p < blocks; p++) {
            key[p] = load_operand(k[p] + d * bytes, format);
            __builtin_prefetch(ahead[p] + d * bytes, 0, 2);
        }
        CK_UNROLL for (int r = 0; r < rows; r++) {
            lanes query = splat_prepared(q[r] + d * element * prepared_bytes(format), format);
            CK_UNROLL for (int p = 0; p < blocks; p++)
                sum[r][p] = add_products(sum[r][p], query, key[p], format);
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < blocks; p++) {
            v16 factor = splat(t->factor[first + r]);
            if (format == CK_FORMAT_INT8) factor = factor * load16(s->key_scales[block + p]);
            store16(&t->scores[first + r][(block + p) * CK_LANES],
                    finish(sum[r][p], format) * factor);
        }
}

/// The tokens of a step that any query of a tile sees.
typedef struct token_run {
    size_t from;
    size_t to;
} token_run;

/// out[m] = out[m] · rescale[m] + Σ_token weight[m][token] · V[token], columns d on. Tokens that a
/// query does not see have the weight 0.
CK_INLINE void value_tile(const int rows, const int width, const ck_format format,
                          const ck_attention *a, query_tile *t, const kv_step *s, size_t first,
                          token_run run, size_t d) {
    v16 sum[6][8];
    const uint8_t *weights[6];
    const size_t bytes = operand_bytes(format);
    const size_t element = lane_elements(format);
    size_t step_bytes = value_step_bytes(a, format);
    CK_UNROLL for (int r = 0; r < rows; r++) {
        weights[r] = (const uint8_t *)t->scores[first + r];
        v16 factor = splat(t->rescale[first + r]);
        CK_UNROLL for (int c = 0; c < width; c++) {
            size_t column = d + (size_t)c * CK_LANES;
            sum[r][c] = format == CK_FORMAT_INT8
                            ? splat(0)
                            : load_some(t->out[first + r], column, a->head_dim) * factor;
        }
    }
    for (size_t block = run.from / CK_LANES; block * CK_LANES < run.to; block++) {
        size_t low = block * CK_LANES;
        size_t from = run.from > low ? (run.from - low) / element : 0;
        size_t to = (ck_min(run.to - low, CK_LANES) + element - 1) / element;
        const uint8_t *values = s->values[block] + d / CK_LANES * bytes;
        const uint8_t *ahead = (first ? s->values : s->later)[block] + d / CK_LANES * bytes;
        for (size_t i = from; i < to; i++) {
            lanes value[8];
            CK_UNROLL for (int c = 0; c < width; c++) {
                value[c] = load_operand(values + i * step_bytes + c * bytes, format);
                __builtin_prefetch(ahead + i * step_bytes + c * bytes, 0, 2);
            }
            CK_UNROLL for (int r = 0; r < rows; r++) {
                lanes weight = splat_prepared(
                    weights[r] + (low + i * element) * prepared_bytes(format), format);
                CK_UNROLL for (int c = 0; c < width; c++)
                    sum[r][c] = add_products(sum[r][c], weight, value[c], format);
            }
        }
    }
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int c = 0; c < width; c++) {
            size_t column = d + (size_t)c * CK_LANES;
            float *out = t->out[first + r];
            v16 total = sum[r][c];
            if (format == CK_FORMAT_INT8)
                total = fma16(splat(t->word_step[first + r]), finish(total, format),
                              load_some(out, column, a->head_dim) * splat(t->rescale[first + r]));
            if (column + CK_LANES <= a->head_dim) store16(out + column, total);
            else store_part(out + column, total, a->head_dim - column);
        }
}

#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if (CK_WIDTH(P) && (R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS)             \
            score_tile(R, P, format, a, t, s, first, block);                                   \
        break;

CK_INLINE void score_tile_of(size_t rows, size_t blocks, const ck_format format,
                             const ck_attention *a, query_tile *t, const kv_step *s,
                             size_t first, size_t block) {
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
        if (CK_WIDTH(P) && (R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS)             \
            value_tile(R, P, format, a, t, s, first, run, d);                                  \
        break;

CK_INLINE void value_tile_of(size_t rows, size_t width, const ck_format format,
                             const ck_attention *a, query_tile *t, const kv_step *s,
                             size_t first, token_run run, size_t d) {
    switch (rows * 16 + width) {
        CK_TILE(1, 4) CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1) CK_TILE(5, 1) CK_TILE(6, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE

/// Scores of the step's blocks for all queries of the tile.
CK_INLINE void compute_scores(const ck_format format, const ck_attention *a, query_tile *t,
                              const kv_step *s) {
    for (size_t first = 0; first < t->count;) {
        size_t rows = tile_rows(t->count - first, CK_MAX_ROWS);
        for (size_t block = s->first; block < s->end;) {
            size_t blocks =
                fitting_width(rows, ck_min(s->end - block, CK_STEP_BLOCKS), CK_MAX_ACCUMULATORS);
            score_tile_of(rows, blocks, format, a, t, s, first, block);
            block += blocks;
        }
        first += rows;
    }
}

/// The tokens of a step that query m sees.
CK_INLINE token_run tokens_seen(const query_tile *t, const kv_step *s, size_t m) {
    token_run run;
    run.from = t->low[m] > s->base ? t->low[m] - s->base : 0;
    run.to = t->high[m] > s->base ? ck_min(t->high[m] - s->base, CK_STEP_TOKENS) : 0;
    return run;
}

/// A block's scores for query m, capped, and -infinity for tokens that it does not see.
CK_INLINE v16 masked_scores(const ck_attention *a, const query_tile *t, size_t m, size_t block,
                            token_run run) {
    size_t low = block * CK_LANES;
    v16 score = load16(&t->scores[m][low]);
    if (a->softcap > 0) {
        // softcap · tanh(score / softcap), with tanh(z) = 1 - 2 / (e^2z + 1)
        v16 twice = exp16(score * splat(2.0f / a->softcap));
        score = splat(a->softcap) * (splat(1.0f) - splat(2.0f) / (twice + splat(1.0f)));
    }
    if (run.from > low || run.to < low + CK_LANES) {
        const i16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        i16 token = lane + (i16)(int32_t)low;
        i16 seen = (token >= (i16)(int32_t)run.from) & (token < (i16)(int32_t)run.to);
        score = seen ? score : splat(-INFINITY);
    }
    return score;
}

/// Writes a step's weights over its scores in the form in which the format's values take them.
CK_INLINE void store_weights(const ck_format format, query_tile *t, const kv_step *s, size_t m,
                             v16 *weights) {
    if (format == CK_FORMAT_INT8) {
        v16 most = splat(0);
        for (size_t block = s->first; block < s->end; block++) {
            // What lies beside a token that is not seen may be anything.
            v16 scaled = weights[block] * load16(s->value_scales[block]);
            weights[block] = weights[block] > splat(0) ? scaled : splat(0);
            most = larger(weights[block], most);
        }
        word_scale words = scale_words(max_lanes(most), word_limit(CK_STEP_TOKENS));
        t->word_step[m] = words.step;
        for (size_t block = 0; block < CK_STEP_BLOCKS; block += 2)
            store16(&t->scores[m][block * CK_LANES / 2],
                    narrow_words(weights[block], weights[block + 1], words.inverse));
    } else if (format == CK_FORMAT_BF16 && CK_STEPS_BF16 == 1) {
        for (size_t block = 0; block < CK_STEP_BLOCKS; block += 2)
            store16(&t->scores[m][block * CK_LANES / 2],
                    narrow_pair(weights[block], weights[block + 1]));
    } else {
        for (size_t block = 0; block < CK_STEP_BLOCKS; block++)
            store16(&t->scores[m][block * CK_LANES], weights[block]);
    }
}

/// Turns query m's scores of a step into weights exp(score - largest) and updates its state.
CK_INLINE void soften(const ck_format format, const ck_attention *a, query_tile *t,
                      const kv_step *s, size_t m) {
    v16 weights[CK_STEP_BLOCKS];
    token_run run = tokens_seen(t, s, m);
    for (size_t block = 0; block < CK_STEP_BLOCKS; block++) weights[block] = splat(0);
    t->rescale[m] = 1.0f;
    if (run.from < run.to) {
        v16 most = splat(-INFINITY);
        for (size_t block = s->first; block < s->end; block++) {
            weights[block] = masked_scores(a, t, m, block, run);
            most = larger(weights[block], most);
        }
        float before = t->largest[m];
        float largest = max_lanes(most);
        if (largest > before) {
            t->rescale[m] = weight16(splat(before - largest)).x;
            t->largest[m] = largest;
        } else {
            largest = before;
        }
        v16 total = t->total[m] * splat(t->rescale[m]);
        for (size_t block = s->first; block < s->end; block++) {
            weights[block] = weight16(weights[block] - splat(largest));
            total += weights[block];
        }
        t->total[m] = total;
    }
    store_weights(format, t, s, m, weights);
}

/// One step of the online softmax over the blocks of `s`. Its bits for a query depend on the tokens
/// that the query sees only: others have the weight 0, which changes
/// no sum of finite numbers.
CK_INLINE void absorb(const ck_format format, const ck_attention *a, query_tile *t,
                      const kv_step *s) {
    compute_scores(format, a, t, s);
    for (size_t m = 0; m < t->count; m++) soften(format, a, t, s, m);
    size_t columns = (a->head_dim + CK_LANES - 1) / CK_LANES;
    for (size_t first = 0; first < t->count;) {
        size_t rows = tile_rows(t->count - first, CK_MAX_ROWS);
        token_run run = {CK_STEP_TOKENS, 0};
        for (size_t m = first; m < first + rows; m++) {
            token_run seen = tokens_seen(t, s, m);
            if (seen.from >= seen.to) continue;
            run.from = ck_min(run.from, seen.from);
            run.to = ck_max(run.to, seen.to);
        }
        for (size_t c = 0; run.from < run.to && c < columns;) {
            size_t width = fitting_width(rows, ck_min(columns - c, 4), CK_MAX_ACCUMULATORS);
            value_tile_of(rows, width, format, a, t, s, first, run, c * CK_LANES);
            c += width;
        }
        first += rows;
    }
}

/// Prepares a query and starts its state.
CK_INLINE void add_query(const ck_format format, const ck_attention *a, query_tile *t,
                         size_t row, size_t head) {
    size_t m = t->count++;
    const float *q = a->q + row * a->q_stride + head * a->head_dim;
    word_scale words = {0, 0};
    t->factor[m] = a->scale;
    if (format == CK_FORMAT_INT8) {
        words = scale_words(largest_magnitude(q, a->head_dim),
                            word_limit((a->head_dim + 1) / 2 * 2));
        t->factor[m] = a->scale * words.step;
    }
    prepare(q, a->head_dim, format, words.inverse, t->q + m * t->q_bytes);
    t->out[m] = a->out + row * a->out_stride + head * a->head_dim;
    memset(t->out[m], 0, a->head_dim * sizeof(float));
    t->high[m] = a->start_position + row + 1;
    t->low[m] = t->high[m] > a->window ? t->high[m] - a->window : 0;
    t->largest[m] = -INFINITY;
    t->total[m] = splat(0);
}

/// Passes the queries of a tile over all blocks that any of them sees.
CK_INLINE void attend(const ck_format format, const ck_attention *a, query_tile *t,
                      size_t kv_head) {
    size_t low = SIZE_MAX, high = 0;
    for (size_t m = 0; m < t->count; m++) {
        low = ck_min(low, t->low[m]);
        high = ck_max(high, t->high[m]);
    }
    size_t last = (high + CK_LANES - 1) / CK_LANES;
    size_t keys = a->key_offset + kv_head * a->key_head_byte_count;
    size_t values = a->value_offset + kv_head * a->value_head_byte_count;
    size_t scales = kv_head * CK_LANES * sizeof(float);
    for (size_t base = low / CK_STEP_TOKENS * CK_STEP_BLOCKS; base < last;
         base += CK_STEP_BLOCKS) {
        kv_step s = {.base = base * CK_LANES, .end = ck_min(last - base, CK_STEP_BLOCKS)};
        s.first = low / CK_LANES > base ? low / CK_LANES - base : 0;
        for (size_t i = s.first; i < s.end; i++) {
            const uint8_t *block = block_at(a, base + i);
            s.keys[i] = block + keys;
            s.values[i] = block + values;
            s.key_scales[i] = (const float *)(block + a->key_scale_offset + scales);
            s.value_scales[i] = (const float *)(block + a->value_scale_offset + scales);
            s.later[i] = block_at(a, ck_min(base + i + CK_STEP_BLOCKS, last - 1)) + keys;
            if (format == CK_FORMAT_INT8) {
                // Wanted when the step's scores are summed: a line of its own for each.
                __builtin_prefetch(s.key_scales[i], 0, 3);
                __builtin_prefetch(s.value_scales[i], 0, 3);
            }
        }
        absorb(format, a, t, &s);
    }
    for (size_t m = 0; m < t->count; m++) {
        float inverse = 1.0f / sum_lanes(t->total[m]);
        for (size_t d = 0; d < a->head_dim; d++) t->out[m][d] *= inverse;
    }
    t->count = 0;
}

CK_INLINE void attention_as(const ck_format format, const ck_attention *a, query_tile *t,
                            size_t kv_head, size_t row_start, size_t row_end) {
    t->count = 0;
    t->q_bytes = (a->head_dim + 31) / 32 * 32 * prepared_bytes(format);
    for (size_t row = row_start; row < row_end; row++)
        for (size_t h = 0; h < a->group_size; h++) {
            add_query(format, a, t, row, kv_head * a->group_size + h);
            if (t->count == CK_QUERIES) attend(format, a, t, kv_head);
        }
    if (t->count) attend(format, a, t, kv_head);
}

static void attention(const ck_attention *a, size_t kv_head, size_t row_start, size_t row_end) {
    query_tile t;
    if (a->format == CK_FORMAT_F32)
        attention_as(CK_FORMAT_F32, a, &t, kv_head, row_start, row_end);
    else if (a->format == CK_FORMAT_BF16)
        attention_as(CK_FORMAT_BF16, a, &t, kv_head, row_start, row_end);
    else
        attention_as(CK_FORMAT_INT8, a, &t, kv_head, row_start, row_end);
}
