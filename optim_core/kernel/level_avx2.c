#ifdef __x86_64__
#define LEVEL avx2
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define FUSES 1
#include "level.h"
#endif
