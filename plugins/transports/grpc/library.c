/* SPDX-License-Identifier: Apache-2.0 */
/* The gRPC library itself: its life and its log, which all states of a process share.

   `lock` guards what is below. gRPC logs from any thread; the host's log is called with
   the lock held, so that a host stays while it is used, and calls nothing of ours. */
#include <grpc/support/log.h>

#include "inside.h"

struct member {
    struct member *next;
    const struct tiered_host *host;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct member *members;

/* gRPC prints to stderr by itself. Its errors are mostly a peer's doing (a handshake
   that failed, with the reason); ours come as struct tiered_error. */
static void on_log(gpr_log_func_args *args)
{
    char text[512];
    const char *file = strrchr(args->file, '/');
    bool error = args->severity == GPR_LOG_SEVERITY_ERROR;
    snprintf(text, sizeof(text), "grpc: %s (%s:%d)", args->message,
             file ? file + 1 : args->file, args->line);
    for (char *c = text; *c; c++) {
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    }
    pthread_mutex_lock(&lock);
    if (members) {
        const struct tiered_host *host = members->host;
        host->log(host, error ? TIERED_LOG_WARN : TIERED_LOG_DEBUG, text);
    }
    pthread_mutex_unlock(&lock);
}

int library_enter(const struct tiered_host *host, struct tiered_error *err)
{
    struct member *member = malloc(sizeof(*member));
    if (!member) {
        return tiered_fail(err, TIERED_ENOMEM, "out of memory");
    }
    pthread_mutex_lock(&lock);
    *member = (struct member){members, host};
    members = member;
    pthread_mutex_unlock(&lock);
    gpr_set_log_function(on_log);
    grpc_init();
    return 0;
}

void library_leave(const struct tiered_host *host, bool keep)
{
    pthread_mutex_lock(&lock);
    struct member **at = &members;
    while ((*at)->host != host) {
        at = &(*at)->next;
    }
    struct member *member = *at;
    *at = member->next;
    pthread_mutex_unlock(&lock);
    free(member);
    if (!keep) {
        /* grpc_shutdown() leaves its threads to end at some time: they might still run
           when main() returns */
        grpc_shutdown_blocking();
    }
}
