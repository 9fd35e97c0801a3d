/* What the reader of tensors (module.c), the runner (run.c) and the updates (rules.h) share. */

#ifndef OPTIM_CORE_TABLE_H
#define OPTIM_CORE_TABLE_H

#include <stdint.h>

enum rule { SGD, ADAM, N_RULES };
enum dtype { FLOAT32, FLOAT64, BFLOAT16, FLOAT16, N_DTYPES };
enum decay { NO_DECAY, DECOUPLED_DECAY, L2_DECAY };

/* Options of one param group, as the group's dict holds them. */
typedef struct {
    double lr, weight_decay;
    double momentum, dampening;  /* SGD */
    double beta1, beta2, eps;    /* Adam */
    int nesterov, amsgrad, decoupled, maximize;
    double scale;                /* of the gradients: the clip's factor */
} options;

/* One parameter, its gradient and its state: dense, of n elements each, in one order. A buffer that the rule does not
   use is NULL. */
typedef struct {
    char *param;
    const char *grad;
    char *buffers[3];  /* SGD: momentum_buffer. Adam: exp_avg, exp_avg_sq, max_exp_avg_sq */
    void *step;        /* Adam: the count of updates, one float32 or float64 */
    int step_is_float64;
    enum dtype dtype;
    int group;
    int64_t n;
    int64_t first_block;
    /* Scalars of this step, set by `prepare`. */
    double scale;  /* of the gradient, negative to maximize */
    double step_size, bias_correction2_sqrt;
} row;

typedef struct {
    double grad, update, weight;  /* sums of squares over a group */
} squares;

static inline enum decay decay_of(const options *o)
{
    return o->weight_decay == 0 ? NO_DECAY : o->decoupled ? DECOUPLED_DECAY : L2_DECAY;
}

/* The functions of one instruction set, NULL where there is none. Pointers are to elements of one dtype; n counts
   elements. */
typedef struct {
    const char *name;
    void (*update[N_RULES][N_DTYPES])(const row *, const options *, int64_t start, int64_t n);
    double (*sum_of_squares[N_DTYPES])(const void *, int64_t n);
    double (*distance_squared[N_DTYPES])(const void *, const void *, int64_t n);
} level;

extern const level level_portable;
#ifdef __x86_64__
extern const level level_avx2, level_avx512;
#endif

static const int64_t ITEM_SIZE[N_DTYPES] = {4, 8, 2, 2};

/* Elements that are updated at a time. Sums are kept by block and added in the blocks' order, so that they do not
   depend on the number of threads. */
#define BLOCK 4096

void prepare(row *, const options *);
void update_rows(const level *, enum rule, const row *, int64_t n_rows, const options *, int threads, squares *by_block);
void measure_rows(const level *, const row *, int64_t n_rows, int threads, double *by_block);
int64_t number_blocks(row *, int64_t n_rows);

#endif
