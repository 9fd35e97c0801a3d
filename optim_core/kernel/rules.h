/* The updates of one dtype at one instruction set; level.h includes this once for each dtype.

   The operations, their order and their roundings are those of optim_core/rules.py, which says where they come from.
   FUSED(a, b, c) is a * b + c: rounded once where torch's own build contracts it (AVX2, AVX-512, arm64), twice where
   not. ROUNDED is the rounding to a dtype narrower than the arithmetic. Divisions and roots are IEEE's.

   A NARROW dtype (bfloat16, float16) has no SGD and no L2 decay here: torch's addition rounds once or twice by an
   element's place in torch's own vectors and threads, so only torch gives its bits. */

#if !NARROW
typedef struct {
    REAL scale, lr, weight_decay, momentum, one_minus_dampening;
} NAME(sgd_scalars);

STREAM_TARGET static inline __attribute__((always_inline)) void NAME(sgd_loop)(
    STORED *restrict param, const STORED *restrict grad, STORED *restrict buffer, int64_t n, NAME(sgd_scalars) s,
    const int has_decay, const int has_momentum, const int nesterov)
{
    for (int64_t i = 0; i < n; i++) {
        const REAL p = LOAD(param[i]);
        REAL g = ROUNDED(LOAD(grad[i]) * s.scale);
        if (has_decay) g = ROUNDED(FUSED(s.weight_decay, p, g));
        if (has_momentum) {
            const REAL decayed = ROUNDED(LOAD(buffer[i]) * s.momentum);
            const REAL b = ROUNDED(FUSED(s.one_minus_dampening, g, decayed));
            buffer[i] = STORE(b);
            g = nesterov ? ROUNDED(FUSED(s.momentum, b, g)) : b;
        }
        param[i] = STORE(FUSED(-s.lr, g, p));
    }
}

STREAM_TARGET static void NAME(sgd)(const row *r, const options *o, int64_t start, int64_t n)
{
    STORED *param = (STORED *)r->param + start, *buffer = r->buffers[0] ? (STORED *)r->buffers[0] + start : 0;
    const STORED *grad = (const STORED *)r->grad + start;
    const NAME(sgd_scalars) s = {(REAL)r->scale, (REAL)o->lr, (REAL)o->weight_decay, (REAL)o->momentum,
                                 (REAL)(1 - o->dampening)};
    const int momentum = o->momentum != 0;
    switch ((o->weight_decay != 0) | momentum << 1 | (momentum && o->nesterov) << 2) {
    case 0: NAME(sgd_loop)(param, grad, buffer, n, s, 0, 0, 0); break;
    case 1: NAME(sgd_loop)(param, grad, buffer, n, s, 1, 0, 0); break;
    case 2: NAME(sgd_loop)(param, grad, buffer, n, s, 0, 1, 0); break;
    case 3: NAME(sgd_loop)(param, grad, buffer, n, s, 1, 1, 0); break;
    case 6: NAME(sgd_loop)(param, grad, buffer, n, s, 0, 1, 1); break;
    case 7: NAME(sgd_loop)(param, grad, buffer, n, s, 1, 1, 1); break;
    }
}

#endif

typedef struct {
    REAL scale, shrink, weight_decay, weight, beta2, one_minus_beta2, bias_correction2_sqrt, inverse, eps, step_size;
} NAME(adam_scalars);

TARGET static inline __attribute__((always_inline)) void NAME(adam_loop)(
    STORED *restrict param, const STORED *restrict grad, STORED *restrict exp_avg, STORED *restrict exp_avg_sq,
    STORED *restrict max_exp_avg_sq, int64_t n, NAME(adam_scalars) s, const enum decay decay, const int amsgrad)
{
    /* torch's lerp: from the nearer end. */
    const int from_average = s.weight < (REAL)0.5 && s.weight > (REAL)-0.5;
    const REAL weight = from_average ? s.weight : s.weight - 1;
    for (int64_t i = 0; i < n; i++) {
        REAL p = LOAD(param[i]), g = ROUNDED(LOAD(grad[i]) * s.scale);
        if (decay == DECOUPLED_DECAY) p = ROUNDED(p * s.shrink);
        if (decay == L2_DECAY) g = ROUNDED(FUSED(s.weight_decay, p, g));
        REAL m = LOAD(exp_avg[i]), v = LOAD(exp_avg_sq[i]);
        m = ROUNDED(FUSED(weight, g - m, from_average ? m : g));
        v = ROUNDED(FUSED(s.one_minus_beta2 * g, g, ROUNDED(v * s.beta2)));
        exp_avg[i] = STORE(m);
        exp_avg_sq[i] = STORE(v);
        if (amsgrad) {
            const REAL largest = LOAD(max_exp_avg_sq[i]);
            v = v > largest || v != v ? v : largest;  /* NaN stays */
            max_exp_avg_sq[i] = STORE(v);
        }
        const REAL root = ROUNDED(DIVIDED(ROUNDED(SQRT(v)), s.bias_correction2_sqrt, s.inverse));
        param[i] = STORE(p + (-s.step_size * m) / ROUNDED(root + s.eps));
    }
}

TARGET static void NAME(adam)(const row *r, const options *o, int64_t start, int64_t n)
{
    STORED *param = (STORED *)r->param + start;
    const STORED *grad = (const STORED *)r->grad + start;
    STORED *exp_avg = (STORED *)r->buffers[0] + start, *exp_avg_sq = (STORED *)r->buffers[1] + start;
    STORED *largest = o->amsgrad ? (STORED *)r->buffers[2] + start : 0;
    const NAME(adam_scalars) s = {
        (REAL)r->scale, (REAL)(1 - o->lr * o->weight_decay), (REAL)o->weight_decay, (REAL)(1 - o->beta1),
        (REAL)o->beta2, (REAL)(1 - o->beta2), (REAL)r->bias_correction2_sqrt, 1 / (REAL)r->bias_correction2_sqrt,
        ROUNDED((REAL)o->eps), (REAL)r->step_size};
    const enum decay decay = decay_of(o);
    switch (decay * 2 + o->amsgrad) {
    case 0: NAME(adam_loop)(param, grad, exp_avg, exp_avg_sq, largest, n, s, NO_DECAY, 0); break;
    case 1: NAME(adam_loop)(param, grad, exp_avg, exp_avg_sq, largest, n, s, NO_DECAY, 1); break;
    case 2: NAME(adam_loop)(param, grad, exp_avg, exp_avg_sq, largest, n, s, DECOUPLED_DECAY, 0); break;
    case 3: NAME(adam_loop)(param, grad, exp_avg, exp_avg_sq, largest, n, s, DECOUPLED_DECAY, 1); break;
#if !NARROW
    case 4: NAME(adam_loop)(param, grad, exp_avg, exp_avg_sq, largest, n, s, L2_DECAY, 0); break;
    case 5: NAME(adam_loop)(param, grad, exp_avg, exp_avg_sq, largest, n, s, L2_DECAY, 1); break;
#endif
    }
}

/* Sums in double, in LANES lanes whatever the instruction set, so that every level gives one result. */

TARGET static double NAME(sum_of_squares)(const void *values, int64_t n)
{
    const STORED *x = values;
    double lanes[LANES] = {0};
    const int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            const double value = (double)LOAD(x[i + lane]);
            lanes[lane] += value * value;
        }
    for (int64_t i = whole; i < n; i++) {
        const double value = (double)LOAD(x[i]);
        lanes[i - whole] += value * value;
    }
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

TARGET static double NAME(distance_squared)(const void *from, const void *to, int64_t n)
{
    const STORED *a = from, *b = to;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const double difference = (double)LOAD(b[i]) - (double)LOAD(a[i]);
        sum += difference * difference;
    }
    return sum;
}
