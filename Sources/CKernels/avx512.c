// AVX-512 (F, BW, DQ, VL): a vector is one register of 32.
#include "ckernels.h"

#if defined(__x86_64__)

#define CK_FUSED 1
#define CK_AVX512 1
#define CK_MAX_ROWS 6
#define CK_MAX_ACCUMULATORS 24
#define CK_INTEGER_ACCUMULATORS 12
#define CK_SHRINK_ROWS 4
#define CK_SHRINK_ACCUMULATORS 16

#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push(                                                  \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#include "bodies.h"
#pragma clang attribute pop

#include "tables.h"

const ck_table ck_avx512_table = CK_TABLE;

#endif
