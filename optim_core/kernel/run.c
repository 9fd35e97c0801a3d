/* From rows to threads: blocks of rows, split evenly; each is updated, and measured where that is asked for. */

#include "table.h"

#include <math.h>
#include <string.h>

/* Python's ** is the C library's pow, also for the root; the compiler shall not put sqrt in its place. */
static double power(double base, double exponent)
{
    volatile double hidden = exponent;
    return pow(base, hidden);
}

/* Count this update and set the scalars of the step. */
void prepare(row *r, const options *o)
{
    r->scale = o->maximize ? -o->scale : o->scale;
    if (!r->step) return;
    const double step = r->step_is_float64 ? (*(double *)r->step += 1) : (*(float *)r->step += 1);
    static _Thread_local double last_step, last_beta1, last_beta2, last1, last2;
    if (step != last_step || o->beta1 != last_beta1 || o->beta2 != last_beta2) {
        last1 = 1 - power(o->beta1, step);
        last2 = power(1 - power(o->beta2, step), 0.5);
        last_step = step, last_beta1 = o->beta1, last_beta2 = o->beta2;
    }
    r->step_size = o->lr / last1;
    r->bias_correction2_sqrt = last2;
}

/* Give each row its first block; return how many blocks there are. */
int64_t number_blocks(row *rows, int64_t n_rows)
{
    int64_t blocks = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        rows[i].first_block = blocks;
        blocks += (rows[i].n + BLOCK - 1) / BLOCK;
    }
    return blocks;
}

static int64_t blocks_of(const row *rows, int64_t n_rows)
{
    return n_rows ? rows[n_rows - 1].first_block + (rows[n_rows - 1].n + BLOCK - 1) / BLOCK : 0;
}

/* The row of a block: the last one that starts at or before it and is not empty. */
static const row *row_of(const row *rows, int64_t n_rows, int64_t block)
{
    int64_t low = 0, high = n_rows;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (rows[middle].first_block <= block) low = middle;
        else high = middle;
    }
    return rows + low;
}

static void update_block(const level *l, enum rule rule, const row *r, const options *o, int64_t block, squares *sums)
{
    const int64_t start = (block - r->first_block) * BLOCK, n = r->n - start < BLOCK ? r->n - start : BLOCK;
    const int64_t size = ITEM_SIZE[r->dtype];
    if (!sums) {
        l->update[rule][r->dtype](r, o, start, n);
        return;
    }
    char before[BLOCK * 8];
    memcpy(before, r->param + start * size, n * size);
    l->update[rule][r->dtype](r, o, start, n);
    sums->grad = l->sum_of_squares[r->dtype](r->grad + start * size, n);
    sums->weight = l->sum_of_squares[r->dtype](before, n);
    sums->update = l->distance_squared[r->dtype](before, r->param + start * size, n);
}

/* Update all rows; with `by_block`, also measure each block. One parallel region at most. */
void update_rows(const level *l, enum rule rule, const row *rows, int64_t n_rows, const options *groups, int threads,
                 squares *by_block)
{
    const int64_t blocks = blocks_of(rows, n_rows);
    if (threads < 2) {
        for (int64_t block = 0; block < blocks; block++) {
            const row *r = row_of(rows, n_rows, block);
            update_block(l, rule, r, groups + r->group, block, by_block ? by_block + block : 0);
        }
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const row *r = row_of(rows, n_rows, block);
        update_block(l, rule, r, groups + r->group, block, by_block ? by_block + block : 0);
    }
}

static double measure_block(const level *l, const row *r, int64_t block)
{
    const int64_t start = (block - r->first_block) * BLOCK, n = r->n - start < BLOCK ? r->n - start : BLOCK;
    return l->sum_of_squares[r->dtype](r->grad + start * ITEM_SIZE[r->dtype], n);
}

/* The sum of squares of each block of the gradients. */
void measure_rows(const level *l, const row *rows, int64_t n_rows, int threads, double *by_block)
{
    const int64_t blocks = blocks_of(rows, n_rows);
    if (threads < 2) {
        for (int64_t block = 0; block < blocks; block++)
            by_block[block] = measure_block(l, row_of(rows, n_rows, block), block);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++)
        by_block[block] = measure_block(l, row_of(rows, n_rows, block), block);
}
