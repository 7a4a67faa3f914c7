// Row-wise operators. Included once per level, after its macros.

static void rms_norm(const float *x, const float *weight, size_t count, float epsilon,
                     float *out) {
    v16 sum[4] = {splat(0), splat(0), splat(0), splat(0)};
    size_t i = 0;
    for (; i + 4 * CK_LANES <= count; i += 4 * CK_LANES) {
        CK_UNROLL for (int c = 0; c < 4; c++) {
            v16 in = load16(x + i + c * CK_LANES);
            sum[c] = fma16(in, in, sum[c]);
        }
    }
    for (; i + CK_LANES <= count; i += CK_LANES) {
        v16 in = load16(x + i);
        sum[0] = fma16(in, in, sum[0]);
    }
    if (i < count) {
        v16 in = load_part(x + i, count - i);
        sum[0] = fma16(in, in, sum[0]);
    }
    float mean = sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3])) / (float)count;
    v16 inverse = splat(1.0f / sqrtf(mean + epsilon));
    for (i = 0; i + CK_LANES <= count; i += CK_LANES)
        store16(out + i, load16(weight + i) * (load16(x + i) * inverse));
    if (i < count)
        store_part(out + i,
                   load_part(weight + i, count - i) * (load_part(x + i, count - i) * inverse),
                   count - i);
}

CK_INLINE v16 silu16(v16 gate, v16 up) {
    return gate / (splat(1.0f) + exp16(-gate)) * up;
}

static void silu_multiply(const float *gate, const float *up, size_t count, float *out) {
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES)
        store16(out + i, silu16(load16(gate + i), load16(up + i)));
    if (i < count)
        store_part(out + i,
                   silu16(load_part(gate + i, count - i), load_part(up + i, count - i)),
                   count - i);
}

/// The rotation's two products are rounded apart on every level, as Hugging Face does.
static void rope(float *x, size_t head_count, size_t head_dim, size_t rotary_dim,
                 const float *cosine, const float *sine) {
    size_t half = rotary_dim / 2;
    for (size_t head = 0; head < head_count; head++) {
        float *low = x + head * head_dim;
        float *high = low + half;
        size_t i = 0;
        for (; i + CK_LANES <= half; i += CK_LANES) {
            v16 a = load16(low + i), b = load16(high + i);
            v16 c = load16(cosine + i), s = load16(sine + i);
            store16(low + i, a * c - b * s);
            store16(high + i, b * c + a * s);
        }
        for (; i < half; i++) {
            float a = low[i], b = high[i];
            low[i] = a * cosine[i] - b * sine[i];
            high[i] = b * cosine[i] + a * sine[i];
        }
    }
}

static void add(float *y, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] += x[i];
}

static void multiply(float *y, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) y[i] *= x[i];
}

static void exponential(const float *x, size_t count, float *out) {
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES) store16(out + i, exp16(load16(x + i)));
    if (i < count) store_part(out + i, exp16(load_part(x + i, count - i)), count - i);
}

/// Largest element; NaN never wins, and an array of NaN gives -infinity.
static float largest(const float *x, size_t count) {
    v16 most[4];
    CK_UNROLL for (int c = 0; c < 4; c++) most[c] = splat(-INFINITY);
    size_t i = 0;
    for (; i + 4 * CK_LANES <= count; i += 4 * CK_LANES)
        CK_UNROLL for (int c = 0; c < 4; c++)
            most[c] = larger(load16(x + i + c * CK_LANES), most[c]);
    float best = max_lanes(larger(larger(most[0], most[1]), larger(most[2], most[3])));
    for (; i < count; i++) best = x[i] > best ? x[i] : best;
    return best;
}

/// Index of the first element above `bound` from `start` on; `count` where there is none.
static size_t find_above(const float *x, size_t start, size_t count, float bound) {
    size_t i = start;
    for (; i + 4 * CK_LANES <= count; i += 4 * CK_LANES) {
        i16 above = load16(x + i) > splat(bound);
        CK_UNROLL for (int c = 1; c < 4; c++)
            above |= load16(x + i + c * CK_LANES) > splat(bound);
        if (__builtin_reduce_or(above) != 0) break;
    }
    for (; i < count; i++)
        if (x[i] > bound) return i;
    return count;
}

static size_t count_above(const float *x, size_t count, float bound) {
    i16 sum[2] = {0, 0};
    size_t i = 0;
    // A comparison that holds is -1 in its lane.
    for (; i + 2 * CK_LANES <= count; i += 2 * CK_LANES)
        CK_UNROLL for (int c = 0; c < 2; c++)
            sum[c] -= load16(x + i + c * CK_LANES) > splat(bound);
    size_t total = (size_t)__builtin_reduce_add(sum[0] + sum[1]);
    for (; i < count; i++) total += x[i] > bound;
    return total;
}

static size_t argmax(const float *x, size_t count) {
    float best = largest(x, count);
    size_t found = find_above(x, 0, count, nextafterf(best, -INFINITY));
    if (found < count) return found;
    for (size_t i = 0; i < count; i++)
        if (x[i] == best) return i;
    return 0;
}

/// Weights of 16 logits; NaN is not from the floor up and weighs nothing.
CK_INLINE v16 weigh16(v16 x, const ck_softmax *s) {
    v16 weight = exp16(x / splat(s->temperature) - splat(s->greatest / s->temperature));
    return x >= splat(s->floor) ? weight : splat(0);
}

/// The last `count` < 16 weights; the other lanes weigh nothing.
CK_INLINE v16 weigh_part(const float *x, size_t count, const ck_softmax *s) {
    float lanes[CK_LANES];
    store16(lanes, splat(NAN));
    memcpy(lanes, x, count * sizeof(float));
    return weigh16(load16(lanes), s);
}

static float weight_sum(const float *x, size_t count, const ck_softmax *s) {
    v16 sum[2] = {splat(0), splat(0)};
    size_t i = 0;
    for (; i + 2 * CK_LANES <= count; i += 2 * CK_LANES)
        CK_UNROLL for (int c = 0; c < 2; c++)
            sum[c] += weigh16(load16(x + i + c * CK_LANES), s);
    for (; i + CK_LANES <= count; i += CK_LANES) sum[0] += weigh16(load16(x + i), s);
    if (i < count) sum[1] += weigh_part(x + i, count - i, s);
    return sum_lanes(sum[0] + sum[1]);
}

static void weigh(const float *x, size_t count, const ck_softmax *s, float *out) {
    size_t i = 0;
    for (; i + CK_LANES <= count; i += CK_LANES) store16(out + i, weigh16(load16(x + i), s));
    if (i < count) store_part(out + i, weigh_part(x + i, count - i, s), count - i);
}

/// log Σ exp(x): vector sums over spans of 4096, the spans added in f64.
static float log_sum_exp(const float *x, size_t count) {
    const size_t span = 4096;
    float most = largest(x, count);
    if (most == -INFINITY || most == INFINITY) return most;
    double total = 0;
    for (size_t start = 0; start < count; start += span) {
        size_t end = ck_min(start + span, count);
        v16 sum[2] = {splat(0), splat(0)};
        size_t i = start;
        for (; i + 2 * CK_LANES <= end; i += 2 * CK_LANES)
            CK_UNROLL for (int c = 0; c < 2; c++)
                sum[c] += exp16(load16(x + i + c * CK_LANES) - splat(most));
        for (; i < end; i++) {
            float lanes[CK_LANES];
            store16(lanes, exp16(splat(x[i] - most)));
            total += (double)lanes[0];
        }
        total += (double)sum_lanes(sum[0] + sum[1]);
    }
    return (float)(log(total) + (double)most);
}
