/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The outbox: at most one update of a node stands in it, with the state that making it
 * advanced. What is true after a crash is told by names alone, and every step from one
 * truth to the next is one rename:
 *
 *   out-PATH.N.tmp  being written: removed at the next open
 *   out-PATH.upd    the update for PATH and its state. Of several the one of the newest
 *                   path counts, and the older ones only have their state to give
 *   state.upd       an update that is settled or superseded: its state alone counts,
 *                   and only while no out-PATH.upd stands. One without a state is
 *                   removed instead, where there never was another
 *
 *   begin    makes the .tmp file
 *   commit   fsync of the file; rename to out-PATH.upd (here it stands); fsync of the
 *            folder; rename of the entry before it to state.upd. Both fsyncs only where
 *            there is a state: a process that dies loses nothing either way
 *   clear    rename of out-PATH.upd to state.upd, or its removal. A crash that loses
 *            this brings the update back: it is sent again, and the parent says that it
 *            has it
 */
#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/spool/inside.h"
#include "core/spool/spool.h"

#define STATE_FILE "state.upd"

struct tiered_outbox {
    char *folder;
    struct tiered_encoded *entry; /* NULL: nothing stands */
    struct tiered_path path;      /* of the entry */
    uint64_t n_begun;             /* keeps temporary names apart */
};

static char *name_of(const struct tiered_outbox *outbox, const char *name,
                     struct tiered_error *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", outbox->folder, name) < 0) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    return path;
}

static char *entry_name(const struct tiered_outbox *outbox,
                        const struct tiered_path *path, struct tiered_error *err)
{
    char text[192], name[256];
    tiered_path_text(path, text);
    snprintf(name, sizeof(name), "out-%s.upd", text);
    return name_of(outbox, name, err);
}

/* "out-3.2.upd" to 3.2. */
static bool parse_entry(const char *name, struct tiered_path *ret)
{
    char text[192];
    size_t n = strlen(name);
    if (n < 8 || n - 8 >= sizeof(text) || strncmp(name, "out-", 4) != 0 ||
        strcmp(name + n - 4, ".upd") != 0) {
        return false;
    }
    memcpy(text, name + 4, n - 8);
    text[n - 8] = 0;
    return tiered_path_parse(text, ret);
}

static bool is_temporary(const char *name)
{
    size_t n = strlen(name);
    return n > 8 && strncmp(name, "out-", 4) == 0 && strcmp(name + n - 4, ".tmp") == 0;
}

/* An entry that no longer stands keeps its state, if it or one before it has any; those
   who still read it may. */
static int retire(struct tiered_outbox *outbox, struct tiered_encoded *e,
                  struct tiered_error *err)
{
    TIERED_FREE char *state = name_of(outbox, STATE_FILE, err);
    if (!state) {
        return -1;
    }
    if (e->state_size == 0 && access(state, F_OK) < 0) {
        if (unlink(e->path) < 0) {
            return tiered_fail(err, TIERED_EIO, "cannot remove '%.150s': %s", e->path,
                               strerror(errno));
        }
        return 0;
    }
    if (encoded_rename(e, state, err) < 0) {
        return -1;
    }
    e->hollow = true;
    return 0;
}

/* Take one file found at open; they come oldest first. */
static int take(struct tiered_outbox *outbox, const struct tiered_path *path,
                struct tiered_error *err)
{
    struct tiered_error why;
    struct tiered_encoded *e = NULL;
    TIERED_FREE char *name = entry_name(outbox, path, err);
    if (!name) {
        return -1;
    }
    if (tiered_encoded_open(name, &e, &why) < 0) {
        if (why.code == TIERED_ENOMEM || why.code == TIERED_EIO) {
            /* says nothing about the file */
            return tiered_fail(err, why.code, "%s", why.text);
        }
        tiered_log(TIERED_LOG_WARN, "outbox", NULL,
                   "an unreadable update is removed and will be made again: %s",
                   why.text);
        unlink(name);
        return 0;
    }
    struct tiered_encoded *old = outbox->entry;
    outbox->entry = e;
    outbox->path = *path;
    int result = old ? retire(outbox, old, err) : 0;
    tiered_encoded_unref(old);
    return result;
}

static int compare_paths(const void *a, const void *b)
{
    return tiered_path_compare(a, b);
}

static int list(const struct tiered_outbox *outbox, struct tiered_bytes *ret,
                struct tiered_error *err)
{
    DIR *dir = opendir(outbox->folder);
    if (!dir) {
        return tiered_fail(err, TIERED_EIO, "cannot open the folder '%.150s': %s",
                           outbox->folder, strerror(errno));
    }
    struct dirent *entry;
    int result = 0;
    while (result == 0 && (entry = readdir(dir))) {
        struct tiered_path path;
        if (is_temporary(entry->d_name)) {
            unlinkat(dirfd(dir), entry->d_name, 0);
        } else if (parse_entry(entry->d_name, &path)) {
            result = tiered_bytes_append(ret, &path, sizeof(path), err);
        }
    }
    closedir(dir);
    return result;
}

/* Oldest first, so that state.upd ends as the newest of those that do not stand. */
static int load(struct tiered_outbox *outbox, struct tiered_error *err)
{
    struct tiered_bytes found = {0};
    int result = list(outbox, &found, err);
    struct tiered_path *paths = (struct tiered_path *)(void *)found.data;
    size_t n = found.size / sizeof(*paths);
    if (n) {
        qsort(paths, n, sizeof(*paths), compare_paths);
    }
    for (size_t i = 0; result == 0 && i < n; i++) {
        result = take(outbox, &paths[i], err);
    }
    tiered_bytes_finish(&found);
    return result;
}

int tiered_outbox_open(const char *folder, struct tiered_outbox **ret,
                       struct tiered_error *err)
{
    if (tiered_mkdirs(folder, 0700, err) < 0) {
        return -1;
    }
    struct tiered_outbox *outbox = calloc(1, sizeof(*outbox));
    if (!outbox || !(outbox->folder = strdup(folder))) {
        free(outbox);
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    if (load(outbox, err) < 0) {
        tiered_outbox_close(outbox);
        return -1;
    }
    *ret = outbox;
    return 0;
}

void tiered_outbox_close(struct tiered_outbox *outbox)
{
    if (outbox) {
        tiered_encoded_unref(outbox->entry);
        free(outbox->folder);
        free(outbox);
    }
}

int tiered_outbox_begin(struct tiered_outbox *outbox, const struct tiered_path *path,
                        const Tiered__V1__Head *head, struct tiered_encoded **ret,
                        struct tiered_error *err)
{
    char text[192], temporary[256];
    tiered_path_text(path, text);
    snprintf(temporary, sizeof(temporary), "out-%s.%llu.tmp", text,
             (unsigned long long)outbox->n_begun++);
    TIERED_FREE char *name = name_of(outbox, temporary, err);
    return name ? tiered_encoded_begin(head, name, ret, err) : -1;
}

int tiered_outbox_commit(struct tiered_outbox *outbox, const struct tiered_path *path,
                         struct tiered_encoded *e, const void *state, size_t state_size,
                         struct tiered_error *err)
{
    if (!e->path) {
        return tiered_fail(err, TIERED_EINVAL,
                           "the update was not begun in the outbox");
    }
    TIERED_FREE char *name = entry_name(outbox, path, err);
    /* without a state a machine that loses its power loses work alone: what is then
       missing or damaged is made again */
    bool durable = state_size > 0;
    if (!name || encoded_finish(e, state, state_size, durable, err) < 0 ||
        encoded_rename(e, name, err) < 0) {
        return -1;
    }
    tiered_encoded_keep(e);
    struct tiered_encoded *old = outbox->entry;
    bool replaced = old && tiered_path_equal(path, &outbox->path);
    outbox->entry = tiered_encoded_ref(e);
    outbox->path = *path;
    int result = durable ? tiered_fsync_folder(outbox->folder, err) : 0;
    if (result == 0 && old && !replaced) {
        result = retire(outbox, old, err);
    }
    tiered_encoded_unref(old);
    return result;
}

struct tiered_encoded *tiered_outbox_get(struct tiered_outbox *outbox,
                                         const struct tiered_path *path)
{
    return outbox->entry && tiered_path_equal(path, &outbox->path)
               ? tiered_encoded_ref(outbox->entry)
               : NULL;
}

int tiered_outbox_state(struct tiered_outbox *outbox, const struct tiered_path *path,
                        struct tiered_bytes *ret, struct tiered_error *err)
{
    struct tiered_error why;
    if (outbox->entry && !(path && tiered_path_equal(path, &outbox->path))) {
        return encoded_read_state(outbox->entry->path, ret, err);
    }
    TIERED_FREE char *name = name_of(outbox, STATE_FILE, err);
    if (!name) {
        return -1;
    }
    if (encoded_read_state(name, ret, &why) == 0) {
        return 0;
    }
    if (why.code != TIERED_ENOENT) {
        return tiered_fail(err, why.code, "%s", why.text);
    }
    *ret = (struct tiered_bytes){0};
    return 0;
}

int tiered_outbox_clear(struct tiered_outbox *outbox, const struct tiered_path *path,
                        struct tiered_error *err)
{
    if (!outbox->entry || !tiered_path_equal(path, &outbox->path)) {
        return 0; /* cleared already, or superseded */
    }
    if (retire(outbox, outbox->entry, err) < 0) {
        return -1;
    }
    tiered_encoded_unref(TIERED_STEAL(outbox->entry));
    return 0;
}
