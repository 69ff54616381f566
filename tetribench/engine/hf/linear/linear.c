/* A linear layer, for any number of rows, over weights in panels.
 *
 * A panel is PANEL outputs: of each input in turn their weights, side by side, so that weights are read once and in the
 * order in which they lie. A tile of the outputs stays in registers from the first input to the last. */

#include <string.h>

#include "lanes.h"

#define VECTORS 2 /* of a panel; ROWS times as many registers hold a tile */
#ifdef __AVX512F__
#define ROWS 8 /* of 32 registers */
#else
#define ROWS 6 /* of 16 */
#endif
#define PANEL (VECTORS * LANES)
#define CACHED (1 << 16) /* floats of inputs at a time, for all of which a panel is read */
#define AHEAD 2048 /* floats: what comes from memory is asked for before its turn, for the second cache */

int64_t panel_size(void) { return PANEL; }

/* `rows` rows by the first `width` outputs of a panel, which is asked for ahead if it `is_new`. `rows` and `is_new` are
 * constants where inlined. */
static inline void tile(const float *inputs, const float *panel, const float *bias, float *out, int64_t num_inputs,
                        int64_t num_outputs, int64_t width, int rows, int is_new)
{
    lanes sums[ROWS][VECTORS];
    for (int row = 0; row < rows; row++)
        for (int part = 0; part < VECTORS; part++)
            sums[row][part] = load(bias + part * LANES);
    for (int64_t i = 0; i < num_inputs; i++, panel += PANEL)
        for (int part = 0; part < VECTORS; part++) {
            if (is_new)
                __builtin_prefetch(panel + AHEAD + part * LANES, 0, 2);
            for (int row = 0; row < rows; row++)
                sums[row][part] += inputs[row * num_inputs + i] * load(panel + part * LANES);
        }
    for (int row = 0; row < rows; row++, out += num_outputs)
        if (width >= PANEL)
            for (int part = 0; part < VECTORS; part++)
                store(out + part * LANES, sums[row][part]);
        else
            memcpy(out, sums[row], width * sizeof(float));
}

static void block(const float *inputs, const float *panels, const float *bias, float *out, int64_t rows,
                  int64_t num_inputs, int64_t num_outputs)
{
    for (int64_t first = 0; first < num_outputs; first += PANEL, panels += PANEL * num_inputs) {
        int64_t row = 0;
#define TILE(size, is_new)                                                                                             \
    tile(inputs + row * num_inputs, panels, bias + first, out + row * num_outputs + first, num_inputs, num_outputs,    \
         num_outputs - first, size, is_new),                                                                           \
        row += size
        if (rows >= ROWS)
            TILE(ROWS, 1);
        while (row + ROWS <= rows)
            TILE(ROWS, 0);
        if (row + 4 <= rows)
            TILE(4, 1);
        if (row + 2 <= rows)
            TILE(2, 1);
        if (row < rows)
            TILE(1, 1);
#undef TILE
    }
}

/* out [rows, num_outputs] = inputs [rows, num_inputs] * weights + bias. `panels` and `bias` are filled up to a whole
 * number of panels. */
void linear(const float *inputs, const float *panels, const float *bias, float *out, int64_t rows, int64_t num_inputs,
            int64_t num_outputs)
{
    const int64_t most = num_inputs < CACHED / ROWS ? CACHED / num_inputs / ROWS * ROWS : ROWS;
    for (int64_t row = 0; row < rows; row += most)
        block(inputs + row * num_inputs, panels, bias, out + row * num_outputs, row + most < rows ? most : rows - row,
              num_inputs, num_outputs);
}
