/* SPDX-License-Identifier: Apache-2.0 */
/* One plugin file: opened once, hashed, loaded through the same descriptor, so that
   what runs is what was hashed. */
#include "core/plugins/internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1ull << 30)

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

static int read_exactly(int fd, uint64_t offset, void *out, size_t n)
{
    return pread(fd, out, n, (off_t)offset) == (ssize_t)n ? 0 : -1;
}

static int hash_fd(int fd, struct tiered_digest *ret, struct tiered_error *err)
{
    uint8_t chunk[65536];
    struct tiered_hash *hash = tiered_hash_create();
    uint64_t at = 0;
    ssize_t got;
    if (!hash) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    while ((got = pread(fd, chunk, sizeof(chunk), (off_t)at)) > 0 ||
           (got < 0 && errno == EINTR)) {
        if (got > 0) {
            tiered_hash_update(hash, chunk, (size_t)got);
            at += (uint64_t)got;
        }
    }
    int cause = errno;
    tiered_hash_final(hash, ret);
    tiered_hash_destroy(hash);
    return got == 0
               ? 0
               : tiered_fail(err, TIERED_EIO, "cannot be read: %s", strerror(cause));
}

static int fail_not_elf(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_EINVAL, "is not a shared object");
}

static int fail_truncated(struct tiered_error *err)
{
    return tiered_fail(err, TIERED_ECORRUPT, "is truncated");
}

/* The loader maps what the program headers say and would die by a signal where the file
   is shorter. A file for another machine is left for it to refuse. */
static int check_elf(int fd, uint64_t size, struct tiered_error *err)
{
    ElfW(Ehdr) header;
    if (size < EI_NIDENT || read_exactly(fd, 0, &header, EI_NIDENT) < 0 ||
        memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
        return fail_not_elf(err);
    }
    unsigned char native = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    if (header.e_ident[EI_CLASS] != native) {
        return 0;
    }
    if (size < sizeof(header) || read_exactly(fd, 0, &header, sizeof(header)) < 0) {
        return fail_truncated(err);
    }
    if (header.e_type != ET_DYN) {
        return fail_not_elf(err);
    }
    for (unsigned i = 0; i < header.e_phnum; i++) {
        ElfW(Phdr) segment;
        uint64_t end;
        uint64_t at = (uint64_t)i * sizeof(segment);
        if (header.e_phentsize != sizeof(segment) ||
            !tiered_add(at, header.e_phoff, &at) || at > size ||
            read_exactly(fd, at, &segment, sizeof(segment)) < 0) {
            return fail_truncated(err);
        }
        if (segment.p_type == PT_LOAD &&
            (!tiered_add(segment.p_offset, segment.p_filesz, &end) || end > size)) {
            return fail_truncated(err);
        }
    }
    return 0;
}

/* "/proc/self/fd/5: undefined symbol: x" without the name that means nothing. */
static int fail_dlopen(struct tiered_error *err)
{
    const char *text = dlerror(), *prefix = "/proc/self/fd/", *colon;
    text = text ? text : "unknown error";
    if (strncmp(text, prefix, strlen(prefix)) == 0 && (colon = strstr(text, ": "))) {
        text = colon + 2;
    }
    return tiered_fail(err, TIERED_EINVAL, "cannot be loaded: %s", text);
}

/* Every file that was loaded, for the life of the process. The C library knows an
   object by the name it was opened by, so a descriptor's number must never come to mean
   another file: it stays open, which also keeps the inode from being used again. */
static struct mapped {
    struct mapped *next;
    dev_t device;
    ino_t inode;
    struct tiered_digest digest; /* when it was loaded */
    void *handle;
} * all_mapped;
static pthread_mutex_t mapped_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */

static struct mapped *find_mapped(const struct stat *info)
{
    struct mapped *mapped = all_mapped;
    while (mapped &&
           (mapped->device != info->st_dev || mapped->inode != info->st_ino)) {
        mapped = mapped->next;
    }
    return mapped;
}

/* A new entry; *fd is taken (and becomes -1). */
static struct mapped *map(int *fd, const struct stat *info, struct tiered_error *err)
{
    char name[64];
    struct mapped *mapped = calloc(1, sizeof(*mapped));
    if (!mapped) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    snprintf(name, sizeof(name), "/proc/self/fd/%d", *fd);
    mapped->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!mapped->handle) {
        free(mapped);
        fail_dlopen(err);
        return NULL;
    }
    *fd = -1;
    mapped->device = info->st_dev;
    mapped->inode = info->st_ino;
    mapped->next = all_mapped;
    all_mapped = mapped;
    return mapped;
}

static void *load(int *fd, const struct stat *info, const struct tiered_digest *digest,
                  struct tiered_error *err)
{
    pthread_mutex_lock(&mapped_lock);
    struct mapped *mapped = find_mapped(info);
    bool known = mapped != NULL;
    if (!known && (mapped = map(fd, info, err))) {
        mapped->digest = *digest;
    }
    pthread_mutex_unlock(&mapped_lock);
    if (known && !tiered_digest_equal(&mapped->digest, digest)) {
        tiered_fail(err, TIERED_ECORRUPT,
                    "was overwritten after it had been loaded; start again");
        return NULL;
    }
    return mapped ? mapped->handle : NULL;
}

static int copy_descriptor(void *handle, struct tiered_plugin *ret,
                           struct tiered_error *err)
{
    const char *symbol = dlsym(handle, "tiered_plugin");
    uint32_t abi_version, struct_size;
    Dl_info info;
    ElfW(Sym) *entry = NULL;
    if (!symbol || !dladdr1(symbol, &info, (void **)&entry, RTLD_DL_SYMENT) || !entry) {
        return tiered_fail(err, TIERED_EINVAL,
                           "has no symbol 'tiered_plugin': it is no Tiered plugin");
    }
    if (ELF64_ST_TYPE(entry->st_info) != STT_OBJECT ||
        entry->st_size < sizeof(abi_version) + sizeof(struct_size)) {
        return tiered_fail(err, TIERED_EINVAL,
                           "its symbol 'tiered_plugin' is not a plugin descriptor");
    }
    memcpy(&abi_version, symbol + offsetof(struct tiered_plugin, abi_version), 4);
    memcpy(&struct_size, symbol + offsetof(struct tiered_plugin, struct_size), 4);
    if (abi_version != TIERED_ABI_VERSION) {
        return tiered_fail(err, TIERED_EINVAL,
                           "is built for plugin ABI %u; this program has ABI %u",
                           abi_version, TIERED_ABI_VERSION);
    }
    size_t least = offsetof(struct tiered_plugin, ops) + sizeof(ret->ops);
    if (struct_size < least || struct_size > entry->st_size) {
        return tiered_fail(
            err, TIERED_EINVAL, "its descriptor of %u bytes is %s (%zu are needed)",
            struct_size, struct_size < least ? "too short" : "larger than its symbol",
            least);
    }
    memset(ret, 0, sizeof(*ret));
    memcpy(ret, symbol, struct_size < sizeof(*ret) ? struct_size : sizeof(*ret));
    return 0;
}

static int open_file(const char *path, const struct tiered_digest *expected,
                     struct tiered_loaded *loaded, struct tiered_error *err)
{
    /* Not blocking: a pipe with a plugin's name must not hang the program. */
    TIERED_CLEANUP(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0) {
        return tiered_fail(err, errno == ENOENT ? TIERED_ENOENT : TIERED_EIO,
                           "cannot be opened: %s", strerror(errno));
    }
    if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size > FILE_MAX_BYTES) {
        return fail_not_elf(err);
    }
    if (hash_fd(fd, &loaded->digest, err) < 0) {
        return -1;
    }
    if (expected && !tiered_digest_equal(expected, &loaded->digest)) {
        char want[65], have[65];
        tiered_digest_hex(expected, want);
        tiered_digest_hex(&loaded->digest, have);
        return tiered_fail(err, TIERED_ECORRUPT,
                           "has SHA-256 %.16s…, but %.16s… is expected", have, want);
    }
    if (check_elf(fd, (uint64_t)info.st_size, err) < 0) {
        return -1;
    }
    void *handle = load(&fd, &info, &loaded->digest, err);
    if (!handle || copy_descriptor(handle, &loaded->plugin, err) < 0) {
        return -1;
    }
    return tiered_plugin_check(&loaded->plugin, &loaded->ops, err);
}

int tiered_plugin_open_exact(const char *path, const struct tiered_digest *expected,
                             struct tiered_loaded *ret, struct tiered_error *err)
{
    struct tiered_loaded loaded = {.path = strdup(path)};
    if (!loaded.path) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (open_file(path, expected, &loaded, err) < 0) {
        size_t n = strlen(path), room = 127; /* the tail says which file */
        tiered_loaded_finish(&loaded);
        return tiered_error_prefix(
            err, "plugin file '%s': ", n > room ? path + n - room : path);
    }
    *ret = loaded;
    return 0;
}

int tiered_plugin_open(const char *path, struct tiered_loaded *ret,
                       struct tiered_error *err)
{
    return tiered_plugin_open_exact(path, NULL, ret, err);
}

void tiered_loaded_finish(struct tiered_loaded *loaded)
{
    if (loaded) {
        free(loaded->path);
        free(loaded->ops);
        memset(loaded, 0, sizeof(*loaded));
    }
}
