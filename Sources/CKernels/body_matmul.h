// Matmul over packed panels: what all forms of rows share, and rows of f32. Included once per level,
// after its macros.

/// Inputs per cache block when there are more rows than one register tile: the block of a group
/// of panels stays in the first-level cache while rows pass over it. Even, for bf16 pairs.
#define CK_INPUT_BLOCK 256
/// Rows of such a block.
#define CK_ROW_BLOCK 48

CK_INLINE const uint8_t *panel_at(const ck_matmul *m, size_t panel) {
    return (const uint8_t *)m->weights
           + panel * ck_panel_byte_count(m->in_features, m->format);
}

/// First and past-last lane of a panel that this call may touch in y.
CK_INLINE void panel_lanes(const ck_matmul *m, size_t panel, size_t *low, size_t *high) {
    size_t base = panel * CK_LANES;
    *low = m->column_start > base ? m->column_start - base : 0;
    *high = ck_min(m->column_end - base, CK_LANES);
}

CK_INLINE v16 load_y(const ck_matmul *m, size_t row, size_t panel) {
    size_t low, high;
    panel_lanes(m, panel, &low, &high);
    const float *y = m->y + row * m->y_stride + panel * CK_LANES;
    if (low == 0 && high == CK_LANES) return load16(y);
    float lanes[CK_LANES] = {0};
    memcpy(lanes + low, y + low, (high - low) * sizeof(float));
    return load16(lanes);
}

CK_INLINE void store_y(const ck_matmul *m, size_t row, size_t panel, v16 value, bool last) {
    size_t low, high;
    panel_lanes(m, panel, &low, &high);
    float *y = m->y + row * m->y_stride + panel * CK_LANES;
    const float *bias = last && m->bias ? m->bias + panel * CK_LANES : NULL;
    if (low == 0 && high == CK_LANES) {
        store16(y, bias ? value + load16(bias) : value);
        return;
    }
    float lanes[CK_LANES];
    store16(lanes, value);
    for (size_t i = low; i < high; i++) y[i] = bias ? lanes[i] + bias[i] : lanes[i];
}

/// Inputs k0 ..< k0 + count of a tile. `x` points at the first row's input k0.
typedef struct tile_input {
    const float *x;
    size_t stride;
    size_t k0;
    size_t count;
} tile_input;

/// ROWS rows of f32 × PANELS panels held in registers over some inputs.
CK_INLINE void float_tile(const int rows, const int panels, const ck_format format,
                           const ck_matmul *m, tile_input in, size_t row, size_t panel) {
    v16 sum[6][8];
    const float *x[6];
    const uint8_t *w[8];
    const size_t k_bytes = format == CK_FORMAT_F32 ? 64 : 32;
    CK_UNROLL for (int r = 0; r < rows; r++) x[r] = in.x + r * in.stride;
    CK_UNROLL for (int p = 0; p < panels; p++) w[p] = panel_at(m, panel + p) + in.k0 * k_bytes;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < panels; p++)
            sum[r][p] = in.k0 == 0 ? splat(0) : load_y(m, row + r, panel + p);

    if (format == CK_FORMAT_F32) {
        for (size_t k = 0; k < in.count; k++) {
            v16 weight[8];
            CK_UNROLL for (int p = 0; p < panels; p++)
                weight[p] = load16((const float *)(w[p] + k * 64));
            CK_UNROLL for (int r = 0; r < rows; r++)
                CK_UNROLL for (int p = 0; p < panels; p++)
                    sum[r][p] = fma16(splat(x[r][k]), weight[p], sum[r][p]);
        }
    } else {
        size_t k = 0;
        for (; k + 2 <= in.count; k += 2) {
            // One input of the pair after the other: a tile has no registers for both.
            v16 weight[8];
            CK_UNROLL for (int p = 0; p < panels; p++)
                weight[p] = (v16)(*(const u16_at *)(w[p] + k * 32) << 16);
            CK_UNROLL for (int r = 0; r < rows; r++)
                CK_UNROLL for (int p = 0; p < panels; p++)
                    sum[r][p] = fma16(splat(x[r][k]), weight[p], sum[r][p]);
            CK_UNROLL for (int p = 0; p < panels; p++)
                weight[p] = (v16)(*(const u16_at *)(w[p] + k * 32) & 0xffff0000u);
            CK_UNROLL for (int r = 0; r < rows; r++)
                CK_UNROLL for (int p = 0; p < panels; p++)
                    sum[r][p] = fma16(splat(x[r][k + 1]), weight[p], sum[r][p]);
        }
        if (k < in.count) {
            CK_UNROLL for (int p = 0; p < panels; p++) {
                v16 weight = (v16)(*(const u16_at *)(w[p] + k * 32) << 16);
                CK_UNROLL for (int r = 0; r < rows; r++)
                    sum[r][p] = fma16(splat(x[r][k]), weight, sum[r][p]);
            }
        }
    }

    bool last = in.k0 + in.count == m->in_features;
    CK_UNROLL for (int r = 0; r < rows; r++)
        CK_UNROLL for (int p = 0; p < panels; p++)
            store_y(m, row + r, panel + p, sum[r][p], last);
}

#define CK_TILE(R, P)                                                                          \
    case (R) * 16 + (P):                                                                       \
        if ((R) <= CK_MAX_ROWS && (R) * (P) <= CK_MAX_ACCUMULATORS) {                          \
            if (m->format == CK_FORMAT_F32)                                                    \
                float_tile(R, P, CK_FORMAT_F32, m, in, row, panel);                           \
            else                                                                               \
                float_tile(R, P, CK_FORMAT_BF16, m, in, row, panel);                          \
        }                                                                                      \
        break;

static void float_tile_of(size_t rows, size_t panels, const ck_matmul *m, tile_input in,
                           size_t row, size_t panel) {
    switch (rows * 16 + panels) {
        CK_TILE(1, 8) CK_TILE(2, 8) CK_TILE(3, 8)
        CK_TILE(1, 4) CK_TILE(2, 4) CK_TILE(3, 4) CK_TILE(4, 4) CK_TILE(5, 4) CK_TILE(6, 4)
        CK_TILE(1, 2) CK_TILE(2, 2) CK_TILE(3, 2) CK_TILE(4, 2) CK_TILE(5, 2) CK_TILE(6, 2)
        CK_TILE(1, 1) CK_TILE(2, 1) CK_TILE(3, 1) CK_TILE(4, 1) CK_TILE(5, 1) CK_TILE(6, 1)
    default:
        __builtin_unreachable();
    }
}

#undef CK_TILE

/// Vectors side by side in a tile of so many rows: the largest power of two that fits.
CK_INLINE size_t tile_width(size_t rows, size_t available) {
    size_t width = 8;
    while (width > 1 && (width * rows > CK_MAX_ACCUMULATORS || width > available)) width /= 2;
    return width;
}

/// Rows of the next tile when `remaining` rows are split evenly into as few tiles as possible.
CK_INLINE size_t tile_rows(size_t remaining, size_t most) {
    size_t tiles = (remaining + most - 1) / most;
    return (remaining + tiles - 1) / tiles;
}

/// Passes `count` rows from `row` on over the panels.
static void float_rows(const ck_matmul *m, tile_input in, size_t row, size_t count,
                        size_t panel_start, size_t panel_end) {
    size_t tallest = tile_rows(count, CK_MAX_ROWS);
    const float *x = in.x;
    for (size_t panel = panel_start; panel < panel_end;) {
        size_t width = tile_width(tallest, panel_end - panel);
        for (size_t done = 0; done < count;) {
            size_t rows = tile_rows(count - done, CK_MAX_ROWS);
            in.x = x + done * in.stride;
            float_tile_of(rows, width, m, in, row + done, panel);
            done += rows;
        }
        panel += width;
    }
}

static void float_matmul(const ck_matmul *m, size_t panel_start, size_t panel_end) {
    const float *x = m->rows;
    size_t stride = m->row_stride / sizeof(float);
    if (m->row_count <= CK_MAX_ROWS) {
        tile_input in = {x, stride, 0, m->in_features};
        float_rows(m, in, 0, m->row_count, panel_start, panel_end);
        return;
    }
    // Rows often lie a power of two apart, which maps them to the same few cache sets: a block of
    // them is copied to rows that do not.
    _Alignas(64) float block[CK_ROW_BLOCK * (CK_INPUT_BLOCK + CK_LANES)];
    tile_input in = {block, CK_INPUT_BLOCK + CK_LANES, 0, 0};
    for (in.k0 = 0; in.k0 < m->in_features; in.k0 += CK_INPUT_BLOCK) {
        in.count = ck_min(CK_INPUT_BLOCK, m->in_features - in.k0);
        for (size_t row = 0; row < m->row_count; row += CK_ROW_BLOCK) {
            size_t rows = ck_min(CK_ROW_BLOCK, m->row_count - row);
            for (size_t r = 0; r < rows; r++)
                memcpy(block + r * in.stride, x + (row + r) * stride + in.k0,
                       in.count * sizeof(float));
            float_rows(m, in, row, rows, panel_start, panel_end);
        }
    }
}

/// What a tile fetches while it computes.
typedef enum tile_fetch {
    CK_FETCH_NOTHING,
    /// Its own panel, CK_STREAM_AHEAD bytes ahead: one panel is one stream, faster than several
    /// that the hardware follows by itself.
    CK_FETCH_STREAM,
    /// What `tile_ahead` says, to the second-level cache.
    CK_FETCH_NEXT,
} tile_fetch;

#define CK_STREAM_AHEAD 2176

/// Where a tile fetches from, and how many lines in each of its steps.
typedef struct tile_ahead {
    const uint8_t *from;
    size_t line_count;
} tile_ahead;

/// Fetches for one step of `step_bytes` at `panel`.
CK_INLINE void fetch_ahead(const tile_fetch fetch, tile_ahead *ahead, const uint8_t *panel,
                           const size_t step_bytes) {
    if (fetch == CK_FETCH_STREAM) {
        CK_UNROLL for (size_t byte = 0; byte < step_bytes; byte += 64)
            __builtin_prefetch(panel + CK_STREAM_AHEAD + byte, 0, 3);
    } else if (fetch == CK_FETCH_NEXT) {
        for (size_t line = 0; line < ahead->line_count; line++)
            __builtin_prefetch(ahead->from + line * 64, 0, 2);
        ahead->from += ahead->line_count * 64;
    }
}

/// A tile kernel and its bounds. With `run` it takes all inputs at once, in `step_count` steps of
/// `step_bytes` per panel.
typedef struct tile_kernel {
    void (*run)(size_t rows, size_t panels, tile_fetch fetch, const ck_matmul *m,
                tile_ahead ahead, size_t row, size_t panel);
    size_t most_rows;
    size_t most_accumulators;
    size_t most_panels;
    size_t step_count;
    size_t step_bytes;
} tile_kernel;

/// Panels side by side in a tile where there are so many rows. A single tile streams one panel after
/// the other.
CK_INLINE size_t panels_beside(const tile_kernel *kernel, size_t row_count, size_t available) {
    if (row_count <= kernel->most_rows) return 1;
    size_t most = kernel->most_accumulators / tile_rows(row_count, kernel->most_rows);
    return ck_max(ck_min(ck_min(most, kernel->most_panels), available), 1);
}

/// Passes all rows over a group of panels, then over the next group. While the rows of a group
/// compute, the next group is fetched, `panel_ahead` after the last: so that few rows, which need
/// about as long as memory does, do not wait for it.
static void tiled_matmul(const tile_kernel *kernel, const ck_matmul *m, size_t panel_start,
                         size_t panel_end, size_t panel_ahead) {
    if (m->row_count <= kernel->most_rows) {
        for (size_t panel = panel_start; panel < panel_end; panel++)
            kernel->run(m->row_count, 1, CK_FETCH_STREAM, m, (tile_ahead){NULL, 0}, 0, panel);
        return;
    }
    size_t tiles = (m->row_count + kernel->most_rows - 1) / kernel->most_rows;
    size_t panel_count = (m->column_end + CK_LANES - 1) / CK_LANES;
    for (size_t panel = panel_start; panel < panel_end;) {
        size_t width = panels_beside(kernel, m->row_count, panel_end - panel);
        size_t next = panel + width < panel_end ? panel + width : panel_ahead;
        tile_fetch fetch = CK_FETCH_NOTHING;
        tile_ahead ahead = {NULL, 0};
        if (next < panel_count) {
            size_t lines = ck_min(width, panel_count - next) * kernel->step_bytes / 64;
            fetch = CK_FETCH_NEXT;
            ahead = (tile_ahead){panel_at(m, next), (lines + tiles - 1) / tiles};
        }
        for (size_t row = 0; row < m->row_count;) {
            size_t rows = tile_rows(m->row_count - row, kernel->most_rows);
            kernel->run(rows, width, fetch, m, ahead, row, panel);
            ahead.from += ahead.line_count * 64 * kernel->step_count;
            row += rows;
        }
        panel += width;
    }
}
