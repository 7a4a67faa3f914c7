#include "ckernels.h"
int lorry_kernels_abi(void) { return 1; }
