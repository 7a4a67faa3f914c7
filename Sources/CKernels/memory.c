#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "ckernels.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CK_HUGE_PAGE ((size_t)2 << 20)

/// From this size on memory is mapped for itself, in whole huge pages.
#define CK_MAPPED_BYTES ((size_t)4 << 20)

static size_t whole_huge_pages(size_t byte_count) {
    return (byte_count + CK_HUGE_PAGE - 1) / CK_HUGE_PAGE * CK_HUGE_PAGE;
}

void *ck_allocate(size_t byte_count) {
    if (byte_count > SIZE_MAX / 2) return NULL;
    if (byte_count < CK_MAPPED_BYTES) {
        void *memory = NULL;
        if (posix_memalign(&memory, 64, byte_count ? byte_count : 64) != 0) return NULL;
        memset(memory, 0, byte_count);
        return memory;
    }
    // Maps one huge page more than needed and gives back what lies before and after the
    // aligned part.
    size_t wanted = whole_huge_pages(byte_count);
    size_t mapped = wanted + CK_HUGE_PAGE;
    uint8_t *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (start == MAP_FAILED) return NULL;
    size_t before = (CK_HUGE_PAGE - (uintptr_t)start % CK_HUGE_PAGE) % CK_HUGE_PAGE;
    uint8_t *memory = start + before;
    if (before) munmap(start, before);
    if (mapped - before > wanted) munmap(memory + wanted, mapped - before - wanted);
#ifdef MADV_HUGEPAGE
    // Advice only: without huge pages everything works, more slowly.
    (void)madvise(memory, wanted, MADV_HUGEPAGE);
#endif
    return memory;
}

void ck_free(void *memory, size_t byte_count) {
    if (byte_count < CK_MAPPED_BYTES) free(memory);
    else munmap(memory, whole_huge_pages(byte_count));
}
