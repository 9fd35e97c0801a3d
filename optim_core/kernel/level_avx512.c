#ifdef __x86_64__
#define LEVEL avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")))
/* SGD waits for memory, which 256-bit accesses keep busier than 512-bit ones on the CPUs seen (AMD EPYC). */
#define STREAM_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=256")))
#define FUSES 1
#include "level.h"
#endif
