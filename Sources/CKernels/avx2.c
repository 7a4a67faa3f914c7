// AVX2 with fused multiply-add: a vector is two registers of 16.
#include "ckernels.h"

#if defined(__x86_64__)

#define CK_FUSED 1
#define CK_AVX2 1
#define CK_MAX_ROWS 6
#define CK_MAX_ACCUMULATORS 6
#define CK_INTEGER_ACCUMULATORS 2
#define CK_SHRINK_ROWS 2
#define CK_SHRINK_ACCUMULATORS 4

#include <immintrin.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "bodies.h"
#pragma clang attribute pop

#include "tables.h"

const ck_table ck_avx2_table = CK_TABLE;

#endif
