/// The C kernels of LorryTensor: one function table per instruction-set level.
///
/// Sizes and pointers are checked by the Swift callers; nothing here looks at input from outside.
/// Every output element is accumulated in one order that depends on its own row and column only,
/// so a result's bits do not depend on how rows and columns are cut into calls.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

/// Columns of a packed panel, lanes of a kernel vector, and tokens of a KV block.
#define CK_LANES 16

/// How weights, adapter factors, keys and values are held. Not every kernel takes every format.
typedef enum __attribute__((enum_extensibility(closed))) ck_format {
    CK_FORMAT_F32 = 0,
    CK_FORMAT_BF16 = 1,
    CK_FORMAT_INT8 = 2,
    CK_FORMAT_INT4 = 3,
} ck_format;

/// Element types of source tensors.
typedef enum __attribute__((enum_extensibility(closed))) ck_element {
    CK_ELEMENT_F32 = 0,
    CK_ELEMENT_F16 = 1,
    CK_ELEMENT_BF16 = 2,
} ck_element;

/// Inputs that share a scale in int8 and int4 weights and in quantized rows.
#define CK_GROUP 32
/// Inputs of a block of int8 and int4 panels: two groups, so that a block is whole cache lines.
#define CK_BLOCK 64
/// What is added to the numbers of int8 and int4 weights to make them unsigned.
#define CK_INT8_OFFSET 128
#define CK_INT4_OFFSET 8
#define CK_INT8_BLOCK_BYTES (CK_BLOCK * CK_LANES + 2 * CK_LANES * 2)
#define CK_INT4_BLOCK_BYTES (CK_BLOCK * CK_LANES / 2 + 2 * CK_LANES * 2)

/// How a matmul's kernel takes its rows.
typedef enum __attribute__((enum_extensibility(closed))) ck_row_form {
    CK_ROWS_F32 = 0,   // as they are
    CK_ROWS_BF16 = 1,  // rounded to bf16, the count rounded up to even with zero
    CK_ROWS_INT8 = 2,  // ck_row_block by 64 inputs, the last filled up with zeros, then a float
                       // that sums start from: 0, or NaN where the row has what is no number
} ck_row_form;

/// Numbers of this size and above are none to int4: scales of weights and rows are kept where the
/// exponent of their product neither overflows nor vanishes.
#define CK_INT4_BOUND 0x1p60f

/// 64 inputs of a row: x ≈ scale · q, with a scale per group of 32.
///
/// For int8 weights a scale is given as the bits of an f32. For int4 weights it is a power of two,
/// given as what it adds to the bits of a weights' scale: in place of a product, which would cost a
/// tenth of the tile's speed.
typedef struct ck_row_block {
    int32_t quads[CK_BLOCK / 4];  // four signed bytes each
    int32_t scale[2];
    int32_t start[2];             // -Σ q of the group · the offset of the weights' numbers
} ck_row_block;

/// y[row, column] = Σ_k x[row, k] · w[column, k] + bias[column]
///
/// Weights lie in panels of 16 columns, zero-padded past the last column.
///   f32:  [panel][k][16]
///   bf16: [panel][k/2][16][2], in-features rounded up to even with zero
///   int8: [panel][block]{ [16 quads][16][4] of q + 128, then [2 groups][16] scales in bf16 }
///   int4: [panel][block]{ [8 octets][16][4], then the scales likewise }; byte i of an octet has
///         q + 8 of input i in its low bits, of input 4 + i in its high bits
typedef struct ck_matmul {
    const void *rows;            // in the form that the format's row_form names
    size_t row_stride;           // bytes from one row to the next
    size_t row_count;
    const void *weights;         // all panels
    ck_format format;
    size_t in_features;
    const float *_Nullable bias; // [out_features]
    float *y;                    // [row_count, out_features]
    size_t y_stride;
    size_t column_start;         // only these columns of y are written
    size_t column_end;
} ck_matmul;

/// Ranks whose lines lie side by side in a packed A.
#define CK_RANK_TILE 8
/// Largest dimension of an attention head.
#define CK_MAX_HEAD_DIM 512
/// Largest rank of one expand.
#define CK_MAX_RANK 2048

/// v[row, j] = Σ_i x[row, i] · a[j, i], by lanes over i first, then a tree over the lanes.
///
/// A is packed by `ck_pack_shrink`: `[rank tile][step][rank of the tile][elements]`, where a tile
/// has CK_RANK_TILE ranks, the last one what is left, and a step 16 f32, 32 bf16 or 32 int8 inputs.
/// int8 has a scale per rank.
typedef struct ck_shrink {
    const float *x;              // row 0 of the segment
    size_t x_stride;
    size_t in_features;
    const void *a;
    const float *_Nullable scales; // [rank], int8 only
    ck_format format;
    size_t rank;
    size_t step_count;           // steps that hold in_features
    float *v;                    // [rows, rank]
    size_t v_stride;
} ck_shrink;

/// y[row, o] += scale · Σ_j v[row, j] · b[j, o], one chain over j per element.
///
/// B is packed by `ck_pack_expand`: panels of 16 outputs, the last one padded with zeros,
/// `[panel][rank][16]` for f32 and `[panel][rank / 2][16][2]` for bf16 and int8. int8 has a scale
/// per rank.
typedef struct ck_expand {
    const float *v;              // row 0 of the segment
    size_t v_stride;
    const void *b;
    const float *_Nullable scales; // [rank], int8 only
    ck_format format;
    size_t rank;                 // at most CK_MAX_RANK
    size_t out_features;
    float scale;
    float *y;                    // row 0 of the segment, first column of the target
    size_t y_stride;
} ck_expand;

/// Causal attention of one sequence's consecutive query rows over its KV blocks.
///
/// A KV block holds 16 tokens. Keys at key_offset, values at value_offset, per KV head:
///   f32         keys [head_dim][16] (lane = token), values [16][columns]
///   bf16, int8  keys [head_dim / 2][16][2], values [16 / 2][columns][2]
/// Columns are head_dim rounded up to 16, and an odd head_dim has one more of zeros. int8 has a
/// scale per token and KV head, [kv_head][16] at key_scale_offset and value_scale_offset.
///
/// Blocks are visited in order of position, 64 positions at a time, with an online softmax.
typedef struct ck_attention {
    const float *q;              // row 0 of the span, [rows, heads, head_dim]
    size_t q_stride;
    float *out;                  // row 0 of the span, [rows, heads, head_dim]
    size_t out_stride;
    const uint8_t *arena;
    size_t block_byte_count;
    const int32_t *block_table;  // block number by position / 16
    size_t key_offset;           // bytes from a block's start to this layer's keys
    size_t value_offset;
    size_t key_head_byte_count;
    size_t value_head_byte_count;
    size_t key_scale_offset;     // int8 only
    size_t value_scale_offset;
    ck_format format;
    size_t head_dim;             // at most CK_MAX_HEAD_DIM
    size_t group_size;           // query heads per KV head
    size_t start_position;       // of row 0
    size_t window;               // positions a row sees, itself included
    float scale;
    float softcap;               // 0: none
} ck_attention;

/// The weight of a logit x: exp(x / temperature - greatest / temperature) from the floor up, else 0.
typedef struct ck_softmax {
    float temperature;           // above 0
    float greatest;              // finite
    float floor;
} ck_softmax;

/// A sparse matrix [out, in]: output o has values[starts[o] ..< starts[o + 1]] at those columns.
typedef struct ck_sparse {
    const uint32_t *starts;      // [out_features + 1]
    const uint32_t *columns;
    const float *values;
    size_t out_features;
} ck_sparse;

/// scale times the Kronecker product of left [left_out, left_in] and a right matrix, whose transpose
/// is given.
typedef struct ck_kronecker {
    const float *left;
    const float *right;          // [right_in, right_out]
    size_t left_out, left_in, right_out, right_in;
    float scale;
} ck_kronecker;

/// Blocks [out_blocks, in_blocks], each the circulant matrix whose first column is its kernel. A
/// kernel is given twice, one after the other.
typedef struct ck_circulant {
    const float *kernels;        // [out_blocks, in_blocks, 2 * block_size]
    size_t block_size, out_blocks, in_blocks;
} ck_circulant;

/// x' = x + x * diag(matrices), on blocks of a row.
typedef struct ck_blocks {
    const void *matrices;        // [count or 1, block_size, block_size], f32 or bf16
    ck_format format;
    size_t block_size, count;
    bool is_shared;              // one matrix for all blocks
} ck_blocks;

/// Elements of the two halves of each group are mixed: y = own * y + other * (the other half's y).
typedef struct ck_pair_mix {
    const float *own;            // [count]
    const float *other;          // [count]
    size_t count, group_size;
} ck_pair_mix;

/// Attention to `count` keys and values that lie in memory of their own, added to what attention
/// gave.
typedef struct ck_prompt_attention {
    const float *keys;           // [count, kv_head_count, head_dim]
    const float *values;
    size_t count, head_count, kv_head_count, head_dim;
    float scale, gate;
} ck_prompt_attention;

/// The kernels of one level.
typedef struct ck_table {
    /// How this level's matmul takes rows for weights of a format.
    ck_row_form (*row_form)(ck_format format);
    /// Brings a row of f32 into such a form.
    void (*prepare_row)(const float *x, size_t in_features, ck_format format, void *row);
    /// Panels that a tile of the matmul takes side by side: cuts elsewhere cost speed.
    size_t (*tile_panels)(ck_format format, size_t row_count);
    /// `panel_ahead` is the panel that the caller is likely to read after the last one.
    void (*matmul)(const ck_matmul *m, size_t panel_start, size_t panel_end, size_t panel_ahead);
    void (*shrink)(const ck_shrink *s, size_t rank_start, size_t rank_end, size_t row_start,
                   size_t row_end);
    void (*expand)(const ck_expand *e, size_t panel_start, size_t panel_end, size_t row_start,
                   size_t row_end);
    void (*attention)(const ck_attention *a, size_t kv_head, size_t row_start, size_t row_end);
    /// out = weight · (x / sqrt(mean(x²) + epsilon))
    void (*rms_norm)(const float *x, const float *weight, size_t count, float epsilon, float *out);
    /// out = gate / (1 + exp(-gate)) · up
    void (*silu_multiply)(const float *gate, const float *up, size_t count, float *out);
    /// Rotates pairs (i, i + rotary_dim/2) of each head; cos and sin are [rotary_dim/2].
    void (*rope)(float *x, size_t head_count, size_t head_dim, size_t rotary_dim,
                 const float *cosine, const float *sine);
    void (*add)(float *y, const float *x, size_t count);
    void (*multiply)(float *y, const float *x, size_t count);
    /// out = exp(x)
    void (*exponential)(const float *x, size_t count, float *out);
    /// Index of the first largest element; NaN never wins.
    size_t (*argmax)(const float *x, size_t count);
    float (*log_sum_exp)(const float *x, size_t count);
    /// Index of the first element above `bound` from `start` on; `count` where there is none.
    size_t (*find_above)(const float *x, size_t start, size_t count, float bound);
    size_t (*count_above)(const float *x, size_t count, float bound);
    /// The sum of some hundred weights, in f32.
    float (*weight_sum)(const float *x, size_t count, const ck_softmax *s);
    /// out = the weights; may be x.
    void (*weigh)(const float *x, size_t count, const ck_softmax *s, float *out);
    // Of one row: y += M x.
    void (*sparse_add)(const ck_sparse *s, const float *x, float *y);
    void (*kronecker_add)(const ck_kronecker *k, const float *x, float *y);
    void (*circulant_add)(const ck_circulant *c, const float *x, float *y);
    /// out may not be x.
    void (*rotate_blocks)(const ck_blocks *r, const float *x, float *out);
    void (*mix_pairs)(const ck_pair_mix *m, float *y);
    /// out += gate · softmax(q · keys) · values, for each head.
    void (*prompt_attention)(const ck_prompt_attention *p, const float *q, float *out);
} ck_table;

/// Instruction-set levels, lowest first.
typedef enum __attribute__((enum_extensibility(closed))) ck_level {
    CK_LEVEL_PORTABLE = 0,
    CK_LEVEL_AVX2 = 1,
    CK_LEVEL_AVX512 = 2,
    CK_LEVEL_AVX512_VNNI = 3,
    CK_LEVEL_AVX512_BF16 = 4,
    CK_LEVEL_NEON_I8MM = 5,
} ck_level;

/// The level's table; NULL where this build, CPU or operating system cannot run it.
const ck_table *_Nullable ck_level_table(ck_level level);

// Conversions and packing (the same for all levels).

float ck_f32_from_f16(uint16_t bits);
/// Rounds to nearest, ties to even; NaN stays NaN.
uint16_t ck_bf16_from_f32(float value);
/// dst[i] = src[i] as f32, exact.
void ck_widen(const void *src, ck_element element, size_t count, float *dst);
/// dst[i] = src[i] rounded to bf16.
void ck_narrow(const void *src, ck_element element, size_t count, uint16_t *dst);

/// Bytes of a row of so many inputs in a form.
size_t ck_row_byte_count(size_t in_features, ck_row_form form);

/// One source of a panel: rows of a [out, in] matrix, or columns of a stored [in, out] one.
typedef struct ck_panel_source {
    const void *bytes;           // first element of the first row taken
    ck_element element;
    size_t row_stride;           // elements from one output row to the next
    size_t column_stride;        // elements from one input to the next
    size_t row_count;            // output rows taken from here
    size_t lane;                 // first lane of the panel filled
} ck_panel_source;

/// Bytes of one panel.
size_t ck_panel_byte_count(size_t in_features, ck_format format);
/// Fills lanes [lane, lane + row_count) of a panel; other lanes stay as they are. False where int8
/// or int4 cannot hold a number of the source: NaN, infinities, for int4 what is CK_INT4_BOUND or
/// larger.
bool ck_pack_panel(void *panel, ck_format format, size_t in_features,
                   const ck_panel_source *source);
/// dst[k] = w[lane, k] of a packed panel.
void ck_unpack_lane(const void *panel, ck_format format, size_t in_features, size_t lane,
                    float *dst);

/// Where a layer's keys and values lie in a block (see ck_attention).
typedef struct ck_kv_write {
    uint8_t *block;
    size_t key_offset;
    size_t value_offset;
    size_t key_head_byte_count;
    size_t value_head_byte_count;
    size_t key_scale_offset;     // int8 only
    size_t value_scale_offset;
    ck_format format;
    size_t kv_head_count;
    size_t head_dim;
} ck_kv_write;
/// Writes one token's keys and values for all KV heads into a block. With `is_last` nothing has
/// been written after the token: what shares a pair with it becomes 0, since attention reads pairs.
void ck_store_kv(const ck_kv_write *w, size_t token, bool is_last, const float *k,
                 const float *v);

/// Bytes of a packed A without its scales.
size_t ck_shrink_byte_count(size_t rank, size_t in_features, ck_format format);
/// Inputs' steps of a packed A.
size_t ck_shrink_step_count(size_t in_features, ck_format format);
/// A factor as files have it, row-major at any address: rows of A [rank, in_features], or all of
/// B [out_features, rank].
typedef struct ck_factor {
    const void *bytes;
    ck_element element;
    ck_format format;            // of the packed factor
    size_t rank;                 // of the whole packed factor
    size_t features;             // inputs of an A, outputs of a B
} ck_factor;

/// Packs ranks of A, whose first row is a->bytes; writes all of their bytes, and for int8 their
/// scales [rank]. The ranks of several matrices may follow each other in one packed A.
void ck_pack_shrink(const ck_factor *a, size_t rank_start, size_t rank_count, void *packed,
                    float *_Nullable scales);
/// Bytes of a packed B without its scales.
size_t ck_expand_byte_count(size_t rank, size_t out_features, ck_format format);
/// Packs B; writes all of `packed`, and for int8 the scales [rank].
void ck_pack_expand(const ck_factor *b, void *packed, float *_Nullable scales);
/// Whether no element is NaN or infinite.
bool ck_is_finite(const void *src, ck_element element, size_t count);

// Measured limits.

/// A loop of one instruction, or one short group, on registers alone.
typedef struct ck_peak {
    const char *instruction;
    size_t operations;           // of one round; a product counts as two
    void (*run)(size_t rounds);
} ck_peak;

/// The fastest arithmetic that a level has for a format; bf16 and int8 fall back to f32 and 16-bit
/// products. The level must be one that the machine can run.
const ck_peak *ck_peak_loop(ck_level level, ck_format format);
/// Sums whole blocks of 256 bytes, at loads as wide as the level's; words are aligned to 64 bytes.
uint64_t ck_read(ck_level level, const uint64_t *words, size_t count);

/// The name of a feature of this architecture's processors that kernels use or may use, and whether
/// this one has it; NULL past the last. index counts from 0.
const char *_Nullable ck_cpu_feature(size_t index, bool *is_present);

// Memory.

/// Zeroed, aligned to 64 bytes; large ones to 2 MiB with huge pages advised. NULL when refused.
void *_Nullable ck_allocate(size_t byte_count);
void ck_free(void *memory, size_t byte_count);

/// Zeroed whole pages of the system's, which go back to it at once when they are freed; on huge
/// pages where they fill some, else brought in at once. NULL when refused.
void *_Nullable ck_allocate_pages(size_t byte_count);
void ck_free_pages(void *memory, size_t byte_count);

/// Maps bytes of a file read-only, aligned to 2 MiB; offset is a multiple of the system's page.
/// NULL when refused.
void *_Nullable ck_map_file(int descriptor, size_t offset, size_t byte_count);
void ck_unmap_file(void *memory, size_t byte_count);
/// Brings pages of such a mapping in, in one go; memory is at a page's start.
void ck_populate(void *memory, size_t byte_count);
/// Puts a copy on huge pages in the place of pages of such a mapping. Other threads may read
/// the range meanwhile: they wait for the exchange or see either, whose bytes are equal. memory
/// is at a multiple of 2 MiB in the mapping. False, with nothing changed, when it cannot be done.
bool ck_move_to_huge_pages(void *memory, size_t byte_count);

/// Starts fetching bytes that will be read soon.
static inline void ck_fetch(const void *start, size_t byte_count) {
    for (size_t byte = 0; byte < byte_count; byte += 64)
        __builtin_prefetch((const uint8_t *)start + byte, 0, 3);
}

// Fork-join pool.

typedef struct ck_pool ck_pool;
typedef void (*ck_task)(void *context, size_t index);

/// A pool of worker_count threads besides the caller; NULL when threads cannot be started.
ck_pool *_Nullable ck_pool_create(size_t worker_count, bool pinned);
/// Runs task(context, 0 ..< task_count) on the workers and the caller; returns when all are done.
/// False, with nothing run, when the pool is already running.
bool ck_pool_run(ck_pool *pool, size_t task_count, ck_task task, void *context);
/// Joins the workers.
void ck_pool_destroy(ck_pool *pool);

/// Names the calling thread: at most 15 bytes, a longer name changes nothing.
void ck_name_thread(const char *name);
/// The calling thread no longer interrupts others when it wakes up: it has its fair share of the
/// processors, a little later.
void ck_make_thread_patient(void);

#pragma clang assume_nonnull end
