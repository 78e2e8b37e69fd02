/* Loaded before the C library by the tests of `host.rs`: the wall clock is POSTROOM_CLOCK_AHEAD seconds ahead, and no other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t ahead(void)
{
    const char *seconds = getenv("POSTROOM_CLOCK_AHEAD");
    return seconds ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*own)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = own(clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int (*own)(struct timeval *, void *) = (int (*)(struct timeval *, void *))dlsym(RTLD_NEXT, "gettimeofday");
    int done = own(now, zone);
    if (done == 0)
        now->tv_sec += ahead();
    return done;
}

time_t time(time_t *now)
{
    time_t (*own)(time_t *) = (time_t(*)(time_t *))dlsym(RTLD_NEXT, "time");
    time_t shown = own(NULL) + ahead();
    if (now)
        *now = shown;
    return shown;
}
