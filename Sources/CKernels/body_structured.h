// Deltas and transforms of adapters whose matrices have a structure, for one row. Included once per
// level, after its macros.

/// y[i] += a * x[i]
CK_INLINE void add_scaled(float *y, const float *x, float a, size_t count) {
    v16 factor = splat(a);
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES)
        store16(y + i, fma16(factor, load16(x + i), load16(y + i)));
    if (i < count)
        store_part(y + i,
                   fma16(factor, load_part(x + i, count - i), load_part(y + i, count - i)),
                   count - i);
}

/// Vectors of 16 that a combination of rows keeps in registers.
#define CK_COMBINED 4

/// Some whole vectors of add_combination.
CK_INLINE void add_combined(float *y, const float *a, const float *rows, ptrdiff_t stride,
                            size_t row_count, const int vectors) {
    v16 sum[CK_COMBINED];
    CK_UNROLL for (int c = 0; c < vectors; c++) sum[c] = load16(y + c * CK_LANES);
    for (size_t k = 0; k < row_count; k++) {
        v16 factor = splat(a[k]);
        const float *row = rows + (ptrdiff_t)k * stride;
        CK_UNROLL for (int c = 0; c < vectors; c++)
            sum[c] = fma16(factor, load16(row + c * CK_LANES), sum[c]);
    }
    CK_UNROLL for (int c = 0; c < vectors; c++) store16(y + c * CK_LANES, sum[c]);
}

/// y += Σ_k a[k] * rows[k], rows `stride` floats apart, in the order of k.
CK_INLINE void add_combination(float *y, const float *a, const float *rows, ptrdiff_t stride,
                               size_t row_count, size_t width) {
    size_t i = 0;
    for (; i + CK_COMBINED * CK_LANES <= width; i += CK_COMBINED * CK_LANES)
        add_combined(y + i, a, rows + i, stride, row_count, CK_COMBINED);
    for (; i + 2 * CK_LANES <= width; i += 2 * CK_LANES)
        add_combined(y + i, a, rows + i, stride, row_count, 2);
    for (; i + CK_LANES <= width; i += CK_LANES)
        add_combined(y + i, a, rows + i, stride, row_count, 1);
    if (i == width) return;
    size_t count = width - i;
    v16 sum = load_part(y + i, count);
    for (size_t k = 0; k < row_count; k++)
        sum = fma16(splat(a[k]), load_part(rows + (ptrdiff_t)k * stride + i, count), sum);
    store_part(y + i, sum, count);
}

static void sparse_add(const ck_sparse *s, const float *x, float *y) {
    for (size_t o = 0; o < s->out_features; o++) {
        uint32_t start = s->starts[o], end = s->starts[o + 1];
        if (start == end) continue;
        float sum = 0;
        for (uint32_t n = start; n < end; n++) sum += s->values[n] * x[s->columns[n]];
        y[o] += sum;
    }
}

/// Inputs of a right block that are worked on at a time.
#define CK_KRONECKER_PART 64

static void kronecker_add(const ck_kronecker *k, const float *x, float *y) {
    float mixed[CK_KRONECKER_PART];
    for (size_t a = 0; a < k->left_out; a++) {
        float *out = y + a * k->right_out;
        for (size_t start = 0; start < k->right_in; start += CK_KRONECKER_PART) {
            size_t count = ck_min(k->right_in - start, CK_KRONECKER_PART);
            memset(mixed, 0, sizeof(mixed));
            add_combination(mixed, k->left + a * k->left_in, x + start, (ptrdiff_t)k->right_in,
                            k->left_in, count);
            for (size_t e = 0; e < count; e++) mixed[e] *= k->scale;
            add_combination(out, mixed, k->right + start * k->right_out,
                            (ptrdiff_t)k->right_out, count, k->right_out);
        }
    }
}

static void circulant_add(const ck_circulant *c, const float *x, float *y) {
    size_t b = c->block_size;
    for (size_t out = 0; out < c->out_blocks; out++)
        for (size_t in = 0; in < c->in_blocks; in++) {
            const float *kernel = c->kernels + (out * c->in_blocks + in) * 2 * b;
            // The column of input t is the kernel, turned t places on.
            add_combination(y + out * b, x + in * b, kernel + b, -1, b, b);
        }
}

/// Blocks whose sums go on side by side: one block's are too few to fill the time that a product
/// takes.
#define CK_BLOCKS 4

CK_INLINE v16 block_row(const ck_blocks *r, size_t block, size_t i, size_t column,
                        const ck_format format) {
    size_t b = r->block_size;
    return load_as(r->matrices, ((r->is_shared ? 0 : block * b) + i) * b + column, format);
}

/// Some blocks' 16 columns from `column` on.
CK_INLINE void rotate_columns(const ck_blocks *r, const float *x, float *out, size_t block,
                              size_t column, const int blocks, const ck_format format) {
    size_t b = r->block_size;
    v16 sum[CK_BLOCKS];
    CK_UNROLL for (int n = 0; n < blocks; n++) sum[n] = load16(x + (block + n) * b + column);
    for (size_t i = 0; i < b; i++)
        CK_UNROLL for (int n = 0; n < blocks; n++)
            sum[n] = fma16(splat(x[(block + n) * b + i]),
                           block_row(r, block + n, i, column, format), sum[n]);
    CK_UNROLL for (int n = 0; n < blocks; n++) store16(out + (block + n) * b + column, sum[n]);
}

/// The columns of a block that do not fill a vector.
CK_INLINE void rotate_rest(const ck_blocks *r, const float *x, float *out, size_t block,
                           size_t column, const ck_format format) {
    size_t b = r->block_size, count = b - column;
    v16 sum = load_part(x + block * b + column, count);
    for (size_t i = 0; i < b; i++) {
        size_t index = ((r->is_shared ? 0 : block * b) + i) * b + column;
        sum = fma16(splat(x[block * b + i]), load_part_as(r->matrices, index, count, format), sum);
    }
    store_part(out + block * b + column, sum, count);
}

CK_INLINE void rotate_blocks_as(const ck_blocks *r, const float *x, float *out,
                                const ck_format format) {
    size_t whole = r->block_size / CK_LANES * CK_LANES, block = 0;
    for (; block + CK_BLOCKS <= r->count; block += CK_BLOCKS)
        for (size_t column = 0; column < whole; column += CK_LANES)
            rotate_columns(r, x, out, block, column, CK_BLOCKS, format);
    for (; block < r->count; block++)
        for (size_t column = 0; column < whole; column += CK_LANES)
            rotate_columns(r, x, out, block, column, 1, format);
    if (whole == r->block_size) return;
    for (block = 0; block < r->count; block++) rotate_rest(r, x, out, block, whole, format);
}

static void rotate_blocks(const ck_blocks *r, const float *x, float *out) {
    if (r->format == CK_FORMAT_BF16) rotate_blocks_as(r, x, out, CK_FORMAT_BF16);
    else rotate_blocks_as(r, x, out, CK_FORMAT_F32);
}

static void mix_pairs(const ck_pair_mix *m, float *y) {
    size_t half = m->group_size / 2;
    for (size_t start = 0; start < m->count; start += m->group_size)
        for (size_t i = start; i < start + half; i++) {
            float first = y[i], second = y[i + half];
            y[i] = m->own[i] * first + m->other[i] * second;
            y[i + half] = m->own[i + half] * second + m->other[i + half] * first;
        }
}

CK_INLINE float dot(const float *a, const float *b, size_t count) {
    v16 sum = splat(0);
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES) sum = fma16(load16(a + i), load16(b + i), sum);
    if (i < count) sum = fma16(load_part(a + i, count - i), load_part(b + i, count - i), sum);
    return sum_lanes(sum);
}

static void prompt_attention(const ck_prompt_attention *p, const float *q, float *out) {
    size_t group = p->head_count / p->kv_head_count, dim = p->head_dim;
    size_t stride = p->kv_head_count * dim;
    float sums[CK_MAX_HEAD_DIM];
    for (size_t head = 0; head < p->head_count; head++) {
        const float *keys = p->keys + head / group * dim;
        const float *values = p->values + head / group * dim;
        float largest = -INFINITY, total = 0;
        memset(sums, 0, dim * sizeof(float));
        for (size_t n = 0; n < p->count; n++) {
            float score = p->scale * dot(q + head * dim, keys + n * stride, dim);
            if (score > largest) {
                float shrunk = expf(largest - score);
                for (size_t i = 0; i < dim; i++) sums[i] *= shrunk;
                total *= shrunk;
                largest = score;
            }
            float weight = expf(score - largest);
            add_scaled(sums, values + n * stride, weight, dim);
            total += weight;
        }
        add_scaled(out + head * dim, sums, p->gate / total, dim);
    }
}
