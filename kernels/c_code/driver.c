/* C = A B in fp32 for any sizes and strides of A and B; rows of C are contiguous. MR, NR, V are defined above. */
#include <stdatomic.h>
#include <string.h>

typedef float vector __attribute__((vector_size(V * 4), may_alias));
typedef float loose __attribute__((vector_size(V * 4), aligned(4), may_alias));
typedef int lanes_of __attribute__((vector_size(V * 4)));
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle(x, y, (lanes_of){__VA_ARGS__})
#endif
#define MIN(x, y) ((x) < (y) ? (x) : (y))

/* GENERATED */

/* A panel: to[p * size + lane] = from[lane * lane_stride + p * depth_stride], zeros in lanes that are not there. Rows
   of fewer floats than a vector are written as whole vectors: what is too much is overwritten by the next row, so
   groups of lanes go from the last to the first, and buffers end with room for one vector. */
static inline __attribute__((always_inline)) void pack(float *restrict to, const float *restrict from, long lanes,
        long depth, long lane_stride, long depth_stride, const long size)
{
    long p = 0;
    if (lanes == size && lane_stride == 1) {
        for (; p < depth; p++)
            memcpy(to + p * size, from + p * depth_stride, size * sizeof(float));
        return;
    }
    if (lanes == size && depth_stride == 1)
        for (; p + V <= depth; p += V)
            for (long group = (size - 1) / V * V; group >= 0; group -= V) {
                vector r[V];
                for (int i = 0; i < V; i++)
                    r[i] = *(const loose *)(from + MIN(group + i, size - 1) * lane_stride + p);
                transpose(r);
                for (int i = 0; i < V; i++)
                    *(loose *)(to + (p + i) * size + group) = r[i];
            }
    for (; p < depth; p++)
        for (long lane = 0; lane < size; lane++)
            to[p * size + lane] = lane < lanes ? from[lane * lane_stride + p * depth_stride] : 0.0f;
}

typedef struct {
    long m, n, k;
    const float *a, *b;
    float *c;
    long a_row, a_depth, b_depth, b_column, c_row;
    long mc, kc, nc;
    int pack_a;
    float *b_panels, *a_panels;
    long a_size; /* floats of one thread's part of a_panels */
    atomic_int arrived, phase, asleep;
    atomic_long task;
} work;

/* Waits until every thread is here; the last one clears the counter of tasks. */
static void meet(work *job, int threads)
{
    int phase = atomic_load(&job->phase);
    if (threads == 1 || atomic_fetch_add(&job->arrived, 1) == threads - 1) {
        atomic_store(&job->arrived, 0);
        atomic_store(&job->task, 0);
        atomic_store(&job->phase, phase + 1);
        rouse(&job->phase, &job->asleep);
        return;
    }
    while (atomic_load(&job->phase) == phase)
        linger(&job->phase, phase, &job->asleep);
}

static void block(const work *job, const float *a, int packed, const float *b, float *c, long rows, long columns,
        long depth, int first)
{
    long a_row = job->a_row, a_depth = job->a_depth;
    if (rows == MR && columns == NR) {
        if (packed)
            micro_packed(depth, a, a_row, a_depth, b, c, job->c_row, first);
        else
            micro_direct(depth, a, a_row, a_depth, b, c, job->c_row, first);
        return;
    }
    float edge[MR * NR] __attribute__((aligned(64)));
    if (packed)
        micro_packed(depth, a, a_row, a_depth, b, edge, NR, 1);
    else
        micro_direct(depth, a, a_row, a_depth, b, edge, NR, 1);
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++)
            c[i * job->c_row + j] = (first ? 0.0f : c[i * job->c_row + j]) + edge[i * NR + j];
}

static void pack_rows(const work *job, float *panels, const float *a, long rows, long depth, int only_edge)
{
    for (long i = only_edge ? rows / MR * MR : 0; i < rows; i += MR)
        pack(panels + i * depth, a + i * job->a_row, MIN(MR, rows - i), depth, job->a_row, job->a_depth, MR);
}

/* Rows i0..i1 of A times panels j0..j1 of B. */
static void rectangle(const work *job, const float *panels, long i0, long i1, long jc, long j0, long j1, long pc,
        long depth)
{
    const float *a = job->a + i0 * job->a_row + pc * job->a_depth;
    long end = MIN(job->n, jc + job->nc);
    for (long j = j0; j < j1; j++) {
        long column = jc + j * NR;
        const float *b = job->b_panels + j * NR * depth;
        for (long i = 0; i < i1 - i0; i += MR) {
            long rows = MIN(MR, i1 - i0 - i);
            int packed = job->pack_a || rows < MR;
            const float *own = packed ? panels + i * depth : a + i * job->a_row;
            block(job, own, packed, b, job->c + (i0 + i) * job->c_row + column, rows, MIN(NR, end - column), depth,
                pc == 0);
        }
    }
}

/* One block of B: threads pack it together, then take parts of C, rows first, until none is left. */
static void compute(work *job, float *own, int number, int threads, long jc, long pc)
{
    long depth = MIN(job->kc, job->k - pc), columns = MIN(job->nc, job->n - jc);
    long panels = (columns + NR - 1) / NR, parts = (job->m + job->mc - 1) / job->mc, held = -1;
    for (long j = panels * number / threads; j < panels * (number + 1) / threads; j++)
        pack(job->b_panels + j * NR * depth, job->b + pc * job->b_depth + (jc + j * NR) * job->b_column,
            MIN(NR, columns - j * NR), depth, job->b_column, job->b_depth, NR);
    meet(job, threads);
    long across = threads == 1 || parts >= 4 * threads ? 1 : MIN(panels, (4 * threads + parts - 1) / parts);
    for (long task; (task = atomic_fetch_add(&job->task, 1)) < parts * across;) {
        long part = task / across, j = task % across;
        long i0 = part * job->mc, i1 = MIN(job->m, i0 + job->mc);
        if (held != part)
            pack_rows(job, own, job->a + i0 * job->a_row + pc * job->a_depth, i1 - i0, depth, !job->pack_a);
        held = part;
        rectangle(job, own, i0, i1, jc, panels * j / across, panels * (j + 1) / across, pc, depth);
    }
    meet(job, threads);
}

static void run(void *pointer, int number, int threads)
{
    work *job = pointer;
    for (long jc = 0; jc < job->n; jc += job->nc)
        for (long pc = 0; pc < job->k; pc += job->kc)
            compute(job, job->a_panels + number * job->a_size, number, threads, jc, pc);
}

static long up(long value, long step)
{
    return (value + step - 1) / step * step;
}

/* The block size below `largest` that cuts `size` into equal parts, rounded up to whole steps. */
static long even(long size, long largest, long step)
{
    long parts = (size + largest - 1) / largest;
    return up((size + parts - 1) / parts, step);
}

/* Floats of working memory; 16 more between parts, and 64 bytes of alignment at the start. */
long workspace(long m, long n, long k, long mc, long kc, long nc, long threads)
{
    mc = up(MIN(mc, m), MR), kc = MIN(kc, k), nc = up(MIN(nc, n), NR);
    return up((nc + NR) * kc, 16) + 16 + threads * (up((mc + MR) * kc, 16) + 64) + 16;
}

/* `together` calls a function on several threads (pool.c); `memory` has `workspace` floats, aligned to 64 bytes. */
void multiply(long m, long n, long k, const float *a, long a_row, long a_depth, const float *b, long b_depth,
        long b_column, float *c, long c_row, long mc, long kc, long nc, long pack_a, long threads, float *memory,
        void (*together)(void (*)(void *, int, int), void *, long))
{
    if (m < 1 || n < 1)
        return;
    if (k < 1) {
        for (long i = 0; i < m; i++)
            memset(c + i * c_row, 0, n * sizeof(float));
        return;
    }
    mc = even(m, up(MIN(mc, m), MR), MR), kc = even(k, MIN(kc, k), 1), nc = even(n, up(MIN(nc, n), NR), NR);
    long a_size = up(mc * kc, 16) + 16;
    work job = {m, n, k, a, b, c, a_row, a_depth, b_depth, b_column, c_row, mc, kc, nc, (int)pack_a, memory,
        memory + up(nc * kc, 16) + 16, a_size, 0, 0, 0, 0};
    together(run, &job, threads);
}
