/* Waiting for other threads: spin for some milliseconds, as OpenMP's libraries do, because a core that has gone to sleep
   takes as long as a small product to wake up, most of all in a virtual machine. Then sleep: whoever wakes up is given a
   core that is idle, while a thread that only yields may stay on the core of the one that it waits for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() atomic_thread_fence(memory_order_acquire)
#endif
#define SPINS 100000

/* Returns when `word` is no longer `value`, or sooner. `asleep` counts who must be woken. */
static inline void linger(atomic_int *word, int value, atomic_int *asleep)
{
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load(word) != value)
            return;
        PAUSE();
    }
#if defined(__linux__)
    atomic_fetch_add(asleep, 1);
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, (void *)0, (void *)0, 0);
    atomic_fetch_sub(asleep, 1);
#else
    (void)asleep;
    sched_yield();
#endif
}

/* To be called after `word` has changed. */
static inline void rouse(atomic_int *word, atomic_int *asleep)
{
#if defined(__linux__)
    if (atomic_load(asleep))
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, (void *)0, (void *)0, 0);
#else
    (void)word, (void)asleep;
#endif
}
