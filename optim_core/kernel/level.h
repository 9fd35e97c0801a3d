/* All updates of one instruction set. A level_*.c defines LEVEL, TARGET, FUSES and, where functions that wait for
   memory are better built another way, STREAM_TARGET; then it includes this. */

#include "table.h"

#include <math.h>
#include <string.h>

#define JOIN3(a, b, c) a##_##b##_##c
#define JOIN(a, b, c) JOIN3(a, b, c)
#define NAME(what) JOIN(what, DTYPE, LEVEL)

#ifndef STREAM_TARGET
#define STREAM_TARGET TARGET
#endif

/* Lanes of a sum: enough to wait for memory and not for the latency of an addition. */
#define LANES 32

#define SAME(x) (x)
#if FUSES
#define FUSED_FLOAT(a, b, c) __builtin_fmaf(a, b, c)
#define FUSED_DOUBLE(a, b, c) __builtin_fma(a, b, c)
#else
#define FUSED_FLOAT(a, b, c) ((a) * (b) + (c))
#define FUSED_DOUBLE(a, b, c) ((a) * (b) + (c))
#endif

/* x / by as IEEE rounds it, `inverse` being 1 / by. The divider is the loop's bottleneck and the fused units are not:
   two corrections make a faithful quotient the correctly rounded one (Markstein 1990, "Computation of elementary
   functions on the IBM RISC System/6000 processor"). For x >= 0 and `by` in the middle of
   the range, so that nothing underflows. */
#if FUSES
#define DIVIDE(real, fma) \
    TARGET static inline __attribute__((always_inline)) real divided_##real(real x, real by, real inverse) \
    { \
        real quotient = x * inverse; \
        quotient = fma(fma(-by, quotient, x), inverse, quotient); \
        quotient = fma(fma(-by, quotient, x), inverse, quotient); \
        return x < (real)__builtin_inf() ? quotient : x; \
    }
#else
#define DIVIDE(real, fma) \
    static inline real divided_##real(real x, real by, real inverse) { return (void)inverse, x / by; }
#endif
DIVIDE(float, __builtin_fmaf)
DIVIDE(double, __builtin_fma)

#define REAL float
#define SQRT(x) __builtin_sqrtf(x)
#define FUSED FUSED_FLOAT
#define DIVIDED divided_float

#define NARROW 0
#define DTYPE float32
#define STORED float
#define LOAD SAME
#define STORE SAME
#define ROUNDED SAME
#include "rules.h"
#undef DTYPE
#undef STORED
#undef LOAD
#undef STORE
#undef ROUNDED

#undef NARROW
#define NARROW 1

TARGET static inline __attribute__((always_inline)) float from_bfloat16(uint16_t stored)
{
    const uint32_t bits = (uint32_t)stored << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* To the nearest, ties to even; NaN to the quiet NaN. */
TARGET static inline __attribute__((always_inline)) uint16_t to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0 : nearest);
}

#define DTYPE bfloat16
#define STORED uint16_t
#define LOAD from_bfloat16
#define STORE to_bfloat16
#define ROUNDED(x) from_bfloat16(to_bfloat16(x))
#include "rules.h"
#undef DTYPE
#undef STORED
#undef LOAD
#undef STORE
#undef ROUNDED

#ifdef __FLT16_MAX__
#define DTYPE float16
#define STORED _Float16
#define LOAD (float)
#define STORE (_Float16)
#define ROUNDED(x) ((float)(_Float16)(x))
#include "rules.h"
#undef DTYPE
#undef STORED
#undef LOAD
#undef STORE
#undef ROUNDED
#define FLOAT16_OR_NULL(what) what
#else
#define FLOAT16_OR_NULL(what) 0
#endif

#undef NARROW
#define NARROW 0
#undef REAL
#undef SQRT
#undef FUSED
#undef DIVIDED
#define REAL double
#define SQRT(x) __builtin_sqrt(x)
#define FUSED FUSED_DOUBLE
#define DIVIDED divided_double

#define DTYPE float64
#define STORED double
#define LOAD SAME
#define STORE SAME
#define ROUNDED SAME
#include "rules.h"
#undef DTYPE

#define OF(what, dtype) JOIN(what, dtype, LEVEL)
#define EACH(what) {OF(what, float32), OF(what, float64), OF(what, bfloat16), FLOAT16_OR_NULL(OF(what, float16))}
#define QUOTED2(x) #x
#define QUOTED(x) QUOTED2(x)
#define LEVEL_STRUCT2(x) level_##x
#define LEVEL_STRUCT(x) LEVEL_STRUCT2(x)

const level LEVEL_STRUCT(LEVEL) = {
    .name = QUOTED(LEVEL),
    .update = {{OF(sgd, float32), OF(sgd, float64)}, EACH(adam)},
    .sum_of_squares = EACH(sum_of_squares),
    .distance_squared = EACH(distance_squared),
};
