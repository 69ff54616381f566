/* Vectors of floats as wide as this processor's registers: wider ones would go through memory. */

#pragma once

#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t int_lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline lanes load(const float *from) { return *(const lanes *)from; }

static inline void store(float *to, lanes value) { *(lanes *)to = value; }
