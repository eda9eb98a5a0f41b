/* Threads that stay between calls: starting one takes longer than a small product. */
#include <pthread.h>

#define LARGEST 256

typedef void (*body_type)(void *argument, int number, int threads);

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int made; /* threads beside the callers */
static atomic_long ticket; /* number of the call times LARGEST, plus its threads */
static atomic_int left, asleep;
static body_type body;
static void *argument;

static void *member(void *place)
{
    long number = (long)place % LARGEST, seen = (long)place / LARGEST;
    for (;;) {
        for (int spins = 0; spins < SPINS && atomic_load(&ticket) / LARGEST == seen; spins++)
            PAUSE();
        pthread_mutex_lock(&lock);
        while (atomic_load(&ticket) / LARGEST == seen)
            pthread_cond_wait(&wake, &lock);
        long call = atomic_load(&ticket);
        pthread_mutex_unlock(&lock);
        seen = call / LARGEST;
        if (number < call % LARGEST) {
            body(argument, (int)number, (int)(call % LARGEST));
            atomic_fetch_sub(&left, 1);
            rouse(&left, &asleep);
        }
    }
    return 0;
}

/* A child of fork has none of its parent's threads, and locks in the state they were in. */
static void forget(void)
{
    made = 0;
    pthread_mutex_init(&busy, 0);
    pthread_mutex_init(&lock, 0);
    pthread_cond_init(&wake, 0);
}

__attribute__((constructor)) static void prepare(void)
{
    pthread_atfork(0, 0, forget);
}

static int grow(int threads)
{
    for (; made < threads - 1 && made < LARGEST - 2; made++) {
        pthread_t thread;
        long place = atomic_load(&ticket) / LARGEST * LARGEST + made + 1;
        if (pthread_create(&thread, 0, member, (void *)place))
            break;
        pthread_detach(thread);
    }
    return made + 1 < threads ? made + 1 : threads;
}

/* Calls `work` with numbers 0 to threads - 1 beside each other; alone where the pool is in use or has no threads. */
void together(body_type work, void *value, long threads)
{
    if (threads < 2 || pthread_mutex_trylock(&busy)) {
        work(value, 0, 1);
        return;
    }
    int all = grow((int)threads);
    body = work, argument = value;
    atomic_store(&left, all - 1);
    pthread_mutex_lock(&lock);
    atomic_store(&ticket, (atomic_load(&ticket) / LARGEST + 1) * LARGEST + all);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    work(value, 0, all);
    for (int others; (others = atomic_load(&left));)
        linger(&left, others, &asleep);
    pthread_mutex_unlock(&busy);
}
