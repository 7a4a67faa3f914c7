#include "tables.h"

#if defined(__x86_64__)

// The compiler's runtime also checks that the operating system saves the wider registers.

static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512_vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512_bf16(void) {
    return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}

#endif

const ck_table *ck_level_table(ck_level level) {
    switch (level) {
    case CK_LEVEL_PORTABLE:
        return &ck_portable_table;
#if defined(__x86_64__)
    case CK_LEVEL_AVX2:
        return has_avx2() ? &ck_avx2_table : NULL;
    case CK_LEVEL_AVX512:
        return has_avx512() ? &ck_avx512_table : NULL;
    case CK_LEVEL_AVX512_VNNI:
        return has_avx512_vnni() ? &ck_avx512_vnni_table : NULL;
    case CK_LEVEL_AVX512_BF16:
        return has_avx512_bf16() ? &ck_avx512_bf16_table : NULL;
#else
    case CK_LEVEL_AVX2:
    case CK_LEVEL_AVX512:
    case CK_LEVEL_AVX512_VNNI:
    case CK_LEVEL_AVX512_BF16:
        return NULL;
#endif
    }
}
