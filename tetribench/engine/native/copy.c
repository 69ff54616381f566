/* Copies of many pieces from one memory to another.
 *
 * What is large is written past the cache where the processor can: a store that goes through it reads the line first,
 * and drives out what others have there. */

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define LINE 64

struct span {
    int64_t source, target, num_bytes;
};

#ifdef __SSE2__
/* Whole lines of the target with stores that go past the cache, what is left at both ends with others. */
static void stream(char *to, const char *from, int64_t num_bytes)
{
    int64_t head = -(uintptr_t)to % LINE;
    if (head > num_bytes)
        head = num_bytes;
    memcpy(to, from, head);
    to += head, from += head, num_bytes -= head;
    for (; num_bytes >= LINE; num_bytes -= LINE, to += LINE, from += LINE) {
        const __m128i *const line = (const __m128i *)from;
        const __m128i a = _mm_loadu_si128(line), b = _mm_loadu_si128(line + 1), c = _mm_loadu_si128(line + 2),
                      d = _mm_loadu_si128(line + 3);
        _mm_stream_si128((__m128i *)to, a), _mm_stream_si128((__m128i *)to + 1, b);
        _mm_stream_si128((__m128i *)to + 2, c), _mm_stream_si128((__m128i *)to + 3, d);
    }
    memcpy(to, from, num_bytes);
}

static void all_there(void) { _mm_sfence(); }
#else
static void stream(char *to, const char *from, int64_t num_bytes) { memcpy(to, from, num_bytes); }

static void all_there(void) {}
#endif

/* In the order of `spans`. None lies outside of either memory, or overlaps its own target. */
void copy_spans(const char *source, char *target, const struct span *spans, int64_t count, int past_the_cache)
{
    for (const struct span *span = spans; span < spans + count; span++) {
        if (past_the_cache)
            stream(target + span->target, source + span->source, span->num_bytes);
        else
            memcpy(target + span->target, source + span->source, span->num_bytes);
    }
    if (past_the_cache)
        all_there();
}
