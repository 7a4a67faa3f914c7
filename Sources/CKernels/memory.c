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

/// Mapped files lie on pages of this size.
#define CK_FILE_PAGE ((size_t)4096)

static size_t whole_huge_pages(size_t byte_count) {
    return (byte_count + CK_HUGE_PAGE - 1) / CK_HUGE_PAGE * CK_HUGE_PAGE;
}

/// Memory of its own at a multiple of a huge page, in whole ones.
static void *map_huge_pages(size_t byte_count) {
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
    // Advice only: without huge pages everything works, more slowly. The last one is left out where
    // it is not used as a whole: nothing may take more memory than it is counted for.
    size_t whole = byte_count / CK_HUGE_PAGE * CK_HUGE_PAGE;
    (void)madvise(memory, whole, MADV_HUGEPAGE);
    if (whole < wanted) (void)madvise(memory + whole, wanted - whole, MADV_NOHUGEPAGE);
#endif
    return memory;
}

void *ck_allocate(size_t byte_count) {
    if (byte_count > SIZE_MAX / 2) return NULL;
    if (byte_count >= CK_MAPPED_BYTES) return map_huge_pages(byte_count);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, byte_count ? byte_count : 64) != 0) return NULL;
    memset(memory, 0, byte_count);
    return memory;
}

void ck_free(void *memory, size_t byte_count) {
    if (byte_count < CK_MAPPED_BYTES) free(memory);
    else munmap(memory, whole_huge_pages(byte_count));
}

void *ck_allocate_pages(size_t byte_count) {
    if (byte_count == 0 || byte_count > SIZE_MAX / 2) return NULL;
    if (byte_count >= CK_HUGE_PAGE) return map_huge_pages(byte_count);
    void *memory = mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (memory == MAP_FAILED) return NULL;
#ifdef MADV_POPULATE_WRITE
    // Advice only: all its small pages in one go, where writing would fault for each.
    (void)madvise(memory, byte_count, MADV_POPULATE_WRITE);
#endif
    return memory;
}

void ck_free_pages(void *memory, size_t byte_count) {
    munmap(memory, byte_count >= CK_HUGE_PAGE ? whole_huge_pages(byte_count) : byte_count);
}

static size_t whole_system_pages(size_t byte_count) {
    return (byte_count + CK_FILE_PAGE - 1) / CK_FILE_PAGE * CK_FILE_PAGE;
}

void *ck_map_file(int descriptor, size_t offset, size_t byte_count) {
    if (byte_count == 0 || byte_count > SIZE_MAX / 2) return NULL;
    size_t wanted = whole_huge_pages(byte_count);
    size_t mapped = wanted + CK_HUGE_PAGE;
    uint8_t *start = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (start == MAP_FAILED) return NULL;
    size_t before = (CK_HUGE_PAGE - (uintptr_t)start % CK_HUGE_PAGE) % CK_HUGE_PAGE;
    uint8_t *memory = start + before;
    if (before) munmap(start, before);
    if (mapped - before > wanted) munmap(memory + wanted, mapped - before - wanted);
    void *file = mmap(memory, byte_count, PROT_READ, MAP_PRIVATE | MAP_FIXED, descriptor,
                      (off_t)offset);
    if (file == MAP_FAILED) {
        munmap(memory, wanted);
        return NULL;
    }
    return memory;
}

void ck_unmap_file(void *memory, size_t byte_count) {
    munmap(memory, whole_huge_pages(byte_count));
}

void ck_populate(void *memory, size_t byte_count) {
#ifdef MADV_POPULATE_READ
    // Advice only: pages come one fault after the other where the system does not know it.
    (void)madvise(memory, whole_system_pages(byte_count), MADV_POPULATE_READ);
#else
    (void)memory;
    (void)byte_count;
#endif
}

bool ck_move_to_huge_pages(void *memory, size_t byte_count) {
#ifdef __linux__
    size_t size = whole_system_pages(byte_count);
    // Large enough to be mapped for itself.
    size_t allocated = size < CK_MAPPED_BYTES ? CK_MAPPED_BYTES : size;
    uint8_t *copy = ck_allocate(allocated);
    if (!copy) return false;
    memcpy(copy, memory, byte_count);
    if (mprotect(copy, size, PROT_READ) != 0 ||
        mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, memory) == MAP_FAILED) {
        ck_free(copy, allocated);
        return false;
    }
    size_t rest = whole_huge_pages(allocated) - size;
    if (rest) munmap(copy + size, rest);
    return true;
#else
    (void)memory;
    (void)byte_count;
    return false;
#endif
}
