/* Loaded before the C library by the tests of `medium.rs`: fsync and fdatasync fail with EIO while the file that POSTROOM_SYNC_FAILS names
 * is there, and each that succeeds adds a byte to the file that POSTROOM_SYNCED names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int synced(const char *name, int file)
{
    const char *fails = getenv("POSTROOM_SYNC_FAILS"), *count = getenv("POSTROOM_SYNCED");
    int (*own)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (fails && access(fails, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    int done = own(file);
    if (done == 0 && count) {
        int book = open(count, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (book < 0 || write(book, "x", 1) != 1)
            abort();
        close(book);
    }
    return done;
}

int fsync(int file) { return synced("fsync", file); }
int fdatasync(int file) { return synced("fdatasync", file); }
