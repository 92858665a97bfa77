/* A disk that fails at a chosen moment, for a process that is started with this library in LD_PRELOAD.

   After `disk_arm` the calls that change something below one path are counted. The `nth` fails with `error`, or kills
   the process where `error` is 0; with `partly` a write puts half of its bytes down first, as a disk that fills up
   does. With `for_good` all that follow fail too. Everything else goes through untouched.

   SQLite writes the pages of a transaction to its log one by one, and the last makes it valid: of those between two
   syncs the first is counted, for whatever happens at another one leaves the same, and then the sync. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX];
static size_t below_length;
static long nth;
static int error_number, for_good, partly;
static atomic_long seen;
static atomic_int log_begun; /* the database's log was written to since its last sync */

void disk_arm(const char *path, long number, int error, int writes_partly, int permanent)
{
    strncpy(below, path, sizeof below - 1);
    error_number = error, partly = writes_partly, for_good = permanent, nth = number;
    atomic_store(&seen, 0);
    atomic_store(&log_begun, 0);
    below_length = strlen(below);
}

long disk_seen(void) { return atomic_load(&seen); }

static int is_below(const char *path)
{
    return below_length && strncmp(path, below, below_length) == 0
        && (path[below_length] == '/' || path[below_length] == 0);
}

static int names_below(int folder, const char *path)
{
    char link[64], at[PATH_MAX];
    if (!below_length || !path)
        return 0;
    if (path[0] == '/')
        return is_below(path);
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, at, sizeof at - 1);
    if (length < 0)
        return 0;
    at[length] = 0;
    return is_below(at);
}

static int file_below(int file)
{
    char link[64], at[PATH_MAX];
    if (!below_length)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, at, sizeof at - 1);
    if (length < 0)
        return 0;
    at[length] = 0;
    return is_below(at);
}

static int is_log(int file)
{
    char link[64], at[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, at, sizeof at - 1);
    return length > 4 && memcmp(at + length - 4, "-wal", 4) == 0;
}

/* Count one call; whether it fails. With `torn` the caller still puts half of the bytes down and asks `fail` again. */
static int due(int counted)
{
    if (!counted)
        return 0;
    long number = atomic_fetch_add(&seen, 1) + 1;
    return number == nth || (for_good && number > nth);
}

static int due_at(int file)
{
    if (!file_below(file))
        return 0;
    if (is_log(file) && atomic_exchange(&log_begun, 1))
        return for_good && atomic_load(&seen) >= nth;
    return due(1);
}

static int fail(void)
{
    if (error_number == 0)
        raise(SIGKILL);
    errno = error_number;
    return -1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

#define WRITES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
        if (due((flags & WRITES) && names_below(AT_FDCWD, path))) return fail(); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, int); va_end(list); \
        if (due((flags & WRITES) && names_below(folder, path))) return fail(); \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size)
{
    REAL(write);
    if (!due(file_below(file))) return real(file, data, size);
    if (partly && size > 1) {
        ssize_t written = real(file, data, size / 2);
        return error_number ? written : fail();
    }
    return fail();
}

#define PWRITE(name, offset_type) \
    ssize_t name(int file, const void *data, size_t size, offset_type offset) \
    { \
        REAL(name); \
        if (!due_at(file)) return real(file, data, size, offset); \
        if (partly && size > 1) { \
            ssize_t written = real(file, data, size / 2, offset); \
            return error_number ? written : fail(); \
        } \
        return fail(); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define PWRITEV(name, offset_type) \
    ssize_t name(int file, const struct iovec *parts, int count, offset_type offset) \
    { \
        REAL(name); \
        if (!due(file_below(file))) return real(file, parts, count, offset); \
        if (partly && count > 1) { \
            ssize_t written = real(file, parts, count - 1, offset); \
            return error_number ? written : fail(); \
        } \
        return fail(); \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define ON_FILE(name) \
    int name(int file) \
    { \
        REAL(name); \
        if (below_length && is_log(file)) \
            atomic_store(&log_begun, 0); \
        return due(file_below(file)) ? fail() : real(file); \
    }
ON_FILE(fsync)
ON_FILE(fdatasync)

#define CUT(name, length_type) \
    int name(int file, length_type length) \
    { \
        REAL(name); \
        return due(file_below(file)) ? fail() : real(file, length); \
    }
CUT(ftruncate, off_t)
CUT(ftruncate64, off64_t)

int rename(const char *from, const char *to)
{
    REAL(rename);
    return due(names_below(AT_FDCWD, to)) ? fail() : real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    REAL(renameat);
    return due(names_below(to_folder, to)) ? fail() : real(from_folder, from, to_folder, to);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return due(names_below(AT_FDCWD, path)) ? fail() : real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    REAL(mkdirat);
    return due(names_below(folder, path)) ? fail() : real(folder, path, mode);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    REAL(linkat);
    return due(names_below(to_folder, to)) ? fail() : real(from_folder, from, to_folder, to, flags);
}

int symlinkat(const char *target, int folder, const char *path)
{
    REAL(symlinkat);
    return due(names_below(folder, path)) ? fail() : real(target, folder, path);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
    REAL(sendfile);
    return due(file_below(out)) ? fail() : real(out, in, offset, count);
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t count)
{
    REAL(sendfile64);
    return due(file_below(out)) ? fail() : real(out, in, offset, count);
}
