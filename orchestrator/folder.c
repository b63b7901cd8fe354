/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of a run: made, or found again; the lock, the log and the ports in it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/log.h"
#include "orchestrator/run.h"

static int make_id(struct run *run, const char *name, struct tiered_error *err)
{
    uint8_t random[34];
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
    if (tiered_secret(random, sizeof(random), err) < 0) {
        return -1;
    }
    struct tiered_digest token;
    memcpy(token.bytes, random + 2, sizeof(token.bytes));
    tiered_digest_hex(&token, run->token);
    if (asprintf(&run->id, "%s-%s-%02x%02x", name, stamp, random[0], random[1]) < 0) {
        run->id = NULL;
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return 0;
}

/* Sockets have short names, relative to the run folder: everybody stands there. */
static int stand_in_folder(struct run *run, struct tiered_error *err)
{
    if (chdir(run->folder) < 0) {
        return tiered_fail(err, TIERED_EIO, "'%s': %s", run->folder, strerror(errno));
    }
    return resume_lock(run->folder, &run->lock, err);
}

static int make_folder(struct run *run, const struct run_options *options,
                       struct tiered_error *err)
{
    char *runs = NULL;
    if (tiered_mkdirs(options->runs_folder, 0755, err) < 0) {
        return -1;
    }
    runs = realpath(options->runs_folder, NULL);
    if (!runs || asprintf(&run->folder, "%s/%s", runs, run->id) < 0) {
        free(runs);
        run->folder = NULL;
        return tiered_fail(err, TIERED_EIO, "'%s': %s", options->runs_folder,
                           strerror(errno));
    }
    free(runs);
    static const char *const inside[] = {"", "/s", "/logs", "/agents"};
    for (size_t i = 0; i < TIERED_COUNT(inside); i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s%s", run->folder, inside[i]);
        if (mkdir(path, 0700) < 0) {
            return tiered_fail(err, TIERED_EIO, "cannot make '%s': %s", path,
                               strerror(errno));
        }
    }
    char path[4096];
    snprintf(path, sizeof(path), "%s/topology.yaml", run->folder);
    if (tiered_file_write(path, options->topology.text, options->topology.text_size,
                          err) < 0 ||
        resume_save(run->folder, run->id, run->token, &options->topology, err) < 0) {
        return -1;
    }
    return stand_in_folder(run, err);
}

/* The folder of a run that goes on. */
static int find_folder(struct run *run, const struct run_options *options,
                       struct tiered_error *err)
{
    return resume_find(options->runs_folder, &options->topology, &run->id, &run->folder,
                       run->token, err) < 0
               ? -1
               : stand_in_folder(run, err);
}

/* A warning of the link, say, must not run into the block on the terminal. */
static int open_log(struct run *run, const struct run_options *options,
                    struct tiered_error *err)
{
    if (!options->quiet) {
        return 0;
    }
    run->log = open("logs/@tiered.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                    0600); /* no agent has such a name */
    if (run->log < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot open '%s/logs/@tiered.log': %s",
                           run->folder, strerror(errno));
    }
    tiered_log_set_fd(run->log);
    return 0;
}

int folder_open(struct run *run, const struct run_options *options,
                struct tiered_error *err)
{
    if (run->resumed ? find_folder(run, options, err) < 0
                     : make_id(run, options->topology.name, err) < 0 ||
                           make_folder(run, options, err) < 0) {
        return -1;
    }
    return open_log(run, options, err);
}

void folder_close(struct run *run)
{
    if (run->log >= 0) {
        tiered_log_set_fd(STDERR_FILENO);
        close(run->log);
    }
    if (run->lock >= 0) {
        close(run->lock);
    }
    free(run->ports);
    free(run->id);
    free(run->folder);
}

/* ---- ports ---- */

/* A free port of loopback for each agent: asked for, given back, and listened on by the
   agent a moment later. All are held until the last is found, so that they differ. */
static int choose_ports(struct run *run, struct tiered_error *err)
{
    uint32_t n = run->plan->n_agents;
    int *held = calloc(n, sizeof(*held));
    run->ports = calloc(n, sizeof(*run->ports));
    uint32_t i = 0;
    for (; held && run->ports && i < n; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof(address);
        held[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (held[i] < 0 || bind(held[i], (struct sockaddr *)&address, size) < 0 ||
            getsockname(held[i], (struct sockaddr *)&address, &size) < 0) {
            break;
        }
        run->ports[i] = ntohs(address.sin_port);
    }
    int error = errno;
    for (uint32_t k = 0; held && k < n; k++) {
        if (held[k] > 0) {
            close(held[k]);
        }
    }
    free(held);
    return i == n ? 0
                  : tiered_fail(err, TIERED_EIO, "cannot find free ports: %s",
                                strerror(error));
}

/* A resumed run's agents may live: they listen where they were told to. */
int folder_ports(struct run *run, struct tiered_error *err)
{
    char path[4096];
    TIERED_CLEANUP(tiered_bytes_finish) struct tiered_bytes text = {0};
    size_t size = run->plan->n_agents * sizeof(*run->ports);
    snprintf(path, sizeof(path), "%s/ports", run->folder);
    if (!run->resumed) {
        return choose_ports(run, err) < 0
                   ? -1
                   : tiered_file_write(path, run->ports, size, err);
    }
    if (tiered_file_read(path, size, &text, err) < 0) {
        return -1;
    }
    run->ports = malloc(size);
    if (!run->ports || text.size != size) {
        return tiered_fail(err, TIERED_ECORRUPT, "'%s' is damaged", path);
    }
    memcpy(run->ports, text.data, size);
    return 0;
}
