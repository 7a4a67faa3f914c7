#include "tables.h"

const ck_table *ck_level_table(ck_level level) {
    switch (level) {
    case CK_LEVEL_PORTABLE:
        return &ck_portable_table;
#if defined(__x86_64__)
    // The compiler's runtime also checks that the operating system saves the wider registers.
    case CK_LEVEL_AVX2:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &ck_avx2_table
                                                                               : NULL;
    case CK_LEVEL_AVX512:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
                       && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                       && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                   ? &ck_avx512_table
                   : NULL;
#else
    case CK_LEVEL_AVX2:
    case CK_LEVEL_AVX512:
        return NULL;
#endif
    }
}
