/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and reaping local agents. */
#include "orchestrator/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

char *spawn_program(struct tiered_error *err)
{
    char path[4096];
    static const char program[] = "tiered-agent";
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof(program));
    if (n < 0) {
        tiered_fail(err, TIERED_EIO, "cannot find this program: %s", strerror(errno));
        return NULL;
    }
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    memcpy(slash ? slash + 1 : path, program, sizeof(program));
    if (access(path, X_OK) < 0) {
        tiered_fail(err, TIERED_ENOENT, "'%s' is not there; build or install it", path);
        return NULL;
    }
    char *copy = strdup(path);
    if (!copy) {
        tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    return copy;
}

static void close_all_but(int keep)
{
    for (int fd = 3; fd < 1024; fd++) {
        if (fd != keep) {
            close(fd);
        }
    }
}

/* In the child. Only async-signal-safe calls until exec. */
static void become_agent(const struct spawn_config *config, const char *const *argv,
                         int log, char *token)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL); /* ignored by us alone */
    setsid();
    int null = open("/dev/null", O_RDONLY);
    if (chdir(config->folder) < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 ||
        dup2(log, 2) < 0) {
        _exit(127);
    }
    close_all_but(-1);
    putenv(token); /* not on the command line, where all may read it */
    execv(config->program, (char *const *)argv);
    _exit(127);
}

int spawn_agent(const struct spawn_config *config, pid_t *ret, struct tiered_error *err)
{
    char state[128], log_path[4096], token[160];
    snprintf(state, sizeof(state), "agents/%s", config->name);
    snprintf(token, sizeof(token), "TIERED_TOKEN=%s", config->token);
    snprintf(log_path, sizeof(log_path), "%s/logs/%s.log", config->folder,
             config->name);
    const char *argv[16] = {config->program,
                            "--name",
                            config->name,
                            "--state",
                            state,
                            "--orchestrator",
                            config->orchestrator,
                            "--log-level",
                            config->log_level};
    size_t n = 9;
    if (config->plugins) {
        argv[n++] = "--plugins";
        argv[n++] = config->plugins;
    }
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot open '%s': %s", log_path,
                           strerror(errno));
    }
    pid_t pid = fork();
    if (pid == 0) {
        become_agent(config, argv, log, token);
    }
    int error = errno;
    close(log);
    if (pid < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot start agent '%s': %s", config->name,
                           strerror(error));
    }
    *ret = pid;
    return 0;
}

void spawn_reason(int status, char *out, size_t size)
{
    if (WIFSIGNALED(status)) {
        snprintf(out, size, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    } else {
        snprintf(out, size, "exited with status %d", WEXITSTATUS(status));
    }
}

int64_t spawn_log_size(const char *folder, const char *name)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof(path), "%s/logs/%s.log", folder, name);
    return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

void spawn_last_words(const char *folder, const char *name, int64_t start, char *out,
                      size_t size)
{
    char path[4096], line[1024];
    snprintf(path, sizeof(path), "%s/logs/%s.log", folder, name);
    out[0] = '\0';
    FILE *log = fopen(path, "re");
    if (!log) {
        return;
    }
    fseeko(log, (off_t)start, SEEK_SET);
    while (fgets(line, sizeof(line), log)) {
        if (strstr(line, " error ") || strstr(line, "ERROR:")) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(out, size, "%s", line);
        }
    }
    fclose(log);
}
