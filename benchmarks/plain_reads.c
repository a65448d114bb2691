// Sums an array again and again, by threads that each have an own part of it and never wait for each other.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef float vector __attribute__((vector_size(64)));
enum { ACCUMULATORS = 8, BLOCK = ACCUMULATORS * sizeof(vector), CLOCK_BYTES = 1 << 23 };

struct part {
    int64_t bytes, duration_ns, speed;
    pthread_t thread;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void sum(const vector *numbers, int64_t blocks, vector *sums) {
    vector each[ACCUMULATORS] = {0};
    for (int64_t block = 0; block < blocks; block++, numbers += ACCUMULATORS)
        for (int i = 0; i < ACCUMULATORS; i++)
            each[i] += numbers[i];
    for (int i = 0; i < ACCUMULATORS; i++)
        *sums += each[i];
}

static void *read_part(void *argument) {
    struct part *part = argument;
    int64_t blocks = part->bytes / BLOCK + 1;
    vector *numbers = aligned_alloc(BLOCK, blocks * BLOCK), sums = {0};
    if (numbers == NULL)
        return NULL;
    memset(numbers, 0, blocks * BLOCK); // maps its pages
    int64_t begin = now_ns(), end = begin, passes = 0, at_once = 1 + CLOCK_BYTES / (blocks * BLOCK);
    for (; end < begin + part->duration_ns; end = now_ns())
        for (int64_t last = passes + at_once; passes < last; passes++) {
            sum(numbers, blocks, &sums);
            __asm__ volatile("" : : "r"(&sums) : "memory"); // the next pass reads again
        }
    part->speed = passes * blocks * BLOCK * 1000 / (end - begin); // bytes per microsecond
    free(numbers);
    return NULL;
}

// Returns the speed of all threads together in MB/s, 0 if there is no memory.
int32_t plain_reads(int64_t bytes, int64_t milliseconds, int32_t threads) {
    struct part parts[threads];
    int64_t speed = 0;
    for (int i = 0; i < threads; i++) {
        parts[i] = (struct part){.bytes = bytes / threads, .duration_ns = milliseconds * 1000000};
        if (pthread_create(&parts[i].thread, NULL, read_part, &parts[i]))
            return 0;
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(parts[i].thread, NULL);
        speed += parts[i].speed;
    }
    return speed;
}
