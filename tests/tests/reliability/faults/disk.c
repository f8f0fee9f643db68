/* A disk and a network that fail when they are told to: laid over the system's writes and syncs of a program by LD_PRELOAD.
 *
 * The file named by SYNCLINE_DISK holds one rule, KIND.OP=WHAT@N or @N+ (the N-th such call, or every one from it on). It is read
 * again at each call, so that a test can arm it under load; the count begins anew with each rule.
 *
 *   KIND  wal, sst, manifest, highwater, other (files of the data folder and of backups), file (each of these); answer, delivery
 *         (sockets: what they begin with)
 *   OP    write (or copied by the kernel), sync, rename
 *   WHAT  kill, after (kill once it is done), partial (half of it, then kill), short (half of it), enospc, eio, eagain, MILLISECONDS
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char known[128];
static long hits;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *kind_of_path(const char *path) {
    size_t n = strlen(path);
    if (!strstr(path, "/data/") && !strstr(path, "/backups/")) return NULL;
    if (strstr(path, "/store/LOG")) return NULL;
    if (n > 4 && !strcmp(path + n - 4, ".log")) return "wal";
    if (n > 4 && !strcmp(path + n - 4, ".sst")) return "sst";
    if (strstr(path, "/MANIFEST-")) return "manifest";
    if (strstr(path, "/HIGHWATER")) return "highwater";
    return "other";
}

static const char *kind_of(int fd, const char *head, size_t len) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return NULL;
    path[n] = 0;
    if (!strncmp(path, "socket:", 7)) {
        if (len >= 12 && !memcmp(head, "HTTP/1.1 200", 12)) return "answer";
        if (len >= 6 && !memcmp(head, "POST /", 6)) return "delivery";
        return NULL;
    }
    return kind_of_path(path);
}

/* What is to happen at this call; empty if nothing is. */
static void plan_for(const char *kind, const char *op, char what[16]) {
    what[0] = 0;
    const char *file = getenv("SYNCLINE_DISK");
    if (!kind || !file) return;
    char rule[128] = "", name[48];
    int from = open(file, O_RDONLY);
    if (from < 0) return;
    ssize_t n = read(from, rule, sizeof rule - 1);
    close(from);
    rule[n > 0 ? n : 0] = 0;
    int is_file = strcmp(kind, "answer") && strcmp(kind, "delivery");
    if (is_file && !strncmp(rule, "file.", 5)) kind = "file";
    snprintf(name, sizeof name, "%s.%s=", kind, op);
    if (strncmp(rule, name, strlen(name))) return;
    pthread_mutex_lock(&turn);
    if (strcmp(rule, known)) {
        strcpy(known, rule);
        hits = 0;
    }
    long hit = ++hits;
    pthread_mutex_unlock(&turn);
    char *end = NULL, *at = strchr(rule, '@');
    long first = at ? strtol(at + 1, &end, 10) : 0;
    if (hit != first && !(hit > first && end && *end == '+')) return;
    *at = 0;
    snprintf(what, 16, "%s", rule + strlen(name));
    fprintf(stderr, "disk %s%s, hit %ld\n", name, what, hit);
}

static void plan(int fd, const char *head, size_t len, const char *op, char what[16]) {
    plan_for(getenv("SYNCLINE_DISK") ? kind_of(fd, head, len) : NULL, op, what);
}

static void die(void) { kill(getpid(), SIGKILL); pause(); }

/* Does what is planned before the call; the bytes to write, or -1 with errno. */
static ssize_t before(const char *what, size_t len) {
    if (!strcmp(what, "kill")) die();
    if (!strcmp(what, "enospc")) { errno = ENOSPC; return -1; }
    if (!strcmp(what, "eio")) { errno = EIO; return -1; }
    if (!strcmp(what, "eagain")) { errno = EAGAIN; return -1; }
    if (what[0] >= '0' && what[0] <= '9') usleep(1000 * atoi(what));
    int half = len > 1 && (!strcmp(what, "short") || !strcmp(what, "partial"));
    return half ? len / 2 : len;
}

static ssize_t after(const char *what, ssize_t done) {
    if (!strcmp(what, "after") || !strcmp(what, "partial")) die();
    return done;
}

#define WRITE(fd, head, len, call)                      \
    char what[16];                                      \
    plan(fd, head, len, "write", what);                 \
    ssize_t n = before(what, len);                      \
    return n < 0 ? -1 : after(what, call)

ssize_t write(int fd, const void *buf, size_t len) { WRITE(fd, buf, len, REAL(write)(fd, buf, n)); }
ssize_t pwrite(int fd, const void *buf, size_t len, off_t at) { WRITE(fd, buf, len, REAL(pwrite)(fd, buf, n, at)); }
ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t at) { WRITE(fd, buf, len, REAL(pwrite64)(fd, buf, n, at)); }
ssize_t send(int fd, const void *buf, size_t len, int flags) { WRITE(fd, buf, len, REAL(send)(fd, buf, n, flags)); }

/* How files are copied where the kernel can. */
ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *at, size_t len, unsigned flags) {
    WRITE(fd, "", len, REAL(copy_file_range)(in, from, fd, at, n, flags));
}

int rename(const char *from, const char *to) {
    char what[16];
    plan_for(kind_of_path(to), "rename", what);
    return before(what, 0) < 0 ? -1 : after(what, REAL(rename)(from, to));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char what[16];
    plan(fd, count ? parts[0].iov_base : "", count ? parts[0].iov_len : 0, "write", what);
    ssize_t n = before(what, count ? parts[0].iov_len : 0);
    if (n < 0) return -1;
    int half = !strcmp(what, "short") || !strcmp(what, "partial");
    return after(what, half ? REAL(write)(fd, parts[0].iov_base, n) : REAL(writev)(fd, parts, count));
}

#define SYNC(fd, call)                       \
    char what[16];                           \
    plan(fd, "", 0, "sync", what);           \
    return before(what, 0) < 0 ? -1 : after(what, call)

int fsync(int fd) { SYNC(fd, REAL(fsync)(fd)); }
int fdatasync(int fd) { SYNC(fd, REAL(fdatasync)(fd)); }
