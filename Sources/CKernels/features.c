// Features of this processor, by the names that vendors and /proc/cpuinfo use.
#include "ckernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

typedef struct feature {
    const char *name;
    bool is_present;
} feature;

const char *ck_cpu_feature(size_t index, bool *is_present) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#define FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
    const feature known[] = {
        FEATURE("sse4.2"),      FEATURE("avx"),        FEATURE("avx2"),
        FEATURE("fma"),         FEATURE("f16c"),       FEATURE("avxvnni"),
        FEATURE("avxvnniint8"), FEATURE("avx512f"),    FEATURE("avx512bw"),
        FEATURE("avx512dq"),    FEATURE("avx512vl"),   FEATURE("avx512vbmi"),
        FEATURE("avx512vnni"),  FEATURE("avx512bf16"), FEATURE("avx512fp16"),
        FEATURE("amx-tile"),    FEATURE("amx-int8"),   FEATURE("amx-bf16"),
    };
#undef FEATURE
    const size_t count = sizeof known / sizeof known[0];
#elif defined(__aarch64__) && defined(__linux__)
    unsigned long first = getauxval(AT_HWCAP);
    unsigned long second = getauxval(AT_HWCAP2);
    const feature known[] = {
        {"asimd", (first & HWCAP_ASIMD) != 0}, {"asimddp", (first & HWCAP_ASIMDDP) != 0},
        {"fphp", (first & HWCAP_FPHP) != 0},   {"sve", (first & HWCAP_SVE) != 0},
        {"i8mm", (second & HWCAP2_I8MM) != 0}, {"bf16", (second & HWCAP2_BF16) != 0},
        {"sve2", (second & HWCAP2_SVE2) != 0},
    };
    const size_t count = sizeof known / sizeof known[0];
#else
    const feature known[1] = {{NULL, false}};
    const size_t count = 0;
#endif
    if (index >= count) return NULL;
    *is_present = known[index].is_present;
    return known[index].name;
}
