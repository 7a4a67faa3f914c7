// Counts the allocations of a thread, for tests that hold code to a number of them.
#pragma once

#include <stdbool.h>
#include <stdint.h>

/// Whether this build counts: on Linux with glibc, without a sanitizer (which has its own malloc).
bool allocation_counter_works(void);

/// Allocations that the calling thread has made so far, by malloc and its kin; a block that realloc
/// changes is one more.
uint64_t allocation_count(void);
