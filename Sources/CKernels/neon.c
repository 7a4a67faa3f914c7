// arm64 with dot products of bytes and the int8 matrix extension (whose usdot multiplies unsigned
// by signed bytes): a vector is four registers of 32.
#include "ckernels.h"

#if defined(__aarch64__)

#define CK_FUSED 1
#define CK_I8MM 1
#define CK_MAX_ROWS 6
#define CK_MAX_ACCUMULATORS 6
#define CK_INTEGER_ACCUMULATORS 3
#define CK_SHRINK_ROWS 2
#define CK_SHRINK_ACCUMULATORS 4

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#include "bodies.h"
#pragma clang attribute pop

#include "tables.h"

const ck_table ck_neon_i8mm_table = CK_TABLE;

#endif
