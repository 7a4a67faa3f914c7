// Preloaded into a process (LD_PRELOAD), writes every change that it makes below one folder to a
// log, in the order in which the system took them, and fails those that a test tells it to fail.
//
//   DISKLOG_ROOT   the folder, an absolute path
//   DISKLOG_FILE   the log; a record is a `struct record`, a path and then data
//   DISKLOG_FAULT  a file of one page, mapped: see `struct fault`
//
// One lock is held around each change and its record, so that the log's order is the true one.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op {
    op_open = 1,   // path, first: descriptor, second: 1 if created, 2 if emptied
    op_write,      // first: descriptor, second: offset, data
    op_truncate,   // first: descriptor, second: new length
    op_sync,       // first: descriptor
    op_close,      // first: descriptor
    op_rename,     // path, data: new path
    op_unlink,     // path
    op_mkdir,      // path
    op_rmdir,      // path
    op_mark,       // written by the test
    op_map,        // first: descriptor, of a shared writable mapping
    op_unknown,    // path: a change that the log cannot tell
};

struct record {
    uint32_t op;
    int32_t first;
    int64_t second;
    uint32_t path_length;
    uint32_t data_length;
};

// What shall fail from now on. Written by the test while the process runs.
struct fault {
    _Atomic int32_t ops;        // bits 1 << op; 0: nothing fails
    _Atomic int32_t error;      // errno
    _Atomic int32_t countdown;  // calls that pass before the first that fails
    _Atomic int32_t failed;     // calls that have failed
    char part[64];              // only paths that contain it, or end in it where it ends in $
};

enum { max_descriptor = 65536 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[max_descriptor];
static const char *root;
static size_t root_length;
static int log_descriptor = -1;
static struct fault *fault;

#define real(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    root = getenv("DISKLOG_ROOT");
    root_length = root ? strlen(root) : 0;
    const char *file = getenv("DISKLOG_FILE");
    if (file) {
        // Far from the numbers that the process will use, which are bounded by its limits.
        int opened = real(open)(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        log_descriptor = fcntl(opened, F_DUPFD_CLOEXEC, 900);
        real(close)(opened);
    }
    const char *control = getenv("DISKLOG_FAULT");
    if (control) {
        int opened = real(open)(control, O_RDWR | O_CLOEXEC);
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
        if (page != MAP_FAILED) fault = page;
        real(close)(opened);
    }
}

static int is_below(const char *path) {
    return root_length && path && strncmp(path, root, root_length) == 0 &&
           (path[root_length] == '/' || path[root_length] == 0);
}

static const char *path_of(int descriptor) {
    return descriptor >= 0 && descriptor < max_descriptor ? paths[descriptor] : NULL;
}

static void note(enum op op, int first, int64_t second, const char *path, const void *data,
                 size_t length) {
    if (log_descriptor < 0) return;
    int saved = errno;
    struct record head = {op, first, second, path ? strlen(path) : 0, length};
    struct iovec parts[3] = {{&head, sizeof head},
                             {(void *)(path ? path : ""), head.path_length},
                             {(void *)(data ? data : ""), length}};
    if (real(writev)(log_descriptor, parts, 3) < 0) abort();
    errno = saved;
}

static int concerns(const char *part, const char *path) {
    size_t length = strlen(part), whole = strlen(path);
    if (length == 0 || part[length - 1] != '$') return strstr(path, part) != NULL;
    length -= 1;
    return whole >= length && strncmp(path + whole - length, part, length) == 0;
}

// Whether a call shall fail; errno is set then.
static int fails(enum op op, const char *path) {
    if (!fault || !path || !(atomic_load(&fault->ops) & (1 << op))) return 0;
    if (!concerns(fault->part, path)) return 0;
    if (atomic_fetch_sub(&fault->countdown, 1) > 0) return 0;
    atomic_fetch_add(&fault->failed, 1);
    errno = atomic_load(&fault->error);
    return 1;
}

// MARK: Opening

static int opened(int (*call)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (!is_below(path)) return call(path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat status;
    int was_there = lstat(path, &status) == 0;
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    int result = writes && fails(op_open, path) ? -1 : call(path, flags, mode);
    if (result >= 0 && result < max_descriptor) {
        free(paths[result]);
        paths[result] = strdup(path);
        int how = !was_there ? 1 : flags & O_TRUNC ? 2 : 0;
        note(op_open, result, how, path, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

#define mode_argument(flags)                     \
    mode_t mode = 0;                             \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {     \
        va_list list;                            \
        va_start(list, flags);                   \
        mode = va_arg(list, int);                \
        va_end(list);                            \
    }

int open(const char *path, int flags, ...) {
    mode_argument(flags) return opened(real(open), path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    mode_argument(flags) return opened(real(open64), path, flags, mode);
}
int __open_2(const char *path, int flags) { return opened(real(open), path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(real(open64), path, flags, 0); }
int creat(const char *path, mode_t mode) {
    return opened(real(open), path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static int opened_at(int (*call)(int, const char *, int, ...), int folder, const char *path,
                     int flags, mode_t mode) {
    if (path[0] == '/') return opened(real(open), path, flags, mode);
    if (path_of(folder)) note(op_unknown, 0, 0, path, "openat", 6);
    return call(folder, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    mode_argument(flags) return opened_at(real(openat), folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    mode_argument(flags) return opened_at(real(openat64), folder, path, flags, mode);
}

int close(int descriptor) {
    if (!path_of(descriptor)) return real(close)(descriptor);
    pthread_mutex_lock(&lock);
    note(op_close, descriptor, 0, NULL, NULL, 0);
    free(paths[descriptor]);
    paths[descriptor] = NULL;
    int result = real(close)(descriptor);
    pthread_mutex_unlock(&lock);
    return result;
}

static int copied(int from, int to) {
    if (path_of(from)) note(op_unknown, from, to, path_of(from), "dup", 3);
    return to;
}
int dup(int from) { return copied(from, real(dup)(from)); }
int dup2(int from, int to) { return copied(from, real(dup2)(from, to)); }
int dup3(int from, int to, int flags) { return copied(from, real(dup3)(from, to, flags)); }

// MARK: Writing

static ssize_t written(int descriptor, const struct iovec *parts, int count, int64_t offset) {
    pthread_mutex_lock(&lock);
    const char *path = path_of(descriptor);
    ssize_t result = -1;
    if (!fails(op_write, path)) {
        int64_t place = offset;
        if (offset < 0) {
            int appends = fcntl(descriptor, F_GETFL) & O_APPEND;
            place = lseek(descriptor, 0, appends ? SEEK_END : SEEK_CUR);
            result = real(writev)(descriptor, parts, count);
        } else {
            result = real(pwritev)(descriptor, parts, count, offset);
        }
        size_t left = result > 0 ? result : 0;
        for (int index = 0; index < count && left > 0; index++) {
            size_t length = parts[index].iov_len < left ? parts[index].iov_len : left;
            note(op_write, descriptor, place, NULL, parts[index].iov_base, length);
            place += length;
            left -= length;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    if (!path_of(descriptor)) return real(write)(descriptor, bytes, count);
    struct iovec part = {(void *)bytes, count};
    return written(descriptor, &part, 1, -1);
}
ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
    if (!path_of(descriptor)) return real(pwrite)(descriptor, bytes, count, offset);
    struct iovec part = {(void *)bytes, count};
    return written(descriptor, &part, 1, offset);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    return pwrite(descriptor, bytes, count, offset);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    if (!path_of(descriptor)) return real(writev)(descriptor, parts, count);
    return written(descriptor, parts, count, -1);
}
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    if (!path_of(descriptor)) return real(pwritev)(descriptor, parts, count, offset);
    return written(descriptor, parts, count, offset);
}
ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
    return pwritev(descriptor, parts, count, offset);
}

int ftruncate(int descriptor, off_t length) {
    if (!path_of(descriptor)) return real(ftruncate)(descriptor, length);
    pthread_mutex_lock(&lock);
    int result = fails(op_truncate, path_of(descriptor)) ? -1 : real(ftruncate)(descriptor, length);
    if (result == 0) note(op_truncate, descriptor, length, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int descriptor, off64_t length) { return ftruncate(descriptor, length); }

static void unknown(int descriptor, const char *path, const char *call) {
    if (is_below(path) || path_of(descriptor))
        note(op_unknown, descriptor, 0, path ? path : path_of(descriptor), call, strlen(call));
}
int truncate(const char *path, off_t length) {
    unknown(-1, path, "truncate");
    return real(truncate)(path, length);
}
int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    unknown(descriptor, NULL, "fallocate");
    return real(fallocate)(descriptor, mode, offset, length);
}
int posix_fallocate(int descriptor, off_t offset, off_t length) {
    unknown(descriptor, NULL, "posix_fallocate");
    return real(posix_fallocate)(descriptor, offset, length);
}
ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *target, size_t count,
                        unsigned flags) {
    unknown(to, NULL, "copy_file_range");
    return real(copy_file_range)(from, start, to, target, count, flags);
}

static void *mapped(void *(*call)(void *, size_t, int, int, int, off_t), void *address,
                    size_t length, int protection, int flags, int descriptor, off_t offset) {
    if ((flags & MAP_SHARED) && (protection & PROT_WRITE) && path_of(descriptor))
        note(op_map, descriptor, 0, path_of(descriptor), NULL, 0);
    return call(address, length, protection, flags, descriptor, offset);
}
void *mmap(void *address, size_t length, int protection, int flags, int descriptor, off_t offset) {
    return mapped(real(mmap), address, length, protection, flags, descriptor, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int descriptor,
             off64_t offset) {
    return mapped(real(mmap), address, length, protection, flags, descriptor, offset);
}

// MARK: Syncing

static int synced(int (*call)(int), int descriptor) {
    if (!path_of(descriptor)) return call(descriptor);
    pthread_mutex_lock(&lock);
    int result = fails(op_sync, path_of(descriptor)) ? -1 : call(descriptor);
    if (result == 0) note(op_sync, descriptor, 0, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int fsync(int descriptor) { return synced(real(fsync), descriptor); }
int fdatasync(int descriptor) { return synced(real(fdatasync), descriptor); }

// MARK: Names

static int changed(int (*call)(const char *), enum op op, const char *path) {
    if (!is_below(path)) return call(path);
    pthread_mutex_lock(&lock);
    int result = fails(op, path) ? -1 : call(path);
    if (result == 0) note(op, 0, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return changed(real(unlink), op_unlink, path); }
int rmdir(const char *path) { return changed(real(rmdir), op_rmdir, path); }

int mkdir(const char *path, mode_t mode) {
    if (!is_below(path)) return real(mkdir)(path, mode);
    pthread_mutex_lock(&lock);
    int result = fails(op_mkdir, path) ? -1 : real(mkdir)(path, mode);
    if (result == 0) note(op_mkdir, 0, 0, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to) {
    if (!is_below(from) && !is_below(to)) return real(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = fails(op_rename, from) ? -1 : real(rename)(from, to);
    if (result == 0) note(op_rename, 0, 0, from, to, strlen(to));
    pthread_mutex_unlock(&lock);
    return result;
}

int renameat(int folder, const char *from, int target, const char *to) {
    unknown(folder, from, "renameat");
    return real(renameat)(folder, from, target, to);
}
int renameat2(int folder, const char *from, int target, const char *to, unsigned flags) {
    unknown(folder, from, "renameat2");
    return real(renameat2)(folder, from, target, to, flags);
}
int link(const char *from, const char *to) {
    unknown(-1, to, "link");
    return real(link)(from, to);
}
int linkat(int folder, const char *from, int target, const char *to, int flags) {
    unknown(target, to, "linkat");
    return real(linkat)(folder, from, target, to, flags);
}
int symlink(const char *from, const char *to) {
    unknown(-1, to, "symlink");
    return real(symlink)(from, to);
}
int unlinkat(int folder, const char *path, int flags) {
    unknown(folder, path, "unlinkat");
    return real(unlinkat)(folder, path, flags);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    unknown(folder, path, "mkdirat");
    return real(mkdirat)(folder, path, mode);
}
