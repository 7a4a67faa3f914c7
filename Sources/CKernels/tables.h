#pragma once

#include "ckernels.h"

extern const ck_table ck_portable_table;
extern const ck_table ck_avx2_table;
extern const ck_table ck_avx512_table;
extern const ck_table ck_avx512_vnni_table;
extern const ck_table ck_avx512_bf16_table;
extern const ck_table ck_neon_i8mm_table;

/// The table of the bodies that the including level file has compiled.
#define CK_TABLE                                                                               \
    {                                                                                          \
        .row_form = row_form,                                                                  \
        .prepare_row = prepare_row,                                                            \
        .tile_panels = tile_panels,                                                            \
        .matmul = matmul,                                                                      \
        .shrink = shrink,                                                                      \
        .expand = expand,                                                                      \
        .attention = attention,                                                                \
        .rms_norm = rms_norm,                                                                  \
        .silu_multiply = silu_multiply,                                                        \
        .rope = rope,                                                                          \
        .add = add,                                                                            \
        .multiply = multiply,                                                                  \
        .exponential = exponential,                                                            \
        .argmax = argmax,                                                                      \
        .log_sum_exp = log_sum_exp,                                                            \
        .find_above = find_above,                                                              \
        .count_above = count_above,                                                            \
        .weight_sum = weight_sum,                                                              \
        .weigh = weigh,                                                                        \
        .sparse_add = sparse_add,                                                              \
        .kronecker_add = kronecker_add,                                                        \
        .circulant_add = circulant_add,                                                        \
        .rotate_blocks = rotate_blocks,                                                        \
        .mix_pairs = mix_pairs,                                                                \
        .prompt_attention = prompt_attention,                                                  \
    }
