// AVX-512 with VNNI and BF16: dot products of bytes and of bf16 pairs.
#include "ckernels.h"

#if defined(__x86_64__)

#define CK_FUSED 1
#define CK_AVX512 1
#define CK_VNNI 1
#define CK_BF16 1
#define CK_MAX_ROWS 6
#define CK_MAX_ACCUMULATORS 24
#define CK_INTEGER_ACCUMULATORS 12
#define CK_SHRINK_ROWS 6
#define CK_SHRINK_ACCUMULATORS 24

#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push(                                                  \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"                         \
                          ",avx512vnni,avx512bf16"))), apply_to = function)
#include "bodies.h"
#pragma clang attribute pop

#include "tables.h"

const ck_table ck_avx512_bf16_table = CK_TABLE;

#endif
