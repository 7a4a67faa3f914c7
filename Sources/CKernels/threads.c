#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "ckernels.h"

#if defined(__linux__)
#include <sched.h>
#endif

void ck_make_thread_patient(void) {
#if defined(__linux__)
    // Advice only: without it the thread interrupts others more often.
    const struct sched_param parameters = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &parameters);
#endif
}
