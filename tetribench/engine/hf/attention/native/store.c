/* New keys, or values, into their blocks. */

#include "paged.h"

/* `rows` rows of [kv_heads, size], whose rows and heads are `new_row` and `new_head` floats apart; `slots` are where
 * they go, counted in vectors of kv_heads * size floats from `memory`. Returns 0, or 1 where one lies outside of it. */
int paged_store(const float *new, int64_t new_row, int64_t new_head, const int64_t *slots, float *memory,
                const struct shape *shape, int64_t rows)
{
    const int64_t size = shape->size, vector = shape->kv_heads * size;
    for (int64_t row = 0; row < rows; row++)
        if (slots[row] < 0 || slots[row] * vector >= shape->num_blocks * shape->block_stride)
            return 1;
    for (int64_t row = 0; row < rows; row++, new += new_row)
        for (int64_t head = 0; head < shape->kv_heads; head++)
            memcpy(memory + slots[row] * vector + head * size, new + head * new_head, size * sizeof(float));
    return 0;
}
