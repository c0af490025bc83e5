/* Faults on demand in a process and in all that it starts: LD_PRELOAD this library with KALSHI_FAST_FAULTS naming
 * a control file (tests/injector.py makes both).
 *
 * Every call of a watched function whose path contains a rule's text counts; at the rule's n-th one the fault
 * happens: the process is killed before or after the call, the call fails with an error (without having been
 * made, or after it was), or a write is short. Counts lie in the control file, which is mapped: they go on from
 * process to process, so that a program that is started again does not meet the same fault again.
 *
 * Calls of the program and of its libraries come here because this library is loaded first. The database engine
 * is loaded with RTLD_DEEPBIND and would not ask us: after each dlopen the relocations of every library that is
 * new are gone through, and those that are bound to a watched function are bound to ours.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define RULES 16
#define TEXT 232

enum { RENAME = 1, WRITE = 2, FSYNC = 4, UNLINK = 8, MKDIR = 16, OPEN = 32, READ = 64 };
enum { OFF = 0, KILL_BEFORE = 1, KILL_AFTER = 2, FAIL_BEFORE = 3, FAIL_AFTER = 4, SHORT_WRITE = 5, COUNT = 6 };

struct rule { /* 512 bytes; tests/injector.py has the same layout */
    _Atomic uint32_t action;
    uint32_t calls;
    uint32_t error;
    uint32_t times; /* how often, from the n-th call on; 0: for ever */
    uint64_t nth;
    _Atomic uint64_t count;
    _Atomic uint64_t fired;
    uint64_t unused;
    char path[TEXT];
    char where[TEXT]; /* of the call that it happened to */
};

static struct rule *rules;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void open_control(void) {
    const char *path = getenv("KALSHI_FAST_FAULTS");
    if (!path) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *found = mmap(NULL, RULES * sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (found != MAP_FAILED) rules = found;
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

/* What is to happen to this call: an action, and in *error the errno. Kills before by itself. */
static int fault(int call, const char *path, int *error) {
    int found = OFF;
    if (!rules || !path) return OFF;
    for (int i = 0; i < RULES; i++) { /* all of them count */
        struct rule *rule = &rules[i];
        int action = atomic_load(&rule->action);
        if (action == OFF || !(rule->calls & call)) continue;
        if (rule->path[0] && !strstr(path, rule->path)) continue;
        uint64_t at = atomic_fetch_add(&rule->count, 1) + 1;
        if (action == COUNT || at < rule->nth || (rule->times && at >= rule->nth + rule->times)) continue;
        if (atomic_fetch_add(&rule->fired, 1) == 0) {
            strncpy(rule->where, path, TEXT - 1);
        }
        if (action == KILL_BEFORE) die();
        *error = (int)rule->error;
        found = action;
    }
    return found;
}

static const char *path_of(int fd, char *room) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlink, link, room, PATH_MAX - 1);
    if (n < 0) return NULL;
    room[n] = 0;
    return room;
}

static int watched(int call) {
    if (!rules) return 0;
    for (int i = 0; i < RULES; i++)
        if (atomic_load(&rules[i].action) != OFF && (rules[i].calls & call)) return 1;
    return 0;
}

#define AROUND(call, path, made) \
    do { \
        int saved = errno, error = 0, what = fault(call, path, &error); \
        if (what == FAIL_BEFORE) { errno = error; return -1; } \
        errno = saved; \
        __typeof__(made) answer = made; \
        if (what == KILL_AFTER) die(); \
        if (what == FAIL_AFTER) { errno = error; return -1; } \
        return answer; \
    } while (0)

#define AROUND_FD(call, fd, made) \
    do { \
        char room[PATH_MAX]; \
        if (!watched(call)) return made; \
        AROUND(call, path_of(fd, room), made); \
    } while (0)

int rename(const char *from, const char *to) { REAL(rename); AROUND(RENAME, to, real(from, to)); }
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    AROUND(RENAME, to, real(a, from, b, to));
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(renameat2);
    AROUND(RENAME, to, real(a, from, b, to, flags));
}
int unlink(const char *path) { REAL(unlink); AROUND(UNLINK, path, real(path)); }
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    char room[PATH_MAX + NAME_MAX + 2];
    if (path[0] != '/' && at != AT_FDCWD && watched(UNLINK) && path_of(at, room)) {
        size_t n = strlen(room);
        snprintf(room + n, sizeof room - n, "/%.255s", path);
        AROUND(UNLINK, room, real(at, path, flags));
    }
    AROUND(UNLINK, path, real(at, path, flags));
}
int rmdir(const char *path) { REAL(rmdir); AROUND(UNLINK, path, real(path)); }
int remove(const char *path) { REAL(remove); AROUND(UNLINK, path, real(path)); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); AROUND(MKDIR, path, real(path, mode)); }
int mkdirat(int at, const char *path, mode_t mode) { REAL(mkdirat); AROUND(MKDIR, path, real(at, path, mode)); }
int fsync(int fd) { REAL(fsync); AROUND_FD(FSYNC, fd, real(fd)); }
int fdatasync(int fd) { REAL(fdatasync); AROUND_FD(FSYNC, fd, real(fd)); }

#define WRITING(fd, whole, half) \
    do { \
        char room[PATH_MAX]; \
        if (!watched(WRITE)) return whole; \
        int saved = errno, error = 0, what = fault(WRITE, path_of(fd, room), &error); \
        if (what == FAIL_BEFORE) { errno = error; return -1; } \
        errno = saved; \
        ssize_t answer = what == SHORT_WRITE ? half : whole; \
        if (what == KILL_AFTER) die(); \
        if (what == FAIL_AFTER) { errno = error; return -1; } \
        return answer; \
    } while (0)

ssize_t write(int fd, const void *data, size_t n) {
    REAL(write);
    WRITING(fd, real(fd, data, n), real(fd, data, (n + 1) / 2));
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    REAL(pwrite);
    WRITING(fd, real(fd, data, n, at), real(fd, data, (n + 1) / 2, at));
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    REAL(pwrite64);
    WRITING(fd, real(fd, data, n, at), real(fd, data, (n + 1) / 2, at));
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    WRITING(fd, real(fd, parts, n), real(fd, parts, n > 1 ? n / 2 : n));
}
ssize_t pread(int fd, void *data, size_t n, off_t at) { REAL(pread); AROUND_FD(READ, fd, real(fd, data, n, at)); }
ssize_t pread64(int fd, void *data, size_t n, off64_t at) {
    REAL(pread64);
    AROUND_FD(READ, fd, real(fd, data, n, at));
}
ssize_t read(int fd, void *data, size_t n) { REAL(read); AROUND_FD(READ, fd, real(fd, data, n)); }

/* --- libraries that do not ask us ----------------------------------------------------------------------- */

static const struct { const char *name; void *ours; } OURS[] = {
    {"rename", rename}, {"renameat", renameat}, {"renameat2", renameat2}, {"unlink", unlink},
    {"unlinkat", unlinkat}, {"rmdir", rmdir}, {"remove", remove}, {"mkdir", mkdir}, {"mkdirat", mkdirat},
    {"fsync", fsync}, {"fdatasync", fdatasync}, {"write", write}, {"pwrite", pwrite}, {"pwrite64", pwrite64},
    {"writev", writev}, {"pread", pread}, {"pread64", pread64}, {"read", read},
};

static void bind_one(const struct link_map *map, const ElfW(Sym) *symbols, const char *names, const ElfW(Rela) *r) {
    unsigned kind = ELF64_R_TYPE(r->r_info);
    if (kind != R_X86_64_JUMP_SLOT && kind != R_X86_64_GLOB_DAT && kind != R_X86_64_64) return;
    const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(r->r_info)];
    if (symbol->st_shndx != SHN_UNDEF || r->r_addend) return;
    for (size_t i = 0; i < sizeof OURS / sizeof *OURS; i++) {
        if (strcmp(names + symbol->st_name, OURS[i].name)) continue;
        void **slot = (void **)(map->l_addr + r->r_offset);
        if (*slot == OURS[i].ours) return;
        uintptr_t page = (uintptr_t)slot & ~(uintptr_t)4095;
        if (mprotect((void *)page, 8192, PROT_READ | PROT_WRITE) == 0 ||
            mprotect((void *)page, 4096, PROT_READ | PROT_WRITE) == 0)
            *slot = OURS[i].ours;
        return;
    }
}

static void bind_library(const struct link_map *map) {
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    const ElfW(Rela) *rela = NULL, *jumps = NULL;
    size_t rela_bytes = 0, jumps_bytes = 0, relative = 0;
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        switch (d->d_tag) {
            case DT_SYMTAB: symbols = (void *)d->d_un.d_ptr; break;
            case DT_STRTAB: names = (void *)d->d_un.d_ptr; break;
            case DT_RELA: rela = (void *)d->d_un.d_ptr; break;
            case DT_RELASZ: rela_bytes = d->d_un.d_val; break;
            case DT_RELACOUNT: relative = d->d_un.d_val; break;
            case DT_JMPREL: jumps = (void *)d->d_un.d_ptr; break;
            case DT_PLTRELSZ: jumps_bytes = d->d_un.d_val; break;
        }
    }
    if (!symbols || !names) return;
    for (size_t i = relative; rela && i < rela_bytes / sizeof *rela; i++) bind_one(map, symbols, names, &rela[i]);
    for (size_t i = 0; jumps && i < jumps_bytes / sizeof *jumps; i++) bind_one(map, symbols, names, &jumps[i]);
}

void *dlopen(const char *name, int flags) {
    REAL(dlopen);
    void *library = real(name, flags);
    /* The engine alone: all others ask us already, and going through a few hundred libraries takes its time. */
    if (library && rules && name && (flags & RTLD_DEEPBIND)) {
        struct link_map *map = NULL;
        if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map) bind_library(map);
    }
    return library;
}

__attribute__((constructor)) static void begin(void) { open_control(); }
