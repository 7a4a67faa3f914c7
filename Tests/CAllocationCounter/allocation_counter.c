// Stands before glibc's allocator: the linker takes a program's own malloc for all its libraries.
#include "allocation_counter.h"

#include <stdlib.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) \
    || __has_feature(memory_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif

#if defined(__linux__) && defined(__GLIBC__) && !defined(UNDER_SANITIZER)

#include <errno.h>
#include <stddef.h>

void *__libc_malloc(size_t byte_count);
void *__libc_calloc(size_t count, size_t byte_count);
void *__libc_realloc(void *memory, size_t byte_count);
void *__libc_memalign(size_t alignment, size_t byte_count);

static _Thread_local uint64_t count;

bool allocation_counter_works(void) { return true; }

uint64_t allocation_count(void) { return count; }

void *malloc(size_t byte_count) {
    count++;
    return __libc_malloc(byte_count);
}

void *calloc(size_t element_count, size_t byte_count) {
    count++;
    return __libc_calloc(element_count, byte_count);
}

void *realloc(void *memory, size_t byte_count) {
    count++;
    return __libc_realloc(memory, byte_count);
}

void *memalign(size_t alignment, size_t byte_count) {
    count++;
    return __libc_memalign(alignment, byte_count);
}

void *aligned_alloc(size_t alignment, size_t byte_count) {
    count++;
    return __libc_memalign(alignment, byte_count);
}

int posix_memalign(void **memory, size_t alignment, size_t byte_count) {
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0) return EINVAL;
    count++;
    void *taken = __libc_memalign(alignment, byte_count);
    if (taken == NULL) return ENOMEM;
    *memory = taken;
    return 0;
}

#else

bool allocation_counter_works(void) { return false; }

uint64_t allocation_count(void) { return 0; }

#endif
