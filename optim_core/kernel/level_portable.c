/* Whatever the compiler's default is: SSE2 on x86-64, where torch's own default build does not fuse; NEON on arm64,
   where it does. */

#define LEVEL portable
#define TARGET
#ifdef __aarch64__
#define FUSES 1
#else
#define FUSES 0
#endif
#include "level.h"
