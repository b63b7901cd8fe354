/* SPDX-License-Identifier: Apache-2.0 */
/* A set of plugins over a folder. The mutex guards the lists; a file is loaded with it
   held, so that one name is loaded once. Loading calls nothing of a plugin. */
#include "core/plugins/plugins.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/plugins/internal.h"

#define FILES_MAX 4096

struct refusal {
    char *path;
    struct tiered_error err;
};

struct tiered_plugins {
    char *folder;
    pthread_mutex_t lock;
    struct tiered_loaded **items; /* in the order of loading */
    size_t n, capacity;
    bool scanned; /* the folder was read: `sorted` and `refusals` are final */
    const struct tiered_loaded **sorted;
    size_t n_sorted;
    struct refusal *refusals;
    size_t n_refusals;
};

static void unlock(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* lib/tiered or <libdir>/tiered beside the bin that holds the running program. */
static int default_folder(char out[PATH_MAX])
{
    static const char *const libdirs[] = {"lib", TIERED_LIBDIR};
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (n < 0) {
        return -1;
    }
    program[n] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(program, '/');
        *(slash ? slash : program) = 0;
    }
    for (size_t i = 0; i < TIERED_COUNT(libdirs); i++) {
        int length = libdirs[i][0] == '/'
                         ? snprintf(out, PATH_MAX, "%s/tiered", libdirs[i])
                         : snprintf(out, PATH_MAX, "%s/%s/tiered", program, libdirs[i]);
        if (length > 0 && length < PATH_MAX && is_folder(out)) {
            return 0;
        }
    }
    return -1;
}

static char *choose_folder(const char *folder, struct tiered_error *err)
{
    char found[PATH_MAX];
    const char *given = folder ? folder : getenv("TIERED_PLUGINS");
    if (!given || !given[0]) {
        if (default_folder(found) < 0) {
            tiered_fail(err, TIERED_ENOENT,
                        "no plugin folder beside the program; name one by --plugins "
                        "or TIERED_PLUGINS");
            return NULL;
        }
        given = found;
    } else if (!is_folder(given)) {
        tiered_fail(err, TIERED_ENOENT, "there is no plugin folder '%s'", given);
        return NULL;
    }
    char *copy = strdup(given);
    if (!copy) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return copy;
}

struct tiered_plugins *tiered_plugins_create(const char *folder,
                                             struct tiered_error *err)
{
    char *chosen = choose_folder(folder, err);
    if (!chosen) {
        return NULL;
    }
    struct tiered_plugins *plugins = calloc(1, sizeof(*plugins));
    if (!plugins) {
        free(chosen);
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    plugins->folder = chosen;
    pthread_mutex_init(&plugins->lock, NULL);
    return plugins;
}

void tiered_plugins_destroy(struct tiered_plugins *plugins)
{
    if (!plugins) {
        return;
    }
    for (size_t i = 0; i < plugins->n; i++) {
        tiered_loaded_finish(plugins->items[i]);
        free(plugins->items[i]);
    }
    for (size_t i = 0; i < plugins->n_refusals; i++) {
        free(plugins->refusals[i].path);
    }
    free(plugins->items);
    free(plugins->sorted);
    free(plugins->refusals);
    free(plugins->folder);
    pthread_mutex_destroy(&plugins->lock);
    free(plugins);
}

static const struct tiered_loaded *find(const struct tiered_plugins *plugins,
                                        const char *name)
{
    for (size_t i = 0; i < plugins->n; i++) {
        if (strcmp(plugins->items[i]->plugin.name, name) == 0) {
            return plugins->items[i];
        }
    }
    return NULL;
}

static int reserve(struct tiered_plugins *plugins, struct tiered_error *err)
{
    if (plugins->n < plugins->capacity) {
        return 0;
    }
    size_t capacity = plugins->capacity ? 2 * plugins->capacity : 16;
    struct tiered_loaded **items =
        realloc(plugins->items, capacity * sizeof(*plugins->items));
    if (!items) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    plugins->items = items;
    plugins->capacity = capacity;
    return 0;
}

/* Load a file whose plugin must be called `name`; the lock is held. */
static const struct tiered_loaded *load(struct tiered_plugins *plugins,
                                        const char *path, const char *name,
                                        const struct tiered_digest *expected,
                                        struct tiered_error *err)
{
    TIERED_FREE struct tiered_loaded *loaded = calloc(1, sizeof(*loaded));
    if (!loaded || reserve(plugins, err) < 0) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    if (tiered_plugin_open_exact(path, expected, loaded, err) < 0) {
        return NULL;
    }
    if (strcmp(loaded->plugin.name, name) != 0) {
        tiered_fail(
            err, TIERED_EINVAL,
            "plugin file '%.120s': its plugin is called '%s', so the file should "
            "be '%s.so'",
            path, loaded->plugin.name, loaded->plugin.name);
        tiered_loaded_finish(loaded);
        return NULL;
    }
    plugins->items[plugins->n++] = loaded;
    return TIERED_STEAL(loaded);
}

/* The name in "NAME.so", malloc'd; NULL for any other file. */
static char *stem(const char *file)
{
    size_t n = strlen(file);
    return n > 3 && strcmp(file + n - 3, ".so") == 0 ? strndup(file, n - 3) : NULL;
}

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(names[i]);
    }
    free(names);
}

/* The stems of the folder's .so files. */
static int list_folder(const struct tiered_plugins *plugins, char ***ret, size_t *ret_n,
                       struct tiered_error *err)
{
    DIR *dir = opendir(plugins->folder);
    if (!dir) {
        return tiered_fail(err, TIERED_EIO, "cannot read the plugin folder '%s': %s",
                           plugins->folder, strerror(errno));
    }
    char **names = calloc(FILES_MAX, sizeof(*names));
    size_t n = 0;
    struct dirent *entry;
    while (names && n < FILES_MAX && (entry = readdir(dir))) {
        names[n] = stem(entry->d_name);
        n += names[n] != NULL;
    }
    closedir(dir);
    if (!names) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *ret = names;
    *ret_n = n;
    return 0;
}

static bool is_absent(const char *name)
{
    for (size_t i = 0; i < tiered_n_absent_plugins; i++) {
        if (strcmp(tiered_absent_plugins[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static int fail_unknown(const struct tiered_plugins *plugins, const char *name,
                        enum tiered_kind kind, struct tiered_error *err)
{
    char **names = NULL;
    size_t n = 0;
    if (is_absent(name)) {
        return tiered_fail(err, TIERED_ENOTSUP, "plugin '%s' is not in this version",
                           name);
    }
    if (list_folder(plugins, &names, &n, err) < 0) {
        return -1;
    }
    const char *candidates[FILES_MAX + 64];
    memcpy(candidates, names, n * sizeof(*names));
    for (size_t i = 0; i < tiered_n_absent_plugins && n + i < FILES_MAX + 64; i++) {
        candidates[n + i] = tiered_absent_plugins[i];
    }
    const char *near = tiered_nearest(name, candidates, n + tiered_n_absent_plugins);
    if (near && strcmp(near, name) == 0) {
        tiered_fail(err, TIERED_ENOENT,
                    "plugin file '%.150s/%s.so' is a link to a file that is not there",
                    plugins->folder, name);
    } else if (near) {
        tiered_fail(err, TIERED_ENOENT, "unknown %s '%.64s'; did you mean '%s'?",
                    tiered_kind_name(kind), name, near);
    } else {
        tiered_fail(err, TIERED_ENOENT, "unknown %s '%.64s'; none in '%s' is like it",
                    tiered_kind_name(kind), name, plugins->folder);
    }
    free_names(names, n);
    return -1;
}

static char *file_path(const struct tiered_plugins *plugins, const char *name,
                       struct tiered_error *err)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s.so", plugins->folder, name) < 0) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
        return NULL;
    }
    return path;
}

static const char *article(enum tiered_kind kind)
{
    return kind == TIERED_AGGREGATOR || kind == TIERED_OPTIMIZER ? "an" : "a";
}

static int get(struct tiered_plugins *plugins, const char *name, enum tiered_kind kind,
               const struct tiered_digest *expected, const struct tiered_loaded **ret,
               struct tiered_error *err)
{
    TIERED_CLEANUP(unlock) pthread_mutex_t *lock = &plugins->lock;
    pthread_mutex_lock(lock);
    const struct tiered_loaded *loaded = find(plugins, name);
    if (!loaded) {
        TIERED_FREE char *path =
            tiered_plugin_name_ok(name) ? file_path(plugins, name, err) : NULL;
        if (!path || access(path, F_OK) < 0) {
            return fail_unknown(plugins, name, kind, err);
        }
        loaded = load(plugins, path, name, expected, err);
        if (!loaded) {
            return -1;
        }
    }
    if (expected && !tiered_digest_equal(expected, &loaded->digest)) {
        return tiered_fail(err, TIERED_ECORRUPT,
                           "plugin file '%.120s' is not the one that is expected",
                           loaded->path);
    }
    if (kind && loaded->plugin.kind != kind) {
        return tiered_fail(err, TIERED_EINVAL, "plugin '%s' is %s %s, not %s %s", name,
                           article(loaded->plugin.kind),
                           tiered_kind_name(loaded->plugin.kind), article(kind),
                           tiered_kind_name(kind));
    }
    *ret = loaded;
    return 0;
}

int tiered_plugins_get(struct tiered_plugins *plugins, const char *name,
                       enum tiered_kind kind, const struct tiered_loaded **ret,
                       struct tiered_error *err)
{
    return get(plugins, name, kind, NULL, ret, err);
}

int tiered_plugins_get_exact(struct tiered_plugins *plugins, const char *name,
                             enum tiered_kind kind, const struct tiered_digest *digest,
                             const struct tiered_loaded **ret, struct tiered_error *err)
{
    return get(plugins, name, kind, digest, ret, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_kind_and_name(const void *a, const void *b)
{
    const struct tiered_plugin *p = &(*(const struct tiered_loaded *const *)a)->plugin;
    const struct tiered_plugin *q = &(*(const struct tiered_loaded *const *)b)->plugin;
    return p->kind != q->kind ? (p->kind > q->kind) - (p->kind < q->kind)
                              : strcmp(p->name, q->name);
}

/* Takes `path`. */
static void refuse(struct tiered_plugins *plugins, char *path,
                   const struct tiered_error *err)
{
    plugins->refusals[plugins->n_refusals++] = (struct refusal){path, *err};
}

static int scan(struct tiered_plugins *plugins, struct tiered_error *err)
{
    char **names = NULL;
    size_t n = 0;
    if (list_folder(plugins, &names, &n, err) < 0) {
        return -1;
    }
    qsort(names, n, sizeof(*names), by_name);
    plugins->sorted = calloc(n + 1, sizeof(const struct tiered_loaded *));
    plugins->refusals = calloc(n + 1, sizeof(*plugins->refusals));
    if (!plugins->sorted || !plugins->refusals) {
        free_names(names, n);
        free(plugins->sorted);
        free(plugins->refusals);
        plugins->sorted = NULL;
        plugins->refusals = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    for (size_t i = 0; i < n; i++) {
        struct tiered_error why = {0};
        char *path = file_path(plugins, names[i], &why);
        const struct tiered_loaded *loaded = find(plugins, names[i]);
        if (path && !loaded) {
            loaded = load(plugins, path, names[i], NULL, &why);
        }
        if (loaded) {
            plugins->sorted[plugins->n_sorted++] = loaded;
            free(path);
        } else {
            refuse(plugins, path, &why);
        }
    }
    free_names(names, n);
    qsort(plugins->sorted, plugins->n_sorted, sizeof(const struct tiered_loaded *),
          by_kind_and_name);
    plugins->scanned = true;
    return 0;
}

int tiered_plugins_all(struct tiered_plugins *plugins,
                       const struct tiered_loaded *const **ret, size_t *ret_n,
                       void (*refused)(void *user, const char *path,
                                       const struct tiered_error *err),
                       void *user, struct tiered_error *err)
{
    pthread_mutex_lock(&plugins->lock);
    int result = plugins->scanned ? 0 : scan(plugins, err);
    pthread_mutex_unlock(&plugins->lock);
    if (result < 0) {
        return -1;
    }
    for (size_t i = 0; refused && i < plugins->n_refusals; i++) {
        refused(user, plugins->refusals[i].path ? plugins->refusals[i].path : "",
                &plugins->refusals[i].err);
    }
    *ret = plugins->sorted;
    *ret_n = plugins->n_sorted;
    return 0;
}
