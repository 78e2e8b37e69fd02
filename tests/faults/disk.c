/* Loaded before the C library by the test of `power.rs`: a disk that writes down what is done to it. It is the folder that POSTROOM_DISK names,
 * without SQLite's -shm, which is memory. The file that POSTROOM_DISK_LOG names is told of each change in order: `W name offset length` and so
 * many bytes, `T name size`, `S name` of what was synced, which is `.` for the folder itself, `U name` of what was removed. Nothing is really
 * synced: what would be left without it is what the test is about. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Held while a change is made and written down. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* The name of a path on the disk, or NULL. */
static const char *name_of(const char *path)
{
    const char *disk = getenv("POSTROOM_DISK");
    size_t length = disk ? strlen(disk) : 0, all = strlen(path);
    if (!disk || strncmp(path, disk, length) != 0 || (all >= 4 && strcmp(path + all - 4, "-shm") == 0))
        return NULL;
    if (path[length] == '\0')
        return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *opened(int file, char *path, size_t size)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    if (length < 0)
        return NULL;
    path[length] = '\0';
    return name_of(path);
}

static void note(const char *line, const void *bytes, size_t length)
{
    static int log = -1;
    if (log < 0)
        log = open(getenv("POSTROOM_DISK_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    struct iovec both[] = {{(void *)line, strlen(line)}, {(void *)bytes, length}};
    if (writev(log, both, 2) != (ssize_t)(strlen(line) + length))
        abort();
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at)
{
    ssize_t (*own)(int, const void *, size_t, off_t) = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    char path[4096], line[4200];
    const char *name = opened(file, path, sizeof path);
    pthread_mutex_lock(&turn);
    ssize_t done = own(file, bytes, length, at);
    if (name && done > 0) {
        snprintf(line, sizeof line, "W %s %lld %zd\n", name, (long long)at, done);
        note(line, bytes, (size_t)done);
    }
    pthread_mutex_unlock(&turn);
    return done;
}

int ftruncate(int file, off_t size)
{
    int (*own)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate");
    char path[4096], line[4200];
    const char *name = opened(file, path, sizeof path);
    pthread_mutex_lock(&turn);
    int done = own(file, size);
    if (name && done == 0) {
        snprintf(line, sizeof line, "T %s %lld\n", name, (long long)size);
        note(line, "", 0);
    }
    pthread_mutex_unlock(&turn);
    return done;
}

int unlink(const char *path)
{
    int (*own)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    char line[4200];
    const char *name = name_of(path);
    pthread_mutex_lock(&turn);
    int done = own(path);
    if (name && done == 0) {
        snprintf(line, sizeof line, "U %s\n", name);
        note(line, "", 0);
    }
    pthread_mutex_unlock(&turn);
    return done;
}

int fsync(int file)
{
    char path[4096], line[4200];
    const char *name = opened(file, path, sizeof path);
    if (name) {
        pthread_mutex_lock(&turn);
        snprintf(line, sizeof line, "S %s\n", name);
        note(line, "", 0);
        pthread_mutex_unlock(&turn);
    }
    return 0;
}

int fdatasync(int file) { return fsync(file); }

#if __LP64__
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) { return pwrite(file, bytes, length, at); }
int ftruncate64(int file, off64_t size) { return ftruncate(file, size); }
#endif
