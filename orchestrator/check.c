/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of one file: each in a child process with a time limit, whose end, however
   it comes, is a result. Nothing of the plugin is ever loaded into this process. */
#include "orchestrator/check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct run {
    const struct check_job *job;
    struct check_report *report; /* shared with the children */
    struct check_summary *summary;
    char printed[128];   /* the start of what the plugin printed first, … */
    char printed_by[64]; /* … and in which check; "": nothing */
};

struct child {
    pid_t pid;
    int alive;  /* reads as ended once the child is gone */
    int output; /* what it prints */
    char said[128];
    size_t n_said;
};

static void host_log(const struct tiered_host *host, enum tiered_level level,
                     const char *text)
{
    (void)host;
    (void)level;
    (void)text;
}

static int open_plugin(struct check *check, struct tiered_error *err)
{
    struct check_report *report = check->report;
    check_step(check, "loading the file");
    if (tiered_plugin_open(check->path, &check->loaded, err) < 0) {
        return -1;
    }
    const struct tiered_plugin *plugin = &check->loaded.plugin;
    check->kind = check_kind_of(plugin->kind);
    report->kind = plugin->kind;
    report->digest = check->loaded.digest;
    snprintf(report->plugin, sizeof(report->plugin), "%s", plugin->name);
    snprintf(report->version, sizeof(report->version), "%s", plugin->version);
    tiered_hosting_init(&check->hosting, 7, plugin->name, "", "check-0", "1");
    check->hosting.host.log = host_log;
    return 0;
}

static int run_case(struct check *check, const struct check_case *one,
                    struct tiered_error *err)
{
    if (open_plugin(check, err) < 0 ||
        check_fill(check, NULL, &check->config, err) < 0) {
        return -1;
    }
    check_step(check, "%s", one->name);
    return one->run(check, err);
}

/* The child's whole life. It ends without the handlers that a program's end runs: the
   plugin's turn is over. */
static void child_main(const struct run *run, const struct check_case *one)
{
    struct check_report *report = run->report;
    struct check check = {
        .report = report, .path = run->job->path, .options = run->job->options};
    struct tiered_error err = {0};
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    guard_watch(report);
    if (run_case(&check, one, &err) < 0) {
        report->verdict = CHECK_FAILED;
        snprintf(report->text, sizeof(report->text), "%s", err.text);
    }
    check_step(&check, "ending");
    fflush(NULL);
    report->finished = 1;
    _exit(0);
}

static int child_start(const struct run *run, const struct check_case *one,
                       struct child *ret, struct tiered_error *err)
{
    int alive[2], output[2];
    if (pipe2(alive, O_CLOEXEC) < 0 || pipe2(output, O_CLOEXEC | O_NONBLOCK) < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot make a pipe: %s", strerror(errno));
    }
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) {
        return tiered_fail(err, TIERED_EIO, "cannot start a process: %s",
                           strerror(errno));
    }
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (getppid() != parent || dup2(nothing, 0) < 0 || dup2(output[1], 1) < 0 ||
            dup2(output[1], 2) < 0) {
            _exit(1);
        }
        close(alive[0]);
        close(output[0]);
        child_main(run, one);
    }
    setpgid(pid, pid); /* both do it: whoever is first */
    close(alive[1]);
    close(output[1]);
    *ret = (struct child){.pid = pid, .alive = alive[0], .output = output[0]};
    return 0;
}

static void read_output(struct child *child)
{
    char chunk[4096];
    ssize_t got;
    while ((got = read(child->output, chunk, sizeof(chunk))) > 0) {
        size_t room = sizeof(child->said) - 1 - child->n_said;
        size_t n = (size_t)got < room ? (size_t)got : room;
        memcpy(child->said + child->n_said, chunk, n);
        child->n_said += n;
    }
}

/* True when the child ended by itself within the limit. */
static bool child_wait(struct child *child, uint64_t limit_ms)
{
    uint64_t end = tiered_now_ms() + limit_ms;
    struct pollfd both[] = {{child->alive, POLLIN, 0}, {child->output, POLLIN, 0}};
    for (;;) {
        uint64_t now = tiered_now_ms();
        if (now >= end) {
            return false;
        }
        uint64_t left = end - now;
        poll(both, TIERED_COUNT(both), left < 1000 ? (int)left : 1000);
        read_output(child);
        if (both[1].revents & POLLHUP) {
            both[1].fd = -1; /* it closed its output; nothing more to hear */
        }
        if (both[0].revents) {
            return true;
        }
    }
}

/* The first line of what was printed, without control characters. */
static void first_line(const char *said, char *out, size_t size)
{
    size_t n = 0;
    for (; said[n] && said[n] != '\n' && n + 1 < size; n++) {
        out[n] = (unsigned char)said[n] < 32 ? ' ' : said[n];
    }
    out[n] = 0;
}

static void explain_end(const struct run *run, const struct child *child, int status,
                        bool in_time, struct check_result *result)
{
    const char *step = run->report->step;
    char line[sizeof(child->said)], said[sizeof(line) + 8] = "";
    result->verdict = CHECK_FAILED;
    first_line(child->said, line, sizeof(line));
    if (line[0]) {
        snprintf(said, sizeof(said), "; said: %s", line);
    }
    if (!in_time) {
        char limit[32];
        tiered_format_duration(run->job->limit_ms, limit);
        snprintf(result->text, sizeof(result->text), "does not end within %s (%s)",
                 limit, step);
    } else if (WIFSIGNALED(status)) {
        snprintf(result->text, sizeof(result->text), "crashes: %s (%s)%s",
                 strsignal(WTERMSIG(status)), step, said);
    } else {
        snprintf(result->text, sizeof(result->text),
                 "ends the process with exit code %d (%s)%s", WEXITSTATUS(status), step,
                 said);
    }
}

static void note_printing(struct run *run, const struct child *child,
                          const struct check_case *one)
{
    if (child->n_said > 0 && !run->printed_by[0]) {
        first_line(child->said, run->printed, sizeof(run->printed));
        snprintf(run->printed_by, sizeof(run->printed_by), "%s", one->name);
    }
}

static void finish_case(struct run *run, const struct check_result *result)
{
    size_t *counts[] = {&run->summary->n_ok, &run->summary->n_failed,
                        &run->summary->n_skipped};
    ++*counts[result->verdict];
    run->job->done(run->job->user, result);
}

/* -1: the kit cannot run. A failed check is a result. */
static int run_one(struct run *run, const struct check_case *one,
                   enum check_verdict *ret, struct tiered_error *err)
{
    struct child child = {0};
    struct check_result result = {.name = one->name};
    uint64_t start = tiered_now_ms();
    int status = 0;
    memset(run->report, 0, sizeof(*run->report));
    if (child_start(run, one, &child, err) < 0) {
        return -1;
    }
    bool in_time = child_wait(&child, run->job->limit_ms);
    kill(-child.pid, SIGKILL); /* with whatever the plugin started */
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
    read_output(&child);
    close(child.alive);
    close(child.output);
    if (run->report->finished) {
        result.verdict = run->report->verdict;
        memcpy(result.text, run->report->text, sizeof(result.text));
        result.text[sizeof(result.text) - 1] = 0;
        note_printing(run, &child, one);
    } else {
        explain_end(run, &child, status, in_time, &result);
    }
    result.seconds = (double)(tiered_now_ms() - start) / 1000;
    *ret = result.verdict;
    if (run->report->kind) {
        run->summary->about = *run->report;
    }
    finish_case(run, &result);
    return 0;
}

static int run_list(struct run *run, const struct check_case *cases, size_t n,
                    bool stop_at_failure, bool *ret_stopped, struct tiered_error *err)
{
    for (size_t i = 0; i < n; i++) {
        enum check_verdict verdict;
        if (run_one(run, &cases[i], &verdict, err) < 0) {
            return -1;
        }
        if (stop_at_failure && verdict == CHECK_FAILED) {
            *ret_stopped = true;
            return 0;
        }
    }
    return 0;
}

static void tell_printing(struct run *run)
{
    struct check_result result = {.name = "prints nothing"};
    if (run->printed_by[0]) {
        result.verdict = CHECK_FAILED;
        snprintf(result.text, sizeof(result.text),
                 "writes to stdout or stderr (in '%s'): %s", run->printed_by,
                 run->printed);
    }
    finish_case(run, &result);
}

static int run_all(struct run *run, struct tiered_error *err)
{
    bool stopped = false;
    if (run_list(run, check_first_cases, check_n_first_cases, true, &stopped, err) <
        0) {
        return -1;
    }
    if (stopped) {
        return 0;
    }
    const struct check_kind *kind = check_kind_of(run->summary->about.kind);
    if (run_list(run, check_common_cases, check_n_common_cases, false, &stopped, err) <
            0 ||
        run_list(run, kind->cases, kind->n_cases, false, &stopped, err) < 0) {
        return -1;
    }
    tell_printing(run);
    return 0;
}

int check_file(const struct check_job *job, struct check_summary *ret,
               struct tiered_error *err)
{
    void *shared = mmap(NULL, sizeof(struct check_report), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    *ret = (struct check_summary){0};
    struct run run = {.job = job, .report = shared, .summary = ret};
    int result = run_all(&run, err);
    munmap(shared, sizeof(struct check_report));
    return result;
}
