// The reference level: what the build's baseline CPU has (SSE2 on x86-64, NEON on arm64).

#if defined(__FMA__) || defined(__aarch64__)
#define CK_FUSED 1
#else
#define CK_FUSED 0
#endif
#if defined(__aarch64__)
#define CK_MAX_ROWS 6
#define CK_MAX_ACCUMULATORS 6
#define CK_INTEGER_ACCUMULATORS 2
#define CK_SHRINK_ROWS 2
#define CK_SHRINK_ACCUMULATORS 4
#else
#define CK_MAX_ROWS 2
#define CK_MAX_ACCUMULATORS 2
#define CK_INTEGER_ACCUMULATORS 2
#define CK_SHRINK_ROWS 2
#define CK_SHRINK_ACCUMULATORS 2
#endif

#include "bodies.h"
#include "tables.h"

const ck_table ck_portable_table = CK_TABLE;
