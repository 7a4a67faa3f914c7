// A fork-join pool. The caller publishes a run, takes part in it, closes it, and waits only for
// workers that joined in time: a worker that is still asleep, or whose core is busy with something
// else, holds nothing up.
//
// `state` packs run number, open flag and joined workers into one word, so that a worker joins a
// run atomically with seeing it open. The run's fields are written before `state` opens it and are
// read only by workers that joined; they are written again only after all of those have left.
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "ckernels.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define CK_JOINED_MASK 0x7fffull
#define CK_OPEN 0x8000ull
#define CK_RUN_SHIFT 16

/// Pauses before an idle worker sleeps: some tens of microseconds, longer than the gaps between
/// the operators of a step and shorter than an idle server would notice.
#define CK_SPINS_BEFORE_PARK 2000
/// Pauses before the waiting caller starts to yield its core.
#define CK_SPINS_BEFORE_YIELD 4000

struct ck_pool {
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) _Atomic size_t next_task;
    _Alignas(64) _Atomic bool running;
    _Atomic bool stopping;
    _Atomic size_t parked;
    ck_task task;
    void *context;
    size_t task_count;
    pthread_mutex_t mutex;  // guards only the sleep of parked workers
    pthread_cond_t wake;
    size_t worker_count;
    bool pinned;
    pthread_t threads[];
};

typedef struct worker_start {
    ck_pool *pool;
    size_t index;
} worker_start;

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void drain(ck_pool *pool) {
    ck_task task = pool->task;
    void *context = pool->context;
    size_t count = pool->task_count;
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed);
        if (index >= count) return;
        task(context, index);
    }
}

/// Joins the open run if there is one; true when it has taken part.
static bool take_part(ck_pool *pool) {
    uint64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);
    while (state & CK_OPEN) {
        if (!atomic_compare_exchange_weak_explicit(&pool->state, &state, state + 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        drain(pool);
        atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release);
        return true;
    }
    return false;
}

static bool has_work(ck_pool *pool, uint64_t finished_run) {
    uint64_t state = atomic_load(&pool->state);
    return ((state & CK_OPEN) && state >> CK_RUN_SHIFT != finished_run)
           || atomic_load(&pool->stopping);
}

static void park(ck_pool *pool, uint64_t finished_run) {
    pthread_mutex_lock(&pool->mutex);
    // Counted before the check: a caller that opens a run after it sees the sleeper.
    atomic_fetch_add(&pool->parked, 1);
    while (!has_work(pool, finished_run)) pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->parked, 1);
    pthread_mutex_unlock(&pool->mutex);
}

void ck_name_thread(const char *name) {
#if defined(__linux__)
    (void)pthread_setname_np(pthread_self(), name);
#elif defined(__APPLE__)
    (void)pthread_setname_np(name);
#else
    (void)name;
#endif
}

static void prepare_thread(ck_pool *pool, size_t index) {
#if defined(__linux__)
    char name[16];
    snprintf(name, sizeof name, "lorry-kernel-%u", (unsigned)(index % 100));
    ck_name_thread(name);
    if (!pool->pinned) return;
    // The caller has the first allowed CPU; worker i takes the one i + 1 places on.
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    size_t place = (index + 1) % (size_t)CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || place-- != 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
        return;
    }
#else
    (void)pool;
    (void)index;
#endif
}

static void *work(void *argument) {
    worker_start start = *(worker_start *)argument;
    free(argument);
    ck_pool *pool = start.pool;
    prepare_thread(pool, start.index);
    uint64_t finished_run = UINT64_MAX;
    size_t spins = 0;
    while (!atomic_load_explicit(&pool->stopping, memory_order_acquire)) {
        uint64_t state = atomic_load_explicit(&pool->state, memory_order_relaxed);
        uint64_t run = state >> CK_RUN_SHIFT;
        if ((state & CK_OPEN) && run != finished_run && take_part(pool)) {
            finished_run = run;
            spins = 0;
        } else if (++spins < CK_SPINS_BEFORE_PARK) {
            pause_briefly();
        } else {
            park(pool, finished_run);
            spins = 0;
        }
    }
    return NULL;
}

static void stop_workers(ck_pool *pool, size_t count) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stopping, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (size_t i = 0; i < count; i++) pthread_join(pool->threads[i], NULL);
}

ck_pool *ck_pool_create(size_t worker_count, bool pinned) {
    if (worker_count >= CK_JOINED_MASK) return NULL;
    void *memory = NULL;
    size_t bytes = sizeof(ck_pool) + worker_count * sizeof(pthread_t);
    if (posix_memalign(&memory, 64, bytes) != 0) return NULL;
    ck_pool *pool = memory;
    atomic_init(&pool->state, 0);
    atomic_init(&pool->next_task, 0);
    atomic_init(&pool->running, false);
    atomic_init(&pool->stopping, false);
    atomic_init(&pool->parked, 0);
    pool->worker_count = worker_count;
    pool->pinned = pinned;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (size_t i = 0; i < worker_count; i++) {
        worker_start *start = malloc(sizeof *start);
        if (start) *start = (worker_start){pool, i};
        if (!start || pthread_create(&pool->threads[i], NULL, work, start) != 0) {
            free(start);
            pool->worker_count = i;
            ck_pool_destroy(pool);
            return NULL;
        }
    }
    return pool;
}

bool ck_pool_run(ck_pool *pool, size_t task_count, ck_task task, void *context) {
    if (atomic_exchange(&pool->running, true)) return false;
    if (task_count <= 1 || pool->worker_count == 0) {
        for (size_t i = 0; i < task_count; i++) task(context, i);
        atomic_store(&pool->running, false);
        return true;
    }
    pool->task = task;
    pool->context = context;
    pool->task_count = task_count;
    atomic_store_explicit(&pool->next_task, 0, memory_order_relaxed);
    uint64_t run = (atomic_load_explicit(&pool->state, memory_order_relaxed) >> CK_RUN_SHIFT) + 1;
    atomic_store(&pool->state, run << CK_RUN_SHIFT | CK_OPEN);
    if (atomic_load(&pool->parked) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
    drain(pool);
    atomic_fetch_and(&pool->state, ~CK_OPEN);
    for (size_t spins = 0;
         atomic_load_explicit(&pool->state, memory_order_acquire) & CK_JOINED_MASK; spins++) {
        if (spins < CK_SPINS_BEFORE_YIELD) pause_briefly();
        else sched_yield();
    }
    atomic_store(&pool->running, false);
    return true;
}

/// A Swift closure `(Int) -> Void` as its caller passes it: a function and its context.
typedef __attribute__((swiftcall)) void (*closure_function)(
    size_t index, __attribute__((swift_context)) void *context);

typedef struct closure {
    closure_function function;
    void *context;
} closure;

static void call_closure(void *context, size_t index) {
    closure *task = context;
    task->function(index, task->context);
}

/// ck_pool_run for a closure of Swift's that does not escape; declared in WorkerPool.swift. Swift
/// itself could hand such a closure to C only by allocating a copy, at every operator of a step.
__attribute__((swiftcall)) bool ck_pool_run_closure(ck_pool *pool, size_t task_count,
                                                    closure_function function, void *context);

__attribute__((swiftcall)) bool ck_pool_run_closure(ck_pool *pool, size_t task_count,
                                                    closure_function function, void *context) {
    closure task = {function, context};
    return ck_pool_run(pool, task_count, call_closure, &task);
}

void ck_pool_destroy(ck_pool *pool) {
    stop_workers(pool, pool->worker_count);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
