/* SPDX-License-Identifier: Apache-2.0 */
/* The spool: arriving updates in memory up to a budget, then in files. */
#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include "core/spool/inside.h"
#include "core/spool/spool.h"

#define PREFIX "spool-"

struct tiered_spool {
    char *folder;
    uint64_t budget, used;
    uint64_t n_files; /* made so far: names them */
};

/* What an earlier process has left: its senders have it in their outboxes. */
static int empty_folder(const char *folder, struct tiered_error *err)
{
    DIR *dir = opendir(folder);
    if (!dir) {
        return tiered_fail(err, TIERED_EIO, "cannot open the folder '%.150s': %s",
                           folder, strerror(errno));
    }
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        }
    }
    closedir(dir);
    return 0;
}

int tiered_spool_open(const char *folder, uint64_t memory_bytes,
                      struct tiered_spool **ret, struct tiered_error *err)
{
    if (tiered_mkdirs(folder, 0700, err) < 0 || empty_folder(folder, err) < 0) {
        return -1;
    }
    struct tiered_spool *spool = calloc(1, sizeof(*spool));
    char *copy = strdup(folder);
    if (!spool || !copy) {
        free(spool);
        free(copy);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    spool->folder = copy;
    spool->budget = memory_bytes;
    *ret = spool;
    return 0;
}

void tiered_spool_close(struct tiered_spool *spool)
{
    if (spool) {
        free(spool->folder);
        free(spool);
    }
}

/* What an update costs in memory: its blocks, their table, its head. */
static bool cost_of(const Tiered__V1__Head *head, uint64_t *ret)
{
    uint64_t table = (uint64_t)head->n_blocks * sizeof(struct encoded_slot);
    uint64_t rest = table + tiered__v1__head__get_packed_size(head);
    return tiered_add(head->encoded_bytes, rest, ret);
}

int tiered_spool_receive(struct tiered_spool *spool, const Tiered__V1__Head *head,
                         struct tiered_encoded **ret, struct tiered_error *err)
{
    uint64_t cost;
    if (cost_of(head, &cost) && cost <= spool->budget - spool->used) {
        if (tiered_encoded_create(head, NULL, ret, err) < 0) {
            return -1;
        }
        (*ret)->counted = cost;
        spool->used += cost;
        return 0;
    }
    TIERED_FREE char *path = NULL;
    if (asprintf(&path, "%s/" PREFIX "%llu", spool->folder,
                 (unsigned long long)spool->n_files++) < 0) {
        path = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return tiered_encoded_create(head, path, ret, err);
}

void tiered_spool_release(struct tiered_spool *spool, struct tiered_encoded *e)
{
    if (e) {
        spool->used -= e->counted;
        e->counted = 0;
        tiered_encoded_unref(e);
    }
}

uint64_t tiered_spool_memory(const struct tiered_spool *spool)
{
    return spool->used;
}
