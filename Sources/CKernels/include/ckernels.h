#pragma once
int lorry_kernels_abi(void);
