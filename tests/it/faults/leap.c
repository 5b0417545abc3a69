/* The monotonic clock as a test tells it: what the kernel says, and beside it the nanoseconds that stand first in the
 * file $LEAP, which the test raises. Behind it stands how often the main thread read the clock, so that the test knows
 * when what it raised was seen. Waits until a time of that clock end when the kernel's own clock is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000L

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static long (*real_syscall)(long, ...);
static volatile int64_t *leap;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("LEAP");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(0, 2 * sizeof *leap, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    if (page != MAP_FAILED)
        leap = page;
    if (fd >= 0)
        close(fd);
}

static struct timespec moved(struct timespec at, int64_t by)
{
    int64_t ns = (int64_t)at.tv_sec * SECOND + at.tv_nsec + by;

    at.tv_sec = ns / SECOND;
    at.tv_nsec = ns % SECOND;
    return at;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int failed = real_clock_gettime(clock, at);

    if (!failed && leap && clock == CLOCK_MONOTONIC) {
        *at = moved(*at, leap[0]);
        if (gettid() == getpid())
            leap[1]++;
    }
    return failed;
}

long syscall(long number, ...)
{
    struct timespec until;
    long a[6];
    va_list rest;

    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (leap && number == SYS_futex && ((int)a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && a[3]) {
        until = moved(*(struct timespec *)a[3], -leap[0]);
        a[3] = (long)&until;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
