/* SPDX-License-Identifier: Apache-2.0 */
/* Finding and locking a run that goes on. */
#include "orchestrator/resume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/file.h>
#include <unistd.h>

#include "orchestrator/record.h"

#define FILE_LIMIT (16u << 20)

static json_t *sets_json(const struct resume_topology *topology)
{
    json_t *sets = json_array();
    for (size_t i = 0; i < topology->n_sets; i++) {
        json_array_append_new(sets, json_string(topology->sets[i]));
    }
    return sets;
}

/* The file's bytes as a digest: they need not be text. */
static void text_digest(const struct resume_topology *topology, char out[65])
{
    struct tiered_digest digest;
    tiered_digest_of(topology->text, topology->text_size, &digest);
    tiered_digest_hex(&digest, out);
}

int resume_save(const char *folder, const char *run, const char *token,
                const struct resume_topology *topology, struct tiered_error *err)
{
    char path[4096], digest[65];
    text_digest(topology, digest);
    json_t *object =
        json_pack("{s:i, s:s, s:s, s:s, s:s, s:b, s:o}", "format", 1, "run", run,
                  "name", topology->name, "token", token, "topology_sha256", digest,
                  "network", topology->network, "sets", sets_json(topology));
    char *text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
    json_decref(object);
    if (!text) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    snprintf(path, sizeof(path), "%s/run.json", folder);
    int result = tiered_file_write_mode(path, 0600, text, strlen(text), err);
    free(text);
    return result;
}

static json_t *read_run(const char *folder)
{
    char path[4096];
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    snprintf(path, sizeof(path), "%s/run.json", folder);
    if (tiered_file_read(path, FILE_LIMIT, &text, NULL) < 0) {
        return NULL;
    }
    return json_loadb((const char *)text.data, text.size, 0, NULL);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* Ids hold the time, so the newest run of a name sorts last. */
static bool newer_candidate(const char *folder, const char *name, const char *best)
{
    char status[32];
    const char *id = strrchr(folder, '/') + 1;
    bool good = false;
    json_t *run = read_run(folder);
    if (run && strcmp(text_of(run, "name"), name) == 0 &&
        (!best || strcmp(id, best) > 0)) {
        good = record_status(folder, status, sizeof(status)) == 0 &&
               strcmp(status, "finished") != 0;
    }
    json_decref(run);
    return good;
}

static char *find_newest(const char *runs_folder, const char *name)
{
    DIR *dir = opendir(runs_folder);
    struct dirent *entry;
    char *best = NULL;
    while (dir && (entry = readdir(dir))) {
        TIERED_FREE char *folder = NULL;
        if (entry->d_name[0] == '.' ||
            asprintf(&folder, "%s/%s", runs_folder, entry->d_name) < 0) {
            continue;
        }
        if (newer_candidate(folder, name, best)) {
            free(best);
            best = strdup(entry->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return best;
}

static int check_same(const json_t *run, const struct resume_topology *topology,
                      struct tiered_error *err)
{
    char digest[65];
    text_digest(topology, digest);
    json_t *sets = sets_json(topology);
    bool same = strcmp(text_of(run, "topology_sha256"), digest) == 0 &&
                json_is_true(json_object_get(run, "network")) == topology->network &&
                json_equal(json_object_get(run, "sets"), sets);
    json_decref(sets);
    return same ? 0
                : tiered_fail(
                      err, TIERED_EINVAL,
                      "run '%s' began with another topology or other flags; give "
                      "the same, or start a new run without --resume",
                      text_of(run, "run"));
}

int resume_find(const char *runs_folder, const struct resume_topology *topology,
                char **ret_run, char **ret_folder, char ret_token[65],
                struct tiered_error *err)
{
    TIERED_FREE char *runs = realpath(runs_folder, NULL);
    TIERED_FREE char *id = runs ? find_newest(runs, topology->name) : NULL;
    TIERED_FREE char *folder = NULL;
    if (!id) {
        return tiered_fail(err, TIERED_ENOENT,
                           "there is no unfinished run of '%s' in '%s'", topology->name,
                           runs_folder);
    }
    if (asprintf(&folder, "%s/%s", runs, id) < 0) {
        folder = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    json_t *run = read_run(folder);
    int result =
        run ? check_same(run, topology, err)
            : tiered_fail(err, TIERED_ECORRUPT, "'%s/run.json' is damaged", folder);
    if (result == 0) {
        snprintf(ret_token, 65, "%s", text_of(run, "token"));
        *ret_run = TIERED_STEAL(id);
        *ret_folder = TIERED_STEAL(folder);
    }
    json_decref(run);
    return result;
}

int resume_lock(const char *folder, int *ret_fd, struct tiered_error *err)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/lock", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot open '%s': %s", path,
                           strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return tiered_fail(err, TIERED_ESTATE, "another 'tiered up' runs in '%s'",
                           folder);
    }
    *ret_fd = fd;
    return 0;
}

int resume_save_pid(const char *folder, const char *agent, int pid,
                    struct tiered_error *err)
{
    char path[4096], text[32];
    snprintf(path, sizeof(path), "%s/agents/%s.pid", folder, agent);
    int n = snprintf(text, sizeof(text), "%d\n", pid);
    return tiered_file_write(path, text, (size_t)n, err);
}

/* Pids are used again: only a process that stands in this folder and has this name is
   the agent. */
static bool is_agent(int pid, const char *folder, const char *agent)
{
    char path[64], cwd[4096], want[128];
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes argv = {0};
    snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
    ssize_t n = readlink(path, cwd, sizeof(cwd) - 1);
    if (n < 0) {
        return false;
    }
    cwd[n] = '\0';
    snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
    if (strcmp(cwd, folder) != 0 || tiered_file_read(path, 1u << 16, &argv, NULL) < 0) {
        return false;
    }
    int len = snprintf(want, sizeof(want), "--name%c%s", 0, agent) + 1;
    return memmem(argv.data, argv.size, want, (size_t)len) != NULL;
}

int resume_living(const char *folder, const char *agent)
{
    char path[4096];
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    snprintf(path, sizeof(path), "%s/agents/%s.pid", folder, agent);
    if (tiered_file_read(path, 64, &text, NULL) < 0) {
        return 0;
    }
    long pid = strtol((const char *)text.data, NULL, 10);
    return pid > 1 && pid < INT32_MAX && is_agent((int)pid, folder, agent) ? (int)pid
                                                                           : 0;
}
