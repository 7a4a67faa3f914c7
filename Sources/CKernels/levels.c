#include "tables.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

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

#if defined(__aarch64__)

static bool has_neon_i8mm(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) && (getauxval(AT_HWCAP2) & HWCAP2_I8MM);
#else
    return false;
#endif
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
#elif defined(__aarch64__)
    case CK_LEVEL_NEON_I8MM:
        return has_neon_i8mm() ? &ck_neon_i8mm_table : NULL;
#endif
    default:
        return NULL;
    }
}
