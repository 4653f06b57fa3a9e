/* Preloaded into a process: kills it, or makes one call fail, at its n-th change of a folder.
 *
 * A change is a call that creates, writes, renames, deletes or syncs a file below the folder. Counters are in
 * memory that a process shares with its forked children, so the parent can read them after a child was killed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct plan {
    long changes;  /* seen so far */
    long at;       /* the change that is hit, from 1; 0 for none */
    long hits;     /* how many were */
    int error;     /* errno of the failure; 0 kills */
    int lasting;   /* whether all later changes fail too */
    char folder[PATH_MAX];
};

static struct plan *plan;

__attribute__((constructor)) static void share(void)
{
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void faults_arm(const char *folder, long at, int error, int lasting)
{
    *plan = (struct plan){.at = at, .error = error, .lasting = lasting};
    snprintf(plan->folder, sizeof plan->folder, "%s", folder);
}

long faults_changes(void) { return plan->changes; }
long faults_hits(void) { return plan->hits; }

static int below(const char *path)
{
    size_t length = strlen(plan->folder);
    return length && !strncmp(path, plan->folder, length) && (path[length] == '/' || !path[length]);
}

/* Whether the next change is hit. A killed process ends before the change. */
static int hit(const char *path)
{
    char full[2 * PATH_MAX];
    if (path[0] != '/') {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here))
            return 0;
        snprintf(full, sizeof full, "%s/%s", here, path);
        path = full;
    }
    if (!below(path))
        return 0;
    long number = ++plan->changes;
    if (!plan->at || !(number == plan->at || (plan->lasting && number > plan->at)))
        return 0;
    plan->hits++;
    if (plan->error)
        errno = plan->error;
    return 1;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int fails(const char *path)
{
    if (!hit(path))
        return 0;
    if (!plan->error)
        die();
    return 1;
}

static int fails_open_file(int handle)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return hit(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Writing: a kill leaves half of the bytes, as a crash of the machine may. */
#define TORN(handle, half)            \
    if (fails_open_file(handle)) {    \
        if (plan->error)              \
            return -1;                \
        if (half) { }                 \
        die();                        \
    }

ssize_t write(int handle, const void *bytes, size_t count)
{
    TORN(handle, REAL(write)(handle, bytes, count / 2));
    return REAL(write)(handle, bytes, count);
}

ssize_t pwrite(int handle, const void *bytes, size_t count, off_t offset)
{
    TORN(handle, REAL(pwrite)(handle, bytes, count / 2, offset));
    return REAL(pwrite)(handle, bytes, count, offset);
}

ssize_t pwrite64(int handle, const void *bytes, size_t count, off64_t offset)
{
    TORN(handle, REAL(pwrite64)(handle, bytes, count / 2, offset));
    return REAL(pwrite64)(handle, bytes, count, offset);
}

ssize_t writev(int handle, const struct iovec *parts, int count)
{
    TORN(handle, 0);
    return REAL(writev)(handle, parts, count);
}

#define ON_HANDLE(type, name, declared, passed)  \
    type name declared                           \
    {                                            \
        TORN(handle, 0);                         \
        return REAL(name) passed;                \
    }

ON_HANDLE(int, fsync, (int handle), (handle))
ON_HANDLE(int, fdatasync, (int handle), (handle))
ON_HANDLE(int, ftruncate, (int handle, off_t length), (handle, length))
ON_HANDLE(int, ftruncate64, (int handle, off64_t length), (handle, length))

#define ON_PATH(name, declared, passed)  \
    int name declared                    \
    {                                    \
        if (fails(path))                 \
            return -1;                   \
        return REAL(name) passed;        \
    }

ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(rmdir, (const char *path), (path))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
ON_PATH(rename, (const char *path, const char *to), (path, to))
ON_PATH(renameat, (int folder, const char *path, int folder_to, const char *to), (folder, path, folder_to, to))
ON_PATH(link, (const char *path, const char *to), (path, to))

/* Opening counts if it may change the folder. */
#define OPENS(name, declared, passed)                                                      \
    int name declared                                                                      \
    {                                                                                      \
        va_list rest;                                                                      \
        va_start(rest, flags);                                                             \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;          \
        va_end(rest);                                                                      \
        if ((flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) && fails(path))              \
            return -1;                                                                     \
        return REAL(name) passed;                                                          \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENS(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
